//! Reads a certificate chain and a private key out of PEM text (RFC 7468). Every way it can be something else has its
//! own error, with the line and the command that mends it. Nothing of a key's content is ever part of a message.
//!
//! The blocks are found here, so that each has its line; what is in one is decoded by rustls-pemfile.

use memchr::memmem;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls_pemfile::Item;
use zeroize::Zeroizing;

use super::facts::Facts;
use super::foreign::{self, Foreign};

/// What is wrong with a PEM file. Lines count from one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("is empty")]
    Empty,
    #[error("is {}, not PEM text", .0.name())]
    Foreign(Foreign),
    #[error("is not PEM text: it has no line with -----BEGIN")]
    NotPem,
    #[error("is cut off: the block {label} that begins on line {line} has no end")]
    Cut { label: String, line: usize },
    #[error("is damaged: the block {label} that begins on line {line} ends as {end} on line {end_line}")]
    WrongEnd { label: String, line: usize, end: String, end_line: usize },
    #[error("is damaged: line {line} ends a block that has no beginning")]
    StrayEnd { line: usize },
    #[error("is damaged: line {line} is no proper BEGIN or END line; five dashes belong on each side of it")]
    Marker { line: usize },
    #[error("lacks line breaks: on line {line}, BEGIN or END does not stand alone")]
    NoBreaks { line: usize },
    #[error(r"has the two characters \n in place of its line breaks, on line {line}")]
    EscapedBreaks { line: usize },
    #[error("is indented, first on line {line}, as if it were copied out of YAML; PEM begins at the start of a line")]
    Indented { line: usize },
    #[error("is damaged: line {line} is not base64")]
    Base64 { line: usize },
    #[error(
        "is damaged: a part of the block {label} that begins on line {line} is missing, or there is too much of it"
    )]
    NotWhole { label: String, line: usize },
    #[error("is mislabelled: the block {label} that begins on line {line} holds {}", .holds.name())]
    Mislabelled { label: String, line: usize, holds: Foreign },
    #[error("holds no readable certificate in the block that begins on line {line}: {reason}")]
    Unreadable { line: usize, reason: String },
    #[error("holds no certificate{}", found(.0))]
    NoCertificate(Vec<Found>),
    #[error("holds no private key{}", found(.0))]
    NoKey(Vec<Found>),
    #[error("holds no revocation list{}", found(.0))]
    NoRevocationList(Vec<Found>),
    #[error("holds {} private keys, on lines {}; it needs one", .0.len(), lines_of(.0))]
    SeveralKeys(Vec<usize>),
    #[error("is encrypted with a password (line {line}), and a front end has nobody to ask for it")]
    EncryptedKey { line: usize, form: Encryption },
}

/// A block that was found in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub line: usize,
}

/// What a block is by its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Certificate,
    /// OpenSSL's own form, which carries what it is trusted for.
    TrustedCertificate,
    Key,
    EncryptedKey(Encryption),
    OpenSshKey,
    DsaKey,
    PublicKey,
    Request,
    RevocationList,
    Pkcs7,
    /// Of a curve or of Diffie-Hellman: `openssl ecparam -genkey` writes them before the key.
    Parameters,
    Other(String),
}

/// How a PEM key is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `ENCRYPTED PRIVATE KEY` (RFC 5958).
    Pkcs8,
    /// `Proc-Type: 4,ENCRYPTED` (RFC 1421), with the label of a plain key.
    Traditional,
}

/// From a BEGIN line to the END line that belongs to it, both included.
struct Block<'a> {
    label: &'a str,
    line: usize,
    text: &'a [u8],
}

impl PemError {
    pub(super) fn found_a_key(&self) -> bool {
        match self {
            Self::NoCertificate(found) => {
                found.iter().any(|found| matches!(found.kind, Kind::Key | Kind::EncryptedKey(_)))
            }
            _ => false,
        }
    }

    pub(super) fn found_a_certificate(&self) -> bool {
        matches!(self, Self::NoKey(found) if found.iter().any(|found| found.kind == Kind::Certificate))
    }
}

