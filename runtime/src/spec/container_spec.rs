//! A user's request for a container, beyond its image: one value for every caller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lifecycle::Lifecycle;
use super::limits::Limits;
use super::lists::{both, last};
use super::{Device, DeviceRule, Mount, Network, Seccomp};
use crate::ids::Ids;

/// Everything a user may ask for beyond what the image says. The default asks for nothing: an
/// unprivileged container without network. It is kept as JSON with the container; a field that is
/// missing there asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The program and its surroundings.
    pub process: ProcessSpec,
    /// What stands between the container and the machine.
    pub isolation: Isolation,
    /// How much of the machine it may use.
    pub limits: Limits,
    /// What it sees beside its image's files.
    pub files: Files,
    /// Networks and names.
    pub network: NetworkSpec,
    /// What becomes of it.
    pub lifecycle: Lifecycle,
}

/// The program and its surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Replaces the image's entrypoint, and drops its command; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command unless empty.
    pub command: Vec<String>,
    /// `NAME=value` lines, laid over the image's.
    pub env: Vec<String>,
    /// Lines laid over the image's first, in which `${NAME}` is the value that the image has.
    pub env_merge: Vec<String>,
    /// Names removed from the image's environment.
    pub unset_env: Vec<String>,
    /// Whether the image's variables are left out.
    pub unset_all: bool,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// Further groups of the user, by name or number.
    pub groups: Vec<String>,
    /// Absolute path; made if missing.
    pub working_dir: Option<String>,
    /// Whether the program talks to a terminal.
    pub terminal: bool,
    /// Whether standard input stays open.
    pub interactive: bool,
    /// Whether a small process of ours is pid 1: it reaps orphans and passes signals on.
    pub init: bool,
    /// Mode bits that new files never get.
    pub umask: Option<u32>,
}

/// Whose namespace a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// One of its own.
    Private,
    /// One of its own that others may join, as they may every private one: docker's word of ipc.
    Shareable,
    /// One of its own without `/dev/shm`: ipc alone.
    None,
    /// The machine's.
    Host,
    /// That of a running container, or the one at a path. The starter finds the path.
    Join(Join),
}

/// What stands between the container and the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// All capabilities, nothing masked, no system call filter, devices work wherever they are;
    /// the host's devices themselves are for the caller to list.
    pub privileged: bool,
    /// Capabilities to add, with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, with or without `CAP_`, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Whether set-user-ID programs gain nothing.
    pub no_new_privileges: Option<bool>,
    /// See [`Seccomp`]; the default profile if not given.
    pub seccomp: Option<Seccomp>,
    /// The AppArmor profile of the program.
    pub apparmor: Option<String>,
    /// Paths to hide beside the usual ones.
    pub mask: Vec<String>,
    /// Paths that are neither hidden nor read-only although they usually are; `ALL` for all.
    pub unmask: Vec<String>,
    /// Process ids; its own if not given.
    pub pid: Option<Namespace>,
    /// System V and POSIX ipc; its own if not given.
    pub ipc: Option<Namespace>,
    /// The host name; its own if not given.
    pub uts: Option<Namespace>,
    /// The ids of its own user namespace; those of this process if not given.
    pub ids: Option<Ids>,
    /// The user namespace that has these ids, if one is joined: found at each start, and not kept.
    #[serde(skip)]
    pub user: Option<PathBuf>,
    /// Control groups; its own if not given.
    pub cgroup: Option<Namespace>,
    /// Only mounts and privileges are the container's own; `/proc` and `/sys` are the machine's.
    /// For places where no namespaces can be made.
    pub chroot: bool,
    /// Kernel parameters of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices that may be used, by kind and number.
    pub device_rules: Vec<DeviceRule>,
    /// What `uname` says of the machine: `LINUX`, or `LINUX32` for a machine of 32 bits.
    pub personality: Option<String>,
    /// Further annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Whether this process is not in the initial user namespace ([`crate::in_user_namespace`]):
    /// a fact about where the container is started, and not kept.
    #[serde(skip)]
    pub user_namespace: bool,
}

