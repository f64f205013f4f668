//! The grammar of `policy.json` (containers-policy.json(5)), as strict as the original: what is
//! unknown, doubled or out of place makes the whole file invalid.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use image::{Reference, Repository};
use serde::Deserialize;

use super::sigstore::{Authenticator, Content};
use super::{scopes, sigstore};
use crate::signed_identity::SignedIdentity;
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
    SigstoreSigned(Box<sigstore::Raw>),
    SignedBy(RawSignedBy),
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
pub(super) enum RawIdentity {
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
    /// One signature by a trusted signer, with the right name, and in one of the logs with these
    /// keys if there are any.
    Signed { by: Authenticator, logs: Option<Vec<Content>>, identity: SignedIdentity },
    /// One GPG signature by one of these keys, made for the right name.
    Gpg { keys: Vec<Content>, identity: SignedIdentity },
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::Accept => f.write_str("nothing"),
            Requirement::Reject => f.write_str("the impossible: the scope is rejected"),
            Requirement::Signed { by, logs, identity } => {
                write!(f, "a signature {by}, {identity}")?;
                if logs.is_some() { f.write_str(", in a log that is trusted") } else { Ok(()) }
            }
            Requirement::Gpg { keys, identity } => {
                write!(f, "a GPG signature by one of {} key files, {identity}", keys.len())
            }
        }
    }
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
            let real = scopes::real_scope(&transport, &scope);
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
            let keys = sigstore::one_of("keys", raw.key_path, raw.key_paths, raw.key_data, None)?;
            let keys = keys.ok_or("signedBy takes exactly one of keyPath, keyPaths, keyData")?;
            let identity =
                raw.signed_identity.map_or(Ok(SignedIdentity::RepoDigestOrExact), identity)?;
            Ok(Requirement::Gpg { keys, identity })
        }
        RawRequirement::SigstoreSigned(raw) => signed(*raw),
    }
}

fn signed(mut raw: sigstore::Raw) -> Result<Requirement, String> {
    let signed = raw.signed_identity.take();
    let identity = signed.map_or(Ok(SignedIdentity::IfNamed), identity)?;
    let (by, logs) = raw.read()?;
    Ok(Requirement::Signed { by, logs, identity })
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
            // A tag says nothing here, as in containers' own libraries.
            SignedIdentity::ExactRepository(name(&docker_repository)?.repository)
        }
        RawIdentity::RemapIdentity { prefix, signed_prefix } => {
            for prefix in [&prefix, &signed_prefix] {
                check_prefix(prefix)?;
            }
            SignedIdentity::Remap { prefix, signed_prefix }
        }
    })
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
        let file = |path: &str| Content::File(path.into());
        let keys = [
            (r#""keyPath":"/k""#, vec![file("/k")]),
            (r#""keyPaths":["/k","/l"]"#, vec![file("/k"), file("/l")]),
            (r#""keyData":"UEVN""#, vec![Content::Data(b"PEM".to_vec())]),
            (r#""keyDatas":["UEVN"]"#, vec![Content::Data(b"PEM".to_vec())]),
        ];
        for (text, keys) in keys {
            let read = one(&format!(r#"{{"type":"sigstoreSigned",{text}}}"#));
            let identity = SignedIdentity::IfNamed;
            let by = Authenticator::Keys(keys);
            assert_eq!(read, Requirement::Signed { by, logs: None, identity });
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
                SignedIdentity::ExactRepository(name.repository.clone()),
            ),
            (
                r#"{"type":"exactRepository","dockerRepository":"r.example/a:1"}"#,
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
    fn certificates_and_logs_are_read() {
        let good = [
            r#""fulcio":{"caPath":"/ca","oidcIssuer":"x","subjectEmail":"y"},"rekorPublicKeyPath":"/r""#,
            r#""fulcio":{"caData":"UEVN","oidcIssuerRegExp":"x","subjectURI":"y"},"rekorPublicKeyDatas":["UEVN"]"#,
            r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x","subjectRegExp":"y.*","githubWorkflowRef":"r"}"#,
            r#""pki":{"caRootsPath":"/ca","subjectHostname":"h"}"#,
            r#""pki":{"caRootsData":"UEVN","caIntermediatesPath":"/i","subjectEmail":"y","subjectHostname":"h"}"#,
            r#""keyPath":"/k","rekorPublicKeyPaths":["/r"]"#,
        ];
        for text in good {
            let read = one(&format!(r#"{{"type":"sigstoreSigned",{text}}}"#));
            assert!(matches!(read, Requirement::Signed { .. }), "{text}");
        }
        let bad = [
            (
                r#""fulcio":{"caPath":"/ca","oidcIssuer":"x","subjectEmail":"y"}"#,
                "rekorPublicKeyPath",
            ),
            (r#""fulcio":{"caPath":"/ca","trustedRootPath":"/t"}"#, "exactly one of caPath"),
            (
                r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x","subjectEmail":"y"},"rekorPublicKeyPath":"/r""#,
                "contains its logs",
            ),
            (
                r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x"}"#,
                "exactly one of subjectEmail",
            ),
            (
                r#""fulcio":{"trustedRootPath":"/t","subjectEmail":"y"}"#,
                "exactly one of oidcIssuer",
            ),
            (r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x","subjectRegExp":"("}"#, "regex"),
            (r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x","subjectRegExp":""}"#, "empty"),
            (
                r#""fulcio":{"trustedRootPath":"/t","oidcIssuer":"x","subjectEmail":"y","x":1}"#,
                "unknown field",
            ),
            (r#""pki":{"caRootsPath":"/ca"}"#, "subjectEmail"),
            (r#""pki":{"subjectEmail":"y"}"#, "caRootsPath"),
            (
                r#""pki":{"caRootsPath":"/ca","subjectEmail":"y"},"rekorPublicKeyPath":"/r""#,
                "no Rekor keys",
            ),
            (
                r#""keyPath":"/k","rekorPublicKeyPath":"/r","rekorPublicKeyData":"UEVN""#,
                "more than one way",
            ),
            (r#""keyPath":"/k","rekorPublicKeyPaths":[]"#, "is empty"),
        ];
        for (text, message) in bad {
            let text = with(&format!(r#"{{"type":"sigstoreSigned",{text}}}"#));
            let error = read(text.as_bytes()).expect_err(&text);
            assert!(error.contains(message), "{text}: {error:?} is not about {message:?}");
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
            (signed(r#""keyPath":"/k","keyData":"UEVN""#), "more than one way"),
            (signed(r#""keyPath":"/k","fulcio":{}"#), "exactly one of"),
            (signed(r#""keyPaths":[]"#), "keys is empty"),
            (signed(r#""keyPath":"relative""#), "not absolute"),
            (signed(r#""keyData":"%""#), "not base64"),
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