impl Kind {
    fn name(&self) -> String {
        let name = match self {
            Self::Certificate => "a certificate",
            Self::TrustedCertificate => "a certificate in OpenSSL's own form (TRUSTED CERTIFICATE)",
            Self::Key => "a private key",
            Self::EncryptedKey(_) => "an encrypted private key",
            Self::OpenSshKey => "a key in the form of OpenSSH",
            Self::DsaKey => "a DSA key, which TLS has given up",
            Self::PublicKey => "a public key",
            Self::Request => "a certificate request (CSR)",
            Self::RevocationList => "a revocation list (CRL)",
            Self::Pkcs7 => "a PKCS#7 bundle",
            Self::Parameters => "parameters of a key",
            Self::Other(label) => return format!("a block {label}"),
        };
        name.to_owned()
    }

    fn of(block: &Block<'_>) -> Self {
        match block.label {
            "CERTIFICATE" => Self::Certificate,
            "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => Self::TrustedCertificate,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey(Encryption::Pkcs8),
            label if label.ends_with("PRIVATE KEY") && contains(block.text, b"Proc-Type: 4,ENCRYPTED") => {
                Self::EncryptedKey(Encryption::Traditional)
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Self::Key,
            "OPENSSH PRIVATE KEY" => Self::OpenSshKey,
            "DSA PRIVATE KEY" => Self::DsaKey,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "X509 CRL" => Self::RevocationList,
            "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" => Self::Pkcs7,
            label if label.ends_with("PARAMETERS") => Self::Parameters,
            label => Self::Other(shown(label)),
        }
    }
}

/// The certificates in `pem`, in the order they stand there; at least one. Keys beside them are passed over.
///
/// # Errors
///
/// See [`PemError`].
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut certificates = Vec::new();
    let mut others = Vec::new();
    for block in blocks(pem)? {
        match Kind::of(&block) {
            Kind::Certificate => certificates.push(certificate(&block)?),
            kind @ (Kind::TrustedCertificate | Kind::Pkcs7) => {
                return Err(PemError::NoCertificate(vec![Found { kind, line: block.line }]));
            }
            kind => others.push(Found { kind, line: block.line }),
        }
    }
    match certificates.is_empty() {
        true => Err(PemError::NoCertificate(others)),
        false => Ok(certificates),
    }
}

/// The revocation lists in `pem`; at least one.
///
/// # Errors
///
/// See [`PemError`].
pub fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let mut lists = Vec::new();
    let mut others = Vec::new();
    for block in blocks(pem)? {
        match (Kind::of(&block), decode(&block)) {
            (Kind::RevocationList, Ok(Item::Crl(list))) => lists.push(list),
            (Kind::RevocationList, _) => return Err(block.base64_error()),
            (kind, _) => others.push(Found { kind, line: block.line }),
        }
    }
    if lists.is_empty() { Err(PemError::NoRevocationList(others)) } else { Ok(lists) }
}

