//! The command, or the advice, that mends a file which is not the PEM it should be. Commands are ready to be pasted: they
//! hold the real names of files, quoted for a shell, and leave the old file alone until the new one is there.

use std::path::Path;

use super::finding::{Files, Finding, Part, quoted, quoted_text};
use super::foreign::Foreign;
use super::names;
use super::pem::{Encryption, Found, Kind, PemError};

/// What remedies need to know of the pair.
pub(super) struct Remedy<'a> {
    pub(super) files: Files<'a>,
    pub(super) cname: Option<&'a str>,
}

impl PemError {
    /// What is wrong, the line of the file where there is one, and the command that mends it, ready to be pasted.
    /// `part` is what the file should have held.
    pub fn message(&self, part: Part, file: &Path) -> String {
        let remedy = Remedy { files: Files { chain: file, key: file }, cname: None };
        self.finding(part, &remedy).to_string()
    }

    pub(super) fn finding(&self, part: Part, remedy: &Remedy<'_>) -> Finding {
        Finding::error(part, self.to_string()).remedy(remedy.of(self, part))
    }
}

const CERTIFICATE_WANTED: &str = "name the file with the full chain as PEM, the server's own certificate first";
const KEY_WANTED: &str = "name the file with the private key, as PEM and without a password";
const COPY_AGAIN: &str = "copy it again from where it came from";

impl Remedy<'_> {
    /// What mends `error`, found in the file that should have held `part`.
    pub(super) fn of(&self, error: &PemError, part: Part) -> String {
        let file = self.file(part);
        match error {
            PemError::Foreign(foreign) | PemError::Mislabelled { holds: foreign, .. } => {
                self.of_foreign(*foreign, part, matches!(error, PemError::Mislabelled { .. }))
            }
            PemError::NoBreaks { .. } | PemError::EscapedBreaks { .. } => line_breaks(file),
            PemError::Marker { .. } => format!("write the line as it should be, such as {}", begin(part)),
            PemError::Indented { .. } => format!(r"take the blanks away: sed -i 's/^[[:blank:]]*//' {}", quoted(file)),
            PemError::NoCertificate(found) | PemError::NoKey(found) => self.of_other(found, part),
            PemError::NoRevocationList(_) => "name the PEM file with the list (X509 CRL)".to_owned(),
            PemError::SeveralKeys(_) => "keep the one that belongs to the certificate".to_owned(),
            PemError::EncryptedKey { form: Encryption::Pkcs8, .. } => {
                format!("have it decrypted: {}", self.import())
            }
            PemError::EncryptedKey { form: Encryption::Traditional, .. } => {
                let file = quoted(file);
                format!("decrypt it: openssl pkey -in {file} -out {file}.new && mv {file}.new {file}")
            }
            PemError::Empty | PemError::NotPem => wanted(part).to_owned(),
            PemError::Cut { .. }
            | PemError::WrongEnd { .. }
            | PemError::StrayEnd { .. }
            | PemError::Base64 { .. }
            | PemError::NotWhole { .. }
            | PemError::Unreadable { .. } => COPY_AGAIN.to_owned(),
        }
    }

    fn of_foreign(&self, foreign: Foreign, part: Part, is_in_pem: bool) -> String {
        let file = self.file(part);
        match (foreign, part) {
            // A block of PEM is no file to convert; import reads it whatever it is called.
            (Foreign::Certificate | Foreign::Pkcs7, Part::Chain) => format!("convert it: {}", self.import()),
            (Foreign::EncryptedKey, Part::Key) if is_in_pem => {
                let file = quoted(file);
                format!(
                    "write the right label, and have it decrypted: sed -i 's/ PRIVATE/ ENCRYPTED PRIVATE/' {file} && {}",
                    self.import()
                )
            }
            (Foreign::Pkcs8 | Foreign::Pkcs1 | Foreign::Sec1 | Foreign::EncryptedKey, Part::Key) if !is_in_pem => {
                format!("convert it: {}", self.import())
            }
            (Foreign::Pkcs12, _) => format!("convert it: {}", self.import_of(&quoted(file), None)),
            (Foreign::JavaKeystore, _) => {
                let file = quoted(file);
                format!(
                    "convert it: keytool -importkeystore -srckeystore {file} -destkeystore {file}.p12 -deststoretype \
                     PKCS12 && {}",
                    self.import_of(&format!("{file}.p12"), None)
                )
            }
            (Foreign::Base64OfPem, _) => replace("base64 -d", file, part),
            (Foreign::Utf16, _) => replace("iconv -f UTF-16 -t UTF-8", file, part),
            (Foreign::Base64OfDer, _) => self.base64_of_der(part),
            (Foreign::Html, _) => "download it again; the link may want a login first".to_owned(),
            (Foreign::Request, Part::Chain) => REQUEST.to_owned(),
            _ => wanted(part).to_owned(),
        }
    }

    fn of_other(&self, found: &[Found], part: Part) -> String {
        let kind = found.iter().map(|found| &found.kind).find(|kind| **kind != Kind::Parameters);
        let file = quoted(self.file(part));
        match (kind, part) {
            (Some(Kind::TrustedCertificate), Part::Chain) => {
                format!("convert it: openssl x509 -in {file} -out {file}.new && mv {file}.new {file}")
            }
            (Some(Kind::Pkcs7), Part::Chain) => format!("convert it: {}", self.import()),
            (Some(Kind::Request), Part::Chain) => REQUEST.to_owned(),
            (Some(Kind::OpenSshKey), Part::Key) => format!("convert it: ssh-keygen -p -m PKCS8 -N '' -f {file}"),
            (Some(Kind::DsaKey), Part::Key) => {
                let request = names::request(self.cname.unwrap_or("NAME"));
                format!("make a new key and have a certificate issued for it: {request}")
            }
            _ => wanted(part).to_owned(),
        }
    }

    fn base64_of_der(&self, part: Part) -> String {
        let file = quoted(self.file(part));
        let der = format!("{file}.der");
        let import = match part {
            Part::Chain => self.import_of(&der, self.separate_key()),
            Part::Key => self.import_of(&quoted(self.files.chain), Some(der.clone())),
        };
        format!("decode and convert it: {} && {import}", to_file("base64 -d", &file, &der, part))
    }

    /// The command that turns the pair into PEM as it has to be.
    fn import(&self) -> String {
        self.import_of(&quoted(self.files.chain), self.separate_key())
    }

    fn import_of(&self, file: &str, key: Option<String>) -> String {
        let key = key.map(|key| format!(" --key {key}")).unwrap_or_default();
        format!("scorefront cert import {file}{key} --cname {}", quoted_text(self.cname.unwrap_or("NAME")))
    }

    fn separate_key(&self) -> Option<String> {
        (self.files.chain != self.files.key).then(|| quoted(self.files.key))
    }

    fn file(&self, part: Part) -> &Path {
        match part {
            Part::Chain => self.files.chain,
            Part::Key => self.files.key,
        }
    }
}

