//! How commands run in a working container: given to `from`, kept with the container.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use runtime::{Network, Overrides};
use serde::{Deserialize, Serialize};

use crate::commands::container_flags;
use crate::config;
use crate::flags;
use crate::report::Failure;

/// How commands run in the container.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Commands")]
    pub add_host: Vec<String>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Commands")]
    pub cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Commands")]
    pub cap_drop: Vec<String>,
    /// The cgroup to make theirs in
    #[arg(long, value_name = "PATH", help_heading = "Commands")]
    pub cgroup_parent: Option<String>,
    /// Cgroup namespace: private
    #[arg(long, value_name = "private", help_heading = "Commands")]
    pub cgroupns: Option<String>,
    /// Period of the CPU limit, in microseconds
    #[arg(long, value_name = "NUMBER", help_heading = "Commands")]
    pub cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Commands")]
    pub cpu_quota: Option<i64>,
    /// Relative CPU weight, 1024 is normal
    #[arg(short, long, value_name = "WEIGHT", help_heading = "Commands")]
    pub cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Commands")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "Commands")]
    pub cpuset_mems: Option<String>,
    /// Give a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", help_heading = "Commands")]
    pub device: Vec<String>,
    /// DNS servers; none makes no /etc/resolv.conf
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', help_heading = "Commands")]
    pub dns: Vec<String>,
    /// DNS options
    #[arg(long, value_name = "OPTION", value_delimiter = ',', help_heading = "Commands")]
    pub dns_option: Vec<String>,
    /// DNS search domains
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',', help_heading = "Commands")]
    pub dns_search: Vec<String>,
    /// Pass proxy variables on (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Commands")]
    pub http_proxy: Option<bool>,
    /// IPC namespace: private (default) or host
    #[arg(long, value_name = "private|host", help_heading = "Commands")]
    pub ipc: Option<String>,
    /// oci and rootless, which are one (default), or chroot: only mount namespace and capabilities
    /// are the command's own (default: $BUILDAH_ISOLATION)
    #[arg(long, value_name = "TYPE", help_heading = "Commands")]
    pub isolation: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "SIZE", help_heading = "Commands")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 is unlimited
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Commands")]
    pub memory_swap: Option<String>,
    /// host (default) or none
    #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Commands")]
    pub network: Option<String>,
    /// PID namespace: private (default) or host
    #[arg(long, value_name = "private|host", help_heading = "Commands")]
    pub pid: Option<String>,
    /// `no-new-privileges`, `seccomp=unconfined` or `seccomp=FILE`
    #[arg(long, value_name = "OPTION", help_heading = "Commands")]
    pub security_opt: Vec<String>,
    /// Size of /dev/shm (default 64m)
    #[arg(long, value_name = "SIZE", help_heading = "Commands")]
    pub shm_size: Option<String>,
    /// Limit a resource of each command
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_delimiter = ',', help_heading = "Commands")]
    pub ulimit: Vec<String>,
    /// User namespace: host
    #[arg(long, value_name = "host", help_heading = "Commands")]
    pub userns: Option<String>,
    /// UTS namespace: private (default) or host
    #[arg(long, value_name = "private|host", help_heading = "Commands")]
    pub uts: Option<String>,
    /// Mount a host path
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]", help_heading = "Commands")]
    pub volume: Vec<String>,
}

/// Whether a namespace is the machine's.
///
/// # Errors
/// It is that of something else, which we do not have.
fn host(flag: &str, value: Option<&str>) -> Result<bool, Failure> {
    match value {
        None | Some("" | "private" | "container") => Ok(false),
        Some("host") => Ok(true),
        Some(other) => Err(Failure::usage(format!("--{flag} {other:?} is not supported"))
            .hint("private and host are")),
    }
}

/// Whether the isolation meant is that of a chroot.
///
/// # Errors
/// One is wanted that there is not.
pub(crate) fn isolation(value: Option<&str>) -> Result<bool, Failure> {
    match value {
        None | Some("" | "oci" | "rootless" | "sandbox" | "default") => Ok(false),
        Some("chroot") => Ok(true),
        Some(other) => Err(Failure::usage(format!("--isolation {other:?} is not supported"))
            .hint("oci, rootless and chroot are")),
    }
}

/// What the command shares with the machine as `--isolation=chroot` wants it.
pub(crate) fn as_chroot(overrides: &mut Overrides) {
    overrides.host_pid = true;
    overrides.host_ipc = true;
    overrides.host_uts = true;
    overrides.host_cgroup = true;
    overrides.host_proc = true;
}

