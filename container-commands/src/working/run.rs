//! `rbuild run` in a working container: what the command changes stays.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use app::App;
use app::values::invocation;
use builder::Pull;
use builder::syntax::{WorkingMount, below, working_mount};
use builder::working::{self, MountFrom, WorkingContainer};
use clap::Args;
use containers::syntax::mount_of;
use containers::{add_network_files, give, users};
use network::ContainerNetwork;
use options::buildah::{HistoryFlag, wants_history};
use options::container::{ContainerFlags, RuntimeFlags, complete, refuse_overlays, refuse_volumes};
use options::flags::{self, of_flag};
use options::{Failure, Reach};
use runtime::{
    Bundle, Container, ContainerSpec, Files, Mount, Network, OtherRuntime, StartOptions, Stdio,
};
use store::{CacheMount, Store};
use task::Task;

use super::settings::{proxies, settings};
use crate::container::start_failure;

/// Flags of `run` for working containers only.
#[derive(Debug, Default, Args)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    history: HistoryFlag,
    /// Read relative sources of --mount below this directory
    #[arg(long, value_name = "DIR", help_heading = "Working container")]
    contextdir: Option<PathBuf>,
    /// Exit codes of the command that count as success
    #[arg(long, value_name = "CODE", value_delimiter = ',', help_heading = "Working container")]
    valid_exit_codes: Vec<u8>,
    #[command(flatten)]
    runtime: RuntimeFlags,
    /// Not supported: the root is always pivoted
    #[arg(long, hide = true)]
    no_pivot: bool,
}

impl RunFlags {
    /// The first flag given that is for working containers only.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.history.add_history.is_some(), "--add-history"),
            (self.contextdir.is_some(), "--contextdir"),
            (!self.valid_exit_codes.is_empty(), "--valid-exit-codes"),
            (self.runtime.given(), "--runtime"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    /// The exit code of `run` for that of the command: 0 if it counts as success, and never 0 if
    /// it does not.
    fn judge(&self, code: u8) -> u8 {
        match self.valid_exit_codes.as_slice() {
            [] => code,
            valid if valid.contains(&code) => 0,
            _ => code.max(1),
        }
    }

    /// Refuses what would change something we cannot change.
    ///
    /// # Errors
    /// Such a flag is given.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.no_pivot {
            false => Ok(()),
            true => {
                Err(Failure::usage("--no-pivot is not supported")
                    .hint("the root is always pivoted"))
            }
        }
    }
}

/// What a command is run with.
pub(crate) struct WorkingCommand<'a> {
    /// Flags of working containers.
    pub flags: &'a RunFlags,
    /// Flags of all containers.
    pub container: &'a ContainerFlags,
    /// Program and arguments.
    pub command: &'a [String],
    /// Whether to use a terminal.
    pub tty: bool,
}

/// Runs a command in a working container; gives its exit code.
///
/// # Errors
/// The command cannot be started; 127 and 126 as for every container.
pub(crate) fn run(
    app: &App,
    working: WorkingContainer,
    wish: &WorkingCommand<'_>,
    task: &Task,
) -> Result<u8, Failure> {
    let command = match wish.command {
        [dashes, rest @ ..] if dashes == "--" => rest,
        all => all,
    };
    if command.is_empty() {
        return Err(Failure::usage(format!("there is no command to run in {}", working.name()))
            .hint(format!("rbuild run {} -- COMMAND", working.name())));
    }
    let mut working = working.lock(task)?;
    let settings = settings(&working.state)?;
    let maps = settings.isolation.ids.is_some() && !runtime::in_user_namespace();
    let terminal = wish.tty || both_terminals();
    let mut now = wish.container.without_mounts(command, terminal)?;
    let (_caches, wanted) = mounts(app.store()?, wish, (&mut now.files, maps), task)?;
    let (around, lending) = (app.env(&Reach::default())?, Arc::new(task.child("mounts")));
    let lent = working::lend(&working, &wanted, Pull::Missing, &around, &lending);
    let lent = app.wait(lent)??;
    now.files.mounts.extend(lent.list().iter().cloned());
    let config = working.state.config.config.clone();
    let mut spec = specify(settings, now, &config.env, &working)?;
    let _joined = containers::join_namespaces(&mut spec, app.store()?)?;
    let own = (working.id(), working.name());
    let held = containers::join_named(&spec, &config, app.store()?, own)?;
    let leases = held.as_ref().map(ContainerNetwork::leases).unwrap_or_default();
    add_network_files(working.directory(), &mut spec, leases)?;
    let directory = spec.process.working_dir.clone().unwrap_or_else(|| config.working_dir.clone());
    let mut ground = working.ground(&spec, &directory)?;
    let root = ground.take()?;
    let mut document = runtime::spec(&config, &spec, &|file| users(&root, file))?;
    let _uplink =
        containers::connect(&spec, &config, app.store()?, (held.as_ref(), &mut document))?;
    give(&spec, &document)?;
    let bundle = Bundle { spec: document, rootfs: root.into_fd() };
    let options = StartOptions {
        id: working.id().to_owned(),
        init: spec.process.init,
        owners: runtime::single_id(),
        other: other(&wish.flags.runtime, working.directory())?,
        ..StartOptions::default()
    };
    let status = if terminal {
        let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        let stdio = Stdio::Terminal { rows, columns };
        let container = Container::start(bundle, stdio, &options)
            .map_err(|error| start_failure(error.into()))?;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        use std::os::fd::AsFd;
        container.interact([input.as_fd(), output.as_fd(), error.as_fd()], task)?
    } else {
        let container = Container::start(bundle, Stdio::Inherit, &options)
            .map_err(|error| start_failure(error.into()))?;
        container.wait_passing_signals(task)?
    };
    drop((ground, lent));
    let code = wish.flags.judge(status.code());
    if code == 0 && wants_history(wish.flags.history.add_history) {
        working.note(format!("/bin/sh -c {}", command.join(" ")), &app.env(&Reach::default())?);
        working.save()?;
    }
    Ok(code)
}

