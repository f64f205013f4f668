//! `--logfile`: what is said while building goes into a file.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::report::Failure;

/// Standard error is a file as long as this lives.
pub(super) struct Redirected(OwnedFd);

impl Redirected {
    /// Sends standard error into a file that is made anew.
    pub(super) fn to(path: &Path) -> Result<Redirected, Failure> {
        let failed = |error: &std::io::Error| {
            Failure::io(format!("writing the log {}", path.display()), error)
        };
        let file = File::create(path).map_err(|error| failed(&error))?;
        let kept = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
            .map_err(|errno| failed(&errno.into()))?;
        rustix::stdio::dup2_stderr(&file).map_err(|errno| failed(&errno.into()))?;
        Ok(Redirected(kept))
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let _ = rustix::stdio::dup2_stderr(&self.0);
    }
}