/// The network of commands: the machine's, as that of RUN.
///
/// # Errors
/// A network we do not have.
pub(crate) fn network(value: Option<&str>) -> Result<Network, Failure> {
    match value {
        None | Some("" | "default") => Ok(Network::Host),
        given => container_flags::network(given),
    }
}

impl Settings {
    /// What is asked for, and the numbers and paths are sound.
    ///
    /// # Errors
    /// Values that are not understood or not supported, by name.
    pub(crate) fn overrides(&self) -> Result<Overrides, Failure> {
        let chroot = isolation(self.isolation.as_deref())?;
        let spaces = [&self.pid, &self.ipc, &self.uts, &self.cgroupns];
        if chroot && spaces.iter().any(|s| matches!(s.as_deref(), Some("private" | "container"))) {
            return Err(Failure::usage("--isolation=chroot: there are no private namespaces"));
        }
        match self.userns.as_deref() {
            None | Some("" | "host") => {}
            Some(other) => {
                return Err(Failure::usage(format!("--userns {other:?} is not supported"))
                    .hint("commands share the user namespace of rbuild: host"));
            }
        }
        let flag = |name: &str| {
            let name = name.to_owned();
            move |why: String| Failure::usage(format!("--{name}: {why}"))
        };
        let (seccomp, no_new_privileges) = container_flags::security(&self.security_opt)?;
        let memory_swap = self.memory_swap.as_deref().map(flags::size_or_unlimited).transpose();
        let size = |name: &str, value: Option<&str>| {
            value.map(flags::size).transpose().map_err(flag(name))
        };
        let ulimits = self.ulimit.iter().map(|text| flags::ulimit(text));
        let mut given = Vec::new();
        let mounts = self.volume.iter().map(|text| flags::volume(text, &mut given));
        let mounts = mounts.collect::<Result<_, _>>()?;
        let devices = self.device.iter().map(|text| container_flags::device(text));
        let mut overrides = Overrides {
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            memory: size("memory", self.memory.as_deref())?,
            memory_swap: memory_swap.map_err(flag("memory-swap"))?,
            shm_size: size("shm-size", self.shm_size.as_deref())?,
            network: network(self.network.as_deref())?,
            host_ipc: host("ipc", self.ipc.as_deref())?,
            host_pid: host("pid", self.pid.as_deref())?,
            host_uts: host("uts", self.uts.as_deref())?,
            host_cgroup: host("cgroupns", self.cgroupns.as_deref())?,
            ulimits: ulimits.collect::<Result<_, _>>().map_err(flag("ulimit"))?,
            mounts,
            given,
            devices: devices.collect::<Result<_, _>>()?,
            seccomp,
            no_new_privileges,
            env: self.proxies(),
            user_namespace: runtime::in_user_namespace(),
            ..Overrides::default()
        };
        if chroot {
            as_chroot(&mut overrides);
        }
        Ok(overrides)
    }

    /// The proxy variables commands see.
    fn proxies(&self) -> Vec<String> {
        let wanted = self.http_proxy.unwrap_or(true);
        let all = config::proxies().into_iter().filter(|_| wanted);
        all.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// The text of `/etc/resolv.conf` in place of the machine's; an empty path means none at all.
    pub(crate) fn resolv_conf(&self) -> Option<String> {
        if self.dns.is_empty() && self.dns_option.is_empty() && self.dns_search.is_empty() {
            return None;
        }
        let mut text = String::new();
        if !self.dns_search.is_empty() {
            let _ = writeln!(text, "search {}", self.dns_search.join(" "));
        }
        let machine = std::fs::read_to_string(PathBuf::from("/etc/resolv.conf"));
        let machine = machine.unwrap_or_default();
        match self.dns.as_slice() {
            [] => {
                for line in machine.lines().filter(|line| line.starts_with("nameserver")) {
                    let _ = writeln!(text, "{line}");
                }
            }
            servers => {
                for server in servers {
                    let _ = writeln!(text, "nameserver {server}");
                }
            }
        }
        if !self.dns_option.is_empty() {
            let _ = writeln!(text, "options {}", self.dns_option.join(" "));
        }
        Some(text)
    }

    /// Whether there is to be no `/etc/resolv.conf` at all.
    pub(crate) fn no_resolv_conf(&self) -> bool {
        matches!(self.dns.as_slice(), [only] if only == "none")
    }
}
