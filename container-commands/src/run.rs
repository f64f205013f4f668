//! `rbuild run`: an image's program, in a container.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use app::{App, Runnable, images, lookup, observed, place, quiet_task};
use clap::{ArgAction, Args, ValueEnum};
use containers::syntax;
use containers::{Container, ImageFiles, NewContainer, StartOptions, Transient};
use image::{Image, Platform};
use options::container::{ContainerFlags, LifecycleFlags};
use options::dialect::{Dialect, RunNames};
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::{Failure, environment, flags, refused};
use runtime::{AttachOptions, AttachOutcome, ContainerSpec, Notify, Stdio};
use task::{Kind, Task};

use crate::container::{self, attachment, need_terminal, size, start_failure};
use crate::descriptors::{DescriptorFlags, add_opened_sockets};
use crate::run_files::{check_health, find_mounted, volumes_from};
use crate::run_lazily;
use crate::working;

/// Flags of `run` and `create` for a new container.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct NewFlags {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long, visible_alias = "terminal")]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    rm: bool,
    /// Restart the container when it ends: no, on-failure[:TIMES], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = syntax::restart, conflicts_with = "rm")]
    restart: Option<runtime::Restart>,
    /// Name the container
    #[arg(long)]
    name: Option<String>,
    /// Replace a container of the same name
    #[arg(long, requires = "name")]
    replace: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Make `stop` send this signal (default: the image's, else TERM)
    #[arg(long, value_name = "SIGNAL", value_parser = flags::signal)]
    stop_signal: Option<runtime::Signal>,
    /// Make `stop` wait this many seconds before it kills (default: 10)
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Add a label to the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Mount the volumes and host paths of another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Pull the image: missing (default), always, never, or newer, which uses the image in the store if
    /// the pull fails
    #[arg(long, value_enum)]
    pull: Option<PullPolicy>,
    #[command(flatten)]
    platform: options::platform::PlatformFlags,
    /// Run in a directory of this machine instead of an image; with DIR:O the directory does not change
    #[arg(long)]
    rootfs: bool,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Read labels from a file, one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    #[command(flatten)]
    lifecycle: LifecycleFlags,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    registry: RegistryFlags,
}

