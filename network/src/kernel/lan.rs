//! A named network on the wire of a device of this machine: each container has a device of its own
//! there, by macvlan or ipvlan.
//!
//! The kernel carries all of it. What is ours are addresses and names: containers ask for names at a
//! loopback address of their own, as nothing of this machine is on the wire for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanMode, LinkInfo, MacVlanMode,
};

use super::nft::{Batch, Nft};
use super::relay::{self, Answers, NameServer};
use super::{Arrival, claim, rules};
use crate::definition::{NamedNetwork, NewNetwork};
use crate::driver::{self, Driver, mode, parent};
use crate::netlink::{Netlink, OnTop};
use crate::{Error, Result, bridge, namespace, sys};

/// Where containers ask for names, as with docker.
pub(crate) const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// The table of the packet filter in the namespace of a container.
const TABLE: &str = "rb-names";

/// A network on the wire of a device.
pub(crate) struct Lan {
    network: NamedNetwork,
    answers: Arc<Answers>,
    members: Mutex<BTreeMap<u64, Service>>,
}

/// The name service of one container. Both end with this value.
struct Service {
    _names: NameServer,
    _nft: Nft,
}

/// What the wire has, for the leases of its containers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wire {
    /// Bytes of the largest packet.
    pub(crate) mtu: usize,
    /// The Ethernet address that all of it have.
    pub(crate) mac: Option<[u8; 6]>,
    /// Whether packets go out without a gateway.
    pub(crate) direct: bool,
}

/// Whether the kernel can put containers on the wire of the device that a new network names: makes a
/// device there, and removes it.
///
/// # Errors
/// [`Error::Lan`]; [`Error::InvalidNetwork`] as [`crate::Networks::create`].
pub fn try_wire(new: &NewNetwork) -> Result<()> {
    if new.driver == Driver::Bridge {
        return Ok(());
    }
    driver::check(&new.name, new.driver, &new.options)?;
    let name = bridge::name(&task::random_id());
    let parent = parent(&new.options);
    let attempt = || -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let parent = sys::interface_index(parent)?;
        let device = OnTop { name: &name, parent, namespace: None, mac: None, mtu: None };
        netlink.add_on_top(&device, info(new.driver, mode(new.driver, &new.options)))?;
        netlink.delete(sys::interface_index(&name)?)
    };
    attempt().map_err(refused(new.driver, parent))
}

impl Lan {
    /// Begins to carry a network.
    ///
    /// # Errors
    /// [`Error::Lan`]: the device is not there any more.
    pub(crate) fn start(network: &NamedNetwork, answers: Answers) -> Result<(Lan, Wire)> {
        let parent = parent(&network.options);
        let look = || -> io::Result<Wire> {
            sys::interface_index(parent)?;
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let shared = network.driver == Driver::Ipvlan;
            let mac = shared.then(|| sys::hardware_address(socket.as_fd(), parent)).transpose()?;
            let mtu = network.mtu(sys::mtu(parent)?);
            Ok(Wire { mtu, mac, direct: mode(network.driver, &network.options).starts_with("l3") })
        };
        let wire = look().map_err(refused(network.driver, parent))?;
        let (network, answers) = (network.clone(), Arc::new(answers));
        Ok((Lan { network, answers, members: Mutex::default() }, wire))
    }

    /// Gives a container its device and its name service.
    pub(crate) fn attach(&self, id: u64, arrival: &Arrival<'_>) -> Result<()> {
        let (lease, interface) = (arrival.lease, arrival.interface);
        let there = || Ok(sys::interface_index(interface).is_ok());
        if !(arrival.again && namespace::entered(&arrival.namespace, there)?) {
            let Lan { network, .. } = self;
            let parent = parent(&network.options);
            let make = || -> io::Result<()> {
                let device = OnTop {
                    name: interface,
                    parent: sys::interface_index(parent)?,
                    namespace: Some(arrival.namespace.as_raw_fd()),
                    mac: (network.driver == Driver::Macvlan).then_some(lease.mac),
                    mtu: Some(lease.mtu as u32),
                };
                let info = info(network.driver, mode(network.driver, &network.options));
                Netlink::open()?.add_on_top(&device, info)
            };
            make().map_err(refused(network.driver, parent))?;
        }
        let service = self.serve(arrival)?;
        self.members.lock().unwrap_or_else(PoisonError::into_inner).insert(id, service);
        Ok(())
    }

    /// Starts the name service of a container.
    fn serve(&self, arrival: &Arrival<'_>) -> Result<Service> {
        let name = arrival.lease.name.clone();
        let failed = |error| Error::system("starting the name service of", &name)(error);
        let (sockets, nft) = namespace::entered(&arrival.namespace, || {
            let prepare = || -> io::Result<_> {
                Netlink::open()?.up(sys::interface_index("lo")?, Default::default(), Vec::new())?;
                let sockets = relay::both(NAMES)?;
                let mut batch = Batch::default();
                rules::names_inside(&mut batch, TABLE, NAMES, sockets.0.local_addr()?.port());
                let mut nft = Nft::open()?;
                claim(&mut nft, &batch)?;
                Ok((sockets, nft))
            };
            prepare().map_err(failed)
        })?;
        let (answers, own) = (Arc::clone(&self.answers), arrival.lease.ip.0.into());
        let names = relay::start(sockets, Box::new(move |_, question| answers(own, question)));
        Ok(Service { _names: names.map_err(failed)?, _nft: nft })
    }

    /// Takes a container off: its device goes with its namespace.
    pub(crate) fn detach(&self, id: u64) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

fn refused(driver: Driver, parent: &str) -> impl Fn(io::Error) -> Error {
    let (driver, parent) = (driver.as_str(), parent.to_owned());
    move |source| Error::Lan { driver, parent: parent.clone(), source }
}

/// What kind of device it is.
fn info(driver: Driver, mode: &str) -> Vec<LinkInfo> {
    let (kind, data) = if driver == Driver::Ipvlan {
        let mode = match mode {
            "l3" => IpVlanMode::L3,
            "l3s" => IpVlanMode::L3S,
            _ => IpVlanMode::L2,
        };
        (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)]))
    } else {
        let mode = match mode {
            "private" => MacVlanMode::Private,
            "vepa" => MacVlanMode::Vepa,
            "passthru" => MacVlanMode::Passthrough,
            _ => MacVlanMode::Bridge,
        };
        (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]))
    };
    vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]
}
