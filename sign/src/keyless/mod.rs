//! Whether the identity in a certificate signed something: numbered steps without any input or
//! output (sigstore's client specification, "Verification").
//!
//!  1. *material*: there is one certificate, and its log entries and timestamps can be read.
//!  2. *timestamp*: each timestamp (RFC 3161) is a trusted authority's, of this signature.
//!  3. *log*: each log entry is of a log that is trusted.
//!  4. *promise*: the log signed its promise of the entry (Rekor v1).
//!  5. *inclusion*: the log's tree has the entry.
//!  6. *checkpoint*: the log signed for that tree.
//!  7. *time*: a trusted source states the time, and the log was trusted then.
//!  8. *chain*: an authority that is trusted issued the certificate for code signing, and every
//!     certificate of the chain was valid at each of those times.
//!  9. *sct*: a log that is trusted promised to list the certificate.
//! 10. *signature*: the certificate's key signed the content.
//! 11. *entry*: the log entry is about this signature, this content and this certificate.
//! 12. *identity*: the certificate names the required identity.

pub use self::certificate::Identity;
use self::certificate::{CODE_SIGNING, Leaf};
pub(crate) use self::entry::{LogEntry, LoggedSignature};
pub(crate) use self::material::Material;
use self::refusal::{At as _, refuse};
pub use self::refusal::{Refusal, Step};
pub(crate) use self::roots::{Authority, Log, Seconds, Window, seconds};
pub use self::roots::{MAX_TRUSTED_ROOT, TrustedRoot};
pub use self::rule::{IdentityRule, Matching};

mod base64;
mod certificate;
mod checkpoint;
mod entry;
mod material;
mod merkle;
mod refusal;
mod roots;
mod rule;
mod sct;
mod timestamp;

/// More log entries or timestamps of one signature are not looked at.
const MAX_EVIDENCE: usize = 8;

/// What was signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    /// The bytes that the signature is over.
    pub(crate) signed: &'a [u8],
    /// The content of the envelope, where there is one.
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) signature: &'a [u8],
}

/// Checks a signature that was made with a certificate: steps 1 to 12 of this module.
///
/// # Errors
/// The first step that fails.
pub(crate) fn verify(
    material: &Material,
    content: &Content<'_>,
    root: &TrustedRoot,
    rules: &[IdentityRule],
) -> Result<Identity, Refusal> {
    // Step 1.
    let (leaf, others) = certificates(material)?;
    if material.entries.len() > MAX_EVIDENCE || material.timestamps.len() > MAX_EVIDENCE {
        return refuse(Step::Material, "it has too many log entries or timestamps");
    }
    // Step 2.
    let mut times = Vec::new();
    for timestamp in &material.timestamps {
        let time = timestamp::verify(timestamp, content.signature, &root.timestamps);
        times.push(time.map_err(|why| format!("its timestamp: {why}")).at(Step::Timestamp)?);
    }
    // Steps 3 to 6.
    let mut used = Vec::new();
    if let Some(logs) = &root.logs {
        if material.entries.is_empty() {
            return refuse(Step::Log, "it is in no log");
        }
        for entry in &material.entries {
            let log = logged(entry, logs)?;
            times.extend(entry.integrated());
            used.push(log);
        }
    }
    // Step 7. Without logs and timestamps only a certificate that is valid now will do.
    if times.is_empty() && used.is_empty() {
        times.extend(root.now);
    }
    if times.is_empty() {
        return refuse(Step::Time, "no trusted source states when it was made");
    }
    for (log, time) in used.iter().flat_map(|log| times.iter().map(move |time| (log, time))) {
        if !log.window.contains(*time) {
            return refuse(Step::Time, "its log was not trusted at the time it was made");
        }
    }
    // Step 8.
    let issuer = issued(&leaf, &others, root, &times)?;
    // Step 9.
    if let Some(logs) = &root.certificate_logs {
        sct::verify(&leaf, &issuer, logs).at(Step::Sct)?;
    }
    // Step 10.
    if !leaf.key.verifies(content.signed, content.signature) {
        return refuse(Step::Signature, "its certificate's key did not sign its content");
    }
    // Step 11.
    let of = LoggedSignature {
        signed: content.signed,
        payload: content.payload,
        signature: content.signature,
        verifier: &leaf.der,
    };
    for entry in &material.entries {
        entry.check_body(&of).at(Step::Entry)?;
    }
    // Step 12.
    let identity = leaf.identity(root.now.is_some()).at(Step::Identity)?;
    rule::any(rules, &identity).at(Step::Identity)?;
    Ok(identity)
}

/// The signer's certificate and the others, whose roles are not known yet.
fn certificates(material: &Material) -> Result<(Leaf, Vec<Vec<u8>>), Refusal> {
    let Some((first, others)) = material.certificates.split_first() else {
        return refuse(Step::Material, "it has no certificate");
    };
    if others.len() > MAX_EVIDENCE {
        return refuse(Step::Material, "it has too many certificates");
    }
    Ok((Leaf::read(first).at(Step::Material)?, others.to_vec()))
}

/// Checks that a signature by a key is in one of these logs: steps 3 to 6 and 11.
///
/// # Errors
/// The first step that fails.
pub(crate) fn in_log(
    entries: &[LogEntry],
    logs: &[Log],
    of: &LoggedSignature<'_>,
) -> Result<(), Refusal> {
    let Some(entry) = entries.first() else { return refuse(Step::Log, "it is in no log") };
    let log = logged(entry, logs)?;
    if let Some(time) = entry.integrated()
        && !log.window.contains(time)
    {
        return refuse(Step::Time, "its log was not trusted at the time it was made");
    }
    entry.check_body(of).at(Step::Entry)
}

/// Steps 3 to 6 for one entry.
fn logged<'a>(entry: &LogEntry, logs: &'a [Log]) -> Result<&'a Log, Refusal> {
    if !entry.has_evidence() {
        return refuse(Step::Log, "its log entry has neither a promise nor a proof");
    }
    let id = &entry.log_id.key_id.0;
    let log = logs.iter().find(|log| log.id == *id);
    let log = log.ok_or_else(|| "it is in a log that is not trusted".to_owned()).at(Step::Log)?;
    entry.check_promise(log).at(Step::Promise)?;
    entry.check_inclusion().at(Step::Inclusion)?;
    entry.check_checkpoint(log).at(Step::Checkpoint)?;
    Ok(log)
}

/// Step 8: which of the authorities issued the certificate. Where none did, the reason of the one
/// that came farthest would be a guess; with several it is that of the last.
fn issued(
    leaf: &Leaf,
    others: &[Vec<u8>],
    root: &TrustedRoot,
    times: &[Seconds],
) -> Result<Leaf, Refusal> {
    leaf.may_sign().at(Step::Chain)?;
    let mut why = "no certificate authority is trusted".to_owned();
    for authority in &root.authorities {
        let chains =
            times.iter().map(|time| leaf.chains_to(authority, others, CODE_SIGNING, *time));
        match chains.collect::<Result<Vec<_>, _>>() {
            Ok(mut issuers) => {
                if let Some(issuer) = issuers.pop() {
                    return Ok(issuer);
                }
            }
            Err(reason) => why = reason,
        }
    }
    Err(why).at(Step::Chain)
}
