//! The grammar of `policy.json` (containers-policy.json(5)), as strict as the original: what is
//! unknown, doubled or out of place makes the whole file invalid.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Reference, Repository};
use serde::Deserialize;
use serde_json::Value;

use super::SignedIdentity;
use crate::strict::Unique;

/// No policy file larger than this is read.
pub(crate) const MAX_POLICY: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    default: Vec<RawRequirement>,
    #[serde(default)]
    transports: Unique<Unique<Vec<RawRequirement>>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum RawRequirement {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned(Box<RawSigstore>),
    SignedBy(RawSignedBy),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSigstore {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<Value>,
    pki: Option<Value>,
    rekor_public_key_path: Option<String>,
    rekor_public_key_paths: Option<Vec<String>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    signed_identity: Option<RawIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSignedBy {
    key_type: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    #[serde(rename = "signedIdentity")]
    _signed_identity: Option<RawIdentity>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum RawIdentity {
    MatchExact {},
    MatchRepoDigestOrExact {},
    MatchRepository {},
    MatchDigestOnly {},
    #[serde(rename_all = "camelCase")]
    ExactReference {
        docker_reference: String,
    },
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        docker_repository: String,
    },
    #[serde(rename_all = "camelCase")]
    RemapIdentity {
        prefix: String,
        signed_prefix: String,
    },
}

/// A policy file, checked as far as that goes without reading other files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyFile {
    pub(crate) default: Vec<Requirement>,
    pub(crate) transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must satisfy; all of several must be satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Nothing.
    Accept,
    /// The impossible.
    Reject,
    /// One signature by one of these keys, made for the right name.
    Signed { keys: Vec<KeySource>, identity: SignedIdentity },
    /// A check that is not known how to do; it is never satisfied.
    Unsupported(String),
}

/// Where a public key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    File(PathBuf),
    Pem(Vec<u8>),
}

/// Reads a policy file. The error says what is wrong and where.
pub(crate) fn read(json: &[u8]) -> Result<PolicyFile, String> {
    if json.len() as u64 > MAX_POLICY {
        return Err(format!("it is larger than {MAX_POLICY} bytes"));
    }
    let raw: Raw = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let default = requirements(raw.default).map_err(|reason| format!("default: {reason}"))?;
    let mut transports = BTreeMap::new();
    for (transport, scopes) in raw.transports.0 {
        let mut read = BTreeMap::new();
        for (scope, raw) in scopes.0 {
            let at = |reason| format!("transport {transport:?}, scope {scope:?}: {reason}");
            check_scope(&transport, &scope).map_err(at)?;
            let requirements = requirements(raw).map_err(at)?;
            read.insert(scope.clone(), requirements);
        }
        transports.insert(transport, read);
    }
    Ok(PolicyFile { default, transports })
}

/// A scope that could never match would quietly leave its images to a more general one.
fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    let wildcard = scope.contains('*');
    let subdomains = scope.strip_prefix("*.").is_some_and(|rest| !rest.contains(['*', '/']));
    match transport {
        "docker" | "atomic" if wildcard && !subdomains => {
            Err("a wildcard has the form *.example.com".to_owned())
        }
        "docker" if scope.contains("://") || scope.ends_with('/') || scope.starts_with('/') => {
            Err("a scope is the start of an image's full name, such as docker.io/library"
                .to_owned())
        }
        "dir" | "oci" | "oci-archive" | "docker-archive" if scope == "/" => {
            Err("use the empty scope for all paths".to_owned())
        }
        "dir" | "oci" if !scope.is_empty() && !scope.starts_with('/') => {
            Err("a path is absolute".to_owned())
        }
        _ => Ok(()),
    }
}

fn requirements(raw: Vec<RawRequirement>) -> Result<Vec<Requirement>, String> {
    if raw.is_empty() {
        return Err("the list of requirements is empty".to_owned());
    }
    raw.into_iter().map(requirement).collect()
}

fn requirement(raw: RawRequirement) -> Result<Requirement, String> {
    match raw {
        RawRequirement::InsecureAcceptAnything {} => Ok(Requirement::Accept),
        RawRequirement::Reject {} => Ok(Requirement::Reject),
        RawRequirement::SignedBy(raw) => {
            let sources = [raw.key_path.is_some(), raw.key_paths.is_some(), raw.key_data.is_some()];
            if sources.iter().filter(|given| **given).count() != 1 {
                return Err("signedBy takes exactly one of keyPath, keyPaths, keyData".to_owned());
            }
            if raw.key_type != "GPGKeys" {
                return Err(format!("keyType {:?} is unknown", raw.key_type));
            }
            Ok(Requirement::Unsupported("a GPG signature (signedBy)".to_owned()))
        }
        RawRequirement::SigstoreSigned(raw) => sigstore(*raw),
    }
}

