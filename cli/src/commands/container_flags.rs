//! The flags that say how a container runs, shared by `run` and later commands that make one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use runtime::{Network, Overrides, Seccomp, Ulimit};
use task::Kind;

use crate::flags;
use crate::report::Failure;

/// How the container runs.
#[derive(Debug, Args)]
pub(crate) struct ContainerFlags {
    /// Set an environment variable; a bare NAME takes its value from here
    #[arg(short, long = "env", value_name = "NAME=VALUE", help_heading = "Process")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    env_file: Vec<PathBuf>,
    /// Remove an environment variable of the image
    #[arg(long, value_name = "NAME", help_heading = "Process")]
    unsetenv: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, visible_alias = "workingdir", value_name = "DIR", help_heading = "Process")]
    workdir: Option<String>,
    /// User (and group) by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    user: Option<String>,
    /// Add a group to the user's, by name or number
    #[arg(long, value_name = "GROUP", help_heading = "Process")]
    group_add: Vec<String>,
    /// Replace the image's entrypoint; an empty string clears it
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    entrypoint: Option<String>,
    /// Run a small init as process 1 that reaps orphans and forwards signals
    #[arg(long, help_heading = "Process")]
    init: bool,
    /// Limit a resource of the process
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit, help_heading = "Process")]
    ulimit: Vec<Ulimit>,
    /// Mode bits that new files never get, in octal
    #[arg(long, value_name = "MODE", value_parser = octal, help_heading = "Process")]
    umask: Option<u32>,

    /// Mount a host path
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]", help_heading = "Files")]
    volume: Vec<String>,
    /// Mount a bind or tmpfs
    #[arg(long, value_name = "type=TYPE,…", help_heading = "Files")]
    mount: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "Files")]
    tmpfs: Vec<String>,
    /// Refuse writing to the root file system
    #[arg(long, help_heading = "Files")]
    read_only: bool,
    /// Size of /dev/shm (default 64m)
    #[arg(long, value_name = "SIZE", value_parser = flags::size, help_heading = "Files")]
    shm_size: Option<u64>,

    /// `none` (only loopback) or `host`
    #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Network")]
    network: Option<String>,
    /// Host name in the container (default: the container's id)
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub(super) hostname: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub(super) add_host: Vec<String>,

    /// Memory limit
    #[arg(short, long, value_name = "SIZE", value_parser = flags::size, help_heading = "Limits")]
    memory: Option<u64>,
    /// Memory and swap together; -1 is unlimited
    #[arg(long, value_name = "SIZE", value_parser = flags::size_or_unlimited, allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<i64>,
    /// Memory the kernel tries to keep the container below
    #[arg(long, value_name = "SIZE", value_parser = flags::size, help_heading = "Limits")]
    memory_reservation: Option<u64>,
    /// How many CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus, help_heading = "Limits")]
    cpus: Option<f64>,
    /// Relative CPU weight, 1024 is normal
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    cpu_shares: Option<u64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    cpuset_mems: Option<String>,
    /// How many processes; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pids_limit: Option<i64>,
    /// The cgroup to make the container's in
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    cgroup_parent: Option<String>,
    /// -1000 (never killed when memory runs out) to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000), help_heading = "Limits")]
    oom_score_adj: Option<i32>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, nothing masked, no system call filter
    #[arg(long, help_heading = "Security")]
    privileged: bool,
    /// `no-new-privileges`, `seccomp=unconfined` or `seccomp=FILE`
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    security_opt: Vec<String>,
    /// Set a kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Security")]
    sysctl: Vec<String>,
    /// Give a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", help_heading = "Security")]
    device: Vec<String>,
    /// `host` shares the machine's process ids
    #[arg(long, value_name = "host", value_parser = ["host"], help_heading = "Security")]
    pid: Option<String>,
    /// `host` shares the machine's ipc
    #[arg(long, value_name = "host", value_parser = ["host"], help_heading = "Security")]
    ipc: Option<String>,
    /// `host` shares the machine's host name
    #[arg(long, value_name = "host", value_parser = ["host"], help_heading = "Security")]
    uts: Option<String>,
}

fn octal(text: &str) -> Result<u32, String> {
    let value = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    value.ok_or_else(|| format!("{text:?} is not an octal mode up to 0777"))
}

fn cpus(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0 && *n < 1e6);
    value.ok_or_else(|| format!("{text:?} is not a number of CPUs such as 1.5"))
}

impl ContainerFlags {
    /// What the flags ask for, with `command` as the container's command.
    ///
    /// # Errors
    /// Values that are not understood or not supported, by name.
    pub(crate) fn overrides(
        &self,
        command: &[String],
        terminal: bool,
    ) -> Result<Overrides, Failure> {
        let mut overrides = self.without_mounts(command, terminal)?;
        for text in &self.mount {
            overrides.mounts.push(flags::mount(text)?);
        }
        Ok(overrides)
    }