/// Run a program in a new container, or in a working container
///
/// If the name is that of a working container, the command runs in it and its changes stay.
/// Otherwise the program runs in a new container of the image.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    #[command(flatten)]
    new: NewFlags,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Start before the image is here, and fetch files when they are read. Needs --rm, and layers in
    /// zstd:chunked, eStargz or gzip with an index
    #[arg(long)]
    lazy: bool,
    /// Remove the container and its image when the container ends, unless something else uses the image
    #[arg(long, conflicts_with_all = ["detach", "rootfs"])]
    rmi: bool,
    /// Detach from the container with these keys (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS", value_parser = flags::keys)]
    detach_keys: Option<flags::Keys>,
    /// Show only this stream, or connect standard input: stdin, stdout or stderr
    #[arg(
        short,
        long,
        value_name = "STREAM",
        value_enum,
        ignore_case = true,
        conflicts_with = "detach"
    )]
    attach: Vec<Stream>,
    /// Forward signals to the program (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: Option<bool>,
    #[command(flatten)]
    descriptors: DescriptorFlags,
    #[command(flatten)]
    working: working::RunFlags,
    /// The image or working container, then the command and its arguments (default: the image's)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE|CONTAINER", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// Make a container without starting it
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Create {
    #[command(flatten)]
    new: NewFlags,
    /// The image, then the command and its arguments (default: the image's)
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    Missing,
    Always,
    Never,
    Newer,
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// Failures before the program runs have exit codes that differ from the program's own, as in
/// docker.
const BEFORE: u8 = 125;

fn before(failure: Failure) -> Failure {
    match failure.code {
        None | Some(2) => Failure { code: Some(BEFORE), ..failure },
        Some(_) => failure,
    }
}

/// Whether a container asks for what only a monitor does.
fn wants_monitor(spec: &ContainerSpec) -> bool {
    let life = &spec.lifecycle;
    // The record says which ids are taken.
    let ids = matches!(spec.isolation.ids, Some(runtime::Ids::Auto(_)));
    // Its cgroup is how what it leaves in the other's process namespace is found.
    let joins = matches!(spec.isolation.pid, Some(runtime::Namespace::Join(_)));
    let told = life.pidfile.is_some() || life.monitor_pidfile.is_some();
    ids || joins
        || told
        || !life.requires.is_empty()
        || life.health.test.is_some()
        || life.notify != Notify::Ignore
        || life.timeout > 0
}

/// What follows the image is the container's, so an unknown flag looks like the image.
fn check_image(words: &[String]) -> Result<(&str, &[String]), Failure> {
    let (image, command) = match words.split_first() {
        Some((image, command)) => (image.as_str(), command),
        None => ("", &[][..]),
    };
    if image.starts_with('-') {
        if let Some(why) = refused::reason(image) {
            return Err(Failure::usage(format!("{image} is not supported")).hint(why));
        }
        let known = Run::augment_args(clap::Command::new("run"));
        let known = known.get_arguments().filter_map(|one| one.get_long());
        let known: Vec<_> = known.map(|long| format!("--{long}")).collect();
        let flag = image.split('=').next().unwrap_or_default();
        let near = dockerfile::closest(flag, known.iter().map(String::as_str));
        let near = near.map(|near| format!("did you mean {near}? "));
        let more = "`rbuild run --help` lists the flags; they stand before the image";
        return Err(Failure::usage(format!("there is no flag {flag}"))
            .hint(near.unwrap_or_default() + more));
    }
    Ok((image, command))
}

impl Runnable for Create {
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.create(app).map_err(before)
    }
}

impl Create {
    fn create(&self, app: &App) -> Result<u8, Failure> {
        let (image, command) = check_image(&self.image_and_command)?;
        let mut spec = self.new.spec(command)?;
        let found = self.new.ground(app, image, &mut spec)?;
        check_health(&spec, found.as_ref())?;
        let task = quiet_task("create");
        let container = self.new.create(app, (image, found.as_ref()), spec, true, &task)?;
        task.done();
        outln!("{}", container.id());
        Ok(0)
    }
}

impl Runnable for Run {
    /// Runs; gives back the program's exit code.
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.start(app).map_err(before)
    }
}

impl Run {
    fn start(&self, app: &App) -> Result<u8, Failure> {
        let (name, command) = check_image(&self.image_and_command)?;
        self.working.check()?;
        let store = app.store()?;
        let names = Dialect::spoken().run_names();
        if names != RunNames::Image
            && !self.new.rootfs
            && let Some(found) = builder::working::WorkingContainer::find(store, name)?
        {
            return self.in_working(app, found, command);
        }
        if names == RunNames::Working {
            let what = Dialect::spoken().no_container("working container", name);
            return Err(Failure::new(Kind::NotFound, what)
                .hint(format!("`buildah from {name}` makes one of an image")));
        }
        if let Some(flag) = self.working.given() {
            return Err(Failure::usage(format!("{flag} is for working containers"))
                .hint(format!("there is no working container {name:?}")));
        }
        // Wrong flags are reported before anything is fetched.
        let mut start = self.start_options()?;
        let mut spec = self.new.spec(command)?;
        add_opened_sockets(&mut start, spec.process.init);
        spec.lifecycle.remove |= self.rmi;
        if self.new.tty && self.new.interactive && !self.detach {
            need_terminal()?;
        }
        // A container without a name needs no record and no monitor.
        let nameless = self.new.name.is_none() && self.new.cidfile.is_none();
        let nameless = nameless && self.new.volumes_from.is_empty() && self.attach.is_empty();
        let nameless = nameless && !wants_monitor(&spec) && start.descriptors.is_empty();
        let removes = self.new.rm || self.rmi;
        let forgotten = removes && !self.new.tty && !self.detach && nameless;
        if self.lazy {
            if !forgotten || self.new.rootfs {
                let what = "--lazy: a container that can start again needs its whole image";
                return Err(Failure::usage(what).hint(
                    "give --rm, and no --detach, --tty, --name, --cidfile, --volumes-from, --attach, \
                     --health-*, --preserve-fds, --rootfs or --userns=auto",
                ));
            }
            if let Some(code) = self.lazily(app, name, &spec)? {
                return Ok(code);
            }
        }
        let image = self.new.ground(app, name, &mut spec)?;
        check_health(&spec, image.as_ref())?;
        let task = quiet_task("run");
        let code = match &image {
            Some(image) if forgotten => {
                let files = store.unpack(image, &task).map_err(containers::Error::from);
                let files = files.map_err(start_failure)?.into();
                self.transient(app, (image, files), spec, &task)?
            }
            _ => self.kept(app, (name, image.as_ref()), (spec, &start), &task)?,
        };
        if self.rmi {
            images::remove_unused(app, name)?;
        }
        task.done();
        Ok(code)
    }

