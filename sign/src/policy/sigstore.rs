//! `sigstoreSigned` of a policy (containers-policy.json(5)): keys, certificates of Fulcio, or
//! those of an own authority; and what of it is in files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::files::read_file;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::key::PublicKey;
use crate::keyless::{
    Authority, IdentityRule, Log, MAX_TRUSTED_ROOT, Matching, TrustedRoot, Window,
};
use crate::pem;
use crate::signers::Signers;

/// Content of a file, or content that stands in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// An absolute path.
    File(PathBuf),
    /// A key or certificate: PEM, or a GPG key.
    Data(Vec<u8>),
}

/// Who is to have signed, as the policy says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authenticator {
    /// The holder of one of these keys.
    Keys(Vec<Content>),
    /// The identity in a certificate of Fulcio.
    Fulcio { trust: FulcioTrust, rule: IdentityRule },
    /// The identity in a certificate of a private authority.
    Pki { roots: Content, intermediates: Option<Content>, rule: IdentityRule },
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FulcioTrust {
    /// Those of these authorities.
    Authorities(Content),
    /// Those of a `trusted_root.json`, with its logs and timestamps.
    Root(Content),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<RawFulcio>,
    pki: Option<RawPki>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    pub(super) signed_identity: Option<super::file::RawIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFulcio {
    ca_path: Option<PathBuf>,
    ca_data: Option<String>,
    trusted_root_path: Option<PathBuf>,
    trusted_root_data: Option<String>,
    oidc_issuer: Option<String>,
    oidc_issuer_reg_exp: Option<String>,
    subject_email: Option<String>,
    #[serde(rename = "subjectURI")]
    subject_uri: Option<String>,
    subject_reg_exp: Option<String>,
    github_workflow_trigger: Option<String>,
    github_workflow_sha: Option<String>,
    github_workflow_name: Option<String>,
    github_workflow_repository: Option<String>,
    github_workflow_ref: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPki {
    ca_roots_path: Option<PathBuf>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<PathBuf>,
    ca_intermediates_data: Option<String>,
    subject_email: Option<String>,
    subject_hostname: Option<String>,
}

const TRUST: &str = "caPath, caData, trustedRootPath, trustedRootData";
const LOGS: &str =
    "rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData, rekorPublicKeyDatas";

type ParseResult<T> = std::result::Result<T, String>;

/// A path, which must be absolute.
pub(super) fn file(path: PathBuf) -> ParseResult<Content> {
    match path.is_absolute() {
        true => Ok(Content::File(path)),
        false => Err(format!("path {path:?} is not absolute")),
    }
}

/// Data in base64.
pub(super) fn data(text: &str) -> ParseResult<Content> {
    let bytes = STANDARD.decode(text);
    bytes.map(Content::Data).map_err(|error| format!("data is not base64: {error}"))
}

/// Exactly one of the ways to say it, or `None` where there is none.
pub(super) fn one_of(
    what: &str,
    path: Option<PathBuf>,
    paths: Option<Vec<PathBuf>>,
    text: Option<String>,
    texts: Option<Vec<String>>,
) -> ParseResult<Option<Vec<Content>>> {
    let mut given: Vec<ParseResult<Vec<Content>>> = Vec::new();
    given.extend(path.map(|path| file(path).map(|one| vec![one])));
    given.extend(paths.map(|paths| paths.into_iter().map(file).collect()));
    given.extend(text.map(|text| data(&text).map(|one| vec![one])));
    given.extend(texts.map(|texts| texts.iter().map(|text| data(text)).collect()));
    match given.len() {
        0 => Ok(None),
        1 => match given.swap_remove(0)? {
            empty if empty.is_empty() => Err(format!("the list of {what} is empty")),
            list => Ok(Some(list)),
        },
        _ => Err(format!("{what} are given in more than one way")),
    }
}

impl Raw {
    /// The required signer, and the keys of logs, one of which must contain the signature.
    pub(super) fn read(self) -> ParseResult<(Authenticator, Option<Vec<Content>>)> {
        let keys = one_of("keys", self.key_path, self.key_paths, self.key_data, self.key_datas)?;
        let logs = one_of(
            "Rekor keys",
            self.rekor_public_key_path,
            self.rekor_public_key_paths,
            self.rekor_public_key_data,
            self.rekor_public_key_datas,
        )?;
        let authenticator = match (keys, self.fulcio, self.pki) {
            (Some(keys), None, None) => Authenticator::Keys(keys),
            (None, Some(fulcio), None) => fulcio.read(logs.is_some())?,
            (None, None, Some(pki)) if logs.is_none() => pki.read()?,
            (None, None, Some(_)) => return Err("pki takes no Rekor keys".to_owned()),
            _ => {
                let sources = "keyPath, keyPaths, keyData, keyDatas, fulcio, pki";
                return Err(format!("sigstoreSigned takes exactly one of {sources}"));
            }
        };
        Ok((authenticator, logs))
    }
}

impl RawFulcio {
    fn read(self, logs: bool) -> ParseResult<Authenticator> {
        let authorities = one_of("CA certificates", self.ca_path, None, self.ca_data, None)?;
        let root =
            one_of("trusted roots", self.trusted_root_path, None, self.trusted_root_data, None)?;
        let trust = match (authorities, root) {
            (Some(mut one), None) => FulcioTrust::Authorities(one.swap_remove(0)),
            (None, Some(mut one)) => FulcioTrust::Root(one.swap_remove(0)),
            _ => return Err(format!("fulcio takes exactly one of {TRUST}")),
        };
        match (&trust, logs) {
            (FulcioTrust::Authorities(_), false) => {
                return Err(format!("fulcio with a CA takes one of {LOGS}"));
            }
            (FulcioTrust::Root(_), true) => {
                return Err(
                    "a trusted root contains its logs; rekorPublicKey… cannot be combined with it"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let issuer = one_matching(
            "oidcIssuer, oidcIssuerRegExp",
            [self.oidc_issuer.map(Matching::Exact).map(Ok), pattern(self.oidc_issuer_reg_exp)],
        )?;
        let subject = one_matching(
            "subjectEmail, subjectURI, subjectRegExp",
            [
                self.subject_email.map(Matching::Email).map(Ok),
                self.subject_uri.map(Matching::Exact).map(Ok),
                pattern(self.subject_reg_exp),
            ],
        )?;
        let claims = [
            ("githubWorkflowTrigger", self.github_workflow_trigger),
            ("githubWorkflowSha", self.github_workflow_sha),
            ("githubWorkflowName", self.github_workflow_name),
            ("githubWorkflowRepository", self.github_workflow_repository),
            ("githubWorkflowRef", self.github_workflow_ref),
        ];
        let claims = claims.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let claims: BTreeMap<_, _> = claims.collect();
        let rule = IdentityRule { subjects: vec![subject], issuer: Some(issuer), claims };
        Ok(Authenticator::Fulcio { trust, rule })
    }
}

fn pattern(text: Option<String>) -> Option<ParseResult<Matching>> {
    text.map(|text| Matching::pattern(&text))
}

fn one_matching<const N: usize>(
    names: &str,
    given: [Option<ParseResult<Matching>>; N],
) -> ParseResult<Matching> {
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => one,
        _ => Err(format!("fulcio takes exactly one of {names}")),
    }
}

impl RawPki {
    fn read(self) -> ParseResult<Authenticator> {
        let roots = one_of("roots", self.ca_roots_path, None, self.ca_roots_data, None)?;
        let roots =
            roots.ok_or("pki takes exactly one of caRootsPath, caRootsData")?.swap_remove(0);
        let (path, text) = (self.ca_intermediates_path, self.ca_intermediates_data);
        let intermediates = one_of("intermediates", path, None, text, None)?;
        let email = self.subject_email.map(Matching::Email);
        let subjects: Vec<_> =
            email.into_iter().chain(self.subject_hostname.map(Matching::Host)).collect();
        if subjects.is_empty() {
            return Err("pki takes subjectEmail, subjectHostname, or both".to_owned());
        }
        let rule = IdentityRule { subjects, issuer: None, claims: BTreeMap::new() };
        let intermediates = intermediates.map(|mut one| one.swap_remove(0));
        Ok(Authenticator::Pki { roots, intermediates, rule })
    }
}

impl fmt::Display for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authenticator::Keys(keys) => {
                let places: Vec<_> = keys.iter().map(Content::place).collect();
                write!(f, "with the key of {}", places.join(" or "))
            }
            Authenticator::Fulcio { rule, .. } => write!(f, "by {rule}"),
            Authenticator::Pki { rule, .. } => write!(f, "with a certificate of {rule}"),
        }
    }
}

impl Authenticator {
    /// What the policy names to know signers by.
    pub(super) fn contents(&self) -> Vec<&Content> {
        match self {
            Authenticator::Keys(keys) => keys.iter().collect(),
            Authenticator::Fulcio {
                trust: FulcioTrust::Authorities(one) | FulcioTrust::Root(one),
                ..
            } => vec![one],
            Authenticator::Pki { roots, intermediates, .. } => {
                [roots].into_iter().chain(intermediates).collect()
            }
        }
    }
}

impl Content {
    /// The digest of what it holds now.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn digest(&self) -> Result<image::Digest> {
        Ok(image::Digest::of(&self.bytes("file of the policy", MAX_TRUSTED_ROOT)?))
    }

    fn bytes(&self, what: &'static str, limit: u64) -> Result<Vec<u8>> {
        match self {
            Content::Data(bytes) => Ok(bytes.clone()),
            Content::File(path) => read_file(what, path, limit),
        }
    }

    /// Where it is, for messages.
    fn place(&self) -> String {
        match self {
            Content::Data(_) => "data in the policy".to_owned(),
            Content::File(path) => path.display().to_string(),
        }
    }
}

