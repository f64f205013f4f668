//! BuildKit's daemon over a directory of its own, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, Result, context};

/// A `buildkitd` that runs steps with runc, without a network of its own making.
pub(crate) struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub(crate) fn start(program: &Path, runtime: &Path, root: &Path) -> Result<Daemon> {
        context("making BuildKit's directory", std::fs::create_dir_all(root))?;
        let socket: PathBuf = root.join("socket");
        let log = context("making BuildKit's log", std::fs::File::create(root.join("log")))?;
        let address = format!("unix://{}", socket.display());
        // It must not outlive this program, however this program ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--addr", &address, "--root"])
            .arg(root.join("state"))
            .args(["--oci-worker", "true", "--containerd-worker", "false"])
            .args(["--oci-worker-snapshotter", "overlayfs", "--oci-worker-net", "host"])
            .args(["--allow-insecure-entitlement", "network.host", "--oci-worker-binary"])
            .arg(runtime)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = context("starting buildkitd", child)?;
        let daemon = Daemon { child, address };
        for _ in 0..1000 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::new("buildkitd does not listen"))
    }

    /// Where clients reach it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
