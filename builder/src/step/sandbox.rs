//! Where a command runs: its files, what is mounted into them, and how it is started there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::network::Lease;
use layers::{Root, Stack, Top};
use recorder::{Recorder, UnansweredRequests};
use runtime::{
    Bundle, Container, ExitStatus, Isolation, OtherRuntime, SharedInput, StartOptions, Stdio,
    UserFile,
};
use store::{Active, SnapshotId};
use task::{Cause, Task};

use super::mounts::Mounts;
use super::network::StepNetwork;
use super::{devices, foreign, network, recorded};
use crate::container_file::{CONTAINER_FILE, container_file};
use crate::context::Tree;
use crate::debug::{Origin, Terminal};
use crate::error::ErrorContext;
use crate::plan::environment::{PROXY, in_env};
use crate::plan::{RunOp, Step};
use crate::{Dialect, Env, Error, Request, Result, SourceFile, ids, users};

/// Where apt finds that it must not become another user, where there is none.
const APT_CONF: &str = "/dev/.rbuild-apt.conf";
const APT_AS_ROOT: &str = "APT::Sandbox::User \"root\";
";

/// What a command needs besides its definition.
pub(crate) struct Surroundings<'a> {
    pub(crate) env: &'a Env,
    pub(crate) request: &'a Request,
    pub(crate) file: &'a Arc<SourceFile>,
    pub(crate) step: &'a Step,
    /// What each mount reads, in the order of the mounts.
    pub(crate) trees: Vec<Option<Arc<Tree>>>,
    /// What the store calls cache mounts that came with a cache.
    pub(crate) caches: BTreeMap<String, String>,
    /// What is between the command and the network, if anything is.
    pub(crate) recorder: Option<&'a Arc<Recorder>>,
    pub(crate) parent: Option<SnapshotId>,
    pub(crate) origin: Origin,
}

/// Where a command is run: its files and everything mounted into them.
pub(crate) struct RunSandbox<'a> {
    mounts: Mounts<'a>,
    stack: Stack,
    /// What stands between the command and the machine.
    isolation: Isolation,
    /// What the changes lie on.
    below: Option<Root>,
    _stubs: Option<Active>,
    /// The command's own network, and the way out of it.
    network: StepNetwork,
}

/// What a program's streams are.
#[derive(Clone, Copy)]
pub(crate) enum CommandStreams<'a> {
    /// Output goes to the task.
    Captured,
    /// Those of this process.
    Inherited,
    /// A human at a terminal.
    Terminal(&'a Terminal),
}

impl CommandStreams<'_> {
    fn stdio(self, request: &Request) -> Result<Stdio> {
        Ok(match self {
            CommandStreams::Captured => captured(request)?,
            CommandStreams::Inherited => Stdio::Inherit,
            CommandStreams::Terminal(terminal) => {
                Stdio::Terminal { rows: terminal.size.0, columns: terminal.size.1 }
            }
        })
    }
}

impl<'a> RunSandbox<'a> {
    /// Mounts everything; changes go to `top`.
    pub(crate) fn new(
        op: &RunOp,
        top: Top,
        with: &Surroundings<'a>,
        task: &'a Task,
    ) -> Result<RunSandbox<'a>> {
        let beginning = network::begin(op, with, &with.request.run.base.network)?;
        let store = &with.env.store;
        let mut stack = match with.parent {
            Some(parent) => store.stack(parent).during("opening the parent")?,
            None => Stack { user_xattr: with.env.user_namespace, ..Stack::default() },
        };
        let below = match with.parent {
            Some(_) => Some(stack.mount().during("mounting the parent")?),
            None => None,
        };
        let mut isolation = with.request.run.base.isolation.clone();
        ids::resolve(&mut isolation)?;
        let mut mounts = Mounts::new(store, task)?;
        mounts.ids = ids::map(&isolation)?;
        stack.ids.clone_from(&mounts.ids);
        mounts.apart = with.recorder.map(|recorder| recorder.name().to_owned());
        furnish(op, with, (below.as_ref(), beginning.leases()), &mut mounts)?;
        let stubs = mounts.stubs(with.parent, below.as_ref(), &op.working_dir)?;
        if let Some(stubs) = &stubs {
            stack.lower.insert(0, stubs.dir().join("fs"));
        }
        stack.top = Some(top);
        let way = beginning.join()?;
        Ok(RunSandbox { mounts, stack, isolation, below, _stubs: stubs, network: way })
    }

    /// What the changes lie on.
    pub(crate) fn below(&self) -> Option<&Root> {
        self.below.as_ref()
    }

    /// What the command asked for and a recorder did not give it.
    pub(crate) fn troubles(&self) -> UnansweredRequests {
        match &self.network {
            StepNetwork::Recorder { session, .. } => session.finish(),
            StepNetwork::Nowhere
            | StepNetwork::Uplink(_)
            | StepNetwork::Named(_)
            | StepNetwork::Other(_) => UnansweredRequests::default(),
        }
    }

    /// Where the changes are.
    pub(crate) fn upper(&self) -> PathBuf {
        self.stack.top.as_ref().map(|top| top.upper.clone()).unwrap_or_default()
    }

    /// Runs a program in it.
    pub(crate) fn run(
        &self,
        op: &RunOp,
        with: &Surroundings<'_>,
        args: &[String],
        talk: CommandStreams<'_>,
        task: &Task,
    ) -> Result<ExitStatus> {
        let root = self.stack.mount().during("mounting the layers")?;
        start(op, with, root, self, args, talk, task)
    }
}

