//! `rbuild run`: an image's program, in a container.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use image::{Image, Platform};
use runtime::{
    AttachOptions, Attached, Bundle, Container, ContainerSpec, MachineFiles, Mount, Network,
    Propagation, StartOptions, Stdio, Streams, UserFile,
};
use serde_json::json;
use store::Store;
use task::{Cause, Kind, Silent, Task};

use super::container_flags::ContainerFlags;
use super::lookup;
use super::place;
use super::registry_flags::RegistryFlags;
use super::working;
use crate::app::{App, observed};
use crate::flags;
use crate::render::Progress;
use crate::report::Failure;

/// Run a program in a new container, or in a working container
///
/// The name of a working container wins over that of an image: the command runs in it, and what it
/// changes stays. An image's program runs in a container of its own.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long, visible_alias = "terminal")]
    tty: bool,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long)]
    name: Option<String>,
    /// Remove a container of the same name first
    #[arg(long, requires = "name")]
    replace: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Keys that leave the container running in the background
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = detach_keys)]
    detach_keys: Keys,
    /// Signal that `stop` sends (default: the image's, else TERM)
    #[arg(long, value_name = "SIGNAL", value_parser = flags::signal)]
    stop_signal: Option<runtime::Signal>,
    /// Add a label to the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value = "missing")]
    pull: PullPolicy,
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    working: working::RunFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// The image or working container, then the command and its arguments (default: the image's)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE|CONTAINER", "COMMAND"])]
    image_and_command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    Missing,
    Always,
    Never,
}

#[derive(Debug, Clone)]
struct Keys(Vec<u8>);

fn detach_keys(text: &str) -> Result<Keys, String> {
    flags::detach_keys(text).map(Keys)
}

/// Failures before the program runs are told apart from the program's own codes, as docker does.
const BEFORE: u8 = 125;