const REQUEST: &str = "send it to an authority, and name the file with the certificate that comes back";

fn wanted(part: Part) -> &'static str {
    match part {
        Part::Chain => CERTIFICATE_WANTED,
        Part::Key => KEY_WANTED,
    }
}

fn begin(part: Part) -> &'static str {
    match part {
        Part::Chain => "-----BEGIN CERTIFICATE-----",
        Part::Key => "-----BEGIN PRIVATE KEY-----",
    }
}

/// Puts every BEGIN and END on a line of its own, whatever stood for the line breaks.
fn line_breaks(file: &Path) -> String {
    let file = quoted(file);
    format!(
        r#"put them in: sed -i -E 's/\\r//g; s/\\n/\n/g; s/"//g; s/-----(BEGIN|END) [A-Z0-9 ]+-----/\n&\n/g' {file} && sed -i '/^$/d' {file}"#
    )
}

/// Puts what `command` makes of a file in its place.
fn replace(command: &str, file: &Path, part: Part) -> String {
    let file = quoted(file);
    let new = format!("{file}.new");
    format!("convert it: {} && mv {new} {file}", to_file(command, &file, &new, part))
}

/// What becomes of a key is for its owner's eyes only.
fn to_file(command: &str, from: &str, to: &str, part: Part) -> String {
    match part {
        Part::Chain => format!("{command} {from} > {to}"),
        Part::Key => format!("(umask 077; {command} {from} > {to})"),
    }
}
