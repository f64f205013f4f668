//! From an image's configuration and the user's wishes to a runtime-spec document.

pub(crate) mod capabilities;
pub(crate) mod environment;
mod linux;
mod mounts;
pub(crate) mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxSeccomp, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use task::Cause;

use crate::{Error, Result};

/// Where programs are looked for when the image does not say.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which of the container's user databases is wanted; see [`spec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserFile {
    /// `/etc/passwd`
    Passwd,
    /// `/etc/group`
    Group,
}

/// The network a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// An own network namespace with nothing but a loopback device.
    #[default]
    None,
    /// The network of the machine.
    Host,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// Every one.
    Unconfined,
    /// What this profile says.
    Profile(Box<LinuxSeccomp>),
}

/// How mounts made on one side of a bind mount reach the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways.
    Shared,
}

/// One more mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container; made if missing.
        target: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
        /// Whether mounts below the source come along.
        recursive: bool,
        /// See [`Propagation`].
        propagation: Propagation,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container; made if missing.
        target: PathBuf,
        /// `size=64m`, `mode=1777`, `ro`, `exec`, …
        options: Vec<String>,
    },
}

/// One resource limit of the process (`--ulimit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, … as in `ulimit -a` of docker.
    pub name: String,
    /// The soft limit; [`u64::MAX`] is unlimited.
    pub soft: u64,
    /// The hard limit; [`u64::MAX`] is unlimited.
    pub hard: u64,
}

/// A device of the host that the container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container, below `/dev`.
    pub target: PathBuf,
    /// What `stat` says about the source: whether it is a block device.
    pub block: bool,
    /// Major number of the source.
    pub major: u32,
    /// Minor number of the source.
    pub minor: u32,
    /// Any of `r`, `w` and `m`.
    pub access: String,
}

/// Everything a user may ask for beyond what the image says. The default asks for nothing: an
/// unprivileged container without network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Replaces the image's entrypoint, and drops its command; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command unless empty.
    pub command: Vec<String>,
    /// `NAME=value` lines, laid over the image's.
    pub env: Vec<String>,
    /// Names removed from the image's environment.
    pub unset_env: Vec<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Files and directories of the host that are the user's before the program starts. Whoever
    /// starts it sees to that; see [`owner`].
    pub given: Vec<PathBuf>,
    /// Further groups of the user, by name or number.
    pub groups: Vec<String>,
    /// Absolute path; made if missing.
    pub working_dir: Option<String>,
    /// What `hostname` says.
    pub hostname: Option<String>,
    /// Whether the program talks to a terminal.
    pub terminal: bool,
    /// Whether a small process of ours is pid 1: it reaps orphans and passes signals on.
    pub init: bool,
    /// All capabilities, nothing masked, no system call filter, devices work wherever they are;
    /// the host's devices themselves are for the caller to list.
    pub privileged: bool,
    /// Capabilities to add, with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, with or without `CAP_`, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Whether the root file system refuses writing.
    pub read_only: bool,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Bytes of `/dev/shm`; 64 MiB if not given.
    pub shm_size: Option<u64>,
    /// See [`Network`].
    pub network: Network,
    /// Shares the machine's process ids.
    pub host_pid: bool,
    /// Shares the machine's System V and POSIX ipc.
    pub host_ipc: bool,
    /// Shares the machine's host name.
    pub host_uts: bool,
    /// Sees the machine's control groups.
    pub host_cgroup: bool,
    /// `/proc` and `/sys` are the machine's, for places where none can be made; it goes with
    /// `host_pid`.
    pub host_proc: bool,
    /// Paths to hide beside the usual ones.
    pub mask: Vec<String>,
    /// Paths that are neither hidden nor read-only although they usually are; `ALL` for all.
    pub unmask: Vec<String>,
    /// The AppArmor profile of the program.
    pub apparmor: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes of memory below which the kernel reclaims only under pressure.
    pub memory_reservation: Option<u64>,
    /// How many CPUs, in parts.
    pub cpus: Option<f64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Relative weight, 2 to 262144, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Which CPUs, as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// How many processes; 0 or less is unlimited.
    pub pids_limit: Option<i64>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// -1000 (never killed) to 1000.
    pub oom_score_adj: Option<i32>,
    /// Mode bits that new files never get.
    pub umask: Option<u32>,
    /// Whether set-user-ID programs gain nothing.
    pub no_new_privileges: bool,
    /// See [`Seccomp`].
    pub seccomp: Seccomp,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// The cgroup below which the container's is made, relative to the mount.
    pub cgroup_parent: Option<String>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether this process is not in the initial user namespace ([`crate::in_user_namespace`]).
    pub user_namespace: bool,
}

