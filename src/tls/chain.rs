//! Puts the certificates of one file in the order in which they are sent: the leaf, then each one's issuer (RFC 8446
//! section 4.4.2). Whether they are any good is not asked here.

use rustls::pki_types::CertificateDer;
use x509_parser::error::X509Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::facts::{Facts, KeyKind};
use super::finding::{Finding, Part, Severity, listed};

/// RSA keys that the cryptographic library verifies with; a shorter one is found weak, not forged.
const MIN_RSA_BITS: usize = 2048;

/// A chain has a handful. Who signed whom is found by trying, which must not take for ever; all the roots that an
/// operating system trusts, pasted behind a chain, are fewer.
const MAX_CERTIFICATES: usize = 200;

/// A chain as it is sent, and what was said of the file on the way.
#[derive(Debug)]
pub struct Ordered {
    /// Leaf first, then each one's issuer, then other ways up; the root is left out, unless it is the leaf.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Of each of `certificates`.
    pub facts: Vec<Facts>,
    pub findings: Vec<Finding>,
    /// The leaf was issued by somebody, and the file does not say by whom.
    pub lacks_issuer: bool,
}

/// One certificate of the file.
struct Member<'a> {
    parsed: X509Certificate<'a>,
    facts: Facts,
}

/// What is known of a certificate and one that bears the name of its issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The signature verifies, or is of a kind that cannot be verified here.
    Signed,
    /// Somebody else of that name signed it.
    Forged,
}

/// Orders `certificates`. `key` is the public half of the private key, if it is at hand, as `SubjectPublicKeyInfo`: the
/// leaf is whose key that is, and otherwise the one that issued no other.
///
/// # Errors
///
/// One of them cannot be read, there is none, or there are more than 200.
pub fn order(certificates: Vec<CertificateDer<'static>>, key: Option<&[u8]>) -> Result<Ordered, Finding> {
    let mut findings = Vec::new();
    let certificates = without_duplicates(certificates, &mut findings);
    if certificates.len() > MAX_CERTIFICATES {
        let message = format!("holds {} certificates; a chain has a handful", certificates.len());
        return Err(error(message).remedy("keep the server's own and the intermediates above it"));
    }
    let members = read(&certificates)?;
    let leaf = leaf(&members, key).ok_or_else(|| error("holds no certificate"))?;
    let path = path(&members, leaf);
    let (roots, strangers) = left_out(&members, &path);
    let impostors = impostors(&members, &path);

    findings.extend(second_leaf(&members, leaf, &strangers));
    findings.extend(impostors.iter().map(|&(issued, impostor)| forged(&members, issued, impostor)));
    findings.extend(wrong_order(&members, &path));
    // What stands above an impostor would be said to be unrelated, and is not to blame.
    if impostors.is_empty() {
        findings.extend(unrelated(&members, &strangers));
    }
    findings.extend(roots.iter().map(|&root| root_left_out(&members, root)));

    let lacks_issuer = path.len() == 1
        && roots.is_empty()
        && impostors.is_empty()
        && members.get(leaf).is_some_and(|leaf| !leaf.facts.is_self_issued);
    let facts = path.iter().filter_map(|&at| members.get(at)).map(|member| member.facts.clone()).collect();
    let certificates = path.iter().filter_map(|&at| certificates.get(at)).cloned().collect();
    Ok(Ordered { certificates, facts, findings, lacks_issuer })
}

fn without_duplicates(
    certificates: Vec<CertificateDer<'static>>,
    findings: &mut Vec<Finding>,
) -> Vec<CertificateDer<'static>> {
    let mut kept: Vec<CertificateDer<'static>> = Vec::with_capacity(certificates.len());
    let mut dropped = 0;
    for certificate in certificates {
        match kept.contains(&certificate) {
            true => dropped += 1,
            false => kept.push(certificate),
        }
    }
    match dropped {
        0 => {}
        1 => findings.push(note("holds a certificate twice; it is sent once")),
        dropped => findings.push(note(format!("holds {dropped} certificates more than once; each is sent once"))),
    }
    kept
}