/// The one private key in `pem`, wiped when it is dropped; certificates beside it are passed over.
///
/// # Errors
///
/// See [`PemError`].
pub fn private_key(pem: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, PemError> {
    let mut keys = Vec::new();
    let mut others = Vec::new();
    for block in blocks(pem)? {
        match Kind::of(&block) {
            kind @ (Kind::Key | Kind::EncryptedKey(_)) => keys.push((kind, block)),
            kind => others.push(Found { kind, line: block.line }),
        }
    }
    match keys.as_slice() {
        [] => Err(PemError::NoKey(others)),
        [(Kind::EncryptedKey(form), block)] => Err(PemError::EncryptedKey { line: block.line, form: *form }),
        [(_, block)] => key(block),
        several => Err(PemError::SeveralKeys(several.iter().map(|(_, block)| block.line).collect())),
    }
}

fn certificate(block: &Block<'_>) -> Result<CertificateDer<'static>, PemError> {
    let Item::X509Certificate(certificate) = decode(block)? else { return Err(block.base64_error()) };
    block.check(&certificate, &[Foreign::Certificate])?;
    let unreadable = |reason| PemError::Unreadable { line: block.line, reason };
    Facts::read(&certificate).map_err(unreadable)?;
    Ok(certificate)
}

fn key(block: &Block<'_>) -> Result<Zeroizing<PrivateKeyDer<'static>>, PemError> {
    let key = Zeroizing::new(match decode(block)? {
        Item::Pkcs8Key(key) => PrivateKeyDer::Pkcs8(key),
        Item::Pkcs1Key(key) => PrivateKeyDer::Pkcs1(key),
        Item::Sec1Key(key) => PrivateKeyDer::Sec1(key),
        _ => return Err(block.base64_error()),
    });
    block.check(key.secret_der(), &[Foreign::Pkcs8, Foreign::Pkcs1, Foreign::Sec1])?;
    Ok(key)
}

fn decode(block: &Block<'_>) -> Result<Item, PemError> {
    if let Some(line) = block.bad_line() {
        return Err(PemError::Base64 { line });
    }
    // What it says of the error may quote the text, which may be a key's.
    let item = rustls_pemfile::read_one_from_slice(block.text).ok().flatten();
    item.map(|(item, _)| item).ok_or_else(|| block.base64_error())
}

impl Block<'_> {
    /// Whether `der` is all there, and one of what it is labelled as.
    fn check(&self, der: &[u8], wanted: &[Foreign]) -> Result<(), PemError> {
        let label = || shown(self.label);
        match foreign::recognise(der) {
            Some(holds) if !wanted.contains(&holds) => {
                Err(PemError::Mislabelled { label: label(), line: self.line, holds })
            }
            _ if !foreign::is_whole(der) => Err(PemError::NotWhole { label: label(), line: self.line }),
            _ => Ok(()),
        }
    }

    /// The first line with a character that is not base64.
    fn bad_line(&self) -> Option<usize> {
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/= \t".contains(byte);
        self.body().find(|(_, line)| !line.iter().all(is_base64)).map(|(number, _)| number)
    }

    /// Of text that consists of the right characters and cannot be decoded all the same: the first line that is not as
    /// long as those before it, or else where the block begins.
    fn base64_error(&self) -> PemError {
        let lines: Vec<_> = self.body().filter(|(_, line)| !line.is_empty()).collect();
        let width = lines.first().map_or(0, |(_, line)| line.len());
        let odd = lines.iter().find(|(_, line)| line.len() != width || width % 4 != 0);
        PemError::Base64 { line: odd.map_or(self.line, |(number, _)| *number) }
    }

    /// The lines between BEGIN and END, with their numbers.
    fn body(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let lines = lines(self.text).map(|line| (self.line + line.number - 1, line.text.trim_ascii_end()));
        lines.skip(1).filter(|(_, line)| !line.starts_with(b"-----END "))
    }
}

/// All blocks, each known to end as it began.
fn blocks(pem: &[u8]) -> Result<Vec<Block<'_>>, PemError> {
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem);
    check_is_text(pem)?;
    let mut blocks = Vec::new();
    let mut open: Option<Line<'_>> = None;
    let mut label = "";
    for line in lines(pem) {
        match (marker(&line, open.is_some())?, open.take()) {
            (None, still_open) => open = still_open,
            (Some(Marker::Begin(begun)), None) => (label, open) = (begun, Some(line)),
            (Some(Marker::Begin(_)), Some(begin)) => return Err(cut(label, &begin)),
            (Some(Marker::End(_)), None) => return Err(PemError::StrayEnd { line: line.number }),
            (Some(Marker::End(end)), Some(begin)) if end == label => {
                let text = pem.get(begin.start..line.start + line.text.len()).unwrap_or_default();
                blocks.push(Block { label, line: begin.number, text });
            }
            (Some(Marker::End(end)), Some(begin)) => {
                let (label, end) = (shown(label), shown(end));
                return Err(PemError::WrongEnd { label, line: begin.number, end, end_line: line.number });
            }
        }
    }
    match open {
        Some(begin) => Err(cut(label, &begin)),
        None if blocks.is_empty() => Err(PemError::NotPem),
        None => Ok(blocks),
    }
}

fn check_is_text(pem: &[u8]) -> Result<(), PemError> {
    if pem.trim_ascii().is_empty() {
        return Err(PemError::Empty);
    }
    if let Some(foreign) = foreign::recognise(pem) {
        return Err(PemError::Foreign(foreign));
    }
    match lines(pem).find(|line| contains(line.text, br"-----\n")) {
        Some(line) => Err(PemError::EscapedBreaks { line: line.number }),
        None => Ok(()),
    }
}

