//! The flags that every container takes, those of builds included.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use containers::syntax::{
    self, NetworkChoice, Sandbox, SyntaxError, UserNamespace, cgroup_namespace, ipc_namespace,
    namespace,
};
use runtime::{ContainerSpec, Files, Isolation, Limits, Namespace, Network, NetworkSpec, Ulimit};

use super::MapFlags;
use crate::Failure;
use crate::environment;
use crate::flags::{each, of_flag, wrong_use};

/// Flags of every container, including those of builds.
#[derive(Debug, Clone, Default, Args)]
pub struct SharedFlags {
    /// Use this network: private, bridge, NAME, container:NAME, none, host … (default: private)
    ///
    /// private reaches out, but not to this machine's loopback services; pasta and slirp4netns are the
    /// same. The NAME of a network may have options behind it (NAME:ip=ADDRESS,alias=NAME). cni:NAME is
    /// a network of CNI, ns:PATH a network namespace.
    #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Network")]
    pub network: Vec<String>,
    /// Find networks cni:NAME in this directory (default: $NETCONFPATH, /etc/cni/net.d)
    #[arg(long, value_name = "DIRECTORY", help_heading = "Network")]
    pub(super) cni_config_dir: Option<PathBuf>,
    /// Find the plugins of networks cni:NAME in these directories, with : between them
    /// (default: $CNI_PATH, /opt/cni/bin and those of distributions)
    #[arg(long, value_name = "DIRECTORIES", help_heading = "Network")]
    pub(super) cni_plugin_path: Option<String>,
    /// Add a line to /etc/hosts; the address host-gateway is this machine's, and opens its loopback
    /// services to a private network
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub add_host: Vec<String>,
    /// Keep the image's /etc/hosts
    #[arg(long, conflicts_with = "add_host", help_heading = "Network")]
    pub(crate) no_hosts: bool,
    /// Keep the image's /etc/hostname
    #[arg(long, help_heading = "Network")]
    pub(crate) no_hostname: bool,
    /// Use this name server; `none` keeps the image's /etc/resolv.conf
    #[arg(long, value_name = "ADDRESS|none", value_delimiter = ',', help_heading = "Network")]
    pub(crate) dns: Vec<String>,
    /// Add a search domain; `.` for none
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',', help_heading = "Network")]
    pub(crate) dns_search: Vec<String>,
    /// Add an option of the resolver
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub(crate) dns_option: Vec<String>,
    /// Pass the proxy variables of the environment (default: true for builds)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Network")]
    pub(crate) http_proxy: Option<bool>,

    /// Mount a path of this machine; `:O` discards writes
    #[arg(short, long, value_name = "HOST:CONTAINER[:…]", help_heading = "Files")]
    pub(crate) volume: Vec<String>,
    /// Give access to a device of this machine; add :r, :w or :m to allow reading, writing or mknod only.
    /// VENDOR/CLASS=NAME is a device of /etc/cdi or /var/run/cdi
    #[arg(long, value_name = "HOST[:CONTAINER]", help_heading = "Files")]
    pub(crate) device: Vec<String>,
    /// Find devices VENDOR/CLASS=NAME in this directory (default: /etc/cdi, /var/run/cdi)
    #[arg(long, value_name = "DIRECTORY", help_heading = "Files")]
    pub(super) cdi_config_dir: Vec<PathBuf>,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitFlags,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Security")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Security")]
    pub(crate) cap_drop: Vec<String>,
    /// Set a security option: no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE,
    /// mask=PATHS or unmask=PATHS|ALL
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub(crate) security_opt: Vec<String>,
    /// Add a supplementary group, by name or number
    #[arg(long, value_name = "GROUP", help_heading = "Security")]
    pub(crate) group_add: Vec<String>,
    /// Set a kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Security")]
    pub(crate) sysctl: Vec<String>,
    /// Use this process namespace: private, host, ns:PATH, or with `run` and `from` container:NAME
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, help_heading = "Security")]
    pub(crate) pid: Option<Namespace>,
    /// Use this IPC namespace, /dev/shm included: private, shareable, none (no /dev/shm), host, ns:PATH, or
    /// with `run` and `from` container:NAME
    #[arg(long, value_name = "NAMESPACE", value_parser = ipc_namespace, help_heading = "Security")]
    pub(crate) ipc: Option<Namespace>,
    /// Use this UTS namespace (host name): private, host, ns:PATH, or with `run` and `from` container:NAME
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, help_heading = "Security")]
    pub(crate) uts: Option<Namespace>,
    /// Use a private or the host's cgroup namespace: private or host
    #[arg(long, value_name = "private|host", value_parser = cgroup_namespace, help_heading = "Security")]
    pub(crate) cgroupns: Option<Namespace>,
    /// Use this user namespace: host (that of this program), private (one of its own), auto[:size=NUMBER]
    /// (ids that no other container has) or ns:PATH. `run` also takes keep-id[:size=NUMBER,uid=ID,gid=ID]
    /// (your id is the same inside), nomap (your id is not mapped) and container:NAME, and private with
    /// --uidmap only
    #[arg(long, value_name = "USERNS", value_parser = syntax::user_namespace, help_heading = "Security")]
    pub(crate) userns: Option<UserNamespace>,
    /// Set the isolation: oci, rootless and default are the same sandbox; chroot shares the
    /// processes, IPC, host name and network of this machine, for machines without a sandbox
    #[arg(long, value_name = "TYPE", value_parser = syntax::sandbox, help_heading = "Security")]
    pub(crate) isolation: Option<Sandbox>,
}

