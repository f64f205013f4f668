//! `rbuild run` in a working container: what the command changes stays.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use builder::working::Working;
use clap::Args;
use runtime::{Bundle, Container, Mount, Overrides, Propagation, StartOptions, Stdio};
use store::{CacheMount, Sharing, Store};
use task::{Kind, Task};

use super::settings::{Settings, as_chroot, isolation};
use super::{HistoryFlag, env, wants_history};
use crate::app::{App, Reach};
use crate::commands::container_flags::ContainerFlags;
use crate::commands::run::{forward_signals, give, network_files, start_failure, users};
use crate::flags;
use crate::report::Failure;

/// What `run` takes for a working container only.
#[derive(Debug, Default, Args)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    history: HistoryFlag,
    /// Relative sources of --mount are below this directory
    #[arg(long, value_name = "DIR", help_heading = "Working container")]
    contextdir: Option<PathBuf>,
    /// Do not mount /etc/hosts
    #[arg(long, help_heading = "Working container")]
    no_hosts: bool,
    /// Isolation: oci or rootless, which are one, or chroot (default: as `from` was told)
    #[arg(long, value_name = "TYPE", help_heading = "Working container")]
    isolation: Option<String>,
    /// Accepted for scripts: crun and runc mean the runtime that is built in
    #[arg(long, value_name = "RUNTIME", help_heading = "Working container")]
    runtime: Option<String>,
    /// Cgroup namespace: private (default) or host
    #[arg(long, value_name = "private|host", help_heading = "Working container")]
    cgroupns: Option<String>,
    /// Refused: the runtime is built in
    #[arg(long, value_name = "FLAG", hide = true, allow_hyphen_values = true)]
    runtime_flag: Vec<String>,
    /// Refused: the root is always pivoted
    #[arg(long, hide = true)]
    no_pivot: bool,
}

impl RunFlags {
    /// The first flag given that is for working containers only.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.history.add_history.is_some(), "--add-history"),
            (self.contextdir.is_some(), "--contextdir"),
            (self.no_hosts, "--no-hosts"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }

    /// Refuses what would change something we cannot change.
    ///
    /// # Errors
    /// Such a flag is given.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let no = |what: String, hint: &str| {
            Err(Failure::usage(format!("{what} is not supported")).hint(hint))
        };
        isolation(self.isolation.as_deref())?;
        if let Some(runtime) = &self.runtime {
            let name = Path::new(runtime).file_name().unwrap_or_default().to_string_lossy();
            if !matches!(&*name, "crun" | "runc" | "youki") {
                return no(format!("--runtime {runtime}"), "the runtime is built in");
            }
        }
        if let Some(flag) = self.runtime_flag.first() {
            return no(format!("--runtime-flag {flag}"), "the runtime is built in");
        }
        if self.no_pivot {
            return no("--no-pivot".to_owned(), "the root is always pivoted");
        }
        match self.cgroupns.as_deref() {
            None | Some("private" | "host") => Ok(()),
            Some(other) => no(format!("--cgroupns={other}"), "private and host are"),
        }
    }
}

/// What a command is run with.
pub(crate) struct Wish<'a> {
    /// Flags of working containers.
    pub flags: &'a RunFlags,
    /// Flags of all containers.
    pub container: &'a ContainerFlags,
    /// Program and arguments.
    pub command: &'a [String],
    /// Whether a terminal is asked for.
    pub tty: bool,
}

