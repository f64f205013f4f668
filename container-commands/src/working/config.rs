//! `rbuild config`.

use std::time::Duration;

use app::{App, Runnable, observed};
use builder::working::ConfigChanges;
use clap::Args;
use options::buildah::{HistoryFlag, wants_history};
use options::progress::Progress;
use options::{Failure, Reach};

use super::locked;

/// Change the config of the image of a working container
///
/// A value of --annotation, --env, --label, --port, --volume, --onbuild and --os-feature that ends
/// with '-' is removed; '-' alone removes all of them.
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    history: HistoryFlag,
    /// Add an annotation to the manifest
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    annotation: Vec<String>,
    /// Remove an annotation
    #[arg(long, value_name = "KEY")]
    unsetannotation: Vec<String>,
    /// Set the CPU architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Set the author
    #[arg(long, value_name = "TEXT")]
    author: Option<String>,
    /// Set the default command: words, or a JSON array
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// Set a comment; kept in Docker's format only
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Set the command in the history of the layer
    #[arg(long, value_name = "TEXT")]
    created_by: Option<String>,
    /// Set the domain name; kept in Docker's format only
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Set the entrypoint: a JSON array, or a line for /bin/sh
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// Set a variable; $NAME in the value is expanded; a bare NAME takes its value from the
    /// environment
    #[arg(short, long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Set the health check: a line, CMD and words, or NONE
    #[arg(long, value_name = "COMMAND")]
    healthcheck: Option<String>,
    /// Set the time between two health checks (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_interval: Option<Duration>,
    /// Set how many failures in a row make a container unhealthy (default: 3)
    #[arg(long, value_name = "NUMBER")]
    healthcheck_retries: Option<u64>,
    /// Set the start period, in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_start_period: Option<Duration>,
    /// Set the time between two checks in the start period
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_start_interval: Option<Duration>,
    /// Set the timeout of a health check (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_timeout: Option<Duration>,
    /// Set the comment in the history of the layer
    #[arg(long, value_name = "TEXT")]
    history_comment: Option<String>,
    /// Set the host name; kept in Docker's format only
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add a label
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    label: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    unsetlabel: Vec<String>,
    /// Add an ONBUILD instruction
    #[arg(long, value_name = "INSTRUCTION", allow_hyphen_values = true)]
    onbuild: Vec<String>,
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Add a required feature of the operating system
    #[arg(long, value_name = "FEATURE", allow_hyphen_values = true)]
    os_feature: Vec<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Add a port
    #[arg(
        short,
        long,
        value_name = "PORT[/PROTOCOL]",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    port: Vec<String>,
    /// Set the shell of shell-form instructions
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    shell: Option<String>,
    /// Set the signal that stops a container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Set the user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set the variant of the CPU architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Add a volume path
    #[arg(short, long, value_name = "PATH", value_delimiter = ',', allow_hyphen_values = true)]
    volume: Vec<String>,
    /// Set the working directory
    #[arg(long, value_name = "DIR")]
    workingdir: Option<String>,
    /// The container
    container: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    dockerfile::duration::parse(text)
}

impl Runnable for Config {
    /// Changes the container's configuration, all of it or nothing.
    fn run(self, app: &App) -> Result<u8, Failure> {
        observed("config", Progress::Quiet, |task| {
            let mut working = locked(app.store()?, &self.container, task)?;
            let env = app.env(&Reach::default())?;
            let history = wants_history(self.history.add_history);
            let changes = self.changes();
            let warnings = changes.apply(&mut working.state, &|name| std::env::var(name).ok());
            for warning in warnings.map_err(|error| {
                Failure::usage(format!("--{}: {}", error.field.replace('_', "-"), error.reason))
            })? {
                eprintln!("warning: {warning}");
            }
            if history {
                changes.note(&mut working, &env);
            }
            Ok(working.save()?)
        })?;
        Ok(0)
    }
}

impl Config {
    /// What the flags ask for.
    fn changes(self) -> ConfigChanges {
        // A field of the changes that is not here does not compile; one of the flags is a warning.
        macro_rules! changes {
            ($($field:ident,)*) => { ConfigChanges { $($field: self.$field,)* } };
        }
        changes! {
            annotation,
            unsetannotation,
            arch,
            author,
            cmd,
            comment,
            created_by,
            domainname,
            entrypoint,
            env,
            healthcheck,
            healthcheck_interval,
            healthcheck_retries,
            healthcheck_start_period,
            healthcheck_start_interval,
            healthcheck_timeout,
            history_comment,
            hostname,
            label,
            unsetlabel,
            onbuild,
            os,
            os_feature,
            os_version,
            port,
            shell,
            stop_signal,
            user,
            variant,
            volume,
            workingdir,
        }
    }
}
