//! How a build gets its inputs: when it pulls, how often it retries, and what it may use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use builder::{PolicyRules, Pull, Request};
use clap::{Args, ValueEnum};
use options::{Failure, Reach, flags};
use task::Kind;

/// The variable in which BuildKit's clients name a policy.
const POLICY: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/// How to get inputs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct PullFlags {
    /// Pull base images: missing (default), always, never, newer
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pull: Option<PullPolicy>,
    /// Same as --pull=always
    #[arg(long, conflicts_with = "pull")]
    pull_always: bool,
    /// Same as --pull=never
    #[arg(long, conflicts_with_all = ["pull", "pull_always"])]
    pull_never: bool,
    /// Retry a failed request to a registry this often (default: 3)
    #[arg(long, value_name = "TIMES")]
    retry: Option<u32>,
    /// Wait this long before the first retry; later ones wait longer
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    retry_delay: Option<Duration>,
    /// Limit the size of a download by ADD or of a context (default: 16g)
    #[arg(long, value_name = "SIZE", value_parser = flags::size)]
    max_download: Option<u64>,
    /// Allow, deny or convert inputs by the rules in this file: BuildKit's JSON (default:
    /// $EXPERIMENTAL_BUILDKIT_SOURCE_POLICY)
    #[arg(long, value_name = "FILE")]
    source_policy_file: Vec<PathBuf>,
    /// Replace the image of the first FROM
    #[arg(long, value_name = "IMAGE")]
    from: Option<String>,
}

/// When to pull.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PullPolicy {
    #[value(alias = "false", alias = "ifmissing")]
    Missing,
    #[value(alias = "true")]
    Always,
    Never,
    #[value(alias = "ifnewer")]
    Newer,
}

impl PullFlags {
    /// Puts what the flags say into a request.
    ///
    /// # Errors
    /// A policy cannot be read.
    pub(super) fn apply(&self, request: &mut Request) -> Result<(), Failure> {
        request.pull = match self.pull {
            _ if self.pull_always => Pull::Always,
            _ if self.pull_never => Pull::Never,
            None | Some(PullPolicy::Missing) => Pull::Missing,
            Some(PullPolicy::Always) => Pull::Always,
            Some(PullPolicy::Never) => Pull::Never,
            Some(PullPolicy::Newer) => Pull::Newer,
        };
        request.from.clone_from(&self.from);
        let limit = &mut request.sources.download_limit;
        *limit = self.max_download.unwrap_or(*limit);
        request.inputs.policies = policies(&self.source_policy_file)?;
        Ok(())
    }

    /// How to reach registries.
    pub(super) fn reach(&self, reach: Reach) -> Reach {
        Reach {
            retries: self.retry.or(reach.retries),
            retry_delay: self.retry_delay.or(reach.retry_delay),
            ..reach
        }
    }
}

/// The policy that the environment names, if it names one.
pub(super) fn usual_policies() -> Vec<PathBuf> {
    let named = std::env::var_os(POLICY).filter(|name| !name.is_empty());
    named.map(PathBuf::from).into_iter().collect()
}

/// What may be used.
///
/// # Errors
/// A file cannot be read, or is no policy.
pub(super) fn policies(files: &[PathBuf]) -> Result<Vec<PolicyRules>, Failure> {
    files.iter().map(|file| policy(file)).collect()
}

fn policy(file: &Path) -> Result<PolicyRules, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(format!("reading source policy {name}"), &error))?;
    PolicyRules::read(&name, &text)
        .map_err(|why| Failure::new(Kind::Invalid, format!("reading source policy {name}: {why}")))
}
