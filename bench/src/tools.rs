//! The programs under test, and how each does the same work.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::buildkit::Daemon;
use crate::failure::{Failure, Result, check, context, output};

/// A program that builds, pulls and pushes images in a store of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builder {
    Rbuild,
    Buildah,
    Podman,
    /// Its daemon is running already, and keeps what it builds in its cache.
    Buildkit,
}

impl Builder {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Builder::Rbuild => "rbuild",
            Builder::Buildah => "buildah",
            Builder::Podman => "podman",
            Builder::Buildkit => "buildkit",
        }
    }
}

/// What is there of the programs, and where they may write.
pub(crate) struct Tools {
    bins: PathBuf,
    /// Where peers are looked for, in this order.
    peers: Vec<PathBuf>,
    temporary: PathBuf,
    chosen: Vec<String>,
}

impl Tools {
    /// All programs that exist, or those of them that were chosen.
    pub(crate) fn find(
        bins: &Path,
        peers: Option<&Path>,
        temporary: &Path,
        chosen: &[String],
    ) -> Result<Tools> {
        // Podman's own limits may be above those of this process, which it may not be able to raise.
        let settings =
            "[containers]\ndefault_ulimits = [\"nofile=16384:16384\", \"nproc=16384:16384\"]\n";
        let file = temporary.join("containers.conf");
        context("writing containers.conf", std::fs::write(file, settings))?;
        #[expect(clippy::disallowed_methods, reason = "a program, and the PATH is where peers are")]
        let path = std::env::var_os("PATH").unwrap_or_default();
        let peers = peers.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
        Ok(Tools {
            bins: bins.to_owned(),
            peers: peers.collect(),
            temporary: temporary.to_owned(),
            chosen: chosen.to_vec(),
        })
    }

    /// Whether a program takes part.
    pub(crate) fn has(&self, name: &str) -> bool {
        let chosen = self.chosen.is_empty() || self.chosen.iter().any(|one| one == name);
        chosen && (name == "floor" || self.path(name).is_some())
    }

    /// Our own programs are where they were built; a peer is in the directory of newer ones, else
    /// where Debian puts it.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let name = if name == "buildkit" { "buildctl" } else { name };
        match name {
            "rbuild" | "rcopy" => Some(self.bins.join(name)).filter(|path| path.exists()),
            _ => self.peers.iter().map(|peers| peers.join(name)).find(|path| path.exists()),
        }
    }

    /// A command of a program.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.path(name).unwrap_or_else(|| PathBuf::from(name)))
    }

    /// The builders that take part.
    pub(crate) fn builders(&self) -> Vec<Builder> {
        let all = [Builder::Rbuild, Builder::Buildah, Builder::Podman, Builder::Buildkit];
        all.into_iter().filter(|builder| self.has(builder.name())).collect()
    }

    /// The version a program reports.
    pub(crate) fn version(&self, name: &str) -> String {
        let argument = if name == "crane" { "version" } else { "--version" };
        let text = output(self.command(name).arg(argument)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        if line.starts_with(name) { line.to_owned() } else { format!("{name} {line}") }
    }

    /// A path below the benchmark's temporary directory.
    pub(crate) fn temporary(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// An empty image store of a builder; what was there before goes.
    pub(crate) fn store(&self, builder: Builder, name: &str) -> Result<Store<'_>> {
        let root = self.temporary(name).join(builder.name());
        let mut store =
            Store { tools: self, builder, root, daemon: None, last: RefCell::default() };
        store.clear();
        if builder == Builder::Buildkit {
            let program = |name: &str| self.path(name).unwrap_or_else(|| PathBuf::from(name));
            let (daemon, runtime) = (program("buildkitd"), program("runc"));
            store.daemon = Some(Daemon::start(&daemon, &runtime, &store.root)?);
        }
        Ok(store)
    }
}

/// The image store of one builder, removed when dropped.
pub(crate) struct Store<'a> {
    tools: &'a Tools,
    builder: Builder,
    root: PathBuf,
    daemon: Option<Daemon>,
    /// What BuildKit built last, as it has no images to look into: Dockerfile and context.
    last: RefCell<(PathBuf, PathBuf)>,
}

