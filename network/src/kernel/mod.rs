//! A named network that the kernel carries: a bridge, a veth pair for each container, and rules of
//! the packet filter.
//!
//! The rules are in tables that end with this process, and that nobody else can change. The bridge
//! is removed with the last container; one that was left by a killed process is used again.

mod conntrack;
mod lan;
mod nft;
mod proxy;
mod relay;
mod rules;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use lan::try_wire;
pub(crate) use lan::{Lan, NAMES};
use nft::{Batch, ForeignChain, Nft};
use proxy::Proxy;
use relay::NameServer;
pub(crate) use relay::{Answers, DnsResolution};

use rules::{Member, RuleContext};
pub(crate) use settings::is_inside;

use crate::definition::NamedNetwork;
use crate::lease::Lease;
use crate::netlink::{Netlink, Veth, unless_there};
use crate::ports::{Protocol, Taker};
use crate::{Error, Result, bridge, sys};

/// How often, and how long apart, it tries to have tables that another process has.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A network that the kernel carries.
pub(crate) struct Kernel {
    network: NamedNetwork,
    device: String,
    /// What takes questions about names.
    names: NameServer,
    live: Mutex<Live>,
}

struct Live {
    nft: Nft,
    members: BTreeMap<u64, (Member, Proxy)>,
}

/// A container that comes onto a network.
pub(crate) struct Arrival<'a> {
    pub(crate) lease: &'a Lease,
    /// Its network namespace.
    pub(crate) namespace: OwnedFd,
    /// What it calls its device.
    pub(crate) interface: &'a str,
    /// Whether its device may be there already.
    pub(crate) again: bool,
    /// Whether it reaches the loopback services of this machine.
    pub(crate) loopback: bool,
    /// The sockets of this machine that hold its ports.
    pub(crate) takers: Vec<(Taker, u16)>,
}

impl Kernel {
    /// Makes the bridge and the rules, in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Kernel`]: the kernel or a firewall does not allow it.
    pub(crate) fn start(network: &NamedNetwork, answers: Answers) -> Result<Kernel> {
        let device = bridge::name(&network.id);
        let refused = |source: io::Error| Error::Kernel { network: network.name.clone(), source };
        let mut nft = Nft::open().map_err(refused)?;
        let chains = nft.chains().map_err(refused)?;
        if let Some(what) = in_the_way(&chains).or_else(settings::old_firewall) {
            return Err(refused(io::Error::other(what)));
        }
        settings::free(network, &device).map_err(refused)?;
        let made = sys::interface_index(&device).is_err();
        let start = || -> io::Result<Kernel> {
            make(network, &device)?;
            settings::route(network, &device)?;
            let gateway = network.subnet(false).map(|subnet| subnet.gateway);
            let sockets = relay::both(gateway.unwrap_or(Ipv4Addr::LOCALHOST.into()))?;
            let names = relay::start(sockets, answers)?;
            let mut tables = Batch::default();
            rules::tables(&mut tables, &device);
            claim(&mut nft, &tables)?;
            let live = Mutex::new(Live { nft, members: BTreeMap::new() });
            let kernel = Kernel { network: network.clone(), device: device.clone(), names, live };
            kernel.write(&mut kernel.lock())?;
            Ok(kernel)
        };
        start().map_err(|source| {
            if made {
                bridge::remove(&network.id);
            }
            refused(source)
        })
    }

    /// The bridge.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a container and publishes its ports.
    pub(crate) fn attach(&self, id: u64, arrival: Arrival<'_>) -> Result<()> {
        let Arrival { lease, loopback, .. } = arrival;
        let device = member_device(lease, &self.network);
        let attach = || -> io::Result<()> {
            self.plug(&device, &arrival)?;
            let addresses: Vec<IpAddr> =
                lease.addresses().into_iter().map(|(one, _)| one).collect();
            let proxy = Proxy::start(addresses[0], arrival.takers)?;
            let (mac, published) = (lease.mac, lease.published.clone());
            let member = Member { device: device.clone(), mac, addresses, published, loopback };
            let mut live = self.lock();
            live.members.insert(id, (member, proxy));
            let written = self.write(&mut live);
            written?;
            drop(live);
            conntrack::forget_datagrams(&datagram_ports(lease))
        };
        attach().map_err(Error::system("connecting with", &self.device))
    }