fn cut(label: &str, begin: &Line<'_>) -> PemError {
    PemError::Cut { label: shown(label), line: begin.number }
}

enum Marker<'a> {
    Begin(&'a str),
    End(&'a str),
}

/// The BEGIN or END that a line is, if it is one; what was meant to be one and is not is an error.
fn marker<'a>(line: &Line<'a>, is_in_block: bool) -> Result<Option<Marker<'a>>, PemError> {
    let text = line.text.trim_ascii_end();
    let number = line.number;
    if let Some(rest) = text.strip_prefix(b"-----BEGIN ") {
        return label(rest, number).map(|label| Some(Marker::Begin(label)));
    }
    if let Some(rest) = text.strip_prefix(b"-----END ") {
        return label(rest, number).map(|label| Some(Marker::End(label)));
    }
    match text.trim_ascii_start() {
        unindented if unindented.starts_with(b"-----BEGIN ") => Err(PemError::Indented { line: number }),
        _ if is_in_block && contains(text, b"-----END ") => Err(PemError::NoBreaks { line: number }),
        _ if is_meant_as_marker(text) => Err(PemError::Marker { line: number }),
        _ => Ok(None),
    }
}

/// The label of a line behind `-----BEGIN ` or `-----END `.
fn label(rest: &[u8], line: usize) -> Result<&str, PemError> {
    let Some(end) = memmem::find(rest, b"-----") else { return Err(PemError::Marker { line }) };
    match rest.split_at_checked(end) {
        Some((label, b"-----")) => str::from_utf8(label).map_err(|_| PemError::Marker { line }),
        // A sixth dash is a slip; anything else is the text of the block, or the next block.
        Some((_, dashes)) if dashes.iter().all(|byte| *byte == b'-') => Err(PemError::Marker { line }),
        _ => Err(PemError::NoBreaks { line }),
    }
}

/// A BEGIN or END line with the wrong number of dashes.
fn is_meant_as_marker(text: &[u8]) -> bool {
    let is_dash = |byte: &u8| *byte == b'-' || *byte == b' ';
    let Some(start) = text.iter().position(|byte| !is_dash(byte)) else { return false };
    let (dashes, words) = text.split_at(start);
    let end = words.iter().rposition(|byte| !is_dash(byte)).map_or(0, |last| last + 1);
    let words = words.get(..end).unwrap_or_default();
    dashes.starts_with(b"--")
        && (words.starts_with(b"BEGIN ") || words.starts_with(b"END "))
        && (words.ends_with(b"CERTIFICATE") || words.ends_with(b"KEY"))
}

/// One line, its number and where in the text it starts.
struct Line<'a> {
    number: usize,
    start: usize,
    text: &'a [u8],
}

/// Lines end in LF, CRLF, or CR alone.
fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = Some(0);
    (1..).map_while(move |number| {
        let start = rest.take()?;
        let line = text.get(start..)?;
        let length = memchr::memchr2(b'\n', b'\r', line).unwrap_or(line.len());
        let (line, end) = line.split_at_checked(length)?;
        rest = match end {
            [] => None,
            [b'\r', b'\n', ..] => Some(start + length + 2),
            _ => Some(start + length + 1),
        };
        Some(Line { number, start, text: line })
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}

/// A label for a message, if it looks like one: what else stands there could be anything, also a part of a key.
fn shown(label: &str) -> String {
    let is_label = |char: char| char.is_ascii_uppercase() || "0123456789 #".contains(char);
    match label.len() <= 40 && label.chars().all(is_label) {
        true => label.to_owned(),
        false => "of no known label".to_owned(),
    }
}

fn found(others: &[Found]) -> String {
    let Some(first) = others.iter().find(|found| found.kind != Kind::Parameters).or(others.first()) else {
        return String::new();
    };
    format!(" but {} (line {})", first.kind.name(), first.line)
}

fn lines_of(lines: &[usize]) -> String {
    let (first, last) = lines.split_at(lines.len().saturating_sub(1));
    let join = |lines: &[usize]| lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} and {}", join(first), join(last))
}
