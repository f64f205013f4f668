//! Who is trusted to sign: flags of everything that verifies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use sign::keyless::MAX_TRUSTED_ROOT;
use sign::{IdentityRule, Matching, PublicKey, Signers, TrustedRoot};
use task::Kind;

use crate::environment::read_bounded;
use crate::key_file::public_key;
use crate::sealer::remote_key;
use crate::{Failure, Program};

/// Who is trusted to sign. The flags have cosign's names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Who must have signed")]
pub struct SignerFlags {
    /// Trust this public key; repeatable, one signature is enough
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Require this mail address or URI in the signer's certificate
    #[arg(long, value_name = "NAME", conflicts_with = "certificate_identity_regexp")]
    certificate_identity: Option<String>,
    /// The same as a regular expression that must match the whole name
    #[arg(long, value_name = "PATTERN")]
    certificate_identity_regexp: Option<String>,
    /// Require this OpenID provider (URL) in the signer's certificate
    #[arg(long, value_name = "URL", conflicts_with = "certificate_oidc_issuer_regexp")]
    certificate_oidc_issuer: Option<String>,
    /// The same as a regular expression that must match the whole URL
    #[arg(long, value_name = "PATTERN")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// Require that this GitHub event started the workflow
    #[arg(long, value_name = "EVENT")]
    certificate_github_workflow_trigger: Option<String>,
    /// Require that the workflow ran on this commit
    #[arg(long, value_name = "SHA")]
    certificate_github_workflow_sha: Option<String>,
    /// Require this name of the workflow
    #[arg(long, value_name = "NAME")]
    certificate_github_workflow_name: Option<String>,
    /// Require this repository of the workflow
    #[arg(long, value_name = "OWNER/NAME")]
    certificate_github_workflow_repository: Option<String>,
    /// Require that the workflow ran on this branch or tag
    #[arg(long, value_name = "REF")]
    certificate_github_workflow_ref: Option<String>,
    /// Trust the authorities and logs in this trusted_root.json (default: as set by `trust init`)
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
}

impl SignerFlags {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// A key or trusted root cannot be read; no signer is named; an identity is incomplete.
    pub fn signers(&self, program: &impl Program) -> Result<Signers, Failure> {
        let keys = self.key.iter().map(|key| any_public_key(program, key));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let mut signers = Signers::keys(keys);
        if let Some(rule) = self.rule()? {
            signers.identities.push(rule);
            let root = match &self.trusted_root {
                Some(file) => read_root(file)?,
                None => trusted_root(program)?,
            };
            signers.root = Some(Arc::new(root));
        } else if self.trusted_root.is_some() {
            return Err(Failure::usage("--trusted-root needs --certificate-identity"));
        }
        if signers.keys.is_empty() && signers.identities.is_empty() {
            return Err(Failure::usage("no signer is named").hint(
                "give --key FILE, or --certificate-identity NAME and --certificate-oidc-issuer URL",
            ));
        }
        Ok(signers)
    }

    fn rule(&self) -> Result<Option<IdentityRule>, Failure> {
        let matching = |exact: &Option<String>, pattern: &Option<String>| match (exact, pattern) {
            (Some(text), _) => Ok(Some(Matching::Exact(text.clone()))),
            (None, Some(text)) => {
                Matching::pattern(text).map(Some).map_err(|why| Failure::usage(why.clone()))
            }
            (None, None) => Ok(None),
        };
        let subject = matching(&self.certificate_identity, &self.certificate_identity_regexp)?;
        let issuer = matching(&self.certificate_oidc_issuer, &self.certificate_oidc_issuer_regexp)?;
        let claims = [
            ("githubWorkflowTrigger", &self.certificate_github_workflow_trigger),
            ("githubWorkflowSha", &self.certificate_github_workflow_sha),
            ("githubWorkflowName", &self.certificate_github_workflow_name),
            ("githubWorkflowRepository", &self.certificate_github_workflow_repository),
            ("githubWorkflowRef", &self.certificate_github_workflow_ref),
        ];
        let claims = claims.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let claims: BTreeMap<_, _> = claims.map(|(name, value)| (name.to_owned(), value)).collect();
        match (subject, issuer) {
            (Some(subject), Some(issuer)) => {
                let (subjects, issuer) = (vec![subject], Some(issuer));
                Ok(Some(IdentityRule { subjects, issuer, claims }))
            }
            (None, None) if claims.is_empty() => Ok(None),
            (None, _) => Err(Failure::usage("the signer's identity is not given")
                .hint("give --certificate-identity or --certificate-identity-regexp")),
            // A name says nothing without who vouches for it.
            (_, None) => Err(Failure::usage("the signer's OpenID provider is not given")
                .hint("give --certificate-oidc-issuer or --certificate-oidc-issuer-regexp")),
        }
    }
}

/// The public half of a key in a file, or in a key service.
///
/// # Errors
/// It cannot be read; the service refuses.
pub fn any_public_key(program: &impl Program, key: &Path) -> Result<PublicKey, Failure> {
    match remote_key(program, key)? {
        Some(key) => Ok(key.public().clone()),
        None => public_key(key),
    }
}

/// Reads a `trusted_root.json`.
///
/// # Errors
/// It cannot be read, or is malformed.
pub fn read_root(file: &Path) -> Result<TrustedRoot, Failure> {
    let json = read_bounded(file, MAX_TRUSTED_ROOT)?;
    TrustedRoot::read(&json).map_err(|why| {
        Failure::new(Kind::Invalid, format!("reading trusted root {}: {why}", file.display()))
    })
}

/// Whose certificates, logs and timestamps are trusted where no flag says: what
/// `rbuild trust init` keeps.
///
/// # Errors
/// There is none, or it is malformed.
pub fn trusted_root(program: &impl Program) -> Result<TrustedRoot, Failure> {
    let file = program.trust().join("trusted_root.json");
    if !file.exists() {
        let what = format!("{} is not there", file.display());
        return Err(Failure::new(Kind::NotFound, what)
            .hint("pass one with --trusted-root FILE, or store one with `rbuild trust init`"));
    }
    read_root(&file)
}
