//! Debian's `docker-registry`, a registry that is not ours, on loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running registry, ended when this is dropped.
pub struct DockerRegistry {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts one without access rules; `None` if it is not installed.
    pub fn start() -> Option<DockerRegistry> {
        Self::start_in(tempfile::tempdir().expect("a directory"), "")
    }

    /// Starts one that wants a password.
    pub fn with_password(user: &str, password: &str) -> Option<DockerRegistry> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("htpasswd");
        let made = Command::new(crate::peer("htpasswd")?)
            .args(["-Bbn", user, password])
            .output()
            .expect("htpasswd runs");
        std::fs::write(&file, made.stdout).expect("a file");
        let more = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        Self::start_in(directory, &more)
    }

    fn start_in(directory: tempfile::TempDir, more: &str) -> Option<DockerRegistry> {
        let program = crate::peer("docker-registry")?;
        let port = crate::free_port();
        let address = format!("127.0.0.1:{port}");
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}",
            directory.path().join("data").display()
        );
        std::fs::write(&config, text).expect("a file");
        let mut child = spawn(&program, &config);
        let lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut lines = lines.lines();
        let listening =
            lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("listening on")));
        assert!(listening, "docker-registry did not start");
        std::thread::spawn(move || lines.for_each(drop));
        Some(DockerRegistry { child, address, _directory: directory })
    }

    /// Bytes of everything it keeps.
    pub fn size(&self) -> u64 {
        let files = walkdir::WalkDir::new(self._directory.path().join("data")).into_iter();
        let sizes = files.filter_map(|entry| entry.ok()?.metadata().ok());
        sizes.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
    }

    /// A name on this registry.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

fn spawn(program: &Path, config: &Path) -> Child {
    Command::new(program)
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker-registry starts")
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
