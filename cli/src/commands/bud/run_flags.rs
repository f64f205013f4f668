//! What the commands of `RUN` may do: the flags of containers that builds take.

use std::path::{Path, PathBuf};

use builder::{Dns, Network, Overlay, RunOptions};
use clap::{ArgAction, Args};
use runtime::{Overrides, Seccomp, Ulimit};

use super::secrets::host;
use crate::commands::container_flags;
use crate::config;
use crate::flags;
use crate::report::Failure;

/// How commands run.
#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// Network of RUN: default, none or host
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        default_value = "default",
        help_heading = "RUN: network"
    )]
    network: String,
    /// Add a line to /etc/hosts of RUN; the address host-gateway is this machine's
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "RUN: network")]
    add_host: Vec<String>,
    /// Leave the image's own /etc/hosts alone
    #[arg(long, conflicts_with = "add_host", help_heading = "RUN: network")]
    no_hosts: bool,
    /// Leave the image's own /etc/hostname alone
    #[arg(long, help_heading = "RUN: network")]
    no_hostname: bool,
    /// A name server; `none` leaves the image's own /etc/resolv.conf alone
    #[arg(long, value_name = "ADDRESS|none", value_delimiter = ',', help_heading = "RUN: network")]
    dns: Vec<String>,
    /// A search domain; `.` for none
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',', help_heading = "RUN: network")]
    dns_search: Vec<String>,
    /// An option of the resolver
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        value_delimiter = ',',
        help_heading = "RUN: network"
    )]
    dns_option: Vec<String>,
    /// Give RUN the proxy variables of the environment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set, help_heading = "RUN: network")]
    http_proxy: bool,

    /// Mount a path of this machine into every RUN; `:O` keeps writes away from it
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]", help_heading = "RUN: files")]
    volume: Vec<String>,
    /// Give RUN a device of this machine
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", help_heading = "RUN: files")]
    device: Vec<String>,
    /// Size of /dev/shm (default 64m)
    #[arg(long, value_name = "SIZE", value_parser = flags::size, help_heading = "RUN: files")]
    shm_size: Option<u64>,

    /// Memory limit
    #[arg(short, long, value_name = "SIZE", value_parser = flags::size, help_heading = "RUN: limits")]
    memory: Option<u64>,
    /// Memory and swap together; -1 is unlimited
    #[arg(long, value_name = "SIZE", value_parser = flags::size_or_unlimited, allow_hyphen_values = true, help_heading = "RUN: limits")]
    memory_swap: Option<i64>,
    /// CPU time in microseconds per period
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "RUN: limits")]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "NUMBER", help_heading = "RUN: limits")]
    cpu_period: Option<u64>,
    /// Relative CPU weight, 1024 is normal
    #[arg(short = 'c', long, value_name = "WEIGHT", help_heading = "RUN: limits")]
    cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "RUN: limits")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "RUN: limits")]
    cpuset_mems: Option<String>,
    /// How many processes; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "RUN: limits")]
    pids_limit: Option<i64>,
    /// Limit a resource of the processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit, help_heading = "RUN: limits")]
    ulimit: Vec<Ulimit>,
    /// The cgroup to make those of commands in
    #[arg(long, value_name = "PATH", help_heading = "RUN: limits")]
    cgroup_parent: Option<String>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "RUN: security")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "RUN: security")]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, mask=PATHS or unmask=PATHS|ALL
    #[arg(long, value_name = "OPTION", help_heading = "RUN: security")]
    security_opt: Vec<String>,
    /// Further groups of the commands' user
    #[arg(long, value_name = "GROUP", help_heading = "RUN: security")]
    group_add: Vec<String>,
    /// Processes of RUN: private, or host for this machine's
    #[arg(long, value_name = "private|host", value_parser = space, help_heading = "RUN: security")]
    pid: Option<Space>,
    /// Shared memory and queues of RUN: private or host
    #[arg(long, value_name = "private|host", value_parser = space, help_heading = "RUN: security")]
    ipc: Option<Space>,
    /// Host name of RUN: private or host
    #[arg(long, value_name = "private|host", value_parser = space, help_heading = "RUN: security")]
    uts: Option<Space>,
    /// Control groups of RUN: private or host
    #[arg(long, value_name = "private|host", value_parser = space, help_heading = "RUN: security")]
    cgroupns: Option<Space>,
    /// User ids of RUN: host, those this program has
    #[arg(long, value_name = "host", value_parser = user_space, help_heading = "RUN: security")]
    userns: Option<Space>,
    /// How commands are isolated: oci, rootless and default are all the same sandbox; chroot, for
    /// places where it cannot be made, shares this machine's processes, ipc, names and network
    #[arg(long, value_name = "TYPE", env = "BUILDAH_ISOLATION", hide_env = true, value_parser = isolation, help_heading = "RUN: security")]
    isolation: Option<Isolation>,
}

