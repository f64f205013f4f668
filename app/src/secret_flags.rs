//! `--secret-scan`: flags of what pushes images.

use std::path::PathBuf;
use std::sync::Arc;

use builder::{SecretGuard, Warn};
use clap::{Args, ValueEnum};
use options::Failure;
use options::environment::read_bounded;
use sbom::AllowList;
use task::Kind;
use transport::{Gate, Open};

use crate::App;

/// No longer list is read.
const MAX_LIST: u64 = 1 << 20;

/// What happens to an image with secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum SecretScan {
    /// It is not searched
    #[default]
    Off,
    /// It is pushed, with a warning
    Warn,
    /// It is not pushed
    Fail,
}

/// Searching for secrets before a push.
#[derive(Debug, Clone, Default, Args)]
pub struct SecretFlags {
    /// Search layers, environment, labels and history for secrets before a push
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        default_value_t,
        env = "RBUILD_SECRET_SCAN",
        help_heading = "Supply chain"
    )]
    secret_scan: SecretScan,
    /// Allow the findings that this file lists: RULE and PLACE per line
    #[arg(long, value_name = "FILE", help_heading = "Supply chain")]
    secret_allow: Option<PathBuf>,
}

impl SecretFlags {
    /// What the environment says, for a command without these flags.
    ///
    /// # Errors
    /// The variable is no mode.
    pub fn usual() -> Result<SecretFlags, Failure> {
        let text = std::env::var("RBUILD_SECRET_SCAN").unwrap_or_default();
        let refuse = |why| Failure::usage(format!("$RBUILD_SECRET_SCAN: {why}"));
        let secret_scan = match text.as_str() {
            "" => SecretScan::default(),
            text => SecretScan::from_str(text, false).map_err(refuse)?,
        };
        Ok(SecretFlags { secret_scan, ..SecretFlags::default() })
    }

    /// What lets images out.
    ///
    /// # Errors
    /// The list cannot be read; the store cannot be opened.
    pub fn guard(&self, app: &App) -> Result<Arc<dyn Gate>, Failure> {
        let allowed = match &self.secret_allow {
            Some(_) if self.secret_scan == SecretScan::Off => {
                return Err(Failure::usage("--secret-allow needs --secret-scan=warn or fail"));
            }
            Some(file) => {
                let text = read_bounded(file, MAX_LIST)?;
                AllowList::parse(&String::from_utf8_lossy(&text)).map_err(|why| {
                    let what = format!("reading {}: {why}", file.display());
                    Failure::new(Kind::Invalid, what)
                })?
            }
            None => AllowList::default(),
        };
        let warn: Option<Arc<Warn>> = match self.secret_scan {
            SecretScan::Off => return Ok(Arc::new(Open)),
            SecretScan::Warn => Some(Arc::new(|text| eprintln!("warning: {text}"))),
            SecretScan::Fail => None,
        };
        Ok(Arc::new(SecretGuard { store: Some(app.store()?.clone()), allowed, warn }))
    }
}
