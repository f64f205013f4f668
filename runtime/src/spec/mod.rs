//! From an image's configuration and the user's wishes to a runtime-spec document.

pub(crate) mod capabilities;
mod container_spec;
pub(crate) mod environment;
mod lifecycle;
mod limits;
mod linux;
mod lists;
mod mounts;
mod network_files;
pub(crate) mod users;

use std::path::PathBuf;

use oci_spec::runtime::{
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};
use serde::{Deserialize, Serialize};
use task::Cause;

pub use container_spec::{
    ContainerSpec, Dns, Files, ImageMount, ImageVolumes, Isolation, Join, Membership, Namespace,
    NetworkSpec, Overlay, ProcessSpec, RootDirectory, VolumeMount,
};
pub use lifecycle::{HealthCheck, HealthSpec, Lifecycle, LogLimits, Notify, OnFailure, Restart};
pub use limits::{BlockLimits, DeviceNumber, Limits, Rate};
pub use network_files::{MachineFiles, NetworkFiles};

pub(crate) use linux::{is_ipc_parameter, resources_of};

use crate::seccomp::SeccompProfile;
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// An own network namespace with nothing but a loopback device.
    #[default]
    None,
    /// The network of the machine.
    Host,
    /// An own network namespace with a way out: the process that starts the container makes it, and
    /// uses [`join_network`].
    Private,
}

/// Makes the container join the network namespace at `path` in place of a new one.
pub fn join_network(document: &mut Spec, path: &std::path::Path) {
    let namespaces =
        document.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        if namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Network {
            namespace.set_path(Some(path.to_owned()));
        }
    }
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// Every one.
    Unconfined,
    /// What this profile says.
    Profile(Box<SeccompProfile>),
}

/// How mounts made on one side of a bind mount reach the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container; made if missing.
        target: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
        /// Whether mounts below the source are included.
        recursive: bool,
        /// See [`Propagation`].
        propagation: Propagation,
        /// Further ones: `noexec`, `nosuid`, `dev`, …
        #[serde(default)]
        options: Vec<String>,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container; made if missing.
        target: PathBuf,
        /// `size=64m`, `mode=1777`, `ro`, `exec`, …
        options: Vec<String>,
    },
    /// Terminals of its own.
    Devpts {
        /// Absolute path in the container; made if missing.
        target: PathBuf,
        /// `uid=0`, `gid=5`, `mode=0620`, `max=100`, `ro`, …
        options: Vec<String>,
    },
}

impl Mount {
    /// Where it is in the container.
    pub fn target(&self) -> &std::path::Path {
        match self {
            Mount::Bind { target, .. }
            | Mount::Tmpfs { target, .. }
            | Mount::Devpts { target, .. } => target,
        }
    }
}

/// One resource limit of the process (`--ulimit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, … as in `ulimit -a` of docker.
    pub name: String,
    /// The soft limit; [`u64::MAX`] is unlimited.
    pub soft: u64,
    /// The hard limit; [`u64::MAX`] is unlimited.
    pub hard: u64,
}

/// A device of the host that the container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Devices that a container may use, whether or not it has them from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether block or character devices; both if not given.
    pub block: Option<bool>,
    /// Major number; any if not given.
    pub major: Option<u32>,
    /// Minor number; any if not given.
    pub minor: Option<u32>,
    /// Any of `r`, `w` and `m`.
    pub access: String,
}

