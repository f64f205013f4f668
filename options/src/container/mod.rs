//! The flags that say how a container runs: one grammar for `run`, `from` and the commands of
//! `bud`, read into one [`ContainerSpec`].

mod block;
mod ids;
mod lifecycle;
mod other;
mod refuse;
mod shared;

use std::path::PathBuf;

use clap::Args;
use containers::syntax::{self, SyntaxError};
use runtime::{ContainerSpec, ImageVolumes};

pub use block::BlockFlags;
pub use ids::{IdFlags, MapFlags};
pub use lifecycle::LifecycleFlags;
pub use other::RuntimeFlags;
pub use refuse::{refuse_containers, refuse_overlays, refuse_volumes};
pub use shared::{LimitFlags, SharedFlags};

use crate::Failure;
use crate::environment::{self, here};
use crate::flags::{self, each, of_flag};

#[derive(Debug, Clone)]
struct Mac([u8; 6]);

/// Names of devices.
#[derive(Debug, Clone)]
struct Gpus(Vec<String>);

fn gpus(text: &str) -> Result<Gpus, String> {
    containers::gpu_devices(text).map(Gpus)
}

fn mac(text: &str) -> Result<Mac, SyntaxError> {
    syntax::mac_address(text).map(Mac)
}

/// How a container of `run` runs.
#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// Set an environment variable; a bare NAME takes its value from the environment
    #[arg(short, long = "env", value_name = "NAME=VALUE", help_heading = "Process")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    env_file: Vec<PathBuf>,
    /// Set an environment variable, with ${NAME} for the value that the image has
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Process")]
    env_merge: Vec<String>,
    /// Remove an environment variable of the image
    #[arg(long, value_name = "NAME", help_heading = "Process")]
    unsetenv: Vec<String>,
    /// Set the working directory
    #[arg(short, long, visible_alias = "workingdir", value_name = "DIR", help_heading = "Process")]
    workdir: Option<String>,
    /// Run as this user (and group), by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    user: Option<String>,
    /// Replace the image's entrypoint by a program, or by a JSON list of a program and its arguments;
    /// an empty string clears it
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    entrypoint: Option<String>,
    /// Run a small init as process 1 that reaps orphans and forwards signals
    #[arg(long, help_heading = "Process")]
    init: bool,
    /// Set the umask, in octal
    #[arg(long, value_name = "MODE", value_parser = syntax::octal, help_heading = "Process")]
    umask: Option<u32>,

    /// Mount a bind, volume, tmpfs, image, devpts or glob
    #[arg(long, value_name = "type=TYPE,…", help_heading = "Files")]
    mount: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "Files")]
    tmpfs: Vec<String>,
    /// Make the root file system read-only
    #[arg(long, help_heading = "Files")]
    read_only: bool,

    /// Set the host name (default: the container's id)
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network")]
    hostname: Option<String>,
    /// Begin /etc/hosts with this file, or with nothing: none (default: with that of this machine if the
    /// container shares its network)
    #[arg(long, value_name = "FILE|none", conflicts_with = "no_hosts", help_heading = "Network")]
    hosts_file: Option<PathBuf>,
    /// Set the NIS domain name, and the domain of the host name in /etc/hosts
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    domainname: Option<String>,
    /// Add a name by which others on its networks find the container
    #[arg(long, visible_alias = "net-alias", value_name = "NAME", help_heading = "Network")]
    network_alias: Vec<String>,
    /// Use this IPv4 address on the named network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    ip: Option<std::net::Ipv4Addr>,
    /// Use this IPv6 address on the named network
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    ip6: Option<std::net::Ipv6Addr>,
    /// Use this Ethernet address on the named network
    #[arg(long, value_name = "ADDRESS", value_parser = mac, help_heading = "Network")]
    mac_address: Option<Mac>,
    /// Publish a port of the container, or a range such as 80-89, with /udp behind it if needed; without
    /// a host port use any free one
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT", help_heading = "Network")]
    publish: Vec<String>,
    /// Publish every port of the image and of --expose on free host ports
    #[arg(short = 'P', long, help_heading = "Network")]
    publish_all: bool,
    /// Add a port for --publish-all
    #[arg(long, value_name = "PORT[-PORT][/udp]", help_heading = "Network")]
    expose: Vec<String>,

    /// Give all capabilities and devices; no masked paths, no system call filter
    #[arg(long, help_heading = "Security")]
    privileged: bool,

    /// Set all environment variables of this process
    #[arg(long, help_heading = "Process")]
    env_host: bool,
    /// Remove all environment variables of the image
    #[arg(long, help_heading = "Process")]
    unsetenv_all: bool,
    /// Set the time zone: a name such as Europe/Berlin, or local
    #[arg(long, value_name = "ZONE", help_heading = "Process")]
    tz: Option<String>,
    /// With --read-only, mount memory at /run, /tmp and /var/tmp
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Files")]
    read_only_tmpfs: Option<bool>,
    /// Give access to GPUs by the Container Device Interface: all, a number, or device=NAME
    #[arg(long, value_name = "GPUS", value_parser = gpus, help_heading = "Security")]
    gpus: Vec<Gpus>,
    /// Let the container use devices by kind and number, such as 'c 189:* rwm': those that it makes
    /// in /dev, or has in a mount with the option dev (root)
    #[arg(long, value_name = "RULE", help_heading = "Security")]
    device_cgroup_rule: Vec<String>,
    /// Set what uname says of the machine: LINUX, or LINUX32 for one of 32 bits
    #[arg(long, value_name = "NAME", value_parser = ["LINUX", "LINUX32"], help_heading = "Process")]
    personality: Option<String>,
    /// What becomes of the volumes of the image: anonymous (or bind), tmpfs or ignore
    #[arg(long, value_name = "KIND", value_parser = syntax::image_volumes, help_heading = "Files")]
    image_volume: Option<ImageVolumes>,
    /// Add an annotation to the container
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,

    #[command(flatten)]
    ids: IdFlags,
    #[command(flatten)]
    block: BlockFlags,
    #[command(flatten)]
    shared: SharedFlags,
}

