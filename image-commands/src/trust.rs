//! `trust`: the default trusted root and services of keyless verification and signing.

use std::path::{Path, PathBuf};

use app::{App, Runnable};
use clap::{Args, Subcommand};
use options::environment::{now, read_bounded};
use options::signer::read_root;
use options::{Failure, environment};
use sign::keyless::MAX_TRUSTED_ROOT;
use sign::online::Services;
use sign::tuf::{self, TrustDirectory, TrustedMetadata};
use task::Kind;

use crate::policy::PolicyCommand;
use crate::sign::{GenerateKeyPair, PublicKeyOf, Sign, Verify};
use crate::sign_blob::{SignBlob, VerifyBlob};

/// The trust commands of both programs.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum TrustCommand {
    Sign(Sign),
    Verify(Verify),
    #[command(visible_alias = "generate-sigstore-key")]
    GenerateKeyPair(GenerateKeyPair),
    PublicKey(PublicKeyOf),
    SignBlob(SignBlob),
    VerifyBlob(VerifyBlob),
    #[command(subcommand)]
    Trust(Trust),
    #[command(subcommand)]
    Policy(PolicyCommand),
}

impl Runnable for TrustCommand {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, TrustCommand {
            Sign, Verify, PublicKey, SignBlob, VerifyBlob, Trust, Policy,
        }
            TrustCommand::GenerateKeyPair(generate) => generate.run(),
        }
    }
}

/// Set, update and show the trusted root of keyless verification
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Store a trusted root and the signing services, from files or from a TUF repository
    Init(Init),
    /// Update the trusted root from its TUF repository
    Update,
    /// Show the stored trusted root and services
    Show,
}

/// What to store.
#[derive(Debug, Args)]
pub struct Init {
    /// Store this trusted_root.json: trusted certificate authorities, logs and timestamp
    /// authorities
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Store this signing_config.json (version 0.2): the services of keyless signing
    #[arg(long, value_name = "FILE", requires = "trusted_root")]
    signing_config: Option<PathBuf>,
    /// Get both and their updates from this TUF repository: a URL or a directory (default: the
    /// public one of sigstore)
    #[arg(long, value_name = "URL|DIR", conflicts_with = "trusted_root", requires = "root")]
    mirror: Option<String>,
    /// Trust this root.json of the TUF repository (default: that of sigstore's public repository)
    #[arg(long, value_name = "FILE", conflicts_with = "trusted_root")]
    root: Option<PathBuf>,
}

impl Runnable for Trust {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let trust = TrustDirectory(app.conf.paths.trust());
        match self {
            Trust::Init(init) => init.run(app, &trust),
            Trust::Update => {
                let (mirror, kept) = trust.mirror()?.ok_or_else(|| {
                    let directory = trust.metadata();
                    let what = format!("nothing in {} comes from a mirror", directory.display());
                    Failure::new(Kind::NotFound, what).hint("name one: `rbuild trust init`")
                })?;
                update(app, &trust, &mirror, &kept)
            }
            Trust::Show => show(app, &trust),
        }
    }
}

impl Init {
    fn run(&self, app: &App, trust: &TrustDirectory) -> Result<u8, Failure> {
        let Some(file) = &self.trusted_root else {
            let root = match &self.root {
                Some(file) => read_bounded(file, MAX_TRUSTED_ROOT)?,
                None => tuf::PUBLIC_ROOT.to_vec(),
            };
            let mirror = match &self.mirror {
                Some(place) if place.contains("://") => place.clone(),
                Some(directory) => {
                    environment::absolute(Path::new(directory))?.display().to_string()
                }
                None => tuf::PUBLIC_MIRROR.to_owned(),
            };
            return update(
                app,
                trust,
                &mirror,
                &TrustedMetadata { root, ..TrustedMetadata::default() },
            );
        };
        // Both are read before either is kept.
        let root = read_bounded(file, MAX_TRUSTED_ROOT)?;
        read_root(file)?;
        let config = match &self.signing_config {
            Some(file) => {
                read_config(file)?;
                Some(read_bounded(file, MAX_TRUSTED_ROOT)?)
            }
            None => None,
        };
        trust.set(&root, config.as_deref())?;
        outln!("kept in {}", trust.0.display());
        Ok(0)
    }
}

fn update(
    app: &App,
    trust: &TrustDirectory,
    mirror: &str,
    kept: &TrustedMetadata,
) -> Result<u8, Failure> {
    let seconds = u64::try_from(now()).unwrap_or_default();
    let kept = app.wait(trust.update(mirror, kept, seconds))??;
    outln!("kept in {}, from {mirror}", trust.0.display());
    tuf::summary(&kept, seconds)?.iter().for_each(|line| outln!("{line}"));
    Ok(0)
}

fn read_config(file: &Path) -> Result<Services, Failure> {
    let json = read_bounded(file, MAX_TRUSTED_ROOT)?;
    Services::read(&json, u64::try_from(now()).unwrap_or_default()).map_err(|why| {
        let what = format!("reading signing configuration {}: {why}", file.display());
        Failure::new(Kind::Invalid, what)
    })
}

fn show(app: &App, trust: &TrustDirectory) -> Result<u8, Failure> {
    for line in options::signer::trusted_root(app)?.summary() {
        outln!("{line}");
    }
    if let Some((mirror, kept)) = trust.mirror()? {
        outln!("updates: from {mirror}");
        let seconds = u64::try_from(now()).unwrap_or_default();
        tuf::summary(&kept, seconds)?.iter().for_each(|line| outln!("updates: {line}"));
    }
    let file = trust.signing_config();
    if file.exists() {
        let services = read_config(&file)?;
        outln!("signing: certificates from {}", services.fulcio);
        if let Some((url, _)) = &services.rekor {
            outln!("signing: log {url}");
        }
        if let Some(url) = &services.timestamps {
            outln!("signing: timestamps from {url}");
        }
    }
    Ok(0)
}