    /// Plugs the container's cable in.
    fn plug(&self, device: &str, arrival: &Arrival<'_>) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let bridge = sys::interface_index(&self.device)?;
        match sys::interface_index(device) {
            Ok(index) if arrival.again => return netlink.enslave(index, bridge),
            Ok(index) => netlink.delete(index)?,
            Err(_) => {}
        }
        netlink.add_veth_into(&Veth {
            name: device,
            bridge,
            mtu: arrival.lease.mtu as u32,
            namespace: arrival.namespace.as_fd().as_raw_fd(),
            inside: arrival.interface,
            mac: arrival.lease.mac,
        })?;
        netlink.hairpin(sys::interface_index(device)?)
    }

    /// Takes a container off.
    pub(crate) fn detach(&self, id: u64) {
        let mut live = self.lock();
        let Some((member, proxy)) = live.members.remove(&id) else { return };
        drop(proxy);
        if let Err(error) = self.write(&mut live) {
            tracing::warn!(%error, "the rules of a container are left");
        }
        if let Ok(index) = sys::interface_index(&member.device) {
            let _ = Netlink::open().and_then(|mut netlink| netlink.delete(index));
        }
    }

    fn write(&self, live: &mut Live) -> io::Result<()> {
        let mut batch = Batch::default();
        let (table, device) = (self.device.as_str(), self.device.as_str());
        let scene = RuleContext { table, device, network: &self.network, names: self.names.port };
        rules::rules(&mut batch, &scene, live.members.values().map(|(member, _)| member));
        live.nft.commit(&batch)
    }

    /// Removes all of it.
    pub(crate) fn end(&self) {
        let mut batch = Batch::default();
        rules::remove(&mut batch, &self.device);
        if let Err(error) = self.lock().nft.commit(&batch) {
            tracing::warn!(%error, "rules are left");
        }
        bridge::remove(&self.network.id);
    }
}

/// Makes the tables. Those of a killed process are about to end.
fn claim(nft: &mut Nft, tables: &Batch) -> io::Result<()> {
    let mut tries = TRIES;
    loop {
        match nft.commit(tables) {
            Err(error) if tries > 0 && error.raw_os_error() == Some(libc::EPERM) => {
                tries -= 1;
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// The ports of this machine that take datagrams for a container.
fn datagram_ports(lease: &Lease) -> Vec<u16> {
    let all = lease.published.iter().filter(|one| one.protocol == Protocol::Udp);
    all.map(|one| one.machine.port()).collect()
}

/// This machine's end of the cable of a container.
fn member_device(lease: &Lease, network: &NamedNetwork) -> String {
    let part = |id: &str, count: usize| id.get(..count).unwrap_or(id).to_owned();
    format!("rbv{}{}", part(&network.id, 4), part(&lease.container, 8))
}

fn make(network: &NamedNetwork, device: &str) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let mac = network.subnet(false).and_then(|subnet| match subnet.gateway {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    let [a, b, c, d] = mac.unwrap_or_default();
    unless_there(netlink.add_bridge(
        device,
        [2, 0x42, a, b, c, d],
        network.mtu(bridge::mtu()) as u32,
    ))?;
    settings::quiet(network, device)?;
    let index = sys::interface_index(device)?;
    netlink.up(index, Default::default(), Vec::new())?;
    network.subnets.iter().try_for_each(|one| {
        unless_there(netlink.add_address(index, one.gateway, one.subnet.prefix_len()))
    })
}

/// A rule of another program by which our packets would be lost. What one table drops no other
/// table can accept.
fn in_the_way(chains: &[ForeignChain]) -> Option<String> {
    let ours = |chain: &&ForeignChain| !chain.table.starts_with(bridge::PREFIX);
    let mut others = chains.iter().filter(ours);
    let firewalld = |chain: &&ForeignChain| chain.table == "firewalld";
    let drops = |chain: &&ForeignChain| chain.hook == Some(nft::FORWARD) && chain.drops;
    let found = others.find(|chain| drops(chain) || firewalld(chain))?;
    Some(format!("chain {} of table {} may drop what is forwarded", found.name, found.table))
}