/// Limits of a container.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitFlags {
    /// Limit the memory, at least 6m; 0 is no limit
    #[arg(short, long, value_name = "SIZE", value_parser = syntax::memory, help_heading = "Limits")]
    pub(crate) memory: Option<u64>,
    /// Limit memory plus swap; -1 is unlimited
    #[arg(long, value_name = "SIZE", value_parser = syntax::size_or_unlimited, allow_hyphen_values = true, help_heading = "Limits")]
    pub(crate) memory_swap: Option<i64>,
    /// Set the soft limit of memory
    #[arg(long, value_name = "SIZE", value_parser = syntax::size, help_heading = "Limits")]
    pub(crate) memory_reservation: Option<u64>,
    /// Limit the CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = syntax::cpus, help_heading = "Limits")]
    pub(crate) cpus: Option<f64>,
    /// Limit the CPU time per period, in microseconds
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub(crate) cpu_quota: Option<i64>,
    /// Set the CPU period, in microseconds
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) cpu_period: Option<u64>,
    /// Set the relative CPU weight; 1024 is normal
    #[arg(short = 'c', long, value_name = "WEIGHT", help_heading = "Limits")]
    pub(crate) cpu_shares: Option<u64>,
    /// Run on these CPUs, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Use these memory nodes, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit the number of processes; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub(crate) pids_limit: Option<i64>,
    /// Limit a resource of the processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_delimiter = ',', value_parser = syntax::ulimit, help_heading = "Limits")]
    pub ulimit: Vec<Ulimit>,
    /// Create the container's cgroup in this cgroup
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    pub(crate) cgroup_parent: Option<String>,
    /// Set the OOM score, from -1000 (never killed) to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000), help_heading = "Limits")]
    pub(crate) oom_score_adj: Option<i32>,
    /// Set the size of /dev/shm (default: 64m)
    #[arg(long, value_name = "SIZE", value_parser = syntax::size, help_heading = "Limits")]
    pub shm_size: Option<u64>,
}

impl LimitFlags {
    /// What the flags ask for. As in docker, a limit of 0 is none.
    pub fn limits(&self) -> Limits {
        Limits {
            memory: self.memory.filter(|bytes| *bytes > 0),
            memory_swap: self.memory_swap.filter(|bytes| *bytes != 0),
            memory_reservation: self.memory_reservation.filter(|bytes| *bytes > 0),
            cpus: self.cpus.filter(|number| *number > 0.0),
            cpu_quota: self.cpu_quota.filter(|time| *time != 0),
            cpu_period: self.cpu_period.filter(|time| *time > 0),
            cpu_shares: self.cpu_shares.filter(|weight| *weight > 0),
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            ulimits: self.ulimit.clone(),
            oom_score_adj: self.oom_score_adj,
            shm_size: self.shm_size,
            cgroup_parent: self.cgroup_parent.clone(),
            ..Limits::default()
        }
    }
}

impl SharedFlags {
    /// The flags written down as arguments.
    ///
    /// # Errors
    /// They are not understood.
    pub fn parse(arguments: &[String]) -> Result<SharedFlags, Failure> {
        #[derive(clap::Parser)]
        #[command(no_binary_name = true)]
        struct SharedLine {
            #[command(flatten)]
            flags: SharedFlags,
        }
        let parsed = <SharedLine as clap::Parser>::try_parse_from(arguments);
        parsed.map(|alone| alone.flags).map_err(|error| Failure::usage(error.to_string()))
    }

