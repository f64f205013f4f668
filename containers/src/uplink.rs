//! The network of a container that has one of its own, with a way out and published ports.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::{
    Attachment, CniDirectories, ContainerNetwork, Driver, HeldOptions, Lease, LeaseRequest,
    Networks, NewNetwork, Port, PublishedPort, Uplink, UplinkOptions, resolvers,
};
use runtime::{ContainerSpec, Join, MachineFiles, Membership, Network};
use store::Store;

use crate::{Container, Containers, Error, Result};

/// The ports of a container that runs, as they are published.
const PORTS: &str = "ports.json";

/// Makes the network of a container with one of its own, unless one is held for it, and has the
/// container join it. It lives as long as what is returned.
///
/// # Errors
/// [`Error::Network`]: the kernel has no device for it, a port is not available.
pub fn connect(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    (held, document): (Option<&ContainerNetwork>, &mut runtime::oci::Spec),
) -> Result<Option<Uplink>> {
    if let Some(held) = held {
        runtime::join_network(document, &held.path());
        return Ok(None);
    }
    join(spec, store, document)?;
    let Some(options) = options(spec, config)? else { return Ok(None) };
    let uplink = Uplink::start(&options)?;
    runtime::join_network(document, &uplink.path());
    Ok(Some(uplink))
}

/// Puts a container that ends with this process on its named networks, if it has any. It leaves them
/// when what is returned ends.
///
/// # Errors
/// [`Error::Network`]: there is no such network, an address is taken.
pub fn join_named(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    (id, name): (&str, &str),
) -> Result<Option<ContainerNetwork>> {
    if spec.network.networks.is_empty() {
        return Ok(None);
    }
    let servers = &spec.network.dns.servers;
    hold(spec, config, store, NetworkOwner { id, name, directory: Path::new(""), servers })
}

/// The container that a network is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkOwner<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// By which its network is reached later; empty if it is not.
    pub(crate) directory: &'a Path,
    /// Its own name servers.
    pub(crate) servers: &'a [IpAddr],
}

/// Makes the network of a container that outlives this process, or is on a named network: another
/// process holds it.
pub(crate) fn hold(
    spec: &ContainerSpec,
    config: &image::ContainerConfig,
    store: &Store,
    owner: NetworkOwner<'_>,
) -> Result<Option<ContainerNetwork>> {
    let Some(options) = options(spec, config)? else { return Ok(None) };
    if spec.network.networks.iter().any(|one| one.network.starts_with(network::CNI)) {
        sweep(store);
    }
    let networks = networks(store);
    let UplinkOptions { resolvers, loopback, ports, .. } = options.clone();
    let wanted = &spec.network.networks;
    let mut attachments = Vec::new();
    for membership in wanted.iter().filter(|one| one.network != Membership::PRIVATE) {
        let attachment = attachment(&networks, membership, owner)?;
        attachments.push(Attachment { loopback, ..attachment });
    }
    let mut uplink = None;
    if wanted.len() == attachments.len() && !wanted.is_empty() {
        publish(&networks, &mut attachments, ports)?;
        if loopback {
            refuse_machine(&networks, &attachments)?;
        }
    } else {
        let neighbours = Some((networks.directory().to_owned(), owner.id.to_owned()));
        uplink = Some(UplinkOptions { neighbours, ..options });
    }
    let held = ContainerNetwork::start(&HeldOptions {
        uplink,
        attachments,
        networks: networks.directory().to_owned(),
        resolvers,
        directory: owner.directory.to_owned(),
    })?;
    Ok(Some(held))
}

/// Gives the ports to the network that is the way out: answers to clients go there.
fn publish(networks: &Networks, attachments: &mut [Attachment], ports: Vec<Port>) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut mode = "internal";
    for attachment in attachments {
        if attachment.cni.is_some() {
            attachment.ports = ports;
            return Ok(());
        }
        let network = networks.get(&attachment.network)?;
        match network.driver {
            Driver::Bridge if !network.internal => {
                attachment.ports = ports;
                return Ok(());
            }
            Driver::Bridge => {}
            Driver::Macvlan | Driver::Ipvlan => mode = ON_WIRE,
        }
    }
    let port = ports.first().map(|port| port.container.to_string()).unwrap_or_default();
    Err(Error::Port { port, mode })
}

/// Why no port is published there.
const ON_WIRE: &str = "on a wire, where containers are reached at their own addresses";