impl Store<'_> {
    fn clear(&self) {
        unmount_below(&self.root);
        let _ = std::fs::remove_dir_all(&self.root);
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.tools.command(self.builder.name());
        match self.builder {
            Builder::Rbuild => drop(command.arg("--root").arg(&self.root)),
            Builder::Buildkit => {
                let address = self.daemon.as_ref().map_or("", Daemon::address);
                command.args(["--addr", address]);
            }
            Builder::Buildah | Builder::Podman => {
                command.arg("--root").arg(self.root.join("root"));
                command.arg("--runroot").arg(self.root.join("run"));
                command.args(["--storage-driver", "overlay"]);
                command.env("CONTAINERS_CONF", self.tools.temporary("containers.conf"));
            }
        }
        if self.builder == Builder::Podman {
            command.arg("--tmpdir").arg(self.root.join("tmp"));
        }
        command
    }

    /// Builds with the step cache on, as it is by default (for Buildah: as `--layers` has it).
    pub(crate) fn build(&self, dockerfile: &Path, context: &Path, name: &str) -> Command {
        let mut command = self.command();
        if self.builder == Builder::Buildkit {
            self.last.replace((dockerfile.to_owned(), context.to_owned()));
            return with_dockerfile(command, dockerfile, context);
        }
        command.arg(if self.builder == Builder::Podman { "build" } else { "bud" });
        match self.builder {
            Builder::Rbuild => drop(command.args(["--progress", "plain"])),
            Builder::Buildah => drop(command.arg("--layers")),
            Builder::Podman | Builder::Buildkit => {}
        }
        command.args(["--tls-verify=false", "--network", "none", "-t", name, "-f"]);
        command.arg(dockerfile).arg(context);
        command
    }

    /// Gets an image, unpacked where the builder does that on its own time.
    pub(crate) fn pull(&self, image: &str) -> Command {
        let mut command = self.command();
        if self.builder == Builder::Buildkit {
            let directory = self.root.join("pull");
            let text = format!("FROM {image}\nWORKDIR /pulled\n");
            let _ = std::fs::create_dir_all(&directory);
            let file = directory.join("Dockerfile");
            let _ = std::fs::write(&file, text);
            self.last.replace((file.clone(), directory.clone()));
            return with_dockerfile(command, &file, &directory);
        }
        command.args(["pull", "--quiet", "--tls-verify=false", image]);
        command
    }

    /// Pushes, compressing with `gzip` or `zstd`.
    pub(crate) fn push(&self, image: &str, destination: &str, compression: &str) -> Command {
        let mut command = self.command();
        command.args(["push", "--quiet", "--tls-verify=false"]);
        if self.builder != Builder::Rbuild {
            command.arg(format!("--compression-format={compression}"));
            return with(command, &[image, &format!("docker://{destination}")]);
        }
        with(command, &[image, destination])
    }

    /// What a shell script prints in the image, unmeasured; fails if the script does.
    pub(crate) fn script(&self, image: &str, script: &str) -> Result<String> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if self.builder == Builder::Buildkit {
            return self.look(script).map(text);
        }
        if self.builder != Builder::Buildah {
            let mut command = self.command();
            command.args(["run", "--rm", "--network", "none", image, "/bin/sh", "-ec", script]);
            return output(&mut command).map(text);
        }
        let id = output(self.command().args(["from", "--pull-never", image])).map(text)?;
        let run = ["run", "--network", "none", &id, "--", "/bin/sh", "-ec", script];
        let done = output(self.command().args(run)).map(text);
        check(self.command().args(["rm", &id]))?;
        done
    }

    /// Builds on what BuildKit built last: one step that fails if the script does.
    fn look(&self, script: &str) -> Result<Vec<u8>> {
        let (dockerfile, directory) = self.last.borrow().clone();
        let text = context("reading a Dockerfile", std::fs::read_to_string(&dockerfile))?;
        let file = self.root.join("Dockerfile.look");
        let text = format!("{text}\nUSER root\nRUN {script}\n");
        context("writing a Dockerfile", std::fs::write(&file, text))?;
        output(&mut with_dockerfile(self.command(), &file, &directory))
    }

    /// Forgets an image, and what the builder keeps of it where that is a command of its own.
    pub(crate) fn remove(&self, image: &str) -> Result<()> {
        if self.builder == Builder::Buildkit {
            return Ok(());
        }
        check(self.command().args(["rmi", "-f", image]))
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        self.daemon = None;
        self.clear();
    }
}

/// Tells `buildctl` to build without a network.
fn with_dockerfile(mut command: Command, dockerfile: &Path, context: &Path) -> Command {
    let directory = dockerfile.parent().unwrap_or_else(|| Path::new("."));
    let name = dockerfile.file_name().unwrap_or_default().to_string_lossy();
    command.args(["build", "--progress", "plain", "--frontend", "dockerfile.v0"]);
    command.args(["--opt", "force-network-mode=none", "--opt", &format!("filename={name}")]);
    command.args(["--local", &format!("context={}", context.display())]);
    command.args(["--local", &format!("dockerfile={}", directory.display())]);
    command
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// Unmounts whatever a program left mounted below a directory.
fn unmount_below(directory: &Path) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Fails with a sentence unless something holds.
pub(crate) fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(what())) }
}
