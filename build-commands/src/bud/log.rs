//! `--logfile` and `--logsplit`: the build log goes into files.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::progress::Split;
use clap::Args;
use image::Platform;
use options::Failure;
use options::progress::Progress;

use ::progress::ProgressDisplay;

/// Where to write the build log.
#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// Write the build log to a file instead of standard error
    #[arg(long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// With --logfile, write a file for each platform: FILE_OS_ARCH
    #[arg(long)]
    logsplit: bool,
}

/// Redirects standard error to a file until this is dropped.
pub(super) struct StderrRedirect {
    stderr: OwnedFd,
    /// One file per platform, with the messages that belong to none.
    split: Vec<(Platform, Arc<File>)>,
    common: File,
}

impl LogFlags {
    /// Makes the files, and sends standard error there.
    pub(super) fn start(
        &self,
        platforms: &[Platform],
        all_platforms: bool,
        progress: Progress,
    ) -> Result<Option<StderrRedirect>, Failure> {
        let Some(path) = &self.logfile else {
            return match self.logsplit {
                true => Err(Failure::usage("--logsplit: there is no --logfile to be split")),
                false => Ok(None),
            };
        };
        if !self.logsplit {
            return StderrRedirect::to(made(path)?, Vec::new()).map(Some);
        }
        if all_platforms {
            return Err(Failure::usage(
                "--logsplit: --all-platforms names no platforms beforehand",
            )
            .hint("name them with --platform"));
        }
        if !matches!(progress, Progress::Auto | Progress::Plain | Progress::Quiet) {
            return Err(Failure::usage("--logsplit: the logs have plain lines only")
                .hint("leave --progress out"));
        }
        let file = |platform: &Platform| {
            let mut name = path.clone().into_os_string();
            name.push(format!("_{}", platform.to_string().replace('/', "_")));
            Ok((platform.clone(), Arc::new(made(Path::new(&name))?)))
        };
        let split = platforms.iter().map(file).collect::<Result<Vec<_>, Failure>>()?;
        let memory = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC);
        let common = memory
            .map(File::from)
            .map_err(|errno| Failure::io("buffering the log".to_owned(), &errno.into()))?;
        StderrRedirect::to(common, split).map(Some)
    }
}

fn made(path: &Path) -> Result<File, Failure> {
    File::create(path)
        .map_err(|error| Failure::io(format!("writing the log {}", path.display()), &error))
}

impl StderrRedirect {
    fn to(common: File, split: Vec<(Platform, Arc<File>)>) -> Result<StderrRedirect, Failure> {
        let failed = |error| Failure::io("redirecting standard error".to_owned(), &error);
        let stderr = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
            .map_err(|errno| failed(errno.into()))?;
        rustix::stdio::dup2_stderr(&common).map_err(|errno| failed(errno.into()))?;
        Ok(StderrRedirect { stderr, split, common })
    }

    /// How to show progress.
    pub(super) fn rendering(&self, progress: Progress) -> ProgressDisplay {
        match self.split.is_empty() || progress == Progress::Quiet {
            true => options::progress::observer(progress),
            false => ProgressDisplay::Other(Arc::new(Split::new(self.split.clone()))),
        }
    }
}

impl Drop for StderrRedirect {
    fn drop(&mut self) {
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
        for (_, file) in &self.split {
            let _ = self.common.rewind();
            let _ = std::io::copy(&mut self.common, &mut &**file);
        }
    }
}

/// Writes what resources this process and its commands used: to a file, or to standard error.
///
/// # Errors
/// The file cannot be written; there is no /proc.
pub(super) fn rusage(file: Option<&Path>, start: Instant) -> Result<(), Failure> {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::io(format!("reading {path}"), &error))
    };
    let (stat, status) = (read("/proc/self/stat")?, read("/proc/self/status")?);
    let (user, system) = times(&stat);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    let elapsed = start.elapsed().as_secs_f64();
    let line = format!(
        "resources: elapsed {elapsed:.3} s, user {user:.2} s, system {system:.2} s, peak {peak}"
    );
    let Some(path) = file else {
        eprintln!("{line}");
        return Ok(());
    };
    let failed = |error: std::io::Error| Failure::io(format!("writing {}", path.display()), &error);
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    writeln!(file.map_err(failed)?, "{line}").map_err(failed)
}

/// Seconds of CPU time, of this process and of the children it waited for: in user mode, in the
/// kernel. See proc_pid_stat(5).
fn times(stat: &str) -> (f64, f64) {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(4).filter_map(|text| text.parse().ok()).collect();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    match ticks[..] {
        [user, system, children, kernel] => {
            ((user + children) / per_second, (system + kernel) / per_second)
        }
        _ => (0.0, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_process_and_its_children() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 {ticks} {ticks} 20 0 1");
        assert_eq!(times(&stat), (2.0, 1.0));
        assert_eq!(times(""), (0.0, 0.0));
    }
}
