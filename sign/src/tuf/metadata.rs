//! Metadata of the update framework: signed JSON of four roles (TUF 1.0, section 4).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::canonical;
use crate::hash::sha256;
use crate::keyless::{Seconds, seconds};
use crate::pem;
use crate::spki::Spki;

/// A role whose metadata is signed by keys that the root names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Root,
    Timestamp,
    Snapshot,
    Targets,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Timestamp => "timestamp",
            Role::Snapshot => "snapshot",
            Role::Targets => "targets",
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    signatures: Vec<Signature>,
    signed: Value,
}

#[derive(Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// Metadata that was read, and what was signed of it; nothing of it is believed before
/// [`Metadata::check`].
#[derive(Debug, Clone)]
pub(super) struct Metadata<T> {
    pub(super) bytes: Vec<u8>,
    pub(super) version: u64,
    pub(super) expires: Seconds,
    pub(super) content: T,
    signed: Vec<u8>,
    signatures: Vec<(String, Vec<u8>)>,
    role: Role,
}

#[derive(Deserialize)]
struct Common {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
}

/// What the root says: who signs.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Root {
    pub(super) consistent_snapshot: bool,
    keys: BTreeMap<String, KeyDocument>,
    roles: BTreeMap<String, Keyholders>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Keyholders {
    keyids: BTreeSet<String>,
    threshold: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct KeyDocument {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct KeyValue {
    public: String,
}

/// What the timestamp and the snapshot say: the versions of other metadata.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Versions {
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// A file of metadata, as another lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct MetaFile {
    pub(super) version: u64,
    pub(super) length: Option<u64>,
    #[serde(default)]
    pub(super) hashes: BTreeMap<String, String>,
}

/// What the targets say: the files that are handed out.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Targets {
    pub(super) targets: BTreeMap<String, TargetFile>,
}

/// A file that is handed out.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TargetFile {
    pub(super) length: u64,
    pub(super) hashes: BTreeMap<String, String>,
}

impl<T: DeserializeOwned> Metadata<T> {
    /// Reads metadata of a role.
    ///
    /// # Errors
    /// It is malformed, or of another role.
    pub(super) fn read(role: Role, bytes: Vec<u8>) -> Result<Metadata<T>, String> {
        let malformed = |error: serde_json::Error| format!("it is malformed: {error}");
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(malformed)?;
        let common: Common = serde_json::from_value(envelope.signed.clone()).map_err(malformed)?;
        if common.kind != role.name() {
            return Err(format!("it is metadata of {:.40}", common.kind));
        }
        if !common.spec_version.starts_with("1.") {
            return Err(format!("its specification {:.40} is not known", common.spec_version));
        }
        let expires = seconds(&common.expires);
        let expires = expires.ok_or_else(|| format!("{:.40} is no time", common.expires))?;
        let signed = canonical::bytes(&envelope.signed)?;
        let signatures = envelope.signatures.into_iter();
        // A keyholder who has not signed has an empty signature.
        let signatures = signatures.filter_map(|one| Some((one.keyid, unhex(&one.sig)?)));
        Ok(Metadata {
            bytes,
            version: common.version,
            expires,
            content: serde_json::from_value(envelope.signed).map_err(malformed)?,
            signed,
            signatures: signatures.collect(),
            role,
        })
    }

    /// That enough of the role's keyholders, whom `root` names, signed it.
    ///
    /// # Errors
    /// They did not.
    pub(super) fn check(&self, root: &Root) -> Result<(), String> {
        let name = self.role.name();
        let role = root.roles.get(name).ok_or_else(|| format!("nobody may sign {name}"))?;
        if role.threshold == 0 {
            return Err(format!("{name} needs no signatures"));
        }
        // Keys are counted by what they are: one that has two names is one.
        let mut good = BTreeSet::new();
        for (id, signature) in &self.signatures {
            let Some(key) = root.keys.get(id).filter(|_| role.keyids.contains(id)) else {
                continue;
            };
            let Ok(spki) = key.read() else { continue };
            if spki.verifies(&self.signed, signature) {
                good.insert(spki.der().to_vec());
            }
        }
        match good.len() >= role.threshold {
            true => Ok(()),
            false => Err(format!(
                "{} of the {} signatures it needs are good",
                good.len(),
                role.threshold
            )),
        }
    }

    /// That it has not expired.
    ///
    /// # Errors
    /// It has.
    pub(super) fn check_time(&self, now: Seconds) -> Result<(), String> {
        match now < self.expires {
            true => Ok(()),
            false => Err(format!("it expired at {}", time(self.expires))),
        }
    }
}

impl Root {
    /// Whether other keyholders sign a role.
    pub(super) fn changes(&self, other: &Root, role: Role) -> bool {
        let keys = |root: &Root| {
            let role = root.roles.get(role.name()).cloned();
            let ids = role.iter().flat_map(|role| role.keyids.clone());
            let keys: Vec<_> = ids.map(|id| root.keys.get(&id).cloned()).collect();
            (role, keys)
        };
        keys(self) != keys(other)
    }
}

impl KeyDocument {
    fn read(&self) -> Result<Spki, String> {
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256")
            | ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => {
                let block =
                    pem::find(self.keyval.public.as_bytes(), |label| label == "PUBLIC KEY")?;
                Spki::read(&block.bytes)
            }
            ("ed25519", "ed25519") => {
                let raw = unhex(&self.keyval.public).filter(|raw| raw.len() == 32);
                let raw = raw.ok_or("it is no Ed25519 key")?;
                Spki::read(&Spki::wrap_ed25519(&raw))
            }
            (kind, _) => Err(format!("keys of the kind {kind:?} are not supported")),
        }
    }
}

impl MetaFile {
    /// That these bytes are what is listed.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if self.length.is_some_and(|length| length != bytes.len() as u64) {
            return Err("it has another length than is listed".to_owned());
        }
        match self.hashes.get("sha256") {
            Some(hash) if unhex(hash).as_deref() != Some(&sha256(bytes)[..]) => {
                Err("it has another digest than is listed".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl TargetFile {
    /// The SHA-256 in digits.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn hash(&self) -> Result<&str, String> {
        let hash = self.hashes.get("sha256").map(String::as_str);
        let well = |hash: &&str| hash.len() == 64 && unhex(hash).is_some();
        hash.filter(well).ok_or_else(|| "it is listed without a SHA-256".to_owned())
    }

    /// Whether these bytes are the file.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        let hash = self.hash().ok().and_then(unhex);
        bytes.len() as u64 == self.length && hash.as_deref() == Some(&sha256(bytes)[..])
    }
}

/// Bytes from an even, positive number of hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    digits.chunks(2).map(pair).collect()
}

/// A moment as people write it.
pub(super) fn time(seconds: Seconds) -> String {
    let time = i64::try_from(seconds).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.to_string())
}
