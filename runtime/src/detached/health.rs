//! Whether the program of a container works: a command that its monitor runs in it from time to time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::record;
use crate::HealthCheck;
use crate::stage::{Answer, Answers};

/// What is known of the health of a container.
pub(super) const FILE: &str = "health.json";

/// How many checks are remembered.
const REMEMBERED: usize = 5;
/// How much of what a check says is remembered.
const MAX_OUTPUT: usize = 4096;
/// No [`FILE`] is larger.
const MAX_FILE: u64 = 1 << 20;

/// Whether the program of a container works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It is not known yet.
    #[default]
    Starting,
    /// The last check ended well.
    Healthy,
    /// Several checks in a row failed.
    Unhealthy,
}

impl HealthStatus {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// One check of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Seconds since 1970 at which it began.
    pub start: f64,
    /// Seconds since 1970 at which it ended.
    pub end: f64,
    /// Its exit code; -1 where it took too long or could not be started.
    pub exit_code: i32,
    /// What it said, at most 4 KiB.
    pub output: String,
}

/// What is known of the health of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// See [`HealthStatus`].
    pub status: HealthStatus,
    /// How many checks failed since the last that did not.
    pub failing_streak: u32,
    /// The latest checks, oldest first.
    pub log: VecDeque<Probe>,
}