    /// What `--mount` gives.
    pub(crate) fn mounts(&self) -> &[String] {
        &self.mount
    }

    /// As [`ContainerFlags::overrides`], without what `--mount` gives.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn without_mounts(
        &self,
        command: &[String],
        terminal: bool,
    ) -> Result<Overrides, Failure> {
        let (mut mounts, mut given) = (Vec::new(), Vec::new());
        for text in &self.volume {
            mounts.push(flags::volume(text, &mut given)?);
        }
        for text in &self.tmpfs {
            mounts.push(flags::tmpfs(text)?);
        }
        let entrypoint = self.entrypoint.as_ref().map(|entrypoint| match entrypoint.as_str() {
            "" => Vec::new(),
            program => vec![program.to_owned()],
        });
        let (seccomp, no_new_privileges) = security(&self.security_opt)?;
        Ok(Overrides {
            entrypoint,
            command: command.to_vec(),
            env: flags::environment(&self.env_file, &self.env)?,
            unset_env: self.unsetenv.clone(),
            user: self.user.clone(),
            given,
            groups: self.group_add.clone(),
            working_dir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            terminal,
            init: self.init,
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            read_only: self.read_only,
            mounts,
            shm_size: self.shm_size,
            network: network(self.network.as_deref())?,
            host_pid: self.pid.is_some(),
            host_ipc: self.ipc.is_some(),
            host_uts: self.uts.is_some(),
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            ulimits: self.ulimit.clone(),
            sysctls: self.sysctls()?,
            oom_score_adj: self.oom_score_adj,
            umask: self.umask,
            no_new_privileges,
            seccomp,
            devices: self.device.iter().map(|text| device(text)).collect::<Result<_, _>>()?,
            cgroup_parent: self.cgroup_parent.clone(),
            user_namespace: runtime::in_user_namespace(),
            ..Overrides::default()
        })
    }

    /// Whether a network is asked for.
    pub(crate) fn names_network(&self) -> bool {
        self.network.is_some()
    }

    /// Whether an entrypoint is asked for.
    pub(crate) fn names_entrypoint(&self) -> bool {
        self.entrypoint.is_some()
    }

    /// Whether `--init` is given.
    pub(crate) fn wants_init(&self) -> bool {
        self.init
    }

    fn sysctls(&self) -> Result<BTreeMap<String, String>, Failure> {
        let pairs = self.sysctl.iter().map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Failure::usage(format!("--sysctl {text:?}: expected NAME=VALUE"))),
        });
        pairs.collect()
    }
}

/// What `--security-opt` asks for: a system call filter, and whether privileges can be gained.
///
/// # Errors
/// An option we do not have; a profile that cannot be read.
pub(crate) fn security(options: &[String]) -> Result<(Seccomp, bool), Failure> {
    let (mut seccomp, mut no_new_privileges) = (Seccomp::Default, false);
    for option in options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", "unconfined") => seccomp = Seccomp::Unconfined,
            ("seccomp", file) if !file.is_empty() => seccomp = profile(file)?,
            // Nothing to turn off where no security module labels processes.
            ("label", "disable") | ("apparmor", "unconfined") => {}
            _ => {
                return Err(Failure::usage(format!("--security-opt {option:?} is not supported"))
                    .hint("no-new-privileges, seccomp=unconfined and seccomp=FILE are"));
            }
        }
    }
    Ok((seccomp, no_new_privileges))
}

/// The network by name.
///
/// # Errors
/// A network we do not have.
pub(crate) fn network(name: Option<&str>) -> Result<Network, Failure> {
    match name {
        None | Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Failure::usage(format!("--network {other:?} is not supported"))
            .hint("supported networks are none and host")),
    }
}

/// A seccomp profile.
///
/// # Errors
/// It cannot be read.
pub(crate) fn profile(file: &str) -> Result<Seccomp, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::io(format!("reading seccomp profile {file}"), &error))?;
    let profile = serde_json::from_str(&text).map_err(|error| {
        Failure::new(Kind::Invalid, format!("reading seccomp profile {file}: {error}"))
    })?;
    Ok(Seccomp::Profile(Box::new(profile)))
}

/// `HOST[:CONTAINER][:rwm]`.
///
/// # Errors
/// It is no device of this machine.
pub(crate) fn device(text: &str) -> Result<runtime::Device, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--device {text:?}: {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => return Err(refuse("expected HOST[:CONTAINER][:rwm]")),
    };
    let stat = rustix::fs::stat(source).map_err(|error| {
        Failure::io(format!("finding device {source}"), &std::io::Error::from(error))
    })?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(refuse("it is not a device"));
    }
    Ok(runtime::Device {
        source: source.into(),
        target: target.into(),
        block: kind.is_block_device(),
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        access: access.to_owned(),
    })
}