/// The runtime of the command, if it is not the built-in one.
fn other(flags: &RuntimeFlags, directory: &Path) -> Result<Option<OtherRuntime>, Failure> {
    let Some(other) = flags.other()? else { return Ok(None) };
    let bundle = directory.join("bundle");
    std::fs::create_dir_all(&bundle)
        .map_err(|error| Failure::io(format!("making {}", bundle.display()), &error))?;
    Ok(Some(OtherRuntime { bundle, ..other }))
}

fn both_terminals() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The flags of `from`, overridden by those of this command, with the files of its network.
fn specify(
    mut kept: ContainerSpec,
    now: ContainerSpec,
    image: &[String],
    working: &WorkingContainer,
) -> Result<ContainerSpec, Failure> {
    kept.process.env.extend(proxies_unless_set(&kept, image));
    let mut spec = kept.merge(now);
    complete(&mut spec)?;
    // The command is run as it is, not as arguments of the entrypoint.
    spec.process.entrypoint.get_or_insert_default();
    // As that of RUN, the network of commands is one of their own.
    spec.network.mode.get_or_insert(Network::Private);
    spec.network.hostname.get_or_insert_with(|| working.id()[..12].to_owned());
    spec.files.mounts.insert(0, working.container_file()?);
    refuse_overlays(&spec)?;
    refuse_volumes(&spec)?;
    Ok(spec)
}

/// The proxy variables, those that the image does not set itself.
fn proxies_unless_set(spec: &ContainerSpec, image: &[String]) -> Vec<String> {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let set: Vec<String> = image.iter().map(|line| name(line)).collect();
    let proxies = proxies(spec).into_iter();
    proxies.filter(|line| !set.contains(&name(line))).collect()
}

/// Adds the mounts of `--mount`, among them those that only commands of working containers have.
fn mounts(
    store: &Store,
    wish: &WorkingCommand<'_>,
    (files, maps): (&mut Files, bool),
    task: &Task,
) -> Result<(Vec<CacheMount>, Vec<MountFrom>), Failure> {
    let (mut caches, mut loans) = (Vec::new(), Vec::new());
    let mapped = |mut mount: Mount| {
        if let (true, Mount::Bind { options, .. }) = (maps, &mut mount) {
            options.push("idmap".to_owned());
        }
        mount
    };
    let call = invocation()?;
    for text in wish.container.mounts() {
        let fields = flags::fields(text).map_err(of_flag("--mount", text))?;
        match working_mount(&fields, &call).map_err(of_flag("--mount", text))? {
            Some(WorkingMount::Loan(loan)) => loans.push(loan),
            Some(WorkingMount::File(mount)) => files.mounts.push(mapped(mount)),
            Some(WorkingMount::Cache(cache)) => {
                let (mount, cache) = cache.take(store, task)?;
                files.mounts.push(mapped(mount));
                caches.push(cache);
            }
            None => {
                let fields = match &wish.flags.contextdir {
                    Some(directory) => {
                        below(directory, &fields).map_err(of_flag("--mount", text))?
                    }
                    None => fields,
                };
                let read = mount_of(&fields, &call.directory, files);
                read.map_err(of_flag("--mount", text))?;
            }
        }
    }
    Ok((caches, loans))
}