    /// What the flags ask for, with the isolation that `$BUILDAH_ISOLATION` names and what
    /// containers.conf says where no flag does.
    ///
    /// # Errors
    /// As [`SharedFlags::spec`]; the variable or the file is not understood.
    pub fn completed(&self, maps: &MapFlags) -> Result<ContainerSpec, Failure> {
        let mut spec = self.isolated(maps)?;
        super::complete(&mut spec)?;
        Ok(spec)
    }

    /// What the flags ask for, isolated as the environment says where no flag does, with the namespaces
    /// of containers.conf.
    ///
    /// # Errors
    /// As [`SharedFlags::spec`]; the variable is not understood; there are no such ids.
    pub fn isolated(&self, maps: &MapFlags) -> Result<ContainerSpec, Failure> {
        let mut flags = self.clone();
        let ids = maps.ids(flags.userns.take())?;
        if flags.isolation.is_none()
            && let Ok(text) = std::env::var("BUILDAH_ISOLATION")
        {
            let found = syntax::sandbox(&text);
            let refuse = |why| Failure::usage(format!("$BUILDAH_ISOLATION: {why}"));
            flags.isolation = Some(found.map_err(refuse)?);
        }
        let mut spec = flags.spec()?;
        if spec.isolation.chroot && ids.is_some() {
            return Err(Failure::usage("--isolation=chroot: there is no user namespace"));
        }
        spec.isolation.ids = ids;
        let conf = environment::paths(runtime::in_user_namespace()).containers_conf()?;
        containers::apply_namespaces(&conf.containers, &mut spec)?;
        Ok(spec)
    }

    /// What the flags ask for.
    ///
    /// # Errors
    /// Values that are not understood or not supported, by name.
    pub fn spec(&self) -> Result<ContainerSpec, Failure> {
        if let Some(group) = self.group_add.iter().find(|group| *group == "keep-groups") {
            return Err(Failure::usage(format!("--group-add {group} is not supported"))
                .hint("name the groups"));
        }
        let (named, paths): (Vec<_>, Vec<_>) =
            self.device.iter().cloned().partition(|text| containers::is_device_name(text));
        let mut spec = ContainerSpec {
            isolation: self.isolation(&paths)?,
            limits: self.limits.limits(),
            files: self.files()?,
            network: self.network()?,
            ..ContainerSpec::default()
        };
        spec.process.groups.clone_from(&self.group_add);
        containers::add_devices(&named, &self.cdi_config_dir, &mut spec)?;
        Ok(spec)
    }

    fn isolation(&self, devices: &[String]) -> Result<Isolation, Failure> {
        let chroot = self.isolation == Some(Sandbox::Chroot);
        let spaces = [&self.pid, &self.ipc, &self.uts, &self.cgroupns];
        if chroot && spaces.contains(&&Some(Namespace::Private)) {
            return Err(Failure::usage("--isolation=chroot: there are no private namespaces"));
        }
        let mut isolation = Isolation {
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            cgroup: self.cgroupns.clone(),
            chroot,
            sysctls: self.sysctls()?,
            devices: each("--device", devices, syntax::device)?,
            user_namespace: runtime::in_user_namespace(),
            ..Isolation::default()
        };
        for text in &self.security_opt {
            let read = syntax::security_option(text, &mut isolation);
            read.map_err(of_flag("--security-opt", text))?;
        }
        Ok(isolation)
    }

    fn files(&self) -> Result<Files, Failure> {
        let mut files = Files::default();
        for text in &self.volume {
            let read = syntax::volume(text, &environment::here()?, &mut files);
            read.map_err(of_flag("--volume", text))?;
        }
        Ok(files)
    }

    fn network(&self) -> Result<NetworkSpec, Failure> {
        let choice = syntax::networks(&self.network);
        let NetworkChoice { mut mode, join, mut networks } = choice.map_err(|error| {
            let reason = format!("--network {}", error.reason);
            wrong_use(SyntaxError { reason, ..error })
        })?;
        let place = self.cni_config_dir.clone();
        let place = place.or_else(|| std::env::var_os("NETCONFPATH").map(PathBuf::from));
        syntax::find_cni(
            &mut networks,
            place.map(|place| environment::absolute(&place)).transpose()?.as_deref(),
            self.cni_plugin_path.clone().or_else(|| std::env::var("CNI_PATH").ok()).as_deref(),
        );
        if mode.is_none() && self.isolation == Some(Sandbox::Chroot) {
            mode = Some(Network::Host);
        }
        let host = |text: &str| syntax::extra_host(text, mode);
        let dns = syntax::dns(&self.dns, &self.dns_search, &self.dns_option);
        Ok(NetworkSpec {
            mode,
            join,
            networks,
            hosts: each("--add-host", &self.add_host, host)?,
            no_hosts: self.no_hosts,
            no_hostname: self.no_hostname,
            dns: dns.map_err(of_flag("--dns", &self.dns.join(",")))?,
            http_proxy: self.http_proxy,
            ..NetworkSpec::default()
        })
    }

