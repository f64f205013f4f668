//! What a user says of the life of a container: labels, its end, its health, its log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lists::both;
use crate::Signal;

/// What becomes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop; the image's, or TERM, if not given.
    pub stop_signal: Option<Signal>,
    /// Seconds it gets to stop before it is killed; 10 if not given.
    pub stop_timeout: Option<u32>,
    /// Whether it is removed when it ends.
    pub remove: bool,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// How it is found out whether it works.
    pub health: HealthSpec,
    /// What is kept of what it prints.
    pub log: LogLimits,
    /// Who tells a service manager that it is ready.
    pub notify: Notify,
    /// Seconds after which it is killed; 0 is never.
    pub timeout: u32,
    /// Where the number of its first process is written at each start.
    pub pidfile: Option<PathBuf>,
    /// Where the number of its monitor is written at each start.
    pub monitor_pidfile: Option<PathBuf>,
    /// Containers that are started before it, by name or id.
    pub requires: Vec<String>,
}

/// Whether a container is started again when it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, at most this many times in a row; 0 is without end.
    OnFailure(u32),
    /// Whenever it ends, until somebody stops it, and when the machine starts.
    Always,
    /// As `Always`, but when the machine starts only if no user stopped it before.
    UnlessStopped,
}

/// What is asked of health checks beyond what the image says. Times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSpec {
    /// No check, whatever the image says.
    pub off: bool,
    /// `["CMD", …]` or `["CMD-SHELL", line]`.
    pub test: Option<Vec<String>>,
    /// Time between two checks.
    pub interval: Option<u64>,
    /// Time after which one check has failed.
    pub timeout: Option<u64>,
    /// Time in which failures do not count.
    pub start_period: Option<u64>,
    /// Time between two checks in the start period.
    pub start_interval: Option<u64>,
    /// How many failures in a row make a container unhealthy.
    pub retries: Option<u32>,
    /// What is done then.
    pub on_failure: OnFailure,
}

/// What is done with a container that has become unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is shown as unhealthy.
    #[default]
    None,
    /// It is killed.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped.
    Stop,
}

/// How a container that runs is checked. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time between two checks.
    pub interval: u64,
    /// Time after which one check has failed.
    pub timeout: u64,
    /// Time in which failures do not count.
    pub start_period: u64,
    /// Time between two checks in the start period.
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
    /// What is done then.
    pub on_failure: OnFailure,
}

const SECOND: u64 = 1_000_000_000;

impl HealthSpec {
    /// The check that results from this and what the image says; nothing where there is none. A
    /// line for a shell is run by `shell`, or by `/bin/sh -c`.
    pub fn check(
        &self,
        image: Option<&image::Healthcheck>,
        shell: Option<&[String]>,
    ) -> Option<HealthCheck> {
        let none = image::Healthcheck::default();
        let image = image.unwrap_or(&none);
        let test = self.test.as_ref().unwrap_or(&image.test);
        let command = match test.split_first() {
            _ if self.off => return None,
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, rest)) if kind == "CMD-SHELL" => {
                let usual = ["/bin/sh".to_owned(), "-c".to_owned()];
                [shell.filter(|shell| !shell.is_empty()).unwrap_or(&usual), rest].concat()
            }
            _ => return None,
        };
        let time = |own: Option<u64>, image: u64, usual: u64| {
            own.or((image > 0).then_some(image)).unwrap_or(usual)
        };
        let retries = u32::try_from(image.retries).unwrap_or(u32::MAX);
        Some(HealthCheck {
            command,
            interval: time(self.interval, image.interval, 30 * SECOND).max(1_000_000),
            timeout: time(self.timeout, image.timeout, 30 * SECOND),
            start_period: time(self.start_period, image.start_period, 0),
            start_interval: time(self.start_interval, image.start_interval, 5 * SECOND)
                .max(1_000_000),
            retries: self.retries.filter(|n| *n > 0).unwrap_or(match retries {
                0 => 3,
                some => some,
            }),
            on_failure: self.on_failure,
        })
    }
}

/// What is kept of what a container prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLimits {
    /// Nothing is kept.
    pub off: bool,
    /// Bytes after which a file of the log is full; 64 MiB if not given.
    pub max_size: Option<u64>,
    /// How many files there are, full ones included; 2 if not given.
    pub max_files: Option<u32>,
}

/// Who tells a service manager that a container is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// No one.
    #[default]
    Ignore,
    /// Its program, which gets the socket.
    Container,
    /// The process that starts it, as soon as it runs.
    Conmon,
    /// Its monitor, as soon as it is healthy.
    Healthy,
}

impl Lifecycle {
    pub(super) fn merge(self, now: Lifecycle) -> Lifecycle {
        let Lifecycle {
            labels,
            stop_signal,
            stop_timeout,
            remove,
            restart,
            health,
            log,
            notify,
            timeout,
            pidfile,
            monitor_pidfile,
            requires,
        } = self;
        Lifecycle {
            labels: both(labels, now.labels),
            stop_signal: now.stop_signal.or(stop_signal),
            stop_timeout: now.stop_timeout.or(stop_timeout),
            remove: remove || now.remove,
            restart: if now.restart == Restart::No { restart } else { now.restart },
            health: if now.health == HealthSpec::default() { health } else { now.health },
            log: if now.log == LogLimits::default() { log } else { now.log },
            notify: if now.notify == Notify::default() { notify } else { now.notify },
            timeout: if now.timeout == 0 { timeout } else { now.timeout },
            pidfile: now.pidfile.or(pidfile),
            monitor_pidfile: now.monitor_pidfile.or(monitor_pidfile),
            requires: both(requires, now.requires),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_laid_over_the_check_of_the_image() {
        let test = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = image::Healthcheck {
            test: test(&["CMD", "check", "it"]),
            interval: 7 * SECOND,
            retries: 5,
            ..image::Healthcheck::default()
        };
        let none = HealthSpec::default();
        assert_eq!(none.check(None, None), None);
        let of_image = none.check(Some(&image), None).unwrap();
        assert_eq!(of_image.command, test(&["check", "it"]));
        assert_eq!((of_image.interval, of_image.retries), (7 * SECOND, 5));
        assert_eq!((of_image.timeout, of_image.start_period), (30 * SECOND, 0));
        let own = HealthSpec {
            test: Some(test(&["CMD-SHELL", "a || b"])),
            interval: Some(SECOND),
            ..none.clone()
        };
        let own = own.check(Some(&image), None).unwrap();
        assert_eq!((own.interval, own.retries), (SECOND, 5));
        assert_eq!(own.command, test(&["/bin/sh", "-c", "a || b"]));
        assert_eq!(HealthSpec { off: true, ..none.clone() }.check(Some(&image), None), None);
        let off = image::Healthcheck { test: test(&["NONE"]), ..image };
        assert_eq!(none.check(Some(&off), None), None);
    }
}