/// Whose namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Own,
    Host,
}

fn space(text: &str) -> Result<Space, String> {
    match text {
        "private" | "container" => Ok(Space::Own),
        "host" => Ok(Space::Host),
        other => Err(format!("{other:?} is neither private nor host; a path cannot be joined")),
    }
}

fn user_space(text: &str) -> Result<Space, String> {
    match text {
        "host" => Ok(Space::Host),
        other => Err(format!(
            "{other:?} is not supported: commands have the ids of this program; run it as an \
             ordinary user to have them in a user namespace"
        )),
    }
}

/// What stands between commands and this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    Sandbox,
    Chroot,
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "" | "default" | "oci" | "rootless" | "sandbox" => Ok(Isolation::Sandbox),
        "chroot" => Ok(Isolation::Chroot),
        other => Err(format!("{other:?} is not known: there are oci, rootless and chroot")),
    }
}

impl RunFlags {
    /// The network of commands whose instruction names none.
    pub(super) fn network(&self) -> Result<Network, Failure> {
        match self.network.as_str() {
            "default" => Ok(Network::Default),
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            other => Err(Failure::usage(format!("--network {other:?} is not supported"))
                .hint("the networks are default (this machine's), none and host")),
        }
    }

    /// Whether commands get the proxy variables.
    pub(super) fn proxy(&self) -> bool {
        self.http_proxy
    }

    /// The same as arguments, wherever it is called; what is as usual is left out.
    pub(super) fn arguments(&self) -> Result<Vec<String>, Failure> {
        let volumes = self.volume.iter().map(|text| placed(text, "", ":"));
        let volumes = volumes.collect::<Result<Vec<_>, _>>()?;
        let security = self.security_opt.iter().map(|option| match option.as_str() {
            "seccomp=unconfined" => Ok(option.clone()),
            other => placed(other, "seccomp=", "\0"),
        });
        let security = security.collect::<Result<Vec<_>, _>>()?;
        let limit = |limit: &Ulimit| format!("{}={}:{}", limit.name, limit.soft, limit.hard);
        let ulimits: Vec<_> = self.ulimit.iter().map(limit).collect();
        let mut all = Vec::new();
        let mut add = |flag: &str, value: &str| all.push(format!("--{flag}={value}"));
        for (flag, values) in [
            ("add-host", &self.add_host),
            ("dns", &self.dns),
            ("dns-search", &self.dns_search),
            ("dns-option", &self.dns_option),
            ("volume", &volumes),
            ("device", &self.device),
            ("ulimit", &ulimits),
            ("cap-add", &self.cap_add),
            ("cap-drop", &self.cap_drop),
            ("security-opt", &security),
            ("group-add", &self.group_add),
        ] {
            values.iter().for_each(|value| add(flag, value));
        }
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let signed = |number: Option<i64>| number.map(|number| number.to_string());
        let space = |space: Option<Space>| {
            space.map(|space| if space == Space::Own { "private" } else { "host" }.to_owned())
        };
        for (flag, value) in [
            ("network", Some(self.network.clone()).filter(|network| network != "default")),
            ("http-proxy", (!self.http_proxy).then(|| "false".to_owned())),
            ("shm-size", number(self.shm_size)),
            ("memory", number(self.memory)),
            ("memory-swap", signed(self.memory_swap)),
            ("cpu-quota", signed(self.cpu_quota)),
            ("cpu-period", number(self.cpu_period)),
            ("cpu-shares", number(self.cpu_shares)),
            ("cpuset-cpus", self.cpuset_cpus.clone()),
            ("cpuset-mems", self.cpuset_mems.clone()),
            ("pids-limit", signed(self.pids_limit)),
            ("cgroup-parent", self.cgroup_parent.clone()),
            ("pid", space(self.pid)),
            ("ipc", space(self.ipc)),
            ("uts", space(self.uts)),
            ("cgroupns", space(self.cgroupns)),
            ("userns", space(self.userns)),
            (
                "isolation",
                self.isolation.filter(|i| *i == Isolation::Chroot).map(|_| "chroot".to_owned()),
            ),
        ] {
            value.iter().for_each(|value| add(flag, value));
        }
        all.extend(self.no_hosts.then(|| "--no-hosts".to_owned()));
        all.extend(self.no_hostname.then(|| "--no-hostname".to_owned()));
        Ok(all)
    }