/// What a container sees beside its image's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Whether the root file system refuses writing.
    pub read_only: bool,
    /// A directory of the machine that is the root file system in place of an image's. The starter
    /// mounts it.
    pub rootfs: Option<RootDirectory>,
    /// What becomes of the volumes that the image declares. The starter sees to it.
    pub image_volumes: ImageVolumes,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// Volumes. The starter has them and mounts them.
    pub volumes: Vec<VolumeMount>,
    /// Directories of the machine that the container can write to without changing them. The
    /// starter mounts them.
    pub overlays: Vec<Overlay>,
    /// Images whose files are seen. The starter mounts them.
    pub images: Vec<ImageMount>,
    /// Files and directories of the host that get the user as owner before the program starts. The
    /// starter does that; see [`super::owner`].
    pub given: Vec<PathBuf>,
}

/// What becomes of the volumes that an image declares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageVolumes {
    /// Each is a volume without a name.
    #[default]
    Anonymous,
    /// Each is memory, empty at the start.
    Tmpfs,
    /// They are directories like any other.
    Ignore,
}

/// A volume in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// Its name; one without a name is made for the container alone.
    pub name: Option<String>,
    /// Absolute path in the container; made if missing.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether a new volume stays empty where the image has files.
    pub no_copy: bool,
    /// `noexec`, `nosuid`, `dev`, …
    pub options: Vec<String>,
    /// Whether it gets the user as owner before the program starts.
    pub given: bool,
}

/// The files of an image in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageMount {
    /// As the user named it.
    pub image: String,
    /// What the name meant; else it is that of the store.
    pub found: Option<image::Descriptor>,
    /// Absolute path in the container; made if missing.
    pub target: PathBuf,
    /// Whether they can be written to; what is written is gone after the end.
    pub writable: bool,
}

/// A directory of the machine that is a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDirectory {
    /// Absolute path on this machine.
    pub path: PathBuf,
    /// Whether what the container writes is kept apart from it.
    pub overlay: bool,
}

/// A directory of the machine under a layer that is thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Absolute path on this machine.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
}

/// Networks and names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// The network; the starter has a default.
    pub mode: Option<Network>,
    /// The container, or the network namespace at a path, whose network this one shares in place of
    /// a private one of its own.
    pub join: Option<Join>,
    /// Named networks, the first with a way out being the way out; `private` among them is an
    /// uplink of its own.
    pub networks: Vec<Membership>,
    /// What `hostname` says.
    pub hostname: Option<String>,
    /// What `domainname` says.
    pub domainname: Option<String>,
    /// Ports that are reached from outside, as `--publish` has them.
    pub publish: Vec<String>,
    /// Whether every port that the image or `expose` names is reached from outside.
    pub publish_all: bool,
    /// Further ports of the program, as `--expose` has them.
    pub expose: Vec<String>,
    /// Names for `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// The image's own `/etc/hosts` is left alone.
    pub no_hosts: bool,
    /// With what `/etc/hosts` begins in place of the machine's or nothing; `none` is nothing.
    pub hosts_file: Option<PathBuf>,
    /// The image's own `/etc/hostname` is left alone.
    pub no_hostname: bool,
    /// What stands in `/etc/resolv.conf`.
    pub dns: Dns,
    /// Whether the program gets the proxy variables; the starter has a default.
    pub http_proxy: Option<bool>,
}

/// A named network, and what is asked of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// The network's name.
    pub network: String,
    /// Names by which others on the network find the container, beside its own.
    pub aliases: Vec<String>,
    /// This address of IPv4.
    pub ip: Option<Ipv4Addr>,
    /// This address of IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// This Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// What the container calls its device; the next `eth` if not given.
    pub interface: Option<String>,
    /// The directory with the configuration of a network in the format of CNI.
    pub configurations: Option<PathBuf>,
    /// The directories with its plugins.
    pub plugins: Vec<PathBuf>,
}

impl Membership {
    /// The name that stands for a network of its own with a way out.
    pub const PRIVATE: &str = "private";
}

/// Whose network is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// That of a running container, by name or id.
    Container(String),
    /// The namespace at an absolute path.
    Path(PathBuf),
}

/// What `/etc/resolv.conf` says instead of the machine's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The image's own file is left alone.
    pub none: bool,
    /// `nameserver` lines.
    pub servers: Vec<IpAddr>,
    /// `search` domains; a lone `.` means none.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

impl Isolation {
    fn shares(&self, namespace: Option<&Namespace>) -> bool {
        self.chroot || namespace == Some(&Namespace::Host)
    }

    fn owns(&self, namespace: Option<&Namespace>) -> bool {
        !self.chroot && !matches!(namespace, Some(Namespace::Host | Namespace::Join(_)))
    }

