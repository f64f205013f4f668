//! `trust`: the default trusted root and services of keyless verification and signing.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sign::keyless::MAX_TRUSTED_ROOT;
use sign::online::Services;
use task::Kind;

use super::copy::now;
use super::policy::PolicyCommand;
use super::sign::{GenerateKeyPair, Sign, Verify};
use super::sign_blob::{SignBlob, VerifyBlob};
use super::signer_flags::read_root;
use super::tags::read_bounded;
use crate::app::App;
use crate::report::Failure;

/// The trust commands of both programs.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    Sign(Sign),
    Verify(Verify),
    #[command(visible_alias = "generate-sigstore-key")]
    GenerateKeyPair(GenerateKeyPair),
    SignBlob(SignBlob),
    VerifyBlob(VerifyBlob),
    #[command(subcommand)]
    Trust(Trust),
    #[command(subcommand)]
    Policy(PolicyCommand),
}

impl TrustCommand {
    /// Runs.
    ///
    /// # Errors
    /// Those of the command.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            TrustCommand::Sign(sign) => sign.run(app),
            TrustCommand::Verify(verify) => verify.run(app),
            TrustCommand::GenerateKeyPair(generate) => generate.run(),
            TrustCommand::SignBlob(sign) => sign.run(app),
            TrustCommand::VerifyBlob(verify) => verify.run(app),
            TrustCommand::Trust(trust) => trust.run(app),
            TrustCommand::Policy(policy) => policy.run(app),
        }
    }
}

/// Set and show the trusted root of keyless verification
#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Store a trusted root and the signing services
    Init(Init),
    /// Show the stored trusted root and services
    Show,
}

/// What to store.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Store this trusted_root.json: trusted certificate authorities, logs and timestamp
    /// authorities
    #[arg(long, value_name = "FILE")]
    trusted_root: PathBuf,
    /// Store this signing_config.json (version 0.2): the services of keyless signing
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
}

impl Trust {
    /// Keeps or shows.
    ///
    /// # Errors
    /// A file cannot be read, or is malformed.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let directory = app.places.trust();
        match self {
            Trust::Init(init) => init.run(&directory),
            Trust::Show => show(app, &directory),
        }
    }
}

impl Init {
    fn run(&self, directory: &Path) -> Result<u8, Failure> {
        // Both are read before either is kept.
        let root = read_bounded(&self.trusted_root, MAX_TRUSTED_ROOT)?;
        read_root(&self.trusted_root)?;
        let config = match &self.signing_config {
            Some(file) => {
                read_config(file)?;
                Some(read_bounded(file, MAX_TRUSTED_ROOT)?)
            }
            None => None,
        };
        let failed = |error| Failure::io(format!("writing {}", directory.display()), &error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let keep = |name: &str, content: &[u8]| {
            let part = directory.join(format!(".{name}-{}", std::process::id()));
            std::fs::write(&part, content)?;
            std::fs::rename(&part, directory.join(name))
        };
        keep("trusted_root.json", &root).map_err(failed)?;
        if let Some(config) = config {
            keep("signing_config.json", &config).map_err(failed)?;
        }
        outln!("kept in {}", directory.display());
        Ok(0)
    }
}

fn read_config(file: &Path) -> Result<Services, Failure> {
    let json = read_bounded(file, MAX_TRUSTED_ROOT)?;
    Services::read(&json, u64::try_from(now()).unwrap_or_default()).map_err(|why| {
        let what = format!("reading signing configuration {}: {why}", file.display());
        Failure::new(Kind::Invalid, what)
    })
}

fn show(app: &App, directory: &Path) -> Result<u8, Failure> {
    for line in app.trusted_root()?.summary() {
        outln!("{line}");
    }
    let file = directory.join("signing_config.json");
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