impl Run {
    /// Runs; gives back the program's exit code.
    ///
    /// # Errors
    /// 125 for what is ours, 126 and 127 when the program cannot be started.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        self.start(app).map_err(|failure| match failure.code {
            None => Failure { code: Some(BEFORE), ..failure },
            Some(2) => Failure { code: Some(BEFORE), ..failure },
            Some(_) => failure,
        })
    }

    fn image_name(&self) -> &str {
        self.image_and_command.first().map(String::as_str).unwrap_or_default()
    }

    fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }

    fn start(&self, app: &App) -> Result<u8, Failure> {
        // What follows the image is the container's, so an unknown flag looks like the image.
        if self.image_name().starts_with('-') {
            return Err(Failure::usage(format!("there is no flag {}", self.image_name()))
                .hint("`rbuild run --help` lists the flags; they stand before the image"));
        }
        self.working.check()?;
        let store = app.store()?;
        if let Some(found) = builder::working::Working::find(store, self.image_name())? {
            return self.in_working(app, found);
        }
        if let Some(flag) = self.working.given() {
            return Err(Failure::usage(format!("{flag} is for working containers"))
                .hint(format!("there is no working container {:?}", self.image_name())));
        }
        // Wrong flags are told before anything is fetched.
        refuse_overlays(&self.container.spec(self.command(), self.tty)?)?;
        let _lease = store.lease()?;
        let image = self.image(app)?;
        let task = Task::root("run", Arc::new(Silent));
        // A container nobody can refer to needs no record and no monitor.
        let code = if self.rm
            && !self.tty
            && !self.detach
            && self.name.is_none()
            && self.cidfile.is_none()
        {
            self.transient(store, &image, &task)?
        } else {
            self.kept(store, &image, &task)?
        };
        task.done();
        Ok(code)
    }

    fn in_working(&self, app: &App, found: builder::working::Working) -> Result<u8, Failure> {
        let given = [
            (self.detach, "--detach"),
            (self.rm, "--rm"),
            (self.name.is_some(), "--name"),
            (self.cidfile.is_some(), "--cidfile"),
            (self.stop_signal.is_some(), "--stop-signal"),
            (!self.label.is_empty(), "--label"),
            (self.platform.is_some(), "--platform"),
            (self.container.names_entrypoint(), "--entrypoint"),
        ];
        if let Some((_, flag)) = given.iter().find(|(given, _)| *given) {
            return Err(Failure::usage(format!("{flag} is for new containers"))
                .hint(format!("{} is a working container", found.name())));
        }
        let wish = working::Wish {
            flags: &self.working,
            container: &self.container,
            command: self.command(),
            tty: self.tty,
        };
        let task = Task::root("run", Arc::new(Silent));
        let code = working::run(app, found, &wish, &task)?;
        task.done();
        Ok(code)
    }

    fn image(&self, app: &App) -> Result<Image, Failure> {
        let store = app.store()?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        if self.pull != PullPolicy::Always
            && let Some(found) = lookup::find(store, self.image_name())?
        {
            let image = store.image(&found.descriptor, &platform)?;
            if self.platform.is_some() && image.platform().serves(&platform).is_none() {
                let (name, its) = (self.image_name(), image.platform());
                return Err(Failure::new(
                    Kind::Refused,
                    format!("image {name} is for {its}, not for {platform}"),
                )
                .hint("--pull=always asks the registry again"));
            }
            return Ok(image);
        }
        if self.pull == PullPolicy::Never {
            lookup::require(store, self.image_name())?;
        }
        let from = place::remote_locations(app, self.image_name())?;
        let reach = self.registry.reach()?;
        let root = place::first_there(&from, |from| {
            observed("pull", Progress::Auto, |task| {
                place::pull(app, from, &platform, reach.clone(), task)
            })
        })?;
        Ok(store.image(&root, &platform)?)
    }

    /// Runs in a directory that is forgotten.
    fn transient(&self, store: &Store, image: &Image, task: &Task) -> Result<u8, Failure> {
        let snapshot = store.unpack(image, task)?;
        let active = store.begin()?;
        let root = active.stack(snapshot)?.mount()?;
        let id = random_id()?;
        let (spec, document) = self.spec(image, &root, &id, active.dir())?;
        let bundle = Bundle { spec: document, rootfs: root.into_fd() };
        let stdio = if self.interactive { Stdio::Inherit } else { Stdio::Outputs };
        let options = StartOptions { id, init: spec.process.init, owners: runtime::single_id() };
        let container = Container::start(bundle, stdio, &options).map_err(start_failure)?;
        let forwarding = forward_signals(container.pid());
        let status = container.wait(task)?;
        drop(forwarding);
        Ok(status.code())
    }

    /// Runs as a container with a record, a directory and a process that watches it.
    fn kept(&self, store: &Store, image: &Image, task: &Task) -> Result<u8, Failure> {
        if self.tty && !self.detach && !std::io::stdin().is_terminal() {
            return Err(Failure::new(Kind::Invalid, "standard input is not a terminal")
                .hint("leave out --tty, or run with --detach"));
        }
        let snapshot = store.unpack(image, task)?;
        let id = random_id()?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => format!("{}-{}", super::container::word(self.image_name()), &id[..6]),
        };
        if self.replace
            && let Some(old) = super::container::find(store, &name)?
        {
            old.remove(store, true)?;
        }
        if let Some(file) = &self.cidfile {
            let created = File::options().write(true).create_new(true).open(file);
            created
                .and_then(|mut file| file.write_all(id.as_bytes()))
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        let record = store.add_container(&id, &name, Some(image.descriptor()), snapshot)?;
        let launched = self.launch(store, image, &record);
        if let Err(failure) = launched {
            store.remove_container(&id)?;
            return Err(failure);
        }
        if self.detach {
            outln!("{id}");
            return Ok(0);
        }
        let options = AttachOptions {
            input: self.interactive,
            detach_keys: if self.tty { self.detach_keys.0.clone() } else { Vec::new() },
            forward_signals: true,
            replay: true,
        };
        match runtime::attach(&record.directory, &options, task)? {
            Attached::Detached => {
                if self.rm {
                    remove_when_ended(&record.directory)?;
                }
                eprintln!("detached from {name}; `rbuild attach {name}` comes back");
                Ok(0)
            }
            Attached::Exited(status) => {
                if self.rm {
                    store.remove_container(&id)?;
                }
                Ok(status.code())
            }
        }
    }

    fn launch(
        &self,
        store: &Store,
        image: &Image,
        record: &store::ContainerRecord,
    ) -> Result<(), Failure> {
        let root = store.container_stack(record)?.mount()?;
        let (spec, document) = self.spec(image, &root, &record.id, &record.directory)?;
        let about = json!({
            "image": self.image_name(), "command": document.process().as_ref().and_then(|p| p.args().clone()),
            "stopSignal": self.stop_signal.map(|signal| signal.0.to_string())
                .or_else(|| image.config().config.stop_signal.clone()),
            "labels": self.label.iter().map(|text| flags::pair(text)).collect::<BTreeMap<_, _>>(),
            "remove": self.rm && self.detach,
        });
        let file = record.directory.join("about.json");
        std::fs::write(&file, about.to_string())
            .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        let bundle = Bundle { spec: document, rootfs: root.into_fd() };
        let terminal = self.tty.then(|| {
            let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
            size.map_or((24, 80), |size| (size.ws_row, size.ws_col))
        });
        let attached = !self.detach;
        let streams = Streams { terminal, interactive: self.interactive, attached };
        let options = StartOptions {
            id: record.id.clone(),
            init: spec.process.init,
            owners: runtime::single_id(),
        };
        runtime::launch(&record.directory, bundle, streams, &options).map_err(start_failure)?;
        Ok(())
    }

    fn spec(
        &self,
        image: &Image,
        root: &layers::Root,
        id: &str,
        directory: &Path,
    ) -> Result<(ContainerSpec, runtime::oci::Spec), Failure> {
        let mut spec = self.container.spec(self.command(), self.tty)?;
        if spec.network.http_proxy == Some(true) {
            let proxies = crate::config::proxies().into_iter();
            let proxies = proxies.map(|(name, value)| format!("{name}={value}"));
            spec.process.env.splice(0..0, proxies);
        }
        spec.network.mode.get_or_insert(Network::None);
        spec.network.hostname.get_or_insert_with(|| id[..12].to_owned());
        add_network_files(directory, &mut spec)?;
        check_volumes(image)?;
        let document =
            runtime::spec(&image.config().config, &spec, &|file: UserFile| users(root, file))?;
        give(&spec, &document)?;
        Ok((spec, document))
    }
}