    /// Whether its ipc is its own, neither the machine's nor another container's.
    pub fn owns_ipc(&self) -> bool {
        self.owns(self.ipc.as_ref())
    }

    /// Whether its host name is its own, neither the machine's nor another container's.
    pub fn owns_uts(&self) -> bool {
        self.owns(self.uts.as_ref())
    }

    /// Whether its root is not that of the machine, so that it can neither make device nodes nor
    /// mount everything.
    pub(super) fn in_user_namespace(&self) -> bool {
        self.user_namespace || self.ids.is_some()
    }

    /// Whether it shares the machine's process ids.
    pub fn host_pid(&self) -> bool {
        self.shares(self.pid.as_ref())
    }

    /// Whether it shares the machine's ipc.
    pub fn host_ipc(&self) -> bool {
        self.shares(self.ipc.as_ref())
    }

    /// Whether it shares the machine's host name.
    pub fn host_uts(&self) -> bool {
        self.shares(self.uts.as_ref())
    }

    /// Whether it sees the machine's control groups.
    pub fn host_cgroup(&self) -> bool {
        self.shares(self.cgroup.as_ref())
    }
}

impl NetworkSpec {
    /// The network; by default not the machine's.
    pub fn mode(&self) -> Network {
        self.mode.unwrap_or_default()
    }
}

impl ContainerSpec {
    /// This specification with another laid over it. Lists add up, single values are those of
    /// `now` where it has one, and what either allows or asks for by a switch holds.
    pub fn merge(self, now: ContainerSpec) -> ContainerSpec {
        let ContainerSpec { process, isolation, limits, files, network, lifecycle } = self;
        ContainerSpec {
            process: process.merge(now.process),
            isolation: isolation.merge(now.isolation),
            limits: limits.merge(now.limits),
            files: files.merge(now.files),
            network: network.merge(now.network),
            lifecycle: lifecycle.merge(now.lifecycle),
        }
    }
}

impl ProcessSpec {
    fn merge(self, now: ProcessSpec) -> ProcessSpec {
        let ProcessSpec {
            entrypoint,
            command,
            env,
            env_merge,
            unset_env,
            unset_all,
            user,
            groups,
            working_dir,
            terminal,
            interactive,
            init,
            umask,
        } = self;
        ProcessSpec {
            entrypoint: now.entrypoint.or(entrypoint),
            command: last(command, now.command),
            env: both(env, now.env),
            env_merge: both(env_merge, now.env_merge),
            unset_env: both(unset_env, now.unset_env),
            unset_all: unset_all || now.unset_all,
            user: now.user.or(user),
            groups: both(groups, now.groups),
            working_dir: now.working_dir.or(working_dir),
            terminal: terminal || now.terminal,
            interactive: interactive || now.interactive,
            init: init || now.init,
            umask: now.umask.or(umask),
        }
    }
}

impl Isolation {
    fn merge(self, now: Isolation) -> Isolation {
        let Isolation {
            privileged,
            cap_add,
            cap_drop,
            no_new_privileges,
            seccomp,
            apparmor,
            mask,
            unmask,
            pid,
            ipc,
            uts,
            ids,
            cgroup,
            chroot,
            sysctls,
            devices,
            device_rules,
            personality,
            annotations,
            user,
            user_namespace,
        } = self;
        Isolation {
            privileged: privileged || now.privileged,
            cap_add: both(cap_add, now.cap_add),
            cap_drop: both(cap_drop, now.cap_drop),
            no_new_privileges: now.no_new_privileges.or(no_new_privileges),
            seccomp: now.seccomp.or(seccomp),
            apparmor: now.apparmor.or(apparmor),
            mask: both(mask, now.mask),
            unmask: both(unmask, now.unmask),
            pid: now.pid.or(pid),
            ipc: now.ipc.or(ipc),
            uts: now.uts.or(uts),
            ids: now.ids.or(ids),
            user: now.user.or(user),
            cgroup: now.cgroup.or(cgroup),
            chroot: chroot || now.chroot,
            sysctls: both(sysctls, now.sysctls),
            devices: both(devices, now.devices),
            device_rules: both(device_rules, now.device_rules),
            personality: now.personality.or(personality),
            annotations: both(annotations, now.annotations),
            user_namespace: user_namespace || now.user_namespace,
        }
    }
}