/// Mounts everything the command sees.
fn furnish(
    op: &RunOp,
    with: &Surroundings<'_>,
    (below, leases): (Option<&Root>, &[Lease]),
    mounts: &mut Mounts<'_>,
) -> Result<()> {
    let user = match (op.user.as_str(), below) {
        ("", _) | (_, None) => (0, 0),
        (user, Some(root)) => users::user(root, user)?,
    };
    let run = &with.request.run;
    let files = network::files(op, with, leases);
    let recorder = with.recorder.filter(|_| op.network != "none");
    let resolv_conf = files.resolv_conf.filter(|_| op.network != "none" && recorder.is_none());
    for (path, content) in [
        ("/etc/resolv.conf", resolv_conf),
        ("/etc/hosts", files.hosts.map(String::into_bytes)),
        ("/etc/hostname", files.hostname.map(String::into_bytes)),
    ] {
        if let Some(content) = content {
            mounts.file(path, &content, 0o644, (0, 0), false)?;
        }
    }
    if with.request.dialect == Dialect::Buildah {
        let content = container_file("", "", "", "");
        mounts.file(CONTAINER_FILE, content.as_bytes(), 0o644, (0, 0), false)?;
    }
    mounts.list.extend(run.base.files.mounts.iter().cloned());
    for overlay in &run.base.files.overlays {
        mounts.overlay(overlay)?;
    }
    if let Some(recorder) = recorder {
        recorded::mount(recorder, mounts)?;
    }
    let mut apt = String::new();
    apt.push_str(if with.env.single_id { APT_AS_ROOT } else { "" });
    apt.push_str(&recorder.map(|_| recorded::apt_settings()).unwrap_or_default());
    if !apt.is_empty() {
        mounts.file(APT_CONF, apt.as_bytes(), 0o644, (0, 0), false)?;
    }
    if let Some((name, content)) = &op.script {
        mounts.script(name, content)?;
    }
    for (mount, tree) in op.mounts.iter().zip(&with.trees) {
        mounts.add(mount, tree.as_deref(), user, with.request, &with.caches, below)?;
    }
    Ok(())
}

