//! What end-to-end tests share: the real binaries on a store of their own, real registries, a base
//! image with busybox.

pub mod bucket;
pub mod git;
pub mod http;
pub mod image;
pub mod kill;
pub mod netns;
pub mod registry;
pub mod scene;
pub mod served;
pub mod terminal;
pub mod user;
pub mod watch;
pub mod wire;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A place for one test: a directory, and in it a store.
pub struct Bench {
    directory: tempfile::TempDir,
    user: Option<(u32, u32)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// How it was called, for messages.
    pub line: String,
    /// Its exit code; 128+n for signal n.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// How many errors it told of.
    pub fn errors(&self) -> usize {
        let is_error = |line: &&str| line.starts_with("error: ") || line.starts_with("error[");
        self.stderr.lines().filter(is_error).count()
    }

    /// The command must have ended with 0.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{}", self.told());
        self
    }

    /// The command must have ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}", self.told());
        self
    }

    /// The command must have failed, and said this.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> Ran {
        assert_ne!(self.code, 0, "{}", self.told());
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {}", self.told());
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.told());
        self
    }

    /// Standard output without the last line break.
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    /// Everything about it, for a failing test.
    pub fn told(&self) -> String {
        let Ran { line, code, stdout, stderr } = self;
        format!("$ {line}\nexit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    ran(line, &output)
}

/// What a finished command did.
pub fn ran(line: String, output: &Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { line, code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The binary of this build: `rbuild` or `rcopy`.
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let directory = here.parent().and_then(Path::parent).expect("a target directory");
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --bins` first", path.display());
    path
}

pub use requires::{cannot, program as peer, root};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

impl Default for Bench {
    fn default() -> Self {
        Bench::new()
    }
}

impl Bench {
    /// An empty store in a directory of its own.
    pub fn new() -> Bench {
        Bench { directory: tempfile::tempdir().expect("a temporary directory"), user: None }
    }

    /// An empty store of another user, in a directory of his; every command runs as him. Needs
    /// root.
    pub fn of(uid: u32, gid: u32) -> Bench {
        let mut bench = Bench::new();
        let own = |path: &Path| {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may do this");
        };
        own(bench.path());
        std::fs::create_dir(bench.path().join("home")).expect("a home");
        own(&bench.path().join("home"));
        for name in ["rbuild", "rcopy"] {
            // He may not be able to reach the target directory.
            let (from, to) = (binary(name), bench.path().join(name));
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).expect("a copy");
            }
        }
        bench.user = Some((uid, gid));
        bench
    }

    /// Whether its commands run as an ordinary user.
    pub fn is_of_a_user(&self) -> bool {
        self.user.is_some()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// A command of ours on this bench's store.
    pub fn command(&self, name: &str) -> Command {
        let home = self.path().join("home");
        if let Some((uid, gid)) = self.user {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
            command.arg("--clear-groups").arg(self.path().join(name)).env_clear();
            let path = "/usr/local/bin:/usr/bin:/bin";
            command.env("PATH", path).env("HOME", home).env("RBUILD_ROOT", self.store());
            command.current_dir(self.path());
            return command;
        }
        let mut command = Command::new(binary(name));
        std::fs::create_dir_all(&home).expect("a home");
        command.current_dir(self.path()).env("RBUILD_ROOT", self.store()).env("HOME", home);
        for variable in [
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "REGISTRY_AUTH_FILE",
            "DOCKER_CONFIG",
            "SOURCE_DATE_EPOCH",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// A command of ours under the name of a tool, as by a link, on this bench's store.
    pub fn tool(&self, name: &str) -> Command {
        let links = self.path().join("bin");
        std::fs::create_dir_all(&links).expect("a directory");
        let link = links.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(binary("rbuild"), &link).expect("a link");
        }
        let copies = matches!(name, "rcopy" | "skopeo" | "crane" | "regctl" | "oras");
        let as_is = self.command(if copies { "rcopy" } else { "rbuild" });
        let mut command = Command::new(link);
        command.current_dir(self.path());
        for (variable, value) in as_is.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command
    }

    /// Runs a line whose first word is the name of a tool.
    #[track_caller]
    pub fn line(&self, line: &str) -> Ran {
        let mut words = line.split(' ');
        let mut command = self.tool(words.next().expect("a name"));
        run(command.args(words))
    }

    /// Runs `rbuild` with these arguments.
    #[track_caller]
    pub fn rbuild<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(self.command("rbuild").args(arguments))
    }

    /// Runs `rcopy` with these arguments.
    #[track_caller]
    pub fn rcopy<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(self.command("rcopy").args(arguments))
    }

    /// Writes a file below the directory and gives back its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Builds a Dockerfile in a context of these files; gives back what `rbuild bud` did.
    #[track_caller]
    pub fn build(&self, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> Ran {
        let context = format!("context-{name}");
        self.write(&format!("{context}/Dockerfile"), dockerfile);
        for (file, content) in files {
            self.write(&format!("{context}/{file}"), content);
        }
        self.rbuild(["bud", "--progress=plain", "-t", name, &context])
    }

    /// Puts `localhost/busybox` into the store.
    #[track_caller]
    pub fn busybox(&self) {
        let layout = image::busybox(&self.path().join("busybox-layout"));
        let from = format!("oci:{}:busybox", layout.display());
        self.rcopy(["copy", &from, "store:localhost/busybox:latest"]).ok();
    }
}

/// A port of loopback that is free now, for a program that starts a moment later: below the range from which the kernel takes
/// ports for connections and for port 0, so that no test beside this one gets it meanwhile.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    loop {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let port = 20_000 + u16::try_from(random % 12_000).expect("a small number");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until this holds; a minute is for machines that are busy.
///
/// # Panics
/// It does not come to hold.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Has a command run under a seccomp filter that refuses `unshare`, as containers have it.
pub fn refuse_unshare(command: &mut Command) {
    refuse(command, &[libc::SYS_unshare]);
}

/// Has a command run under a seccomp filter that refuses these system calls.
pub fn refuse(command: &mut Command, calls: &[libc::c_long]) {
    use std::os::unix::process::CommandExt;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = vec![instruction(0x20, 0, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).expect("a small number");
        filter.push(instruction(0x15, 0, 1, number));
        filter.push(instruction(0x06, 0, 0, 0x0005_0000 | libc::EPERM.unsigned_abs()));
    }
    filter.push(instruction(0x06, 0, 0, 0x7fff_0000));
    let install = move || {
        let program =
            libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: plain system calls on a structure that outlives them.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_seccomp, 1u32, 0u32, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes two system calls.
    unsafe { command.pre_exec(install) };
}
