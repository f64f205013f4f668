//! `--logfile` and `--logsplit`: the build log goes into files.

use std::fs::File;
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use image::Platform;
use progress::Split;

use crate::render::{self, Progress, Rendering};
use crate::report::Failure;

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

/// Standard error is a file as long as this lives.
pub(super) struct Redirected {
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
    ) -> Result<Option<Redirected>, Failure> {
        let Some(path) = &self.logfile else {
            return match self.logsplit {
                true => Err(Failure::usage("--logsplit: there is no --logfile to be split")),
                false => Ok(None),
            };
        };
        if !self.logsplit {
            return Redirected::to(made(path)?, Vec::new()).map(Some);
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
        Redirected::to(common, split).map(Some)
    }
}

fn made(path: &Path) -> Result<File, Failure> {
    File::create(path)
        .map_err(|error| Failure::io(format!("writing the log {}", path.display()), &error))
}

impl Redirected {
    fn to(common: File, split: Vec<(Platform, Arc<File>)>) -> Result<Redirected, Failure> {
        let failed = |error| Failure::io("redirecting standard error".to_owned(), &error);
        let stderr = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
            .map_err(|errno| failed(errno.into()))?;
        rustix::stdio::dup2_stderr(&common).map_err(|errno| failed(errno.into()))?;
        Ok(Redirected { stderr, split, common })
    }

    /// How to show progress.
    pub(super) fn rendering(&self, progress: Progress) -> Rendering {
        match self.split.is_empty() || progress == Progress::Quiet {
            true => render::observer(progress),
            false => Rendering::Other(Arc::new(Split::new(self.split.clone()))),
        }
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
        for (_, file) in &self.split {
            let _ = self.common.rewind();
            let _ = std::io::copy(&mut self.common, &mut &**file);
        }
    }
}
