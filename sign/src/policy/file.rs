//! The grammar of `policy.json` (containers-policy.json(5)), as strict as the original: what is
//! unknown, doubled or out of place makes the whole file invalid.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Reference, Repository};
use serde::Deserialize;
use serde_json::Value;

use super::{SignedIdentity, matcher};
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
    signed_identity: Option<RawIdentity>,
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
    /// One GPG signature by one of these keys, made for the right name.
    Gpg { keys: Vec<KeySource>, identity: SignedIdentity },
    /// A check that is not known how to do; it is never satisfied.
    Unsupported(String),
}

/// Where a public key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    File(PathBuf),
    /// PEM, or a GPG key.
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
            let real = matcher::real_scope(&transport, &scope);
            if read.insert(real.clone(), requirements).is_some() {
                return Err(at(format!("another scope is the same place, {real}")));
            }
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
            if raw.key_type != "GPGKeys" {
                return Err(format!("keyType {:?} is unknown", raw.key_type));
            }
            let mut given = Vec::new();
            given.extend(raw.key_path.map(|path| key_file(path).map(|key| vec![key])));
            given.extend(raw.key_paths.map(|paths| paths.into_iter().map(key_file).collect()));
            given.extend(raw.key_data.map(|data| key_data(&data).map(|key| vec![key])));
            let [keys] = <[_; 1]>::try_from(given)
                .map_err(|_| "signedBy takes exactly one of keyPath, keyPaths, keyData")?;
            let keys: Vec<KeySource> = keys?;
            if keys.is_empty() {
                return Err("signedBy has an empty list of keys".to_owned());
            }
            let identity =
                raw.signed_identity.map_or(Ok(SignedIdentity::RepoDigestOrExact), identity)?;
            Ok(Requirement::Gpg { keys, identity })
        }
        RawRequirement::SigstoreSigned(raw) => sigstore(*raw),
    }
}

fn key_file(path: PathBuf) -> Result<KeySource, String> {
    match path.is_absolute() {
        true => Ok(KeySource::File(path)),
        false => Err(format!("key path {path:?} is not absolute")),
    }
}

fn key_data(data: &str) -> Result<KeySource, String> {
    match STANDARD.decode(data) {
        Ok(key) => Ok(KeySource::Pem(key)),
        Err(error) => Err(format!("key data is no base64: {error}")),
    }
}

