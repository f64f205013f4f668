//! What lists say of containers.

use format::ago;
use runtime::{ExitStatus, HealthStatus};

use crate::{Container, Phase};

/// A moment in seconds since 1970 as RFC 3339; `None` for one out of range.
pub fn rfc3339(seconds: f64) -> Option<String> {
    let millis = (seconds * 1000.0) as i64;
    Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_string())
}

impl Container {
    /// `Up 5 seconds`, `Exited (0) 2 minutes ago`; `now` in seconds since 1970.
    pub fn status(&self, now: i64) -> String {
        let since = |seconds: f64| rfc3339(seconds).map(|time| ago(&time, now)).unwrap_or_default();
        let Some(state) = self.state() else { return "Created".to_owned() };
        let up = || {
            let up = since(state.started);
            format!("Up {}", up.strip_suffix(" ago").unwrap_or(&up))
        };
        let ended = |word: &str, exit: ExitStatus| {
            let memory = matches!(exit, ExitStatus::OutOfMemory(_));
            let why = if memory { ", out of memory" } else { "" };
            format!("{word} ({}{why}) {}", exit.code(), since(state.finished.unwrap_or_default()))
        };
        match (self.phase(), state.exit) {
            (Phase::Created, _) => "Created".to_owned(),
            (Phase::Running, _) => match self.health().map(|health| health.status) {
                None => up(),
                Some(HealthStatus::Starting) => format!("{} (health: starting)", up()),
                Some(status) => format!("{} ({})", up(), status.as_str()),
            },
            (Phase::Paused, _) => format!("{} (Paused)", up()),
            (Phase::Stopping, _) => "Stopping".to_owned(),
            (Phase::Restarting, Some(exit)) => ended("Restarting", exit),
            (Phase::Exited, Some(exit)) => ended("Exited", exit),
            (Phase::Restarting | Phase::Exited | Phase::Dead, _) => "Dead".to_owned(),
        }
    }

    /// Program and arguments on one line.
    pub fn command_line(&self) -> String {
        self.record().command.join(" ")
    }

    /// `0.0.0.0:8080->80/tcp`, with commas between.
    pub fn port_text(&self) -> String {
        let one = |port: network::PublishedPort| {
            format!("{}->{}/{}", port.machine, port.container, port.protocol.as_str())
        };
        self.published().into_iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