fn sigstore(raw: RawSigstore) -> Result<Requirement, String> {
    let file = |path: PathBuf| match path.is_absolute() {
        true => Ok(KeySource::File(path)),
        false => Err(format!("key path {path:?} is not absolute")),
    };
    let pem = |data: String| match STANDARD.decode(&data) {
        Ok(pem) => Ok(KeySource::Pem(pem)),
        Err(error) => Err(format!("key data is no base64: {error}")),
    };
    let mut given: Vec<Result<Vec<KeySource>, String>> = Vec::new();
    given.extend(raw.key_path.map(|path| file(path).map(|key| vec![key])));
    given.extend(raw.key_paths.map(|paths| paths.into_iter().map(file).collect()));
    given.extend(raw.key_data.map(|data| pem(data).map(|key| vec![key])));
    given.extend(raw.key_datas.map(|datas| datas.into_iter().map(pem).collect()));
    let others = [("fulcio", raw.fulcio.is_some()), ("pki", raw.pki.is_some())];
    let others: Vec<&str> =
        others.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    let identity = raw.signed_identity.map_or(Ok(SignedIdentity::RepoDigestOrExact), identity)?;
    if given.len() + others.len() != 1 {
        let sources = "keyPath, keyPaths, keyData, keyDatas, fulcio, pki";
        return Err(format!("sigstoreSigned takes exactly one of {sources}"));
    }
    if let [other] = others.as_slice() {
        return Ok(Requirement::Unsupported(format!("a keyless signature ({other})")));
    }
    let log = raw.rekor_public_key_path.is_some()
        || raw.rekor_public_key_paths.is_some()
        || raw.rekor_public_key_data.is_some()
        || raw.rekor_public_key_datas.is_some();
    if log {
        let what = "a signature in a transparency log (rekorPublicKey)";
        return Ok(Requirement::Unsupported(what.to_owned()));
    }
    let keys = given.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    if keys.is_empty() {
        return Err("sigstoreSigned has an empty list of keys".to_owned());
    }
    Ok(Requirement::Signed { keys, identity })
}

fn identity(raw: RawIdentity) -> Result<SignedIdentity, String> {
    let name = |text: &str| {
        let name: Result<Reference, _> = text.parse();
        let name = name.map_err(|error| error.to_string())?;
        match Reference::has_registry(text) {
            true => Ok(name),
            false => Err(format!("{text:?} does not begin with a registry")),
        }
    };
    Ok(match raw {
        RawIdentity::MatchExact {} => SignedIdentity::Exact,
        RawIdentity::MatchRepoDigestOrExact {} => SignedIdentity::RepoDigestOrExact,
        RawIdentity::MatchRepository {} => SignedIdentity::Repository,
        RawIdentity::MatchDigestOnly {} => SignedIdentity::Any,
        RawIdentity::ExactReference { docker_reference } => {
            let name = name(&docker_reference)?;
            if name.tag.is_none() && name.digest.is_none() {
                return Err(format!("{docker_reference:?} has neither tag nor digest"));
            }
            SignedIdentity::ExactReference(name)
        }
        RawIdentity::ExactRepository { docker_repository } => {
            SignedIdentity::ExactRepository(bare(name(&docker_repository)?)?)
        }
        RawIdentity::RemapIdentity { prefix, signed_prefix } => {
            for prefix in [&prefix, &signed_prefix] {
                check_prefix(prefix)?;
            }
            SignedIdentity::Remap { prefix, signed_prefix }
        }
    })
}

fn bare(name: Reference) -> Result<Repository, String> {
    match (&name.tag, &name.digest) {
        (None, None) => Ok(name.repository),
        _ => Err(format!("{name} has a tag or digest, a repository is wanted")),
    }
}

/// A registry, or a registry and the start of a repository on whole parts.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let completed = match prefix.contains('/') {
        true => prefix.to_owned(),
        false => format!("{prefix}/x"),
    };
    let (registry, path) = completed.split_once('/').unwrap_or_default();
    Repository::new(registry, path).map(drop).map_err(|error| error.to_string())
}
