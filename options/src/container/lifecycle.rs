//! The flags about the life of a container: its health, its log, its readiness message.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use containers::syntax;
use runtime::{HealthSpec, Lifecycle, LogLimits, Notify, OnFailure};

use crate::Failure;
use crate::environment;
use crate::flags::{self, of_flag};

/// What becomes of a container of `run` and `create`.
#[derive(Debug, Args)]
pub struct LifecycleFlags {
    /// Check the health with this command line; none for no check
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    health_cmd: Option<String>,
    /// Check this often (default: 30s)
    #[arg(long, value_name = "TIME", value_parser = syntax::health_interval, help_heading = "Health")]
    health_interval: Option<Duration>,
    /// Fail a check that takes longer (default: 30s)
    #[arg(long, value_name = "TIME", value_parser = flags::duration, help_heading = "Health")]
    health_timeout: Option<Duration>,
    /// Call the container unhealthy after this many failures in a row (default: 3)
    #[arg(long, value_name = "NUMBER", help_heading = "Health")]
    health_retries: Option<u32>,
    /// Do not count failures in this time after the start (default: 0s)
    #[arg(long, value_name = "TIME", value_parser = flags::duration, help_heading = "Health")]
    health_start_period: Option<Duration>,
    /// Check this often in the start period (default: 5s)
    #[arg(long, value_name = "TIME", value_parser = syntax::health_interval, help_heading = "Health")]
    health_start_interval: Option<Duration>,
    /// Do this when the container becomes unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION", value_parser = syntax::on_failure, help_heading = "Health")]
    health_on_failure: Option<OnFailure>,
    /// Do not check the health
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval", "health_on_failure"], help_heading = "Health")]
    no_healthcheck: bool,

    /// Keep the log in JSON lines (json-file, local, k8s-file), or not at all (none)
    #[arg(long, value_name = "DRIVER", value_parser = syntax::log_driver)]
    log_driver: Option<bool>,
    /// Limit the log: max-size=SIZE of a file (default: 64m), max-file=NUMBER (default: 2)
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Notify systemd of readiness: container, conmon (as soon as it runs), healthy or ignore
    #[arg(long, value_name = "WHO", value_parser = syntax::notify)]
    sdnotify: Option<Notify>,
    /// Kill the container after this many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Start these containers before this one
    #[arg(long, value_name = "CONTAINER", value_delimiter = ',')]
    requires: Vec<String>,
    /// Write the number of the container's first process to a file at each start
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Write the number of the container's monitor to a file at each start
    #[arg(long, value_name = "FILE")]
    conmon_pidfile: Option<PathBuf>,
}

fn nanoseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl LifecycleFlags {
    /// Adds what the flags ask for.
    ///
    /// # Errors
    /// A command or an option that is not understood, by name.
    pub fn add(&self, lifecycle: &mut Lifecycle) -> Result<(), Failure> {
        let command = self.health_cmd.as_deref();
        let off = self.no_healthcheck || command == Some("none");
        let check = |text| syntax::health_test(text).map_err(of_flag("--health-cmd", text));
        lifecycle.health = HealthSpec {
            off,
            test: command.filter(|_| !off).map(check).transpose()?,
            interval: nanoseconds(self.health_interval),
            timeout: nanoseconds(self.health_timeout),
            start_period: nanoseconds(self.health_start_period),
            start_interval: nanoseconds(self.health_start_interval),
            retries: self.health_retries,
            on_failure: self.health_on_failure.unwrap_or_default(),
        };
        lifecycle.log = self.log()?;
        lifecycle.notify = self.sdnotify.unwrap_or_default();
        lifecycle.timeout = self.timeout.unwrap_or(0);
        lifecycle.requires.clone_from(&self.requires);
        let absolute =
            |path: &Option<PathBuf>| path.as_deref().map(environment::absolute).transpose();
        lifecycle.pidfile = absolute(&self.pidfile)?;
        lifecycle.monitor_pidfile = absolute(&self.conmon_pidfile)?;
        Ok(())
    }

    /// Whether any is given.
    pub fn given(&self) -> bool {
        let mut lifecycle = Lifecycle::default();
        self.add(&mut lifecycle).is_err() || lifecycle != Lifecycle::default()
    }

    fn log(&self) -> Result<LogLimits, Failure> {
        let mut log = LogLimits { off: self.log_driver == Some(false), ..LogLimits::default() };
        for text in &self.log_opt {
            syntax::log_option(text, &mut log).map_err(of_flag("--log-opt", text))?;
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: LifecycleFlags,
    }

    fn read(line: &[&str]) -> Result<Lifecycle, String> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line));
        let mut lifecycle = Lifecycle::default();
        let flags = line.map_err(|error| error.to_string())?.flags;
        flags.add(&mut lifecycle).map_err(|failure| format!("{failure:?}"))?;
        Ok(lifecycle)
    }

    #[test]
    fn every_flag_reaches_the_life() {
        let life = read(&[
            "--health-cmd=test -e /x",
            "--health-interval=2s",
            "--health-retries=1",
            "--health-on-failure=kill",
            "--log-opt=max-size=1k",
            "--log-opt=max-file=3",
            "--sdnotify=healthy",
            "--timeout=9",
            "--pidfile=/p",
            "--conmon-pidfile=/c",
        ])
        .unwrap();
        assert_eq!(life.health.test.unwrap(), ["CMD-SHELL", "test -e /x"]);
        assert_eq!(life.health.interval, Some(2_000_000_000));
        assert_eq!((life.health.retries, life.health.on_failure), (Some(1), OnFailure::Kill));
        assert_eq!((life.log.max_size, life.log.max_files), (Some(1024), Some(3)));
        let files = [life.pidfile, life.monitor_pidfile].map(Option::unwrap);
        assert_eq!(files, ["/p", "/c"].map(PathBuf::from));
        assert_eq!((life.notify, life.timeout), (Notify::Healthy, 9));
        assert!(read(&["--no-healthcheck"]).unwrap().health.off);
        assert!(read(&["--health-cmd=none"]).unwrap().health.off);
        let words = read(&["--health-cmd=[\"a\",\"b\"]"]).unwrap().health.test.unwrap();
        assert_eq!(words, ["CMD", "a", "b"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for flag in [
            "--log-driver=journald",
            "--log-opt=tag=x",
            "--log-opt=max-file=0",
            "--health-on-failure=dance",
            "--health-cmd=[]",
            "--sdnotify=me",
        ] {
            assert!(read(&[flag]).is_err(), "{flag}");
        }
        assert!(read(&["--no-healthcheck", "--health-retries=1"]).is_err());
    }
}