fn sigstore(raw: RawSigstore) -> Result<Requirement, String> {
    let (file, pem) = (key_file, |data: String| key_data(&data));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(requirement: &str) -> String {
        format!(r#"{{"default":[{requirement}]}}"#)
    }

    fn one(requirement: &str) -> Requirement {
        read(with(requirement).as_bytes()).unwrap().default.remove(0)
    }

    #[test]
    fn requirements_are_read() {
        assert_eq!(one(r#"{"type":"insecureAcceptAnything"}"#), Requirement::Accept);
        assert_eq!(one(r#"{"type":"reject"}"#), Requirement::Reject);
        let file = |path: &str| KeySource::File(path.into());
        let keys = [
            (r#""keyPath":"/k""#, vec![file("/k")]),
            (r#""keyPaths":["/k","/l"]"#, vec![file("/k"), file("/l")]),
            (r#""keyData":"UEVN""#, vec![KeySource::Pem(b"PEM".to_vec())]),
            (r#""keyDatas":["UEVN"]"#, vec![KeySource::Pem(b"PEM".to_vec())]),
        ];
        for (text, keys) in keys {
            let read = one(&format!(r#"{{"type":"sigstoreSigned",{text}}}"#));
            let identity = SignedIdentity::RepoDigestOrExact;
            assert_eq!(read, Requirement::Signed { keys, identity });
        }
        let read = one(r#"{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k","/l"]}"#);
        let identity = SignedIdentity::RepoDigestOrExact;
        assert_eq!(read, Requirement::Gpg { keys: vec![file("/k"), file("/l")], identity });
        let name: Reference = "r.example/a:1".parse().unwrap();
        let identities = [
            (r#"{"type":"matchExact"}"#, SignedIdentity::Exact),
            (r#"{"type":"matchRepository"}"#, SignedIdentity::Repository),
            (r#"{"type":"matchRepoDigestOrExact"}"#, SignedIdentity::RepoDigestOrExact),
            (r#"{"type":"matchDigestOnly"}"#, SignedIdentity::Any),
            (
                r#"{"type":"exactReference","dockerReference":"r.example/a:1"}"#,
                SignedIdentity::ExactReference(name.clone()),
            ),
            (
                r#"{"type":"exactRepository","dockerRepository":"r.example/a"}"#,
                SignedIdentity::ExactRepository(name.repository),
            ),
            (
                r#"{"type":"remapIdentity","prefix":"r.example:5000","signedPrefix":"s.example/t"}"#,
                SignedIdentity::Remap {
                    prefix: "r.example:5000".to_owned(),
                    signed_prefix: "s.example/t".to_owned(),
                },
            ),
        ];
        for (text, expected) in identities {
            let text =
                format!(r#"{{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{text}}}"#);
            let Requirement::Signed { identity, .. } = one(&text) else { panic!("{text}") };
            assert_eq!(identity, expected);
        }
    }

    #[test]
    fn checks_that_cannot_be_done_are_known_as_such() {
        let unsupported = [
            r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/ca","oidcIssuer":"x","subjectEmail":"y"}}"#,
            r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/ca"}}"#,
            r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}"#,
        ];
        for text in unsupported {
            assert!(matches!(one(text), Requirement::Unsupported(_)), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_doubled_or_missing_makes_the_file_invalid() {
        let signed = |rest: &str| with(&format!(r#"{{"type":"sigstoreSigned",{rest}}}"#));
        let scope = |transport: &str, scope: &str| {
            format!(
                r#"{{"default":[{{"type":"reject"}}],"transports":{{"{transport}":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
            )
        };
        let cases = [
            ("{}".to_owned(), "missing field `default`"),
            (r#"{"default":[]}"#.to_owned(), "empty"),
            (r#"{"default":[{"type":"reject"}],"defaults":[]}"#.to_owned(), "unknown field"),
            (r#"{"default":[{"type":"reject"}],"default":[]}"#.to_owned(), "duplicate field"),
            (with("{}"), "missing field `type`"),
            (with(r#"{"type":"acceptAll"}"#), "unknown variant `acceptAll`"),
            (with(r#"{"type":"reject","keyPath":"/k"}"#), "unknown field"),
            (with(r#"{"type":"reject","type":"reject"}"#), "duplicate field"),
            (signed(r#""keyPath":"/k","keyPath":"/l""#), "duplicate field"),
            (signed(r#""signedIdentity":{"type":"matchExact"}"#), "exactly one of"),
            (signed(r#""keyPath":"/k","keyData":"UEVN""#), "exactly one of"),
            (signed(r#""keyPath":"/k","fulcio":{}"#), "exactly one of"),
            (signed(r#""keyPaths":[]"#), "empty list of keys"),
            (signed(r#""keyPath":"relative""#), "not absolute"),
            (signed(r#""keyData":"%""#), "no base64"),
            (signed(r#""keyPath":"/k","keyFile":"/k""#), "unknown field"),
            (signed(r#""keyPath":"/k","signedIdentity":{"type":"matchAny"}"#), "unknown variant"),
            (
                signed(r#""keyPath":"/k","signedIdentity":{"type":"matchExact","x":1}"#),
                "unknown field",
            ),
            (
                signed(
                    r#""keyPath":"/k","signedIdentity":{"type":"exactReference","dockerReference":"r.example/a"}"#,
                ),
                "neither tag nor digest",
            ),
            (
                signed(
                    r#""keyPath":"/k","signedIdentity":{"type":"exactRepository","dockerRepository":"r.example/a:1"}"#,
                ),
                "a repository is wanted",
            ),
            (
                signed(
                    r#""keyPath":"/k","signedIdentity":{"type":"exactRepository","dockerRepository":"busybox"}"#,
                ),
                "does not begin with a registry",
            ),
            (
                signed(
                    r#""keyPath":"/k","signedIdentity":{"type":"remapIdentity","prefix":"","signedPrefix":"r.example"}"#,
                ),
                "registry",
            ),
            (with(r#"{"type":"signedBy","keyType":"X","keyPath":"/k"}"#), "keyType"),
            (with(r#"{"type":"signedBy","keyType":"GPGKeys"}"#), "exactly one of"),
            (scope("docker", "example*.com"), "a wildcard has the form"),
            (scope("docker", "*.example.com/a"), "a wildcard has the form"),
            (scope("docker", "https://r.example"), "the start of an image's full name"),
            (scope("dir", "/"), "use the empty scope"),
            (scope("oci", "relative"), "a path is absolute"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#
                    .to_owned(),
                "\"docker\" appears twice",
            ),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#.to_owned(),
                "transport \"docker\", scope \"a\": the list of requirements is empty",
            ),
        ];
        for (json, message) in cases {
            let error = read(json.as_bytes()).expect_err(&json);
            assert!(error.contains(message), "{json}: {error:?} is not about {message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"\{"default":\[[\{\}a-zA-Z":,/*.0-9\[\]]{0,80}"#) {
            let _ = read(text.as_bytes());
        }
    }
}
