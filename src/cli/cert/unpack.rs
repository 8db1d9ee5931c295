//! Takes certificates and keys out of whatever form they come in: PEM, DER, PKCS#12, PKCS#7, under a password or not.
//! Only the commands of `cert` need it: what is served is plain PEM. It judges nothing of what it takes out.

mod ber;
mod encrypted;
mod pkcs12;
mod pkcs7;

use std::path::Path;

use anyhow::{Context, bail};
use pkcs8::der::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::file::read;
use super::password::Passwords;
use crate::tls::finding::quoted;
use crate::tls::foreign::{Foreign, recognise};

/// What every DER file of ours begins with.
const SEQUENCE: u8 = 0x30;

/// A private key, wiped when it is dropped.
pub(super) type Key = Zeroizing<PrivateKeyDer<'static>>;

/// What is in a file, in the order it stands there.
#[derive(Default)]
pub(super) struct Contents {
    /// What the file is called by those who know such files.
    pub form: &'static str,
    pub certificates: Vec<CertificateDer<'static>>,
    pub keys: Vec<Key>,
    /// What is neither, by its PEM label.
    pub others: Vec<String>,
}

impl Contents {
    /// What to say of a file without any certificate or key.
    pub fn nothing(&self) -> String {
        match self.others.first() {
            Some(other) => format!("holds no certificate and no private key, but a {other} block"),
            None => "holds no certificate and no private key".to_owned(),
        }
    }
}

/// Takes out everything that is in `file`, asking for a password where it needs one.
pub(super) fn unpack(file: &Path, passwords: &Passwords) -> anyhow::Result<Contents> {
    let bytes = read(file)?;
    let contents = if is_text(&bytes) { text(&bytes, file, passwords) } else { binary(&bytes, file, passwords) };
    contents.with_context(|| file.display().to_string())
}

/// Whether it is text with PEM in it. DER may carry some too, as what was signed.
fn is_text(bytes: &[u8]) -> bool {
    let is_der = bytes.first() == Some(&SEQUENCE) && recognise(bytes).is_some();
    !is_der && memchr::memmem::find(bytes, b"-----BEGIN ").is_some()
}

fn binary(bytes: &[u8], file: &Path, passwords: &Passwords) -> anyhow::Result<Contents> {
    let name = quoted(file);
    let mut contents = Contents::default();
    let foreign = recognise(bytes).with_context(|| unknown(bytes))?;
    contents.form = foreign.name();
    match foreign {
        Foreign::Certificate => contents.certificates.push(CertificateDer::from(bytes.to_vec())),
        Foreign::Pkcs7 => contents.certificates = envelope(bytes)?,
        Foreign::Pkcs12 => {
            let mend = format!("openssl pkcs12 -legacy -in {name} -out pair.pem -nodes");
            (contents.certificates, contents.keys) =
                passwords.open(file, &mend, |password| pkcs12::open(bytes, password))?;
        }
        Foreign::EncryptedKey => {
            let mend = format!("openssl pkcs8 -inform DER -in {name} -out key.pem");
            contents.keys.push(passwords.open(file, &mend, |password| encrypted::open(bytes, password))?);
        }
        Foreign::Pkcs8 | Foreign::Pkcs1 | Foreign::Sec1 => contents.keys.push(plain_key(bytes)?),
        Foreign::JavaKeystore => bail!(
            "is a Java keystore; turn it into PKCS#12: \
             keytool -importkeystore -srckeystore {name} -destkeystore pair.p12 -deststoretype pkcs12"
        ),
        Foreign::Base64OfPem | Foreign::Base64OfDer => {
            bail!("is {}; decode it: base64 -d {name} > decoded", foreign.name())
        }
        Foreign::Utf16 => bail!("is {}; make it UTF-8: iconv -f UTF-16 -t UTF-8 {name} > utf8.pem", foreign.name()),
        other => bail!("is {}, and neither a certificate nor a key", other.name()),
    }
    Ok(contents)
}

fn envelope(bytes: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    pkcs7::certificates(bytes).context("is a PKCS#7 file that cannot be read; is it complete?")
}

fn plain_key(der: &[u8]) -> anyhow::Result<Key> {
    let key = PrivateKeyDer::try_from(der).map_err(|_| anyhow::anyhow!("is neither a key nor a certificate"))?;
    Ok(Zeroizing::new(key.clone_key()))
}

/// What can be said of a file that is none of the forms.
fn unknown(bytes: &[u8]) -> &'static str {
    match bytes.trim_ascii() {
        [] => "is empty",
        [SEQUENCE, ..] => "begins like DER, but is no certificate, key, PKCS#12 or PKCS#7 file; is it complete?",
        _ => "is no certificate or key: neither PEM text nor DER, PKCS#12 (.pfx, .p12) or PKCS#7 (.p7b)",
    }
}

/// One PEM block, from its first line to its last.
struct Block<'a> {
    label: &'a str,
    text: &'a [u8],
}

fn text(bytes: &[u8], file: &Path, passwords: &Passwords) -> anyhow::Result<Contents> {
    let name = quoted(file);
    let mut contents = Contents { form: "PEM text", ..Contents::default() };
    for Block { label, text } in blocks(bytes)? {
        let damaged = || format!("has a damaged {label} block; is the file complete?");
        match label {
            "CERTIFICATE" => {
                contents.certificates.push(CertificateDer::from_pem_slice(text).ok().with_context(damaged)?);
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                if memchr::memmem::find(text, b"Proc-Type: 4,ENCRYPTED").is_some() {
                    bail!(
                        "has a key in OpenSSL's old encrypted form; decrypt it: openssl pkey -in {name} -out key.pem"
                    );
                }
                let key = PrivateKeyDer::from_pem_slice(text).ok().with_context(damaged)?;
                contents.keys.push(Zeroizing::new(key));
            }
            "ENCRYPTED PRIVATE KEY" => {
                let (_, der) = pem::decode_vec(text).ok().with_context(damaged)?;
                let mend = format!("openssl pkcs8 -in {name} -out key.pem");
                contents.keys.push(passwords.open(file, &mend, |password| encrypted::open(&der, password))?);
            }
            "PKCS7" | "CMS" => {
                let (_, der) = pem::decode_vec(text).ok().with_context(damaged)?;
                contents.certificates.append(&mut envelope(&der)?);
            }
            other => contents.others.push(other.to_owned()),
        }
    }
    Ok(contents)
}

/// The PEM blocks in `bytes`. Text around them is passed over (RFC 7468 section 2).
fn blocks(bytes: &[u8]) -> anyhow::Result<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (begin, text) = (at, std::str::from_utf8(line.trim_ascii()).unwrap_or_default());
        at += line.len();
        if let Some(label) = text.strip_prefix("-----BEGIN ").and_then(|text| text.strip_suffix("-----")) {
            open = Some((label, begin));
        } else if text.starts_with("-----END ")
            && let Some((label, begin)) = open.take()
        {
            blocks.push(Block { label, text: bytes.get(begin..at).unwrap_or_default() });
        }
    }
    match open {
        Some((label, _)) => bail!("ends inside a {label} block; is the file complete?"),
        None => Ok(blocks),
    }
}