/// A public key.
pub(super) fn key(content: &Content) -> Result<PublicKey> {
    PublicKey::read(&content.bytes("public key", pem::MAX_PEM as u64)?)
}

fn certificates(content: &Content) -> Result<Vec<Vec<u8>>> {
    let bytes = content.bytes("certificates", pem::MAX_PEM as u64)?;
    let blocks = pem::all(&bytes, |label| label == "CERTIFICATE");
    let blocks = blocks.map_err(|reason| Error::Trust { name: content.place(), reason })?;
    Ok(blocks.into_iter().map(|block| block.bytes.to_vec()).collect())
}

/// Each certificate is trusted by itself, with all others as what may lie between.
fn authorities(roots: &[Vec<u8>], between: &[Vec<u8>]) -> Vec<Authority> {
    let one = |root: &Vec<u8>| {
        let chain = between.iter().chain([root]).cloned().collect();
        Authority { chain, window: Window::default() }
    };
    roots.iter().map(one).collect()
}

/// Reads what an authenticator names. `now` is when certificates of an own authority must be
/// valid, in seconds since 1970.
pub(super) fn signers(
    by: &Authenticator,
    logs: Option<&Vec<Content>>,
    now: Option<u64>,
) -> Result<Signers> {
    let logs = logs.map(|logs| logs.iter().map(log).collect::<Result<Vec<_>>>()).transpose()?;
    match by {
        Authenticator::Keys(keys) => {
            let keys = keys.iter().map(key).collect::<Result<_>>()?;
            Ok(Signers { logs, ..Signers::keys(keys) })
        }
        Authenticator::Fulcio { trust, rule } => {
            let root = match trust {
                FulcioTrust::Root(content) => {
                    let json = content.bytes("trusted root", MAX_TRUSTED_ROOT)?;
                    TrustedRoot::read(&json)
                        .map_err(|reason| Error::Trust { name: content.place(), reason })?
                }
                FulcioTrust::Authorities(content) => {
                    let authorities = authorities(&certificates(content)?, &[]);
                    TrustedRoot { authorities, logs, ..TrustedRoot::default() }
                }
            };
            let identities = vec![rule.clone()];
            Ok(Signers { identities, root: Some(Arc::new(root)), ..Signers::default() })
        }
        Authenticator::Pki { roots, intermediates, rule } => {
            let between = intermediates.as_ref().map_or(Ok(Vec::new()), certificates)?;
            let authorities = authorities(&certificates(roots)?, &between);
            let root = TrustedRoot { authorities, now, ..TrustedRoot::default() };
            let identities = vec![rule.clone()];
            Ok(Signers { identities, root: Some(Arc::new(root)), ..Signers::default() })
        }
    }
}

fn log(content: &Content) -> Result<Log> {
    let key = key(content)?.spki().clone();
    Ok(Log { id: sha256(key.der()).to_vec(), key, window: Window::default() })
}

/// Reads the GPG key.
pub(super) fn gpg_key(content: &Content) -> Result<Vec<u8>> {
    content.bytes("GPG key", crate::gpg::MAX_KEYS)
}