    fn start_options(&self) -> Result<StartOptions, Failure> {
        Ok(StartOptions {
            attached: !self.detach,
            size: size(),
            notify: environment::notify_socket(),
            descriptors: self.descriptors.numbers()?,
            environment: Vec::new(),
        })
    }

    /// Runs while the image is fetched; `None` where that cannot be or need not be.
    fn lazily(&self, app: &App, name: &str, spec: &ContainerSpec) -> Result<Option<u8>, Failure> {
        let (store, new) = (app.store()?, &self.new);
        let here = new.pull != Some(PullPolicy::Always) && lookup::find(store, name)?.is_some();
        if here || new.pull == Some(PullPolicy::Never) {
            return Ok(None);
        }
        let room = store.begin()?;
        let wanted = (name, &new.platform.platform());
        let Some(lazy) = run_lazily::open(app, wanted, &new.registry.reach()?, room.dir())? else {
            eprintln!(
                "{name} is pulled whole: a layer has no table of contents, or the registry gives no \
                 parts of layers"
            );
            return Ok(None);
        };
        let (image, path) = (lazy.image.clone(), lazy.path());
        let files = (&image, ImageFiles::Shown(&path));
        let _keeping = lazy.keep(app)?;
        let task = quiet_task("run");
        let code = self.transient(app, files, spec.clone(), &task)?;
        task.done();
        Ok(Some(code))
    }

    fn in_working(
        &self,
        app: &App,
        found: builder::working::WorkingContainer,
        command: &[String],
    ) -> Result<u8, Failure> {
        let new = &self.new;
        let given = [
            (self.detach, "--detach"),
            (self.lazy, "--lazy"),
            (self.detach_keys.is_some(), "--detach-keys"),
            (!self.attach.is_empty(), "--attach"),
            (new.rm, "--rm"),
            (new.restart.is_some(), "--restart"),
            (new.name.is_some(), "--name"),
            (new.cidfile.is_some(), "--cidfile"),
            (new.stop_signal.is_some(), "--stop-signal"),
            (new.stop_timeout.is_some(), "--stop-timeout"),
            (!new.label.is_empty(), "--label"),
            (!new.label_file.is_empty(), "--label-file"),
            (new.lifecycle.given(), "an option of --health-*, --log-*, --sdnotify or --timeout"),
            (!new.volumes_from.is_empty(), "--volumes-from"),
            (new.pull.is_some(), "--pull"),
            (new.platform.given(), "--platform"),
            (new.container.names_entrypoint(), "--entrypoint"),
            (new.container.wants_ids(), "--userns or a map of ids"),
            (self.rmi, "--rmi"),
            (self.descriptors.given().is_some(), "--preserve-fds or --preserve-fd"),
        ];
        if let Some((_, flag)) = given.iter().find(|(given, _)| *given) {
            return Err(Failure::usage(format!("{flag} is for new containers"))
                .hint(format!("{} is a working container", found.name())));
        }
        let wish = working::WorkingCommand {
            flags: &self.working,
            container: &new.container,
            command,
            tty: new.tty,
        };
        let task = quiet_task("run");
        let code = working::run(app, found, &wish, &task)?;
        task.done();
        Ok(code)
    }