fn read<'a>(certificates: &'a [CertificateDer<'static>]) -> Result<Vec<Member<'a>>, Finding> {
    let read = |(at, der): (usize, &'a CertificateDer<'static>)| {
        let unreadable = |reason: String| error(format!("its certificate number {} cannot be read: {reason}", at + 1));
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
        let facts = Facts::of(&parsed).map_err(unreadable)?;
        Ok(Member { parsed, facts })
    };
    certificates.iter().enumerate().map(read).collect()
}

/// Whose key it is; of several, or when no key is at hand, the one that is the issuer of no other and is no authority.
fn leaf(members: &[Member<'_>], key: Option<&[u8]>) -> Option<usize> {
    let likeliest = |candidates: &mut dyn Iterator<Item = (usize, &Member<'_>)>| {
        candidates.min_by_key(|(_, member)| (issues_another(members, member), member.facts.is_ca)).map(|(at, _)| at)
    };
    let of_key = |member: &Member<'_>| key.is_some_and(|key| member.facts.public_key == key);
    likeliest(&mut members.iter().enumerate().filter(|(_, member)| of_key(member)))
        .or_else(|| likeliest(&mut members.iter().enumerate()))
}

fn issues_another(members: &[Member<'_>], issuer: &Member<'_>) -> bool {
    members.iter().any(|member| !member.facts.is_self_issued && names_as_issuer(member, issuer))
}

fn names_as_issuer(issued: &Member<'_>, issuer: &Member<'_>) -> bool {
    issued.parsed.issuer().as_raw() == issuer.parsed.subject().as_raw()
}

/// From the leaf up to below the root, and behind it the other ways up, such as cross-signed authorities.
fn path(members: &[Member<'_>], leaf: usize) -> Vec<usize> {
    let mut path = vec![leaf];
    let mut last = Some(leaf);
    while let Some(at) = last {
        last = intermediates(members, at).into_iter().find(|issuer| !path.contains(issuer));
        path.extend(last);
    }
    let mut next = 0;
    while let Some(&at) = path.get(next) {
        for issuer in intermediates(members, at) {
            if !path.contains(&issuer) {
                path.push(issuer);
            }
        }
        next += 1;
    }
    path
}

/// Who issued a certificate and is no root, in an order that does not depend on the file's: the last to expire first.
fn intermediates(members: &[Member<'_>], issued: usize) -> Vec<usize> {
    let mut issuers: Vec<_> = issuers(members, issued, Link::Signed)
        .filter_map(|at| members.get(at).map(|member| (at, &member.facts)))
        .filter(|(_, facts)| !facts.is_self_issued)
        .collect();
    issuers.sort_by_key(|(_, facts)| (std::cmp::Reverse(facts.not_after), facts.fingerprint));
    issuers.into_iter().map(|(at, _)| at).collect()
}

/// Which of the others bear the name of a certificate's issuer, and are (or are not) who signed it.
fn issuers<'a>(members: &'a [Member<'a>], issued: usize, wanted: Link) -> impl Iterator<Item = usize> + 'a {
    let member = members.get(issued).filter(|member| !member.facts.is_self_issued);
    let bears_name = move |(at, other): &(usize, &Member<'_>)| {
        *at != issued && member.is_some_and(|member| names_as_issuer(member, other) && link(member, other) == wanted)
    };
    members.iter().enumerate().filter(bears_name).map(|(at, _)| at)
}

fn link(issued: &Member<'_>, issuer: &Member<'_>) -> Link {
    if matches!(issuer.facts.key, KeyKind::Rsa { bits } if bits < MIN_RSA_BITS) {
        return Link::Signed;
    }
    match issued.parsed.verify_signature(Some(issuer.parsed.public_key())) {
        Err(X509Error::SignatureVerificationError) => Link::Forged,
        _ => Link::Signed,
    }
}

/// What is in the file and not sent: the roots above the path, and all that has no part in it.
fn left_out(members: &[Member<'_>], path: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let above: Vec<usize> = path.iter().flat_map(|&at| issuers(members, at, Link::Signed)).collect();
    (0..members.len()).filter(|at| !path.contains(at)).partition(|at| above.contains(at))
}

/// Certificates of the path of which only a bearer of their issuer's name is there, each with that bearer.
fn impostors(members: &[Member<'_>], path: &[usize]) -> Vec<(usize, usize)> {
    let unsigned = path.iter().filter(|&&at| issuers(members, at, Link::Signed).next().is_none());
    unsigned.filter_map(|&at| Some((at, issuers(members, at, Link::Forged).next()?))).collect()
}

fn second_leaf(members: &[Member<'_>], leaf: usize, strangers: &[usize]) -> Option<Finding> {
    let leaf = members.get(leaf)?;
    let other = strangers.iter().filter_map(|&at| members.get(at)).find(|member| !member.facts.is_ca)?;
    let [leaf, other] = [leaf, other].map(|member| described(&member.facts));
    Some(error(format!("holds two certificates that are no authority's: {leaf} and {other}")).remedy(
        "keep the one whose key is in use; to serve both, as RSA beside ECDSA, give each its own pair of files and its \
         own [[cname]] table of the same name",
    ))
}

fn forged(members: &[Member<'_>], issued: usize, impostor: usize) -> Finding {
    let [issued, impostor] = [issued, impostor].map(|at| members.get(at).map(|member| &member.facts));
    let (issued, issuer) = (issued.map_or("", |facts| &facts.subject), impostor.map(described).unwrap_or_default());
    error(format!("{issued} names {issuer} as its issuer, but that one's key did not sign it"))
        .remedy("an authority was renewed under its old name: put the certificate of the key that signed in its place")
}

/// Which of two certificates of one authority comes first matters to nobody, so subjects are compared.
fn wrong_order(members: &[Member<'_>], path: &[usize]) -> Option<Finding> {
    let subjects = |path: &[usize]| -> Vec<String> {
        path.iter().filter_map(|&at| members.get(at)).map(|member| member.facts.subject.clone()).collect()
    };
    let mut in_file = path.to_vec();
    in_file.sort_unstable();
    let order = subjects(path);
    if order == subjects(&in_file) {
        return None;
    }
    let message = "its certificates are not in order: the server's own comes first, then each one's issuer";
    Some(warning(message).remedy(format!("they are sent in order; in the file this would be: {}", order.join("; "))))
}

fn unrelated(members: &[Member<'_>], strangers: &[usize]) -> Option<Finding> {
    let names: Vec<_> = strangers
        .iter()
        .filter_map(|&at| members.get(at))
        .filter(|member| member.facts.is_ca)
        .map(|member| &*member.facts.subject)
        .collect();
    let message =
        format!("holds authorities that issued nothing in its chain and are not sent: {}", listed(&names, "; "));
    (!names.is_empty()).then(|| warning(message).remedy("remove them from the file"))
}

fn root_left_out(members: &[Member<'_>], root: usize) -> Finding {
    let root = members.get(root).map_or("", |member| &member.facts.subject);
    note(format!("holds the root {root}; it is not sent, since callers that trust it have it"))
}

/// Who it is, for a message that tells certificates apart.
fn described(facts: &Facts) -> String {
    match facts.subject.is_empty() {
        true => format!(
            "{} ({}, serial {})",
            facts.names.first().map_or("one without a name", |name| name),
            facts.key,
            facts.serial
        ),
        false => format!("{} ({}, serial {})", facts.subject, facts.key, facts.serial),
    }
}

fn error(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, Part::Chain, message)
}

fn warning(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, Part::Chain, message)
}

fn note(message: impl Into<String>) -> Finding {
    Finding::new(Severity::Note, Part::Chain, message)
}
