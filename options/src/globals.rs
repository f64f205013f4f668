//! The options of every command.

use std::path::PathBuf;

use clap::Args;
use configuration::Paths;
use registry_client::Registries;
use sign::lookaside::Lookaside;

use crate::Failure;

/// Global flags of `rbuild` and `rcopy`.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// Directory of the image store (default: /var/lib/rbuild, or ~/.local/share/rbuild for a user)
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "RBUILD_ROOT",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub root: Option<PathBuf>,
    /// Credentials file (default: the files of podman and Docker)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub authfile: Option<PathBuf>,
    /// Signature policy file (default: ~/.config/containers/policy.json,
    /// /etc/containers/policy.json)
    #[arg(
        long,
        visible_alias = "signature-policy",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub policy: Option<PathBuf>,
    /// Where the configuration of registries is.
    #[command(flatten)]
    pub registries: RegistriesFlags,
    /// Write diagnostic messages of this level: error, warn, info, debug or trace
    #[arg(
        long,
        visible_alias = "log-level",
        global = true,
        value_name = "LEVEL",
        value_parser = log_filter,
        help_heading = "Global options"
    )]
    pub log: Option<String>,
}

impl Globals {
    /// What is logged: directives, where anything is.
    pub fn log_directives(&self) -> Option<String> {
        self.log.as_deref().map(log_directives)
    }

    /// The log level where no flag says one; one that does not exist is passed over.
    pub fn log_default(&mut self, level: Option<String>) {
        self.log = self.log.take().or_else(|| level.and_then(|level| log_filter(&level).ok()));
    }
}

/// A level, or directives `CRATE=LEVEL`.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part);
        LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
    };
    // As buildah spells them.
    let text = match text {
        "warning" => "warn",
        "fatal" | "panic" => "error",
        text => text,
    };
    match text.split(',').all(known) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not one of {}", LEVELS.join(", "))),
    }
}

/// Where the configuration of registries is, for all commands.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistriesFlags {
    /// File with aliases, mirrors and blocked registries (default:
    /// ~/.config/containers/registries.conf, /etc/containers/registries.conf)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CONTAINERS_REGISTRIES_CONF",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub registries_conf: Option<PathBuf>,
    /// Directory of files that extend it (default: registries.conf.d beside both)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub registries_conf_dir: Option<PathBuf>,
    /// Directory that configures the lookasides of registries (default:
    /// ~/.config/containers/registries.d, /etc/containers/registries.d)
    #[arg(
        long = "registries.d",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub registries_d: Option<PathBuf>,
}

impl RegistriesFlags {
    /// The merged configuration of registries.
    ///
    /// # Errors
    /// A file is malformed, or one that a flag names is not there.
    pub fn registries(&self, paths: &Paths) -> Result<Registries, Failure> {
        let file = self.registries_conf.as_deref();
        let files = paths.registries_conf(file, self.registries_conf_dir.as_deref())?;
        let mut all = Registries::read(&files)?;
        all.short_names = all.short_names.with_chosen(&paths.short_names())?;
        Ok(all)
    }

    /// What registries.d says.
    ///
    /// # Errors
    /// A file is malformed, or speaks of something that another one speaks of.
    pub fn lookaside(&self, paths: &Paths) -> Result<Lookaside, Failure> {
        let files = paths.registries_d(self.registries_d.as_deref())?;
        Ok(Lookaside::read(paths.signatures(), &files)?)
    }
}

/// A bare level applies to the crates of this program; libraries log errors only. Directives are
/// passed on unchanged.
fn log_directives(level: &str) -> String {
    const OURS: [&str; 23] = [
        "app",
        "build_commands",
        "builder",
        "configuration",
        "containers",
        "copy",
        "dockerfile",
        "explorer",
        "image",
        "layers",
        "lazy",
        "network",
        "options",
        "progress",
        "recorder",
        "registry_client",
        "registry_server",
        "runtime",
        "sbom",
        "sign",
        "store",
        "task",
        "transport",
    ];
    if level.contains(['=', ',']) || !matches!(level, "info" | "debug" | "trace") {
        return level.to_owned();
    }
    let ours = OURS.iter().map(|name| format!(",{name}={level}"));
    std::iter::once("warn".to_owned()).chain(ours).collect()
}