    fn sysctls(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pairs = self.sysctl.iter().map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Failure::usage(format!("--sysctl {text:?}: expected NAME=VALUE"))),
        });
        pairs.collect()
    }
}

/// Adds what containers.conf says; gives back the names of devices in it.
///
/// # Errors
/// A file is malformed; a value in it is not understood.
pub(crate) fn complete(spec: &mut ContainerSpec) -> Result<Vec<String>, Failure> {
    let conf = environment::paths(runtime::in_user_namespace()).containers_conf()?;
    Ok(containers::apply_defaults(&conf.containers, spec)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(line: &[&str]) -> Result<ContainerSpec, String> {
        let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let told = |failure: Failure| format!("{failure:?}");
        let spec = SharedFlags::parse(&line).map_err(told)?.spec().map_err(told)?;
        // What is kept of it gives the same.
        let kept = serde_json::to_vec(&spec).unwrap();
        let mut read: ContainerSpec = serde_json::from_slice(&kept).unwrap();
        read.isolation.user_namespace = spec.isolation.user_namespace;
        assert_eq!(read, spec);
        Ok(spec)
    }

    #[test]
    fn every_flag_reaches_the_container() {
        let spec = read(&[
            "--cap-add=NET_ADMIN,SYS_PTRACE",
            "--cap-drop=ALL",
            "-m=64m",
            "--memory-swap=-1",
            "--memory-reservation=32m",
            "--cpu-quota=50000",
            "--cpu-period=100000",
            "-c=512",
            "--cpuset-cpus=0",
            "--pids-limit=10",
            "--ulimit=nofile=5:6,nproc=7",
            "--oom-score-adj=-5",
            "--shm-size=1m",
            "--pid=host",
            "--security-opt=no-new-privileges",
            "--security-opt=unmask=ALL",
            "--security-opt=mask=/proc/x:/proc/y",
            "--sysctl=net.a=1",
            "--add-host=db:10.0.0.1",
            "--add-host=me:host-gateway",
            "--dns=9.9.9.9",
            "--dns-search=a,b",
            "-v=/tmp:/t:O",
            "-v=/tmp:/u:ro",
            "--device=/dev/null",
            "--group-add=7",
            "--isolation=chroot",
        ])
        .unwrap();
        let ContainerSpec { process, isolation, limits, files, network, .. } = &spec;
        assert_eq!(isolation.cap_add, ["NET_ADMIN", "SYS_PTRACE"]);
        assert_eq!((limits.memory, limits.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!((limits.cpu_quota, limits.cpu_shares), (Some(50000), Some(512)));
        assert_eq!((limits.ulimits.len(), limits.oom_score_adj), (2, Some(-5)));
        assert!(isolation.host_pid() && isolation.host_ipc() && isolation.chroot);
        assert_eq!(isolation.no_new_privileges, Some(true));
        assert_eq!((&isolation.unmask[..], isolation.mask.len()), (&["ALL".to_owned()][..], 2));
        assert_eq!(network.hosts[1].1.to_string(), "127.0.0.1");
        assert_eq!(network.mode, Some(Network::Host));
        assert_eq!(files.overlays[0].target, Path::new("/t"));
        let counts = (files.mounts.len(), isolation.devices.len(), process.groups.len());
        assert_eq!(counts, (1, 1, 1));
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for line in [
            "--network=web:ip=here",
            "--network=none,host",
            "--network=pasta:-t",
            "--pid=proc/1/ns/pid",
            "--cgroupns=container:web",
            "--isolation=moon",
            "--dns=here",
            "--dns=none,9.9.9.9",
            "--security-opt=label=type:x",
            "-v=/tmp:/t:O,ro",
            "-v=/nowhere:/t:O",
            "-v=/tmp:/t:U",
            "--group-add=keep-groups",
            "--add-host=db",
            "--memory=much",
            "--memory=1k",
            "--device=/etc/passwd",
            "--sysctl=net.a",
        ] {
            assert!(read(&[line]).is_err(), "{line}");
        }
        assert!(read(&["--pid=private"]).is_ok());
        assert!(read(&["--pid=private", "--isolation=chroot"]).is_err());
    }
}
