//! Credential helpers: programs that keep secrets (docker-credential-helpers protocol).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{AuthFiles, Credential};
use crate::{Error, Result};

/// The most a helper may say.
const ANSWER: u64 = 64 << 10;
/// The user name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperReply {
    #[serde(default, rename = "ServerURL")]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// One helper program.
pub(super) struct Helper<'a> {
    files: &'a AuthFiles,
    name: String,
    program: PathBuf,
}

impl<'a> Helper<'a> {
    /// Finds `docker-credential-<suffix>` in the directories the caller allows.
    pub(super) fn find(files: &'a AuthFiles, suffix: &str) -> Result<Helper<'a>> {
        let name = format!("docker-credential-{suffix}");
        let failed = |reason: &str| Error::Helper { helper: name.clone(), reason: reason.into() };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if suffix.is_empty() || !suffix.chars().all(plain) {
            return Err(failed("it is not the name of a helper"));
        }
        let candidates = files.helper_dirs.iter().filter(|directory| directory.is_absolute());
        let mut candidates = candidates.map(|directory| directory.join(&name));
        let program = candidates.find(|path| path.is_file());
        let program = program.ok_or_else(|| failed("it is not installed"))?;
        Ok(Helper { files, name, program })
    }

    /// The credential for a server; `None` when the helper has none.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>> {
        let (success, out) = self.run("get", server)?;
        if !success {
            let said = crate::wire::printable(&String::from_utf8_lossy(&out));
            // The protocol's only way to say "none".
            let none = ["credentials not found", "no credentials", "item not found"];
            let lower = said.to_ascii_lowercase();
            if none.iter().any(|text| lower.contains(text)) {
                return Ok(None);
            }
            return Err(self.failed(if said.is_empty() { "it failed".into() } else { said }));
        }
        let entry: HelperReply = serde_json::from_slice(&out)
            .map_err(|_| self.failed("its output is not the expected JSON".into()))?;
        Ok(Some(match entry.username.as_str() {
            _ if entry.secret.is_empty() => return Ok(None),
            TOKEN_USER => Credential::Identity(entry.secret),
            _ => Credential::Basic { username: entry.username, password: entry.secret },
        }))
    }

    pub(super) fn store(&self, server: &str, credential: &Credential) -> Result<()> {
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.clone(), password.clone()),
            Credential::Identity(token) => (TOKEN_USER.to_owned(), token.clone()),
            Credential::Anonymous | Credential::Bearer(_) => {
                return Err(self.failed("it stores passwords and identity tokens only".into()));
            }
        };
        let entry = HelperReply { server: server.to_owned(), username, secret };
        let entry =
            serde_json::to_string(&entry).map_err(|error| self.failed(error.to_string()))?;
        self.done("store", &entry)
    }

    pub(super) fn erase(&self, server: &str) -> Result<()> {
        self.done("erase", server)
    }

    fn done(&self, action: &str, input: &str) -> Result<()> {
        let (success, out) = self.run(action, input)?;
        if success {
            return Ok(());
        }
        Err(self.failed(crate::wire::printable(&String::from_utf8_lossy(&out))))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Helper { helper: self.name.clone(), reason }
    }

    /// Runs the helper with a clean environment, for a bounded time, hearing a bounded answer.
    fn run(&self, action: &str, input: &str) -> Result<(bool, Vec<u8>)> {
        let mut child = Command::new(&self.program)
            .arg(action)
            .env_clear()
            .envs(self.files.helper_env.iter().map(|(key, value)| (key, value)))
            .current_dir(Path::new("/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| self.failed(format!("it cannot be run: {error}")))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let input = input.to_owned();
        // Threads, so that neither a helper that does not read nor one that does not end holds us.
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut out = Vec::new();
            let read = stdout.map(|stdout| stdout.take(ANSWER).read_to_end(&mut out));
            let _ = send.send(read.and_then(Result::ok).map(|_| out));
        });
        let deadline = Instant::now() + self.files.helper_timeout;
        let out = receive.recv_timeout(self.files.helper_timeout);
        let status = wait(&mut child, deadline);
        match (out, status) {
            (Ok(Some(out)), Some(success)) => Ok((success, out)),
            (_, None) | (Err(_), _) => {
                Err(self
                    .failed(format!("it did not answer within {:?}", self.files.helper_timeout)))
            }
            (Ok(None), _) => Err(self.failed("its answer cannot be read".into())),
        }
    }
}

/// Whether the child succeeded; `None` if it had to be stopped.
fn wait(child: &mut Child, deadline: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