/// On a wire, and on networks of others, containers do not reach the loopback services of this machine.
fn refuse_machine(networks: &Networks, attachments: &[Attachment]) -> Result<()> {
    let mut name = String::new();
    for attachment in attachments {
        if attachment.cni.is_none() && networks.get(&attachment.network)?.driver == Driver::Bridge {
            return Ok(());
        }
        name.clone_from(&attachment.network);
    }
    let reason = "its containers do not reach the loopback services of this machine; for host-gateway \
                  also name a network of the driver bridge";
    Err(network::Error::InvalidNetwork { name, reason: reason.to_owned() }.into())
}

/// What is asked of a named network.
fn attachment(
    networks: &Networks,
    wanted: &Membership,
    owner: NetworkOwner<'_>,
) -> Result<Attachment> {
    let wish = LeaseRequest {
        container: owner.id.to_owned(),
        name: owner.name.to_owned(),
        aliases: wanted.aliases.clone(),
        ip: wanted.ip,
        ip6: wanted.ip6,
        mac: wanted.mac,
        servers: owner.servers.to_vec(),
    };
    let cni = cni(wanted)?;
    Ok(Attachment {
        network: match cni {
            Some(_) => wanted.network.clone(),
            None => networks.get(&wanted.network)?.name,
        },
        wanted: wish,
        interface: wanted.interface.clone(),
        ports: Vec::new(),
        loopback: false,
        cni,
    })
}

/// Where a network in the format of CNI is found, if it is one.
fn cni(wanted: &Membership) -> Result<Option<CniDirectories>> {
    let (place, privileges) = (wanted.configurations.as_deref(), !runtime::in_user_namespace());
    Ok(CniDirectories::of(&wanted.network, place, &wanted.plugins, privileges)?)
}

/// Takes containers that have ended off networks in the format of CNI, where the process that had to do
/// so was killed.
pub(crate) fn sweep(store: &Store) {
    let all = Containers::new(store.clone());
    network::sweep_cni(networks(store).directory(), &|id| {
        all.find(id).ok().flatten().is_some_and(|container| container.is_running())
    });
}

/// The named networks beside a store.
pub fn networks(store: &Store) -> Networks {
    Networks::beside(store.path())
}

/// Makes a named network beside a store.
///
/// # Errors
/// As [`Networks::create`].
pub fn create_network(store: &Store, new: &NewNetwork) -> Result<network::NamedNetwork> {
    let networks = networks(store);
    if networks.get(&new.name).is_err() {
        network::try_wire(new)?;
    }
    let made = networks.create(new, crate::ended::seconds())?;
    note(store, "create", &made);
    Ok(made)
}

/// How long a container that has ended may take to leave its networks.
const LEAVING: Duration = Duration::from_secs(2);
/// How long to sleep between two looks at it.
const NAP: Duration = Duration::from_millis(10);

/// Removes a named network that no running container is on.
///
/// # Errors
/// As [`Networks::remove`].
pub fn remove_network(store: &Store, name: &str) -> Result<network::NamedNetwork> {
    let all = Containers::new(store.clone());
    let mut left = LEAVING;
    let gone = loop {
        match networks(store).remove(name) {
            Err(network::Error::NetworkInUse { by, .. })
                if !left.is_zero() && !all.find(&by)?.is_some_and(|one| one.is_running()) =>
            {
                std::thread::sleep(NAP);
                left = left.saturating_sub(NAP);
            }
            removed => break removed?,
        }
    };
    note(store, "destroy", &gone);
    Ok(gone)
}

/// Writes down that something happened to a network.
fn note(store: &Store, action: &str, network: &network::NamedNetwork) {
    let mut attributes = network.labels.clone();
    attributes.insert("name".to_owned(), network.name.clone());
    let event = crate::Event {
        time: crate::ended::now(),
        kind: "network".to_owned(),
        action: action.to_owned(),
        id: network.id.clone(),
        attributes,
    };
    crate::event::note(store.path(), &event);
}

/// What the network is to let through; `None` if the container has no network of its own. The
/// loopback services of this machine are reachable where a name was asked for that stands for it.
fn options(spec: &ContainerSpec, config: &image::ContainerConfig) -> Result<Option<UplinkOptions>> {
    let wanted = &spec.network;
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
    let (resolvers, ports) = (resolvers(&machine), ports(spec, config)?);
    Ok(Some(UplinkOptions { resolvers, loopback, ports, neighbours: None }))
}

/// Has the container join the network that it shares, if it does.
pub(crate) fn join(
    spec: &ContainerSpec,
    store: &Store,
    document: &mut runtime::oci::Spec,
) -> Result<()> {
    if let Some(join) = &spec.network.join {
        runtime::join_network(document, &shared(join, store)?);
    }
    Ok(())
}