/// What is known of the health of the container in a directory; nothing where it is not checked.
pub fn health(dir: &Path) -> Option<Health> {
    let mut text = Vec::new();
    File::open(dir.join(FILE)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// A check that runs.
pub(super) struct RunningCheck {
    answers: Answers,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: f64,
    /// When it has taken too long.
    until: Option<Instant>,
    exceeded: bool,
}

impl RunningCheck {
    pub(super) fn new(line: UnixStream, output: OwnedFd) -> RunningCheck {
        RunningCheck {
            answers: Answers::new(line),
            output: Some(output),
            text: Vec::new(),
            start: record::now(),
            until: None,
            exceeded: false,
        }
    }

    /// Reads what there is; what is too much is dropped.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    let room = MAX_OUTPUT.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }
}

/// What a check that ended means.
pub(super) struct Judgement {
    pub(super) code: u8,
    /// The new status, where it is another.
    pub(super) changed: Option<HealthStatus>,
}

/// The checks of one container.
pub(super) struct Checks {
    check: HealthCheck,
    directory: OwnedFd,
    health: Health,
    /// Until when failures do not count.
    begins_until: Instant,
    next: Instant,
    running: Option<RunningCheck>,
}

impl Checks {
    /// The checks of a container that was started now, or that runs already.
    pub(super) fn open(
        check: HealthCheck,
        directory: OwnedFd,
        now: Instant,
        resumed: bool,
    ) -> io::Result<Checks> {
        let known = record::path(&directory).filter(|_| resumed);
        let health = known.and_then(|path| self::health(&path)).unwrap_or_default();
        let begins_until = now + Duration::from_nanos(check.start_period);
        let mut checks =
            Checks { check, directory, health, begins_until, next: now, running: None };
        checks.next = now + checks.interval(now);
        checks.write()?;
        Ok(checks)
    }

    fn interval(&self, now: Instant) -> Duration {
        let begins = self.health.status == HealthStatus::Starting && now < self.begins_until;
        Duration::from_nanos(if begins { self.check.start_interval } else { self.check.interval })
    }

    /// Program and arguments.
    pub(super) fn command(&self) -> &[String] {
        &self.check.command
    }

    /// What to wait for while a check runs.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().flat_map(|started| {
            let line = started.answers.line().as_fd();
            std::iter::once(line).chain(started.output.as_ref().map(AsFd::as_fd))
        })
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.running {
            None => Some(self.next),
            Some(started) => started.until,
        }
    }

    /// Has the next check begin at once.
    pub(super) fn ask(&mut self) {
        if self.running.is_none() {
            self.next = Instant::now();
        }
    }

    /// Whether a check is to be started.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.running.is_none() && now >= self.next
    }

    /// A check was started; where it could not be, it has failed.
    pub(super) fn started(&mut self, started: io::Result<RunningCheck>, now: Instant) {
        match started {
            Ok(mut started) => {
                let output = started.output.as_ref();
                output.map(|output| rustix::io::ioctl_fionbio(output, true));
                let timeout = Some(self.check.timeout).filter(|timeout| *timeout > 0);
                started.until = timeout.map(|timeout| now + Duration::from_nanos(timeout));
                self.running = Some(started);
            }
            Err(error) => {
                tracing::debug!(%error, "a check of health cannot be started");
                self.next = now + self.interval(now);
            }
        }
    }

    /// Looks after the check that runs; `ready` tells whether it has something to say.
    pub(super) fn turn(&mut self, now: Instant, ready: bool) -> Option<Judgement> {
        let started = self.running.as_mut()?;
        if started.until.is_some_and(|until| now >= until) {
            // It ends now, and says so on its line.
            let _ = started.answers.line().write_all(&[9]);
            (started.until, started.exceeded) = (None, true);
        }
        if !ready {
            return None;
        }
        started.read();
        let (code, why) = loop {
            if !started.answers.has_next() && !readable(started.answers.line()) {
                return None;
            }
            break match started.answers.next() {
                Some((Answer::Started(_), _)) => continue,
                Some((Answer::Exited(status), _)) => (i32::from(status.code()), None),
                Some((Answer::Failed(failure), _)) => {
                    (-1, Some(task::chain(&crate::Error::from(failure)).join(": ")))
                }
                None => (-1, Some("the process that runs the check was lost".to_owned())),
            };
        };
        started.read();
        let mut started = self.running.take()?;
        let mut output = String::from_utf8_lossy(&started.text).into_owned();
        output.extend(why);
        let mut exit_code = code;
        if std::mem::take(&mut started.exceeded) {
            exit_code = -1;
            let limit = Duration::from_nanos(self.check.timeout);
            output = format!("the check took longer than {limit:?}");
        }
        let probe = Probe { start: started.start, end: record::now(), exit_code, output };
        Some(self.judge(probe, now))
    }

    fn judge(&mut self, probe: Probe, now: Instant) -> Judgement {
        let (health, code) = (&mut self.health, probe.exit_code);
        let before = health.status;
        health.log.push_back(probe);
        while health.log.len() > REMEMBERED {
            health.log.pop_front();
        }
        if code == 0 {
            (health.failing_streak, health.status) = (0, HealthStatus::Healthy);
        } else if before != HealthStatus::Starting || now >= self.begins_until {
            health.failing_streak += 1;
            if health.failing_streak >= self.check.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        let status = health.status;
        self.next = now + self.interval(now);
        if let Err(error) = self.write() {
            tracing::debug!(%error, "the health is not written down");
        }
        Judgement {
            code: u8::try_from(code).unwrap_or(1),
            changed: (status != before).then_some(status),
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = record::create(&self.directory, "health.json.new", OFlags::TRUNC)?;
        file.write_all(&serde_json::to_vec(&self.health)?)?;
        drop(file);
        rustix::fs::renameat(&self.directory, "health.json.new", &self.directory, FILE)?;
        Ok(())
    }
}

fn readable(line: &UnixStream) -> bool {
    crate::streams::is_readable(line.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn checks(start_period: u64) -> (tempfile::TempDir, Checks) {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap().into();
        let check = HealthCheck {
            command: vec!["true".to_owned()],
            interval: 30 * SECOND,
            timeout: SECOND,
            start_period,
            start_interval: SECOND,
            retries: 2,
            on_failure: crate::OnFailure::None,
        };
        let checks = Checks::open(check, directory, Instant::now(), false).unwrap();
        (place, checks)
    }

    fn probe(exit_code: i32) -> Probe {
        Probe { start: 0.0, end: 0.0, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let (place, mut checks) = checks(0);
        let now = Instant::now();
        assert_eq!(health(place.path()).unwrap().status, HealthStatus::Starting);
        assert_eq!(checks.judge(probe(1), now).changed, None);
        assert_eq!(checks.judge(probe(-1), now).changed, Some(HealthStatus::Unhealthy));
        assert_eq!(checks.judge(probe(1), now).changed, None);
        assert_eq!(health(place.path()).unwrap().failing_streak, 3);
        assert_eq!(checks.judge(probe(0), now).changed, Some(HealthStatus::Healthy));
        for _ in 0..9 {
            checks.judge(probe(0), now);
        }
        let known = health(place.path()).unwrap();
        assert_eq!((known.failing_streak, known.log.len()), (0, REMEMBERED));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_and_checks_come_sooner() {
        let (_place, mut checks) = checks(60 * SECOND);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(checks.judge(probe(1), now).changed, None);
        }
        assert_eq!(checks.next, now + Duration::from_secs(1));
        let later = now + Duration::from_secs(61);
        checks.judge(probe(1), later);
        assert_eq!(checks.next, later + Duration::from_secs(30));
        assert_eq!(checks.judge(probe(1), later).changed, Some(HealthStatus::Unhealthy));
    }
}