/// Runs a command in a working container; gives its exit code.
///
/// # Errors
/// The command cannot be started; 127 and 126 as for every container.
pub(crate) fn run(
    app: &App,
    working: Working,
    wish: &Wish<'_>,
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
    let settings: Settings = serde_json::from_value(working.state.settings.clone())
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading its settings: {error}")))?;
    let terminal = wish.tty || both_terminals();
    if terminal && !std::io::stdin().is_terminal() {
        return Err(
            Failure::new(Kind::Invalid, "standard input is not a terminal").hint("leave out --tty")
        );
    }
    let (mounts, _caches) = mounts(app.store()?, wish, task)?;
    let mut overrides = wish.container.without_mounts(command, terminal)?;
    overrides.mounts.extend(mounts);
    let mut overrides = together(&settings, overrides, wish.container.names_network())?;
    overrides.host_cgroup |= wish.flags.cgroupns.as_deref() == Some("host");
    if isolation(wish.flags.isolation.as_deref())? {
        as_chroot(&mut overrides);
    }
    let config = working.state.config.config.clone();
    proxies_last(&mut overrides, &config.env);
    let hostname = overrides.hostname.get_or_insert_with(|| working.id()[..12].to_owned()).clone();
    let mut hosts = settings.add_host.clone();
    hosts.extend(wish.container.add_host.iter().cloned());
    let files = network_files(working.directory(), &hostname, overrides.network, &hosts)?;
    overrides.mounts.splice(0..0, chosen(files, &settings, wish.flags, working.directory())?);
    let directory = overrides.working_dir.clone().unwrap_or_else(|| config.working_dir.clone());
    let mut ground = working.ground(&overrides.mounts, &directory)?;
    let root = ground.take()?;
    let spec = runtime::spec(&config, &overrides, &|file| users(&root, file))?;
    give(&overrides, &spec)?;
    let bundle = Bundle { spec, rootfs: root.into_fd() };
    let options = StartOptions {
        id: working.id().to_owned(),
        init: wish.container.wants_init(),
        owners: runtime::single_id(),
    };
    let status = if terminal {
        let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        let stdio = Stdio::Terminal { rows, columns };
        let container = Container::start(bundle, stdio, &options).map_err(start_failure)?;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        use std::os::fd::AsFd;
        container.interact([input.as_fd(), output.as_fd(), error.as_fd()], task)?
    } else {
        let container =
            Container::start(bundle, Stdio::Inherit, &options).map_err(start_failure)?;
        let forwarding = forward_signals(container.pid());
        let status = container.wait(task)?;
        drop(forwarding);
        status
    };
    drop(ground);
    if status.success() && wants_history(wish.flags.history.add_history) {
        working.note(format!("/bin/sh -c {}", command.join(" ")), &env(app, &Reach::default())?);
        working.save()?;
    }
    Ok(status.code())
}

fn both_terminals() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// What `from` was told, and over it what this command is told.
fn together(settings: &Settings, now: Overrides, network: bool) -> Result<Overrides, Failure> {
    let mut kept = settings.overrides()?;
    kept.env.extend(now.env);
    kept.cap_add.extend(now.cap_add);
    kept.cap_drop.extend(now.cap_drop);
    kept.mounts.extend(now.mounts);
    kept.given.extend(now.given);
    kept.devices.extend(now.devices);
    kept.ulimits.extend(now.ulimits);
    Ok(Overrides {
        // The command is run as it is, not as arguments of the entrypoint.
        entrypoint: Some(now.entrypoint.unwrap_or_default()),
        env: kept.env,
        cap_add: kept.cap_add,
        cap_drop: kept.cap_drop,
        mounts: kept.mounts,
        given: kept.given,
        devices: kept.devices,
        ulimits: kept.ulimits,
        seccomp: match now.seccomp {
            runtime::Seccomp::Default => kept.seccomp,
            given => given,
        },
        network: if network { now.network } else { kept.network },
        host_pid: kept.host_pid || now.host_pid,
        host_ipc: kept.host_ipc || now.host_ipc,
        host_uts: kept.host_uts || now.host_uts,
        host_cgroup: kept.host_cgroup,
        host_proc: kept.host_proc,
        memory: now.memory.or(kept.memory),
        memory_swap: now.memory_swap.or(kept.memory_swap),
        cpu_quota: now.cpu_quota.or(kept.cpu_quota),
        cpu_period: now.cpu_period.or(kept.cpu_period),
        cpu_shares: now.cpu_shares.or(kept.cpu_shares),
        cpuset_cpus: now.cpuset_cpus.or(kept.cpuset_cpus),
        cpuset_mems: now.cpuset_mems.or(kept.cpuset_mems),
        shm_size: now.shm_size.or(kept.shm_size),
        cgroup_parent: now.cgroup_parent.or(kept.cgroup_parent),
        no_new_privileges: kept.no_new_privileges || now.no_new_privileges,
        ..Overrides {
            groups: now.groups,
            command: now.command,
            unset_env: now.unset_env,
            user: now.user,
            working_dir: now.working_dir,
            hostname: now.hostname,
            terminal: now.terminal,
            init: now.init,
            privileged: now.privileged,
            read_only: now.read_only,
            memory_reservation: now.memory_reservation,
            cpus: now.cpus,
            pids_limit: now.pids_limit,
            sysctls: now.sysctls,
            oom_score_adj: now.oom_score_adj,
            umask: now.umask,
            annotations: now.annotations,
            user_namespace: now.user_namespace,
            ..Overrides::default()
        }
    })
}

