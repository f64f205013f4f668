//! Who carries a named network: the kernel where it can, else a thread of this process.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::definition::{NamedNetwork, Networks};
use crate::driver::{Driver, parent};
use crate::kernel::{Answers, Arrival, DnsResolution, Kernel, Lan, NAMES};
use crate::lease::{Lease, Table};
use crate::ports::{Port, PublishedPort, Taker};
use crate::server::{Start, lock};
use crate::uplink::{Link, MTU, NameService, Policy, Reach, Switch};
use crate::{Error, Resolvers, Result, bridge, names};

/// Who carries the network.
pub(crate) enum Carrier {
    /// A thread of this process.
    User(Switch),
    /// The kernel.
    Kernel(Box<Kernel>),
    /// The wire of a device of this machine.
    Lan(Lan),
}

/// What a container brings along.
pub(crate) struct Guest {
    /// The ports of this machine that are its.
    pub(crate) takers: Vec<(Taker, u16)>,
    /// What it reaches.
    pub(crate) reach: Reach,
    /// What it calls its device.
    pub(crate) interface: String,
    /// Whether its device may be there already.
    pub(crate) again: bool,
}

/// A table that several threads read.
pub(crate) type SharedTable = Arc<Mutex<Table>>;

impl Carrier {
    /// Begins to carry a network.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] if the network must be the kernel's; [`crate::Error::System`].
    pub(crate) fn start(start: &Start, table: &SharedTable) -> Result<Carrier> {
        let network = &start.network;
        if network.driver != Driver::Bridge {
            let (lan, wire) = Lan::start(network, answers(start, table))?;
            let mut table = lock(table);
            (table.bridge, table.names) = (Some(parent(&network.options).to_owned()), Some(NAMES));
            (table.mtu, table.mac, table.direct) = (wire.mtu, wire.mac, wire.direct);
            return Ok(Carrier::Lan(lan));
        }
        if network.carrier() != Some("user") {
            match Kernel::start(network, answers(start, table)) {
                Ok(kernel) => {
                    let mut table = lock(table);
                    table.bridge = Some(kernel.device().to_owned());
                    table.mtu = network.mtu(bridge::mtu());
                    return Ok(Carrier::Kernel(Box::new(kernel)));
                }
                Err(error) if network.carrier().is_some() => return Err(error),
                Err(error) => tracing::debug!(%error, "a process carries the network"),
            }
        }
        let policy = Policy {
            resolvers: start.resolvers.clone(),
            subnets: network.subnets.iter().map(|one| (one.subnet, one.gateway)).collect(),
            internal: network.internal,
        };
        let names = name_service(Arc::clone(table), &start.place, network);
        Switch::start(policy, network.mtu(MTU), Some(names)).map(Carrier::User)
    }

    /// Takes a port of this machine for a container.
    pub(crate) fn take(
        &self,
        port: &Port,
        start: &Start,
    ) -> Result<(Option<Taker>, PublishedPort)> {
        match self {
            Carrier::User(_) => port.take().map(|(taker, published)| (Some(taker), published)),
            Carrier::Kernel(_) => port.hold(&published(&start.place)),
            Carrier::Lan(_) => Err(Error::InvalidNetwork {
                name: start.network.name.clone(),
                reason: "its containers are reached at their own addresses, not at ports of this \
                         machine"
                    .to_owned(),
            }),
        }
    }

    /// Takes a container in: its device comes along, or its network namespace if the kernel
    /// carries the network.
    pub(crate) fn attach(
        &self,
        id: u64,
        lease: &Lease,
        given: OwnedFd,
        guest: Guest,
    ) -> Result<()> {
        let Guest { takers, reach, interface, again } = guest;
        match self {
            Carrier::User(switch) => {
                let six = lease.ip6.map(|(address, _)| address.into());
                let link = Link::ethernet(given, lease.mac);
                switch.attach(id, link, (lease.ip.0.into(), six), reach, takers);
                Ok(())
            }
            Carrier::Kernel(kernel) => {
                let (interface, loopback) = (interface.as_str(), reach.loopback);
                let namespace = given;
                let arrival = Arrival { lease, namespace, interface, again, loopback, takers };
                kernel.attach(id, arrival)
            }
            Carrier::Lan(lan) => {
                let (interface, loopback) = (interface.as_str(), reach.loopback);
                let namespace = given;
                let arrival = Arrival { lease, namespace, interface, again, loopback, takers };
                lan.attach(id, &arrival)
            }
        }
    }

    /// Takes a container out.
    pub(crate) fn detach(&self, id: u64) {
        match self {
            Carrier::User(switch) => switch.detach(id),
            Carrier::Kernel(kernel) => kernel.detach(id),
            Carrier::Lan(lan) => lan.detach(id),
        }
    }

    /// Removes what does not end with this process.
    pub(crate) fn end(&self) {
        if let Carrier::Kernel(kernel) = self {
            kernel.end();
        }
    }
}

/// All ports of containers on networks beside this one.
fn published(place: &Path) -> Vec<PublishedPort> {
    let networks = Networks::new(place.parent().unwrap_or(place).to_owned());
    let all = networks.list().unwrap_or_default();
    let leases = all.iter().flat_map(|network| networks.leases(&network.name));
    leases.flat_map(|lease| lease.published).collect()
}

/// Who is found by a container with an address.
fn found_by(table: &SharedTable, (networks, name): (&Path, &str), asking: IpAddr) -> Vec<Lease> {
    let table = lock(table);
    let Some(own) = table.by_address(asking) else { return Vec::new() };
    let container = own.container.clone();
    let mut all: Vec<Lease> = table.leases().cloned().collect();
    drop(table);
    all.extend(names::neighbours(networks, &container, &[name]));
    all
}

/// The name service of a network that a process carries.
fn name_service(table: SharedTable, place: &Path, network: &NamedNetwork) -> NameService {
    let networks = place.parent().unwrap_or(place).to_owned();
    let (name, internal) = (network.name.clone(), network.internal);
    Box::new(move |asking, question| {
        names::answer(question, internal, || found_by(&table, (&networks, &name), asking))
    })
}

/// The name service of a network that the kernel carries.
fn answers(start: &Start, table: &SharedTable) -> Answers {
    let (table, resolvers) = (Arc::clone(table), start.resolvers.clone());
    let networks = start.place.parent().unwrap_or(&start.place).to_owned();
    let (name, internal) = (start.network.name.clone(), start.network.internal);
    Box::new(move |asking, question| {
        let found = || found_by(&table, (&networks, &name), asking);
        match names::answer(question, internal, found) {
            Some(answer) => DnsResolution::Answer(answer),
            None if internal => DnsResolution::Others(Vec::new()),
            None => DnsResolution::Others(servers(&lock(&table), asking, &resolvers)),
        }
    })
}

/// Whom a container has asked: its own name servers, or those of this machine.
fn servers(table: &Table, asking: IpAddr, resolvers: &Resolvers) -> Vec<SocketAddr> {
    match table.servers(asking) {
        [] => resolvers.servers.clone(),
        own => own.iter().map(|server| (*server, 53).into()).collect(),
    }
}