/// The first process of the running container with this name or id.
///
/// # Errors
/// [`Error::NoContainer`], [`Error::NotRunning`].
pub(crate) fn running(name: &str, store: &Store) -> Result<u32> {
    let other = Containers::new(store.clone()).get(name)?;
    match other.state().filter(|_| other.is_running()) {
        Some(state) => Ok(state.pid),
        None => {
            let phase = other.phase().as_str();
            Err(Error::NotRunning { name: name.to_owned(), phase })
        }
    }
}

/// Where the network is that is shared.
fn shared(join: &Join, store: &Store) -> Result<PathBuf> {
    match join {
        Join::Path(path) => Ok(path.clone()),
        Join::Container(name) => {
            let path = PathBuf::from(format!("/proc/{}/ns/net", running(name, store)?));
            match std::fs::File::open(&path) {
                Ok(_) => Ok(path),
                Err(error) if runtime::in_user_namespace() => {
                    Err(Error::Unshared { what: "network", name: name.clone(), source: error })
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

/// What the files of a container say of its network.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkFacts {
    /// The machine's `resolv.conf` as the container is to see it.
    pub(crate) resolv_conf: Vec<u8>,
    /// The container's own addresses; loopback if there are none.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether its network asks its name servers for it, and knows its neighbours.
    pub(crate) names: bool,
}

impl NetworkFacts {
    /// For a container with these leases.
    pub(crate) fn of(spec: &ContainerSpec, leases: &[Lease]) -> NetworkFacts {
        let machine = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        let own = &spec.network.dns.servers;
        let uplink = spec.network.networks.iter().any(|one| one.network == Membership::PRIVATE);
        let private = spec.network.mode() == Network::Private && !uplink;
        let there = network::resolv_conf_on(&machine, own, leases).filter(|_| private);
        let names = there.as_ref().is_some_and(|there| there.asks);
        let resolv_conf = match (spec.network.mode(), there) {
            (Network::None, _) => Vec::new(),
            (Network::Host, _) => machine,
            (Network::Private, Some(there)) => there.text,
            (Network::Private, None) => resolvers(&machine).behind_uplink(&machine),
        };
        let addresses = leases.iter().flat_map(Lease::addresses).map(|(address, _)| address);
        NetworkFacts { resolv_conf, addresses: addresses.collect(), names }
    }
}

/// Writes hosts, hostname and resolv.conf of a container to its directory; gives their names.
pub(crate) fn write_network_files(
    directory: &Path,
    spec: &ContainerSpec,
    known: &NetworkFacts,
) -> Result<Vec<&'static str>> {
    let host = spec.network.mode() == Network::Host;
    let hosts = match &spec.network.hosts_file {
        Some(path) if path == Path::new("none") => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(Error::file("reading", path))?,
        None if host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        None => String::new(),
    };
    let hostname = spec.network.hostname.clone().unwrap_or_default();
    let machine = MachineFiles { hosts: &hosts, resolv_conf: &known.resolv_conf };
    let loopback = [IpAddr::from([127, 0, 0, 1])];
    let own = if known.addresses.is_empty() { &loopback[..] } else { &known.addresses };
    // The name with its domain is first, so that it is the full one.
    let full = spec.network.domainname.as_ref().filter(|domain| !domain.is_empty());
    let names = full.map(|domain| format!("{hostname}.{domain} {hostname}"));
    let names = names.as_deref().unwrap_or(&hostname);
    let own: Vec<_> = own.iter().map(|address| (names, *address)).collect();
    let mut wanted = spec.network.clone();
    if known.names {
        wanted.dns.servers.clear();
    }
    let files = wanted.files(machine, &hostname, &own);
    let mut written = Vec::new();
    for (name, content) in [
        ("hosts", files.hosts.map(String::into_bytes)),
        ("hostname", files.hostname.map(String::into_bytes)),
        ("resolv.conf", files.resolv_conf),
    ] {
        let Some(content) = content else { continue };
        let path = directory.join(name);
        std::fs::write(&path, content).map_err(Error::file("writing", &path))?;
        written.push(name);
    }
    Ok(written)
}

/// Networks in the format of CNI are chosen when a container is made.
fn refuse_cni(network: &str) -> Result<()> {
    if !network.starts_with(network::CNI) {
        return Ok(());
    }
    let reason = "name it by --network when you make the container".to_owned();
    Err(network::Error::InvalidNetwork { name: network.to_owned(), reason }.into())
}

impl Container {
    /// Keeps where its ports are that its own uplink serves.
    pub(crate) fn keep_published(&self, held: Option<&ContainerNetwork>) -> Result<()> {
        let ports = held.map(ContainerNetwork::published).unwrap_or_default();
        let path = self.directory().join(PORTS);
        let text = serde_json::to_vec(ports).unwrap_or_default();
        std::fs::write(&path, text).map_err(Error::file("writing", &path))
    }

    /// Where on this machine its ports are; none while it does not run.
    pub fn published(&self) -> Vec<PublishedPort> {
        if !self.is_running() {
            return Vec::new();
        }
        let text = std::fs::read(self.directory().join(PORTS)).unwrap_or_default();
        let mut ports: Vec<PublishedPort> = serde_json::from_slice(&text).unwrap_or_default();
        ports.extend(self.networks().into_iter().flat_map(|lease| lease.published));
        ports
    }

    /// Its places on named networks; none while it does not run.
    pub fn networks(&self) -> Vec<Lease> {
        let networks = networks(&self.store);
        let mut all = networks.leases_of(self.id());
        all.extend(network::cni_leases(networks.directory(), self.id()));
        all
    }

    /// Whether it has a network of its own, and so can be on named ones.
    fn require_own_network(&self, network: &str) -> Result<()> {
        let wanted = &self.record().spec.network;
        if wanted.mode() != Network::Host && wanted.join.is_none() {
            return Ok(());
        }
        let name = self.name();
        let reason = format!("container {name} has no network of its own");
        Err(network::Error::InvalidNetwork { name: network.to_owned(), reason }.into())
    }

    /// Puts it on a network, now if it runs, and whenever it is started.
    ///
    /// # Errors
    /// It has no network of its own, or is on this one; what the network refuses.
    pub fn connect(&self, wanted: Membership) -> Result<()> {
        refuse_cni(&wanted.network)?;
        let networks = networks(&self.store);
        let network = networks.get(&wanted.network)?.name;
        self.require_own_network(&network)?;
        let mut record = self.again()?.record().clone();
        let known = &mut record.spec.network.networks;
        if known.iter().any(|one| one.network == network) {
            let reason = format!("container {} is on it already", self.name());
            return Err(network::Error::InvalidNetwork { name: network, reason }.into());
        }
        let had = record.spec.network.mode.replace(Network::Private);
        if known.is_empty() && had != Some(Network::None) {
            let network = Membership::PRIVATE.to_owned();
            known.push(Membership { network, ..Membership::default() });
        }
        let wanted = Membership { network, ..wanted };
        known.push(wanted.clone());
        if self.is_running() {
            let (id, name, directory) = (self.id(), self.name(), self.directory());
            let servers = &record.spec.network.dns.servers;
            let own = NetworkOwner { id, name, directory, servers };
            let attachment = attachment(&networks, &wanted, own)?;
            network::connect(directory, &attachment)?;
        }
        record.write(self.directory())?;
        self.note("connect", &[("network", wanted.network)]);
        self.rewrite_network_files(&record.spec)
    }

    /// Takes it off a network, as [`Container::connect`] puts it on.
    ///
    /// # Errors
    /// It is not on the network; its network cannot be changed.
    pub fn disconnect(&self, network: &str) -> Result<()> {
        refuse_cni(network)?;
        // A network that is gone still has a name.
        let found = networks(&self.store).get(network);
        let network = found.map_or_else(|_| network.to_owned(), |found| found.name);
        let mut record = self.again()?.record().clone();
        let known = &mut record.spec.network.networks;
        let before = known.len();
        known.retain(|one| one.network != network);
        if known.len() == before || network == Membership::PRIVATE {
            let reason = format!("container {} is not on it", self.name());
            return Err(network::Error::InvalidNetwork { name: network, reason }.into());
        }
        if known.is_empty() {
            record.spec.network.mode = Some(Network::None);
        }
        if self.is_running() {
            network::disconnect(self.directory(), &network)?;
        }
        record.write(self.directory())?;
        self.note("disconnect", &[("network", network)]);
        self.rewrite_network_files(&record.spec)
    }

    /// Brings it back to networks whose process is gone.
    ///
    /// # Errors
    /// It does not run; nothing holds its network.
    pub fn reload_networks(&self) -> Result<()> {
        if !self.is_running() {
            let (name, phase) = (self.name().to_owned(), self.phase().as_str());
            return Err(Error::NotRunning { name, phase });
        }
        self.require_own_network("of the container")?;
        Ok(network::reload(self.directory())?)
    }

    /// Writes the files of its network again, where it sees them.
    fn rewrite_network_files(&self, spec: &ContainerSpec) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let mut spec = spec.clone();
        spec.network.hostname.get_or_insert_with(|| self.id()[..12].to_owned());
        let known = NetworkFacts::of(&spec, &self.networks());
        write_network_files(self.directory(), &spec, &known).map(drop)
    }
}