/// Adds what containers.conf says of what a whole specification leaves open.
///
/// # Errors
/// A file is malformed; a value in it is not understood; a device is not there.
pub fn complete(spec: &mut ContainerSpec) -> Result<(), Failure> {
    let named = shared::complete(spec)?;
    Ok(containers::add_devices(&named, &[], spec)?)
}

impl ContainerFlags {
    /// What the flags ask for, with `command` as the container's command.
    ///
    /// # Errors
    /// Values that are not understood or not supported, by name.
    pub fn spec(&self, command: &[String], terminal: bool) -> Result<ContainerSpec, Failure> {
        let mut spec = self.without_mounts(command, terminal)?;
        for text in &self.mount {
            let read = syntax::mount(text, &here()?, &mut spec.files);
            read.map_err(of_flag("--mount", text))?;
        }
        complete(&mut spec)?;
        Ok(spec)
    }

    /// What `--mount` gives.
    pub fn mounts(&self) -> &[String] {
        &self.mount
    }

    /// As [`ContainerFlags::spec`], without what `--mount` and containers.conf give.
    ///
    /// # Errors
    /// As there.
    pub fn without_mounts(
        &self,
        command: &[String],
        terminal: bool,
    ) -> Result<ContainerSpec, Failure> {
        let mut shared = self.shared.clone();
        let namespace = shared.userns.take();
        let ids = self.ids.ids(namespace.clone())?;
        let mut spec = shared.spec()?;
        let isolation = &mut spec.isolation;
        isolation.ids = ids;
        isolation.personality = self.personality.clone();
        isolation.device_rules =
            each("--device-cgroup-rule", &self.device_cgroup_rule, syntax::device_rule)?;
        let gpus: Vec<String> = self.gpus.iter().flat_map(|gpus| gpus.0.clone()).collect();
        containers::add_devices(&gpus, &self.shared.cdi_config_dir, &mut spec)?;
        self.block.add(&mut spec.limits)?;
        self.add_files(&mut spec)?;
        spec.isolation.annotations = self.annotation.iter().map(|text| flags::pair(text)).collect();
        spec.files.mounts.extend(each("--tmpfs", &self.tmpfs, syntax::tmpfs)?);
        spec.files.read_only = self.read_only;
        spec.files.image_volumes = self.image_volume.unwrap_or_default();
        spec.isolation.privileged = self.privileged;
        spec.network.hostname.clone_from(&self.hostname);
        spec.network.domainname.clone_from(&self.domainname);
        spec.network.hosts_file = self.hosts_file()?;
        self.on_networks(&mut spec.network)?;
        for text in &self.publish {
            network::ports(text)?;
        }
        for text in &self.expose {
            network::exposed(text)?;
        }
        spec.network.publish.clone_from(&self.publish);
        spec.network.publish_all = self.publish_all;
        spec.network.expose.clone_from(&self.expose);
        let process = &mut spec.process;
        process.entrypoint = self.entrypoint.as_deref().map(syntax::entrypoint);
        process.command = command.to_vec();
        if self.env_host {
            process.env.extend(crate::environment::environment());
        }
        process.env.extend(flags::environment(&self.env_file, &self.env)?);
        process.env_merge.clone_from(&self.env_merge);
        process.unset_all = self.unsetenv_all;
        process.unset_env.clone_from(&self.unsetenv);
        process.user = self.user.clone().or(namespace.and_then(|one| one.user()));
        process.working_dir.clone_from(&self.workdir);
        process.terminal = terminal;
        process.init = self.init;
        process.umask = self.umask;
        Ok(spec)
    }

