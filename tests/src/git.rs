//! Repositories, and `git daemon` on loopback.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{peer, run};

/// A directory of repositories served by `git daemon`, ended when this is dropped.
pub struct Repositories {
    directory: PathBuf,
    child: Child,
    /// `git://127.0.0.1:port`.
    pub url: String,
}

impl Repositories {
    /// Serves what is made in `directory`; `None` if git is not installed.
    pub fn serve(directory: &Path) -> Option<Repositories> {
        peer("git")?;
        std::fs::create_dir_all(directory).expect("a directory");
        let port = crate::free_port();
        // `git daemon` would leave its program behind when it is ended.
        let programs = run(Command::new("git").arg("--exec-path")).ok().text().to_owned();
        let child = Command::new(Path::new(&programs).join("git-daemon"))
            .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.display()))
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon starts");
        let address = format!("127.0.0.1:{port}");
        let up = (0..200).any(|_| {
            let up = TcpStream::connect(&address).is_ok();
            if !up {
                std::thread::sleep(Duration::from_millis(50));
            }
            up
        });
        assert!(up, "git daemon did not start");
        let directory = directory.to_owned();
        Some(Repositories { directory, child, url: format!("git://{address}") })
    }

    /// Where a repository's working tree is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs a shell script in the working tree of a repository, which is made if it is new.
    /// `commit MESSAGE` commits everything; what the script prints is given back.
    pub fn script(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        if !path.exists() {
            std::fs::create_dir_all(&path).expect("a directory");
            run(Command::new("git").args(["init", "-q", "-b", "main"]).arg(&path)).ok();
        }
        let script = format!(
            "set -e\numask 022\ncommit() {{ git add -A; git commit -q --allow-empty -m \"$1\"; }}\n{script}\ngit update-server-info"
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(&path).env("HOME", "/nonexistent");
        for (name, value) in [
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.com"),
            ("GIT_AUTHOR_DATE", "1500000000 +0000"),
            ("GIT_COMMITTER_DATE", "1500000000 +0000"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "protocol.file.allow"),
            ("GIT_CONFIG_VALUE_0", "always"),
        ] {
            shell.env(name, value);
        }
        run(&mut shell).ok().text().to_owned()
    }
}

impl Drop for Repositories {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
