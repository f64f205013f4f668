//! The network of a container that has one of its own, with a way out and published ports.

use std::path::PathBuf;

use network::{Held, Port, Published, Uplink, UplinkOptions, resolvers};
use runtime::{ContainerSpec, Join, Network};
use store::Store;

use crate::{Container, Containers, Error, Result};

/// The ports of a container that runs, as they are published.
const PORTS: &str = "ports.json";

/// Makes the network of a container with one of its own, and has the container join it. It lives
/// as long as what is returned.
///
/// # Errors
/// [`Error::Network`]: the kernel has no device for it, a port is not available.
pub fn connect(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    document: &mut runtime::oci::Spec,
) -> Result<Option<Uplink>> {
    let Some(options) = options(spec, config, store, document)? else { return Ok(None) };
    let uplink = Uplink::start(&options)?;
    runtime::join_network(document, &uplink.path());
    Ok(Some(uplink))
}

/// The same for a container that outlives this process: another process holds the network.
pub(crate) fn hold(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    document: &mut runtime::oci::Spec,
) -> Result<Option<Held>> {
    let Some(options) = options(spec, config, store, document)? else { return Ok(None) };
    let held = Held::start(&options)?;
    runtime::join_network(document, &held.path());
    Ok(Some(held))
}

/// What the network lets through; `None` if the container has no network of its own. The machine's
/// loopback services are reachable if a name for the machine was requested.
fn options(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    document: &mut runtime::oci::Spec,
) -> Result<Option<UplinkOptions>> {
    let wanted = &spec.network;
    if let Some(join) = &wanted.join {
        runtime::join_network(document, &shared(join, store)?);
    }
    if wanted.mode() != Network::Private || wanted.join.is_some() {
        let mode = match wanted.mode() {
            Network::Host => "host",
            Network::None => "none",
            Network::Private => "container or ns, whose ports are published where it was made",
        };
        return match wanted.publish.first() {
            None => Ok(None),
            Some(port) => Err(Error::Port { port: port.clone(), mode }),
        };
    }
    let loopback = wanted.hosts.iter().any(|(_, address)| *address == Uplink::MACHINE);
    let machine = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let ports = ports(spec, config)?;
    Ok(Some(UplinkOptions { resolvers: resolvers(&machine), loopback, ports }))
}

/// Where the network is that is shared.
fn shared(join: &Join, store: &Store) -> Result<PathBuf> {
    match join {
        Join::Path(path) => Ok(path.clone()),
        Join::Container(name) => {
            let other = Containers::new(store.clone()).get(name)?;
            let Some(state) = other.state().filter(|_| other.is_running()) else {
                let phase = other.phase().as_str();
                return Err(Error::NotRunning { name: name.clone(), phase });
            };
            let path = PathBuf::from(format!("/proc/{}/ns/net", state.pid));
            match std::fs::File::open(&path) {
                Ok(_) => Ok(path),
                Err(error) if runtime::in_user_namespace() => {
                    Err(Error::Unshared { name: name.clone(), source: error })
                }
                Err(error) => Err(Error::file("opening", &path)(error)),
            }
        }
    }
}

/// The ports to publish: those that are named, and on demand all that the program says it has.
fn ports(spec: &ContainerSpec, config: &image::ContainerConfig) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for text in &spec.network.publish {
        ports.extend(network::ports(text)?);
    }
    if !spec.network.publish_all {
        return Ok(ports);
    }
    for text in config.exposed_ports.keys().chain(&spec.network.expose) {
        for (container, protocol) in network::exposed(text)? {
            let known = |port: &Port| (port.container, port.protocol) == (container, protocol);
            if !ports.iter().any(known) {
                ports.push(Port { address: None, machine: (0, 0), container, protocol });
            }
        }
    }
    Ok(ports)
}

/// The machine's `resolv.conf` as a container on this network is to see it.
pub(crate) fn resolv_conf(mode: Network) -> Vec<u8> {
    let machine = || std::fs::read("/etc/resolv.conf").unwrap_or_default();
    match mode {
        Network::None => Vec::new(),
        Network::Host => machine(),
        Network::Private => resolvers(&machine()).behind_uplink(&machine()),
    }
}

impl Container {
    /// Keeps where its ports are.
    pub(crate) fn keep_published(&self, held: Option<&Held>) -> Result<()> {
        let ports = held.map(Held::published).unwrap_or_default();
        let path = self.directory().join(PORTS);
        let text = serde_json::to_vec(ports).unwrap_or_default();
        std::fs::write(&path, text).map_err(Error::file("writing", &path))
    }

    /// Where on this machine its ports are; none while it does not run.
    pub fn published(&self) -> Vec<Published> {
        let text = std::fs::read(self.directory().join(PORTS)).unwrap_or_default();
        let ports = serde_json::from_slice(&text).ok().filter(|_| self.is_running());
        ports.unwrap_or_default()
    }
}