/// Describes the container that runs `config` as `overrides` ask. Pure: `users` is asked for the
/// text of the image's user databases (`None` if there is none); the caller bounds their size.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::User`] for what cannot be meant, [`Error::Users`] when `users`
/// fails.
pub fn spec(
    config: &image::ContainerConfig,
    overrides: &Overrides,
    users: &dyn Fn(UserFile) -> std::result::Result<Option<String>, Cause>,
) -> Result<Spec> {
    let read = |file| users(file).map_err(|source| Error::Users { source });
    let passwd = read(UserFile::Passwd)?.unwrap_or_default();
    let group = read(UserFile::Group)?.unwrap_or_default();
    let wanted = overrides.user.as_deref().unwrap_or(&config.user);
    let identity = users::resolve(wanted, &overrides.groups, &passwd, &group)?;
    let capabilities = capabilities::names(overrides)?;
    let annotations: std::collections::HashMap<_, _> =
        overrides.annotations.clone().into_iter().collect();
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(built(RootBuilder::default().path("rootfs").readonly(overrides.read_only).build())?)
        .mounts(mounts::mounts(overrides)?)
        .process(process(config, overrides, &identity, &capabilities)?)
        .annotations(annotations)
        .linux(linux::linux(overrides, &capabilities)?)
        .build()
        .map_err(|error| Error::invalid("spec", error.to_string()))?;
    spec.set_hostname((!overrides.host_uts).then(|| hostname(overrides).to_owned()));
    Ok(spec)
}

/// The user and group that the program of a container runs as.
pub fn owner(spec: &Spec) -> (u32, u32) {
    let user = spec.process().as_ref().map(oci_spec::runtime::Process::user);
    user.map_or((0, 0), |user| (user.uid(), user.gid()))
}

/// A built part of the spec.
fn built<T, E: std::fmt::Display>(part: std::result::Result<T, E>) -> Result<T> {
    part.map_err(|error| Error::invalid("spec", error.to_string()))
}

/// The name the container goes by; never the machine's.
fn hostname(overrides: &Overrides) -> &str {
    overrides.hostname.as_deref().unwrap_or("localhost")
}

/// Docker's rule: a new entrypoint drops the image's command.
fn arguments(config: &image::ContainerConfig, overrides: &Overrides) -> Result<Vec<String>> {
    let image_entrypoint = config.entrypoint.clone().unwrap_or_default();
    let image_command = config.cmd.clone().unwrap_or_default();
    let (mut arguments, default) = match &overrides.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (image_entrypoint, image_command),
    };
    if overrides.command.is_empty() {
        arguments.extend(default);
    } else {
        arguments.extend(overrides.command.iter().cloned());
    }
    if arguments.is_empty() {
        return Err(Error::invalid(
            "command",
            "neither the image nor the command line names a program",
        ));
    }
    Ok(arguments)
}

fn process(
    config: &image::ContainerConfig,
    overrides: &Overrides,
    identity: &users::Identity,
    capabilities: &std::collections::BTreeSet<&str>,
) -> Result<Process> {
    let cwd = overrides.working_dir.as_deref().unwrap_or(&config.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(Error::invalid("working directory", format!("{cwd:?} is not absolute")));
    }
    let mut user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone());
    if let Some(umask) = overrides.umask {
        user = user.umask(umask & 0o777);
    }
    let mut process = ProcessBuilder::default()
        .terminal(overrides.terminal)
        .user(built(user.build())?)
        .args(arguments(config, overrides)?)
        .env(environment::environment(config, overrides, identity)?)
        .cwd(cwd)
        .capabilities(capabilities::sets(capabilities)?)
        .no_new_privileges(overrides.no_new_privileges)
        .rlimits(rlimits(&overrides.ulimits)?);
    if let Some(score) = overrides.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::invalid(
                "oom score",
                format!("{score} is not between -1000 and 1000"),
            ));
        }
        process = process.oom_score_adj(score);
    }
    if let Some(profile) = &overrides.apparmor {
        process = process.apparmor_profile(profile.clone());
    }
    built(process.build())
}

fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<oci_spec::runtime::PosixRlimit>> {
    let limit = |ulimit: &Ulimit| {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let kind: PosixRlimitType = name.parse().map_err(|_| {
            Error::invalid("ulimit", format!("there is no limit {:?}", ulimit.name))
        })?;
        if ulimit.soft > ulimit.hard {
            let reason = format!("the soft limit of {} is above the hard one", ulimit.name);
            return Err(Error::invalid("ulimit", reason));
        }
        built(PosixRlimitBuilder::default().typ(kind).soft(ulimit.soft).hard(ulimit.hard).build())
    };
    ulimits.iter().map(limit).collect()
}

#[cfg(test)]
mod tests;