    /// Runs in a directory that is forgotten.
    fn transient(
        &self,
        app: &App,
        files: (&Image, ImageFiles<'_>),
        spec: ContainerSpec,
        task: &Task,
    ) -> Result<u8, Failure> {
        let store = app.store()?;
        let stdio = if self.new.interactive { Stdio::Inherit } else { Stdio::Outputs };
        let mut spec = spec;
        find_mounted(app, &mut spec.files)?;
        let container =
            Transient::start_on(store, files, spec, stdio, task).map_err(start_failure)?;
        Ok(container.wait(self.sig_proxy != Some(false), task)?.code())
    }

    /// Runs as a container with a record, a directory and a process that watches it.
    fn kept(
        &self,
        app: &App,
        image: (&str, Option<&Image>),
        (spec, options): (ContainerSpec, &StartOptions),
        task: &Task,
    ) -> Result<u8, Failure> {
        let container = self.new.create(app, image, spec, false, task)?;
        if let Err(error) = container.start(options, task) {
            container.remove(true, task)?;
            container.discard_volumes();
            return Err(start_failure(error));
        }
        if self.detach {
            outln!("{}", container.id());
            return Ok(0);
        }
        let usual = || syntax::detach_keys("ctrl-p,ctrl-q").unwrap_or_default();
        let keys = self.detach_keys.as_ref().map_or_else(usual, |keys| keys.0.clone());
        let keys = if self.new.tty { keys } else { Vec::new() };
        let wants = |stream| self.attach.is_empty() || self.attach.contains(&stream);
        let input = self.new.interactive || self.attach.contains(&Stream::Stdin);
        let forward_signals = self.sig_proxy != Some(false);
        let options = AttachOptions { replay: true, forward_signals, ..attachment(input, keys) };
        let shown = [wants(Stream::Stdout), wants(Stream::Stderr)];
        match container.attach_some(shown, &options, task)? {
            AttachOutcome::Detached => {
                let name = container.name();
                eprintln!("detached from {name}; `rbuild attach {name}` comes back");
                Ok(0)
            }
            AttachOutcome::Exited(status) => {
                if self.new.rm || self.rmi {
                    // Its monitor does the same; the name is free then.
                    container.remove(true, task)?;
                }
                Ok(status.code())
            }
        }
    }
}

impl NewFlags {
    /// The requested container.
    fn spec(&self, command: &[String]) -> Result<ContainerSpec, Failure> {
        let mut spec = self.container.spec(command, self.tty)?;
        spec.process.interactive = self.interactive;
        self.lifecycle.add(&mut spec.lifecycle)?;
        if spec.network.http_proxy == Some(true) {
            let proxies = environment::proxies().into_iter();
            let proxies = proxies.map(|(name, value)| format!("{name}={value}"));
            spec.process.env.splice(0..0, proxies);
        }
        spec.lifecycle.labels = syntax::label_files(&self.label_file)?;
        spec.lifecycle.labels.extend(self.label.iter().map(|text| flags::pair(text)));
        spec.lifecycle.stop_signal = self.stop_signal;
        spec.lifecycle.stop_timeout = self.stop_timeout;
        spec.lifecycle.remove = self.rm;
        spec.lifecycle.restart = self.restart.unwrap_or_default();
        Ok(spec)
    }