    /// What commands get. `hostname` is what a build argument calls the machine.
    pub(super) fn options(&self, hostname: Option<String>) -> Result<RunOptions, Failure> {
        let (mut mounts, mut overlays, mut given) = (Vec::new(), Vec::new(), Vec::new());
        for text in &self.volume {
            match overlay(text)? {
                Some(overlay) => overlays.push(overlay),
                None => mounts.push(flags::volume(text, &mut given)?),
            }
        }
        if let Some(group) = self.group_add.iter().find(|group| *group == "keep-groups") {
            return Err(Failure::usage(format!("--group-add {group} is not supported"))
                .hint("name the groups"));
        }
        let chroot = self.isolation == Some(Isolation::Chroot);
        let own = [self.pid, self.ipc, self.uts, self.cgroupns].contains(&Some(Space::Own));
        if chroot && own {
            return Err(Failure::usage("--isolation=chroot: there are no private namespaces"));
        }
        let host = |space: Option<Space>| chroot || space == Some(Space::Host);
        let security = self.security()?;
        let devices = self.device.iter().map(|text| container_flags::device(text));
        let base = Overrides {
            hostname,
            given,
            groups: self.group_add.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            mounts,
            devices: devices.collect::<Result<_, _>>()?,
            shm_size: self.shm_size,
            host_pid: host(self.pid),
            host_ipc: host(self.ipc),
            host_uts: host(self.uts),
            host_cgroup: host(self.cgroupns),
            host_proc: chroot,
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            ulimits: self.ulimit.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            ..security
        };
        Ok(RunOptions {
            base,
            overlays,
            hosts: self.add_host.iter().map(|text| host_line(text)).collect::<Result<_, _>>()?,
            no_hosts: self.no_hosts,
            no_hostname: self.no_hostname,
            dns: self.dns()?,
            stdin: false,
            flags: Vec::new(),
        })
    }

    fn dns(&self) -> Result<Dns, Failure> {
        let none = self.dns.iter().any(|server| server == "none");
        if none
            && (self.dns.len() > 1 || !self.dns_search.is_empty() || !self.dns_option.is_empty())
        {
            return Err(Failure::usage("--dns none excludes every other option of the resolver"));
        }
        let server = |text: &String| {
            text.parse().map_err(|_| Failure::usage(format!("--dns {text:?} is not an address")))
        };
        let servers = self.dns.iter().filter(|_| !none).map(server);
        Ok(Dns {
            none,
            servers: servers.collect::<Result<_, _>>()?,
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        })
    }

    fn security(&self) -> Result<Overrides, Failure> {
        let mut overrides = Overrides::default();
        let paths = |text: &str| text.split(':').map(str::to_owned).collect::<Vec<_>>();
        for option in &self.security_opt {
            let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => overrides.no_new_privileges = true,
                ("no-new-privileges", "false") => overrides.no_new_privileges = false,
                ("seccomp", "unconfined") => overrides.seccomp = Seccomp::Unconfined,
                ("seccomp", file) if !file.is_empty() => {
                    overrides.seccomp = container_flags::profile(file)?;
                }
                // Nothing to turn off: no security module labels processes of ours.
                ("label", "disable") | ("apparmor", "unconfined") => {}
                ("apparmor", profile) if !profile.is_empty() => {
                    if !Path::new("/sys/kernel/security/apparmor").exists() {
                        return Err(Failure::usage(format!("--security-opt {option:?}"))
                            .hint("this kernel runs without AppArmor"));
                    }
                    overrides.apparmor = Some(profile.to_owned());
                }
                ("mask", list) if !list.is_empty() => overrides.mask.extend(paths(list)),
                ("unmask", list) if !list.is_empty() => overrides.unmask.extend(paths(list)),
                _ => {
                    return Err(Failure::usage(format!(
                        "--security-opt {option:?} is not supported"
                    ))
                    .hint(
                        "no-new-privileges, seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, \
                         mask=PATHS and unmask=PATHS are; SELinux labels are not set",
                    ));
                }
            }
        }
        Ok(overrides)
    }
}

