//! Running git so that nothing of this machine's or the repository's configuration takes part.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use task::{Kind, Task};

use super::GitUrl;
use crate::{Error, Result};

/// No answer of git is longer.
const ANSWER: u64 = 16 << 20;
/// As much of what git says is shown.
const SAID: u64 = 64 << 10;
/// How long to sleep between two looks at a running git.
const NAP: Duration = Duration::from_millis(20);

/// What git is given of the surroundings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Where `git` and `ssh` are looked for.
    pub(crate) search_path: OsString,
    /// The socket of an ssh agent.
    pub(crate) agent: Option<PathBuf>,
    /// Instead of an agent there are key files, which git cannot be given.
    pub(crate) keys_alone: bool,
    /// Proxy variables.
    pub(crate) proxies: Vec<(String, String)>,
    /// Value of the `Authorization` header, by host; an empty host means every one.
    pub(crate) authorization: Vec<(String, String)>,
}

/// A git of our own for one repository.
pub(super) struct Git<'a> {
    pub(super) url: &'a GitUrl,
    pub(super) with: &'a Surroundings,
    pub(super) task: &'a Task,
}

impl Git<'_> {
    /// Runs a command of git in a directory; what it printed.
    pub(super) fn run(&self, directory: &Path, arguments: &[&str]) -> Result<String> {
        let plain = ["http://", "https://", "git://"];
        if self.with.keys_alone && !plain.iter().any(|scheme| self.url.remote.starts_with(scheme)) {
            let reason = "the ssh agent \"default\" is made of key files, which work for RUN only: \
                          pass the socket of an agent that has the keys";
            return Err(self.failed(Kind::Invalid, reason.to_owned()));
        }
        let mut command = Command::new("git");
        command.args(arguments).current_dir(directory).env_clear();
        command.envs(self.environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // So that its helpers end with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.failed(
                Kind::NotFound,
                "the program git is not installed: install it, or give a directory".to_owned(),
            ),
            _ => self.failed(Kind::System, format!("starting git: {error}")),
        })?;
        let answer = collect(child.stdout.take(), ANSWER);
        let said = collect(child.stderr.take(), SAID);
        let status = self.wait(&mut child)?;
        let (answer, said) = (answer.join(), said.join());
        let text = |joined: std::thread::Result<Vec<u8>>| {
            String::from_utf8_lossy(&joined.unwrap_or_default()).into_owned()
        };
        let said = text(said);
        if status.success() {
            return Ok(text(answer));
        }
        Err(self.failed(kind(&said), shortened(&said)))
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        loop {
            let ended = child.try_wait();
            match ended.map_err(|error| self.failed(Kind::System, error.to_string()))? {
                Some(status) => return Ok(status),
                None => std::thread::sleep(NAP),
            }
            if let Err(cancelled) = self.task.check() {
                let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    let signal = rustix::process::Signal::KILL;
                    let _ = rustix::process::kill_process_group(pid, signal);
                }
                let _ = child.wait();
                return Err(cancelled.into());
            }
        }
    }

    pub(super) fn failed(&self, kind: Kind, reason: String) -> Error {
        Error::Download { url: self.url.to_string(), kind, source: reason.into() }
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            all.push((name.into(), value.as_ref().to_owned()));
        };
        set("PATH", &self.with.search_path);
        set("HOME", &"/nonexistent");
        set("LC_ALL", &"C");
        set("GIT_CONFIG_NOSYSTEM", &"1");
        set("GIT_CONFIG_GLOBAL", &"/dev/null");
        set("GIT_TERMINAL_PROMPT", &"0");
        set("GIT_ASKPASS", &"/bin/false");
        set("SSH_ASKPASS", &"/bin/false");
        set("GIT_ALLOW_PROTOCOL", &"http:https:git:ssh");
        set("GIT_SSH_VARIANT", &"ssh");
        // Host keys are those the user knows; nothing of his configuration is run.
        let ssh = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o ProxyCommand=none \
                   -o PermitLocalCommand=no";
        set("GIT_SSH_COMMAND", &ssh);
        if let Some(agent) = &self.with.agent {
            set("SSH_AUTH_SOCK", agent);
        }
        for (name, value) in &self.with.proxies {
            set(name, value);
        }
        for (number, (key, value)) in self.settings().iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{number}"), key);
            set(&format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        set("GIT_CONFIG_COUNT", &self.settings().len().to_string());
        all
    }

    /// Settings, which reach git through its environment: a command line is for all to read.
    fn settings(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = [
            ("init.defaultBranch", "main"),
            ("advice.detachedHead", "false"),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.autocrlf", "false"),
            ("core.symlinks", "true"),
            ("core.fileMode", "true"),
            ("core.logAllRefUpdates", "false"),
            ("protocol.ext.allow", "never"),
            ("protocol.file.allow", "never"),
            ("credential.helper", ""),
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "60"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        if let Some(header) = self.authorization() {
            // It goes to this server alone, and redirects lead elsewhere.
            let scheme = self.url.remote.split_once("://").map_or("https", |(scheme, _)| scheme);
            let key = format!("http.{scheme}://{}/.extraHeader", self.url.host);
            all.push((key, format!("Authorization: {header}")));
            all.push(("http.followRedirects".to_owned(), "false".to_owned()));
        }
        all
    }

    fn authorization(&self) -> Option<String> {
        if !self.url.remote.starts_with("http") {
            return None;
        }
        if let Some((user, password)) = &self.url.credentials {
            let pair = format!("{user}:{password}");
            return Some(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair)));
        }
        let of = |host: &str| self.with.authorization.iter().find(|(known, _)| known == host);
        of(&self.url.host).or_else(|| of("")).map(|(_, header)| header.clone())
    }
}

/// Reads what a child writes, as much of it as is wanted, and the rest to nowhere.
fn collect<R: Read + Send + 'static>(
    pipe: Option<R>,
    limit: u64,
) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(limit).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        bytes
    })
}

/// Whether it may work later, by what git says.
fn kind(said: &str) -> Kind {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["Authentication failed", "could not read Username", "Permission denied", " 403"]) {
        Kind::Denied
    } else if has(&["not found", "does not exist", "not appear to be a git", "couldn't find"]) {
        Kind::NotFound
    } else if has(&["Host key verification failed", "not allowed"]) {
        Kind::Refused
    } else {
        Kind::Unavailable
    }
}

/// The lines of git's complaint that say something, on one line.
fn shortened(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<&str> = lines
        .clone()
        .filter(|line| line.starts_with("fatal:") || line.starts_with("error:"))
        .collect();
    let told = if told.is_empty() { lines.collect() } else { told };
    let text = told.join("; ");
    text.chars().filter(|c| !c.is_control()).take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_refused_where_ssh_would_need_them() {
        let with = Surroundings { keys_alone: true, ..Surroundings::default() };
        let directory = tempfile::tempdir().unwrap();
        let refused = |address: &str| {
            let url = GitUrl::parse(address).unwrap();
            let git = Git { url: &url, with: &with, task: &Task::silent() };
            let told = git.run(directory.path(), &["version"]).err();
            told.is_some_and(|error| task::chain(&error).join(": ").contains("key files"))
        };
        assert!(refused("git@host.example:team/app.git"));
        assert!(refused("ssh://git@host.example/team/app.git"));
        assert!(!refused("https://host.example/team/app.git"));
    }
}