    /// Makes a container that is not started yet.
    fn create(
        &self,
        app: &App,
        (name, image): (&str, Option<&Image>),
        spec: ContainerSpec,
        lasting: bool,
        task: &Task,
    ) -> Result<Container, Failure> {
        let mut cidfile = match &self.cidfile {
            None => None,
            Some(path) => {
                let created = File::options().write(true).create_new(true).open(path);
                let write = || format!("writing {}", path.display());
                Some((created.map_err(|error| Failure::io(write(), &error))?, path))
            }
        };
        let mut spec = spec;
        find_mounted(app, &mut spec.files)?;
        for text in &self.volumes_from {
            volumes_from(app, text, &mut spec.files)?;
        }
        let new = NewContainer {
            name: self.name.clone(),
            replace: self.replace,
            image_name: name.to_owned(),
            image,
            spec,
            lasting,
        };
        let made = container::containers(app)?.create(new, task);
        if let (Err(_), Some((_, path))) = (&made, &cidfile) {
            let _ = std::fs::remove_file(path);
        }
        let container = made?;
        if let Some((file, path)) = &mut cidfile {
            let written = file.write_all(container.id().as_bytes());
            written.map_err(|error| Failure::io(format!("writing {}", path.display()), &error))?;
        }
        Ok(container)
    }

    /// What the container's files come from: an image, or with `--rootfs` the directory of this name,
    /// which becomes part of the specification.
    fn ground(
        &self,
        app: &App,
        name: &str,
        spec: &mut ContainerSpec,
    ) -> Result<Option<Image>, Failure> {
        if !self.rootfs {
            return self.image(app, name).map(Some);
        }
        let (path, overlay) = match name.strip_suffix(":O") {
            Some(path) => (path, true),
            None => (name, false),
        };
        let absolute = environment::absolute(std::path::Path::new(path))?;
        let found = absolute.canonicalize();
        let path = found.map_err(|error| Failure::io(format!("finding {path}"), &error))?;
        if !path.is_dir() {
            return Err(Failure::usage(format!("--rootfs: {} is not a directory", path.display())));
        }
        spec.files.rootfs = Some(runtime::RootDirectory { path, overlay });
        Ok(None)
    }

    fn image(&self, app: &App, name: &str) -> Result<Image, Failure> {
        let store = app.store()?;
        let asks = matches!(self.pull, Some(PullPolicy::Always | PullPolicy::Newer));
        if !asks && let Some(image) = self.stored(app, name)? {
            return Ok(image);
        }
        if self.pull == Some(PullPolicy::Never) {
            lookup::require(store, name)?;
        }
        let platform = self.platform.platform();
        let from = place::remote_locations(app, name)?;
        let reach = self.registry.reach()?;
        let pulled = place::first_there(&from, |from| {
            let progress = Progress::Auto.unless(self.quiet);
            observed("pull", progress, |task| {
                place::pull(app, from, &platform, reach.clone(), task)
            })
        });
        let absent = format!("pulling {name}, which is not in the store");
        let root = match self.pull {
            Some(PullPolicy::Always) => pulled?,
            Some(PullPolicy::Newer) if pulled.is_err() => match self.stored(app, name)? {
                Some(image) => return Ok(image),
                None => pulled.map_err(|failure| failure.context(absent))?,
            },
            _ => pulled.map_err(|failure| failure.context(absent))?,
        };
        Ok(store.image(&root, &platform)?)
    }

    /// The image of the store, if it is there and for the platform.
    fn stored(&self, app: &App, name: &str) -> Result<Option<Image>, Failure> {
        let store = app.store()?;
        let platform = self.platform.platform();
        let Some(found) = lookup::find(store, name)? else { return Ok(None) };
        let image = store.image(&found.descriptor, &platform)?;
        if platform != Platform::host() && image.platform().serves(&platform).is_none() {
            let its = image.platform();
            let what = format!("image {name} is for {its}, not for {platform}");
            return Err(
                Failure::new(Kind::Refused, what).hint("use --pull=always to pull it again")
            );
        }
        let asked = app.permit_stored(image.descriptor().digest, &self.registry.reach()?);
        asked.map_err(|failure| failure.context(format!("using {name} of the store")))?;
        Ok(Some(image))
    }
}