impl Files {
    fn merge(self, now: Files) -> Files {
        let Files { read_only, rootfs, image_volumes, mounts, volumes, overlays, images, given } =
            self;
        Files {
            read_only: read_only || now.read_only,
            rootfs: now.rootfs.or(rootfs),
            image_volumes: match now.image_volumes {
                ImageVolumes::Anonymous => image_volumes,
                other => other,
            },
            mounts: both(mounts, now.mounts),
            volumes: both(volumes, now.volumes),
            overlays: both(overlays, now.overlays),
            images: both(images, now.images),
            given: both(given, now.given),
        }
    }
}

impl NetworkSpec {
    fn merge(self, now: NetworkSpec) -> NetworkSpec {
        let NetworkSpec {
            mode,
            join,
            networks,
            hostname,
            domainname,
            publish,
            publish_all,
            expose,
            hosts,
            no_hosts,
            hosts_file,
            no_hostname,
            dns,
            http_proxy,
        } = self;
        NetworkSpec {
            // A network that is named later replaces both.
            join: if now.mode.is_some() { now.join } else { join },
            networks: if now.mode.is_some() { now.networks } else { networks },
            mode: now.mode.or(mode),
            publish: both(publish, now.publish),
            publish_all: publish_all || now.publish_all,
            expose: both(expose, now.expose),
            hostname: now.hostname.or(hostname),
            domainname: now.domainname.or(domainname),
            hosts: both(hosts, now.hosts),
            no_hosts: no_hosts || now.no_hosts,
            hosts_file: now.hosts_file.or(hosts_file),
            no_hostname: no_hostname || now.no_hostname,
            dns: dns.merge(now.dns),
            http_proxy: now.http_proxy.or(http_proxy),
        }
    }
}

impl Dns {
    fn merge(self, now: Dns) -> Dns {
        let Dns { none, servers, search, options } = self;
        Dns {
            none: now.none || none && now.servers.is_empty(),
            servers: if now.none { Vec::new() } else { last(servers, now.servers) },
            search: last(search, now.search),
            options: last(options, now.options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        spec.process.env = vec!["A=1".to_owned()];
        spec.process.user = Some("app".to_owned());
        spec.isolation.pid = Some(Namespace::Host);
        spec.isolation.seccomp = Some(Seccomp::Unconfined);
        spec.limits.memory = Some(1 << 20);
        spec.limits.cpus = Some(2.0);
        spec.network.hosts = vec![("db".to_owned(), [10, 0, 0, 1].into())];
        spec.network.mode = Some(Network::Host);
        spec.network.dns.none = true;
        spec.lifecycle.labels = [("a".to_owned(), "1".to_owned())].into();
        spec
    }

    #[test]
    fn a_later_specification_is_laid_over_field_by_field() {
        let mut now = ContainerSpec::default();
        now.process.env = vec!["A=2".to_owned()];
        now.isolation.pid = Some(Namespace::Private);
        now.limits.cpu_quota = Some(50_000);
        now.network.hosts = vec![("web".to_owned(), [10, 0, 0, 2].into())];
        now.network.dns.servers = vec![[9, 9, 9, 9].into()];
        now.lifecycle.labels = [("a".to_owned(), "2".to_owned())].into();
        let all = kept().merge(now);
        assert_eq!(all.process.env, ["A=1", "A=2"]);
        assert_eq!(all.process.user.as_deref(), Some("app"));
        assert!(!all.isolation.host_pid());
        assert_eq!(all.isolation.seccomp, Some(Seccomp::Unconfined));
        assert_eq!((all.limits.memory, all.limits.cpus), (Some(1 << 20), None));
        assert_eq!(all.limits.cpu_quota, Some(50_000));
        assert_eq!(all.network.hosts.len(), 2);
        assert_eq!(all.network.mode(), Network::Host);
        assert!(!all.network.dns.none && all.network.dns.servers.len() == 1);
        assert_eq!(all.lifecycle.labels["a"], "2");
        assert_eq!(kept().merge(ContainerSpec::default()), kept());
        assert_eq!(ContainerSpec::default().merge(kept()), kept());
    }

    #[test]
    fn what_is_kept_is_read_again_and_missing_fields_ask_for_nothing() {
        let text = serde_json::to_string(&kept()).unwrap();
        assert_eq!(serde_json::from_str::<ContainerSpec>(&text).unwrap(), kept());
        let empty: ContainerSpec = serde_json::from_str("{\"limits\":{\"memory\":5}}").unwrap();
        assert_eq!(empty.limits.memory, Some(5));
        assert_eq!(ContainerSpec { limits: Limits::default(), ..empty }, ContainerSpec::default());
    }
}
