//! What every command of `rcopy` takes beside the flags of both programs: skopeo's globals.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use image::Platform;
use task::Kind;

use crate::Failure;
use crate::flags;

/// Skopeo's global flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Settings {
    /// Fail if a command takes longer than this: 30s, 5m
    #[arg(long, global = true, value_name = "DURATION", value_parser = deadline)]
    pub command_timeout: Option<Deadline>,
    /// The same as --log debug
    #[arg(long, global = true)]
    pub debug: bool,
    /// Do not check the signature policy
    #[arg(long, global = true, conflicts_with = "policy")]
    pub insecure_policy: bool,
    /// Refuse images whose signatures the policy does not check
    #[arg(long, global = true, conflicts_with = "insecure_policy")]
    pub require_signed: bool,
    /// Choose images for this architecture (default: the machine's)
    #[arg(long, global = true, value_name = "ARCH")]
    pub override_arch: Option<String>,
    /// Choose images for this operating system (default: the machine's)
    #[arg(long, global = true, value_name = "OS")]
    pub override_os: Option<String>,
    /// Choose images for this variant of the architecture
    #[arg(long, global = true, value_name = "VARIANT")]
    pub override_variant: Option<String>,
    /// Directory for layers while they are compressed again (default: /var/tmp)
    #[arg(long, global = true, value_name = "DIR")]
    pub tmpdir: Option<PathBuf>,
    /// Speak only the TLS that this file allows (containers-tls-details.yaml)
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_details: Option<PathBuf>,
    /// `--tls-verify` before the command, if the command has none of its own.
    #[arg(skip)]
    pub tls_verify: Option<bool>,
    /// Send this User-Agent to registries
    #[arg(long, global = true, value_name = "TEXT")]
    pub user_agent: Option<String>,
    /// Put this in front of the User-Agent
    #[arg(long, global = true, value_name = "TEXT", conflicts_with = "user_agent")]
    pub user_agent_prefix: Option<String>,
}

/// When a command must have ended.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    end: Instant,
    after: Duration,
}

fn deadline(text: &str) -> Result<Deadline, String> {
    let after = flags::duration(text)?;
    let end = Instant::now().checked_add(after);
    Ok(Deadline { end: end.ok_or_else(|| format!("{text:?} is too long"))?, after })
}

impl Settings {
    /// The platform images are chosen for.
    pub fn platform(&self) -> Platform {
        let host = Platform::host();
        if self.override_arch.is_none()
            && self.override_os.is_none()
            && self.override_variant.is_none()
        {
            return host;
        }
        Platform::new(
            self.override_os.as_ref().unwrap_or(&host.os),
            self.override_arch.as_ref().unwrap_or(&host.architecture),
            self.override_variant.as_deref(),
        )
    }

    /// The User-Agent; `usual` is the program's own.
    pub fn user_agent(&self, usual: String) -> String {
        match (&self.user_agent, &self.user_agent_prefix) {
            (Some(whole), _) => whole.clone(),
            (None, Some(prefix)) => format!("{prefix} {usual}"),
            (None, None) => usual,
        }
    }

    /// A directory for large temporary files.
    pub fn room(&self) -> &Path {
        self.tmpdir.as_deref().unwrap_or(Path::new("/var/tmp"))
    }

    /// How long nothing may come of one request: as long as the command may take, if that is said.
    pub fn patience(&self) -> Duration {
        self.command_timeout.map_or(Duration::from_secs(60), |deadline| deadline.after)
    }

    /// How long the command may take still.
    ///
    /// # Errors
    /// Its time is over.
    pub fn left(&self) -> Result<Option<Duration>, Failure> {
        let Some(deadline) = self.command_timeout else { return Ok(None) };
        match deadline.end.checked_duration_since(Instant::now()) {
            Some(left) => Ok(Some(left)),
            None => Err(self.too_late()),
        }
    }

    /// That its time is over.
    pub fn too_late(&self) -> Failure {
        let after = self.command_timeout.map(|deadline| deadline.after).unwrap_or_default();
        Failure::new(Kind::Unavailable, format!("stopping after {after:?}: --command-timeout"))
            .hint("increase the timeout; complete blobs are not sent again")
    }
}