/// The proxy variables stand behind what the image and the user set themselves.
fn proxies_last(overrides: &mut Overrides, own: &[String]) {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let proxies: Vec<String> = crate::config::proxies().into_iter().map(|(name, _)| name).collect();
    let image: Vec<String> = own.iter().map(|line| name(line)).collect();
    overrides.env.retain(|line| {
        let name = name(line);
        !(proxies.contains(&name) && image.contains(&name))
    });
}

/// The files of the network, without those that are not wanted.
fn chosen(
    files: Vec<Mount>,
    settings: &Settings,
    flags: &RunFlags,
    directory: &Path,
) -> Result<Vec<Mount>, Failure> {
    if let Some(text) = settings.resolv_conf() {
        let path = directory.join("resolv.conf");
        std::fs::write(&path, text)
            .map_err(|error| Failure::io(format!("writing {}", path.display()), &error))?;
    }
    let wanted = |mount: &Mount| match mount {
        Mount::Bind { target, .. } if target.ends_with("hosts") => !flags.no_hosts,
        Mount::Bind { target, .. } if target.ends_with("resolv.conf") => !settings.no_resolv_conf(),
        _ => true,
    };
    Ok(files.into_iter().filter(wanted).collect())
}

/// The mounts of `--mount` that only commands of working containers have: caches, and binds below
/// the context directory.
fn mounts(
    store: &Store,
    wish: &Wish<'_>,
    task: &Task,
) -> Result<(Vec<Mount>, Vec<CacheMount>), Failure> {
    let (mut mounts, mut caches) = (Vec::new(), Vec::new());
    for text in wish.container.mounts() {
        if text.split(',').any(|pair| pair == "type=cache") {
            let (mount, cache) = cache(store, text, task)?;
            mounts.push(mount);
            caches.push(cache);
            continue;
        }
        let text = match &wish.flags.contextdir {
            Some(directory) => below(directory, text)?,
            None => text.clone(),
        };
        mounts.push(flags::mount(&text)?);
    }
    Ok((mounts, caches))
}

/// A `--mount` whose relative source is below a directory, out of which it must not lead.
fn below(directory: &Path, text: &str) -> Result<String, Failure> {
    let fail = |path: &Path, error: &std::io::Error| {
        Failure::io(format!("--mount {text}: finding {}", path.display()), error)
    };
    let parts = text.split(',').map(|pair| match pair.split_once('=') {
        Some((key @ ("source" | "src"), path)) if !path.starts_with('/') => {
            let root = directory.canonicalize().map_err(|error| fail(directory, &error))?;
            let path = root.join(path);
            let path = path.canonicalize().map_err(|error| fail(&path, &error))?;
            match path.starts_with(&root) {
                true => Ok(format!("{key}={}", path.display())),
                false => Err(Failure::usage(format!(
                    "--mount {text:?}: {} is not below {}",
                    path.display(),
                    root.display()
                ))),
            }
        }
        _ => Ok(pair.to_owned()),
    });
    Ok(parts.collect::<Result<Vec<_>, Failure>>()?.join(","))
}

/// `type=cache,target=…[,id=…][,sharing=…][,ro]`
fn cache(store: &Store, text: &str, task: &Task) -> Result<(Mount, CacheMount), Failure> {
    let refuse = |why: &str| Failure::usage(format!("--mount {text:?}: {why}"));
    let (mut id, mut target, mut sharing, mut read_only) = (None, None, Sharing::Shared, false);
    for pair in text.split(',') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("type", "cache") => {}
            ("id", value) => id = Some(value),
            ("target" | "dst" | "destination", value) => target = Some(value),
            ("ro" | "readonly", "" | "true") => read_only = true,
            ("ro" | "readonly", "false") | ("rw" | "readwrite", "" | "true") => read_only = false,
            ("sharing", "shared") => sharing = Sharing::Shared,
            ("sharing", "private") => sharing = Sharing::Private,
            ("sharing", "locked") => sharing = Sharing::Locked,
            (key, _) => return Err(refuse(&format!("{key:?} is not supported"))),
        }
    }
    let target = target.filter(|target| target.starts_with('/'));
    let target = target.ok_or_else(|| refuse("it needs target=, an absolute path"))?;
    let cache = store.cache_mount(id.unwrap_or(target), sharing, task)?;
    let mount = Mount::Bind {
        source: cache.path().to_owned(),
        target: PathBuf::from(target),
        read_only,
        recursive: false,
        propagation: Propagation::Private,
    };
    Ok((mount, cache))
}