impl std::fmt::Display for DeviceRule {
    /// As `--device-cgroup-rule` has it: `c 189:* rwm`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.block {
            None => 'a',
            Some(true) => 'b',
            Some(false) => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// Describes the container that runs `config` as `wanted` asks. Pure: `users` is asked for the
/// text of the image's user databases (`None` if there is none); the caller bounds their size.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::User`] for what cannot be meant, [`Error::Users`] when `users`
/// fails.
pub fn spec(
    config: &image::ContainerConfig,
    spec: &ContainerSpec,
    users: &dyn Fn(UserFile) -> std::result::Result<Option<String>, Cause>,
) -> Result<Spec> {
    let read = |file| users(file).map_err(|source| Error::Users { source });
    let passwd = read(UserFile::Passwd)?.unwrap_or_default();
    let group = read(UserFile::Group)?.unwrap_or_default();
    let wanted = spec.process.user.as_deref().unwrap_or(&config.user);
    let identity = users::resolve_user(wanted, &spec.process.groups, &passwd, &group)?;
    let capabilities = capabilities::names(spec)?;
    let annotations: std::collections::HashMap<_, _> =
        spec.isolation.annotations.clone().into_iter().collect();
    let mut document = SpecBuilder::default()
        .version("1.2.0")
        .root(built(RootBuilder::default().path("rootfs").readonly(spec.files.read_only).build())?)
        .mounts(mounts::mounts(spec)?)
        .process(process(config, spec, &identity, &capabilities)?)
        .annotations(annotations)
        .linux(linux::linux(spec, &capabilities)?)
        .build()
        .map_err(|error| Error::invalid("spec", error.to_string()))?;
    // Where the names are the machine's, the container must not set them: a new document has one.
    let own = spec.isolation.owns_uts();
    document.set_hostname(own.then(|| hostname(spec).to_owned()));
    document.set_domainname(spec.network.domainname.clone().filter(|_| own));
    Ok(document)
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
fn hostname(spec: &ContainerSpec) -> &str {
    spec.network.hostname.as_deref().unwrap_or("localhost")
}

/// Program and arguments of a container. Docker's rule: a new entrypoint drops the image's command.
///
/// # Errors
/// [`Error::Invalid`] where neither the image nor the user names a program.
pub fn arguments(config: &image::ContainerConfig, spec: &ContainerSpec) -> Result<Vec<String>> {
    // As Docker: one that is a single empty text is none.
    let none = |entrypoint: &Vec<String>| *entrypoint == [""];
    let image_entrypoint = config.entrypoint.clone().filter(|e| !none(e)).unwrap_or_default();
    let image_command = config.cmd.clone().unwrap_or_default();
    let (mut arguments, default) = match &spec.process.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (image_entrypoint, image_command),
    };
    if spec.process.command.is_empty() {
        arguments.extend(default);
    } else {
        arguments.extend(spec.process.command.iter().cloned());
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
    spec: &ContainerSpec,
    identity: &users::User,
    capabilities: &std::collections::BTreeSet<&str>,
) -> Result<Process> {
    let cwd = spec.process.working_dir.as_deref().unwrap_or(&config.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(Error::invalid("working directory", format!("{cwd:?} is not absolute")));
    }
    let mut user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone());
    if let Some(umask) = spec.process.umask {
        user = user.umask(umask & 0o777);
    }
    let mut process = ProcessBuilder::default()
        .terminal(spec.process.terminal)
        .user(built(user.build())?)
        .args(arguments(config, spec)?)
        .env(environment::environment(config, spec, identity)?)
        .cwd(cwd)
        .capabilities(capabilities::sets(capabilities)?)
        .no_new_privileges(spec.isolation.no_new_privileges.unwrap_or(false))
        .rlimits(rlimits(&spec.limits.ulimits)?);
    if let Some(score) = spec.limits.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::invalid(
                "oom score",
                format!("{score} is not between -1000 and 1000"),
            ));
        }
        process = process.oom_score_adj(score);
    }
    if let Some(profile) = &spec.isolation.apparmor {
        process = process.apparmor_profile(profile.clone());
    }
    built(process.build())
}

impl ContainerSpec {
    /// Looks for names and numbers that no container can have, before one is started.
    ///
    /// # Errors
    /// Which it is, and why.
    pub fn check(&self) -> Result<()> {
        capabilities::names(self)?;
        rlimits(&self.limits.ulimits).map(drop)
    }
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