/// Gives the volumes with option `U` to the user of the container.
///
/// # Errors
/// They cannot be given.
pub(crate) fn give(spec: &ContainerSpec, document: &runtime::oci::Spec) -> Result<(), Failure> {
    let owner = runtime::owner(document);
    let give = |path: &PathBuf| layers::give_all(path, owner);
    spec.files
        .given
        .iter()
        .try_for_each(give)
        .map_err(|error| Failure::from(error).hint("--volume …:U"))
}

/// VOLUMEs of the image live in the container's own layer; a mount of the user's wins.
fn check_volumes(image: &Image) -> Result<(), Failure> {
    let relative = image.config().config.volumes.keys().find(|volume| !volume.starts_with('/'));
    match relative {
        None => Ok(()),
        Some(volume) => Err(Failure::new(
            Kind::Invalid,
            format!("the image declares the volume {volume:?}, which is not an absolute path"),
        )),
    }
}

/// The user databases of the image, each at most 16 MiB.
pub(crate) fn users(root: &layers::Root, file: UserFile) -> Result<Option<String>, Cause> {
    let path = match file {
        UserFile::Passwd => "etc/passwd",
        UserFile::Group => "etc/group",
    };
    match root.read(Path::new(path), 16 << 20) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if task::Fault::kind(&error) == Kind::NotFound => Ok(None),
        Err(error) => Err(Cause::new(error)),
    }
}

/// Overlays over directories of the machine are for builds.
pub(crate) fn refuse_overlays(spec: &ContainerSpec) -> Result<(), Failure> {
    match spec.files.overlays.first() {
        None => Ok(()),
        Some(overlay) => {
            let what = format!("--volume {}:…:O is not supported here", overlay.source.display());
            Err(Failure::usage(what).hint("option O is for `rbuild bud`; mount it read-only: `ro`"))
        }
    }
}

/// Writes hosts, hostname and resolv.conf of a container to its directory and mounts them first.
pub(crate) fn add_network_files(directory: &Path, spec: &mut ContainerSpec) -> Result<(), Failure> {
    let host = spec.network.mode() == Network::Host;
    let machine = |path: &str| {
        if host { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() }
    };
    let (hosts, resolv_conf) = (machine("/etc/hosts"), machine("/etc/resolv.conf"));
    let hostname = spec.network.hostname.clone().unwrap_or_default();
    let machine = MachineFiles { hosts: &hosts, resolv_conf: resolv_conf.as_bytes() };
    let files = spec.network.files(machine, &hostname, &[(&hostname, [127, 0, 0, 1].into())]);
    let mut mounts = Vec::new();
    for (name, content) in [
        ("hosts", files.hosts.map(String::into_bytes)),
        ("hostname", files.hostname.map(String::into_bytes)),
        ("resolv.conf", files.resolv_conf),
    ] {
        let Some(content) = content else { continue };
        let path = directory.join(name);
        std::fs::write(&path, content)
            .map_err(|error| Failure::io(format!("writing {}", path.display()), &error))?;
        mounts.push(Mount::Bind {
            source: path,
            target: Path::new("/etc").join(name),
            read_only: false,
            recursive: false,
            propagation: Propagation::Private,
        });
    }
    spec.files.mounts.splice(0..0, mounts);
    Ok(())
}

/// Tells a program that cannot be started from a failure of ours: 127, 126, 125.
pub(crate) fn start_failure(error: runtime::Error) -> Failure {
    let code = error.exit_code();
    Failure { code: Some(code), ..Failure::from(error) }
}

/// 64 hexadecimal digits from the kernel.
pub(crate) fn random_id() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    got.map_err(|error| Failure::io("reading random bytes", &error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Passes INT, TERM, HUP, QUIT, USR1 and USR2 on to the container's first process.
pub(crate) fn forward_signals(pid: u32) -> Option<Forwarding> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let all = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = signal_hook::iterator::Signals::new(all).ok()?;
    let handle = signals.handle();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    Some(Forwarding(handle))
}

/// Signals are passed on as long as this lives.
pub(crate) struct Forwarding(signal_hook::iterator::Handle);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How long `stop` waits before it kills.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Notes that whoever finds the container ended removes it: nobody waits for it any more.
fn remove_when_ended(directory: &Path) -> Result<(), Failure> {
    let file = directory.join("about.json");
    let note = || -> std::io::Result<()> {
        let mut about: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        about["remove"] = true.into();
        let new = directory.join("about.json.new");
        std::fs::write(&new, about.to_string())?;
        std::fs::rename(new, &file)
    };
    note().map_err(|error| Failure::io(format!("writing {}", file.display()), &error))
}
