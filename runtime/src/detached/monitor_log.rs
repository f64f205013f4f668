//! What a monitor logs. It outlives its starter, whose standard error may be a pipe that somebody reads
//! to its end: so it has a file, and the starter passes on what is in it when the container runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

/// The name of the file, in the container's directory.
const NAME: &str = "monitor.log";
/// No more is passed on.
const MOST: u64 = 256 << 10;

/// The file, if the starter logs.
pub(super) struct MonitorLog(Option<[File; 2]>);

impl MonitorLog {
    /// Removes the file of an earlier life, and makes one if this process logs.
    pub(super) fn create(dir: &Path) -> io::Result<MonitorLog> {
        let path = dir.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return Ok(MonitorLog(None));
        }
        let writer = File::options().append(true).create_new(true).mode(0o600).open(&path)?;
        Ok(MonitorLog(Some([writer, File::open(&path)?])))
    }

    /// The standard error of the monitor.
    pub(super) fn writer(&self) -> Stdio {
        let file = self.0.as_ref().and_then(|[writer, _]| writer.try_clone().ok());
        file.map_or_else(Stdio::null, Stdio::from)
    }

    /// Logs what the monitor has logged so far.
    pub(super) fn pass_on(self) {
        let Some([_, reader]) = self.0 else { return };
        let mut bytes = Vec::new();
        if let Err(error) = reader.take(MOST).read_to_end(&mut bytes) {
            tracing::debug!(%error, "the log of the monitor cannot be read");
        }
        for line in String::from_utf8_lossy(&bytes).lines() {
            // The time of the line is about that of this one.
            let (_, said) = line.split_once(' ').unwrap_or_default();
            tracing::debug!("monitor: {}", said.trim_start());
        }
    }
}