/// The options of RUN that [`RunFlags::arguments`] wrote down, and whether proxies are passed on.
///
/// # Errors
/// One of them no longer holds: a directory is gone, say.
pub(crate) fn run_options(arguments: &[String]) -> Result<(RunOptions, Network, bool), Failure> {
    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Alone {
        #[command(flatten)]
        flags: RunFlags,
    }
    let parsed = <Alone as clap::Parser>::try_parse_from(arguments);
    let flags = parsed.map_err(|error| Failure::usage(error.to_string()))?.flags;
    Ok((flags.options(None)?, flags.network()?, flags.proxy()))
}

/// The path after `prefix` and before `end` made absolute.
fn placed(text: &str, prefix: &str, end: &str) -> Result<String, Failure> {
    let Some(rest) = text.strip_prefix(prefix) else { return Ok(text.to_owned()) };
    let path = rest.split(end).next().unwrap_or_default();
    let whole = config::absolute(Path::new(path))?;
    Ok(format!("{prefix}{}{}", whole.display(), &rest[path.len()..]))
}

/// `NAME:ADDRESS`; the gateway to this machine is loopback, as commands are on its network.
fn host_line(text: &str) -> Result<(String, std::net::IpAddr), Failure> {
    match text.split_once([':', '=']) {
        Some((name, "host-gateway")) => Ok((name.to_owned(), [127, 0, 0, 1].into())),
        _ => host(text),
    }
}

/// `SOURCE:TARGET:O`; `None` for a volume of another kind.
fn overlay(text: &str) -> Result<Option<Overlay>, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--volume {text:?}: {why}"));
    let mut parts = text.splitn(3, ':');
    let (Some(source), Some(target), Some(options)) = (parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    if !options.split(',').any(|option| option == "O") {
        return Ok(None);
    }
    if let Some(other) = options.split(',').find(|option| *option != "O") {
        return Err(refuse(&format!("option {other:?} does not go with O")));
    }
    let source = config::absolute(Path::new(source))?;
    if !source.is_dir() {
        return Err(refuse("the source is not a directory"));
    }
    if !target.starts_with('/') || target == "/" {
        return Err(refuse("the path in the container must be absolute and below the root"));
    }
    Ok(Some(Overlay { source, target: PathBuf::from(target) }))
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RunFlags,
    }

    fn read(line: &[&str]) -> Result<RunOptions, String> {
        let command = <Line as clap::CommandFactory>::command().no_binary_name(true);
        let matches = command.try_get_matches_from(line).map_err(|error| error.to_string())?;
        let line = Line::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        line.flags.network().map_err(|failure| format!("{failure:?}"))?;
        let options = line.flags.options(None).map_err(|failure| format!("{failure:?}"))?;
        // What is written down gives the same.
        let written = line.flags.arguments().map_err(|failure| format!("{failure:?}"))?;
        let (again, ..) = run_options(&written).map_err(|failure| format!("{failure:?}"))?;
        assert_eq!(format!("{options:?}"), format!("{again:?}"));
        Ok(options)
    }

    #[test]
    fn every_flag_reaches_the_container() {
        let options = read(&[
            "--cap-add=NET_ADMIN,SYS_PTRACE",
            "--cap-drop=ALL",
            "-m=64m",
            "--memory-swap=-1",
            "--cpu-quota=50000",
            "--cpu-period=100000",
            "-c=512",
            "--cpuset-cpus=0",
            "--pids-limit=10",
            "--ulimit=nofile=5:6",
            "--shm-size=1m",
            "--pid=host",
            "--security-opt=no-new-privileges",
            "--security-opt=unmask=ALL",
            "--security-opt=mask=/proc/x:/proc/y",
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
        let base = &options.base;
        assert_eq!(base.cap_add, ["NET_ADMIN", "SYS_PTRACE"]);
        assert_eq!((base.memory, base.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!((base.cpu_quota, base.cpu_shares), (Some(50000), Some(512)));
        assert!(base.host_pid && base.host_ipc && base.host_proc && base.no_new_privileges);
        assert_eq!((&base.unmask[..], base.mask.len()), (&["ALL".to_owned()][..], 2));
        assert_eq!(options.hosts[1].1.to_string(), "127.0.0.1");
        assert_eq!(options.overlays[0].target, Path::new("/t"));
        assert_eq!((base.mounts.len(), base.devices.len(), base.groups.len()), (1, 1, 1));
        for line in [
            "--network=bridge",
            "--pid=/proc/1/ns/pid",
            "--userns=auto",
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
            "--device=/etc/passwd",
        ] {
            assert!(read(&[line]).is_err(), "{line}");
        }
        assert!(read(&["--pid=private"]).is_ok());
        assert!(read(&["--pid=private", "--isolation=chroot"]).is_err());
    }
}