fn start(
    op: &RunOp,
    with: &Surroundings<'_>,
    root: Root,
    room: &RunSandbox<'_>,
    args: &[String],
    talk: CommandStreams<'_>,
    task: &Task,
) -> Result<ExitStatus> {
    let mounts = &room.mounts;
    let mut env = op.env.clone();
    env.extend(proxies(with.request, &env));
    env.extend(mounts.env.iter().cloned());
    let recorded = matches!(room.network, StepNetwork::Recorder { .. });
    if recorded {
        recorded::environment(&mut env);
    }
    if (recorded || with.env.single_id) && in_env(&env, "APT_CONFIG").is_none() {
        env.push(format!("APT_CONFIG={APT_CONF}"));
    }
    let mut user = Some(op.user.clone()).filter(|user| !user.is_empty());
    if with.env.single_id
        && let Some(other) = user.take().filter(|user| !matches!(user.as_str(), "0" | "root"))
    {
        task.warn(format!(
            "this step runs as root and not as {other}: there are no subordinate ids \
             (its files belong to {other} in the image)"
        ));
    }
    let mut wanted = with.request.run.base.clone();
    wanted.isolation.clone_from(&room.isolation);
    env.splice(0..0, wanted.process.env);
    wanted.process.entrypoint = Some(args.to_vec());
    wanted.process.terminal = matches!(talk, CommandStreams::Terminal(_));
    wanted.process.env = env;
    wanted.process.user = user;
    wanted.process.working_dir = Some(op.working_dir.clone());
    wanted.network.hostname = Some(with.request.run.hostname().to_owned());
    wanted.network.mode = Some(network::mode(op));
    if wanted.network.mode == Some(runtime::Network::Host) {
        // Those of the build are for networks of commands' own.
        wanted.isolation.sysctls.retain(|name, _| !name.starts_with("net."));
    }
    wanted.files.mounts.clone_from(&mounts.list);
    wanted.isolation.user_namespace = with.env.user_namespace;
    devices::give(op, &mut wanted.isolation)?;
    let database = |file: UserFile| -> Result<Option<String>, Cause> {
        let path = match file {
            UserFile::Passwd => "/etc/passwd",
            UserFile::Group => "/etc/group",
        };
        users::database(&root, path).map_err(Cause::new)
    };
    let config = image::ContainerConfig::default();
    let mut spec = runtime::spec(&config, &wanted, &database).during("describing the container")?;
    if let Some(path) = room.network.path() {
        runtime::join_network(&mut spec, &path);
    }
    let owner = runtime::owner(&spec);
    for path in &wanted.files.given {
        layers::give_all(path, owner).during("changing the owner of a volume")?;
    }
    let options = StartOptions {
        id: container_id(mounts),
        owners: with.env.single_id,
        other: other(with, mounts)?,
        ..StartOptions::default()
    };
    let bundle = Bundle { spec, rootfs: root.into_fd() };
    let stdio = talk.stdio(with.request)?;
    let container = match Container::start(bundle, stdio, &options) {
        Ok(container) => container,
        Err(error) => {
            return match foreign::refused(op, &error) {
                Some(refused) => Err(refused),
                None => Err(error).during("starting the command"),
            };
        }
    };
    let ended = match talk {
        CommandStreams::Terminal(terminal) => container.interact(terminal.streams(), task),
        _ => container.wait(task),
    };
    match ended {
        Err(runtime::Error::Cancelled(cancelled)) => Err(cancelled.into()),
        ended => ended.during("running the command"),
    }
}

/// The runtime of the command, if it is not the built-in one.
fn other(with: &Surroundings<'_>, mounts: &Mounts<'_>) -> Result<Option<OtherRuntime>> {
    let Some(other) = &with.request.run.other else { return Ok(None) };
    let bundle = mounts.directory().join("bundle");
    std::fs::create_dir_all(&bundle).map_err(Error::file("making", &bundle))?;
    Ok(Some(OtherRuntime { bundle, ..other.clone() }))
}

/// This process's input in a pipe that the commands of a build read one after the other.
static INPUT: Mutex<Option<SharedInput>> = Mutex::new(None);

/// The streams of a command of the build: input, where it has any, is this process's.
fn captured(request: &Request) -> Result<Stdio> {
    if !request.run.stdin {
        return Ok(Stdio::Capture);
    }
    let shared = || {
        let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = &*input {
            return input.share();
        }
        let made = SharedInput::new(rustix::stdio::stdin().try_clone_to_owned()?.into())?;
        input.insert(made).share()
    };
    let input = shared().map_err(Error::file("opening", Path::new("/dev/stdin")))?;
    Ok(Stdio::CaptureShared(input))
}

/// A unique name: that of the step's directory.
fn container_id(mounts: &Mounts<'_>) -> String {
    let path: PathBuf = mounts.directory();
    let parts: Vec<_> =
        path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    let (last, lease) = (parts.first(), parts.get(1));
    format!(
        "build-{}-{}",
        lease.map(AsRef::as_ref).unwrap_or_default(),
        last.map(AsRef::as_ref).unwrap_or_default()
    )
}

/// The proxy variables, those the instruction does not set itself.
fn proxies(request: &Request, env: &[String]) -> Vec<String> {
    let value = |name: &&str| request.build_args.get(*name).or_else(|| request.proxy.get(*name));
    PROXY
        .iter()
        .filter(|name| in_env(env, name).is_none())
        .filter_map(|name| value(name).map(|value| format!("{name}={value}")))
        .collect()
}