    /// Lays the flags that hold for a named network over it.
    fn on_networks(&self, spec: &mut runtime::NetworkSpec) -> Result<(), Failure> {
        let address = [
            (self.ip.is_some(), "--ip"),
            (self.ip6.is_some(), "--ip6"),
            (self.mac_address.is_some(), "--mac-address"),
        ];
        let alone = address.iter().find(|(given, _)| *given).map(|(_, flag)| *flag);
        let flag = alone.or((!self.network_alias.is_empty()).then_some("--network-alias"));
        let mut named: Vec<_> =
            spec.networks.iter_mut().filter(|one| one.network != "private").collect();
        match (flag, alone, &mut named[..]) {
            (None, ..) => return Ok(()),
            (Some(flag), _, []) => {
                return Err(Failure::usage(format!("{flag} is for named networks"))
                    .hint("name one by --network; --network bridge is always there"));
            }
            (_, Some(flag), [_, _, ..]) => {
                return Err(Failure::usage(format!("{flag}: there is more than one network"))
                    .hint("write it into the network: --network NAME:ip=ADDRESS,mac=ADDRESS"));
            }
            (_, Some(_), [network]) => {
                network.ip = self.ip.or(network.ip);
                network.ip6 = self.ip6.or(network.ip6);
                network.mac = self.mac_address.as_ref().map(|mac| mac.0).or(network.mac);
            }
            (_, None, _) => {}
        }
        for network in named {
            network.aliases.extend(self.network_alias.iter().cloned());
        }
        Ok(())
    }

    /// Memory beside a root that refuses writing, and the time zone.
    fn add_files(&self, spec: &mut ContainerSpec) -> Result<(), Failure> {
        if self.read_only_tmpfs == Some(true) && self.read_only {
            for target in ["/run", "/tmp", "/var/tmp"] {
                let (target, options) = (target.into(), Vec::new());
                spec.files.mounts.push(runtime::Mount::Tmpfs { target, options });
            }
        }
        let Some(zone) = &self.tz else { return Ok(()) };
        spec.files.mounts.push(syntax::time_zone(zone).map_err(of_flag("--tz", zone))?);
        Ok(())
    }

    fn hosts_file(&self) -> Result<Option<PathBuf>, Failure> {
        match self.hosts_file.as_deref() {
            Some(image) if image == std::path::Path::new("image") => {
                Err(Failure::usage("--hosts-file=image is not supported")
                    .hint("--no-hosts keeps the image's file as it is"))
            }
            Some(none) if none == std::path::Path::new("none") => Ok(Some(none.to_owned())),
            Some(path) => Ok(Some(environment::absolute(path)?)),
            None => Ok(None),
        }
    }

    /// Whether ids of its own are asked for.
    pub fn wants_ids(&self) -> bool {
        self.ids.given()
            || !matches!(
                self.shared.userns,
                None | Some(syntax::UserNamespace::Host | syntax::UserNamespace::Empty)
            )
    }

    /// Whether an entrypoint is given.
    pub fn names_entrypoint(&self) -> bool {
        self.entrypoint.is_some()
    }
}
