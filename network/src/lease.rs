//! Who has which address of a network: held in the memory of the process that carries the network,
//! and shown in a file beside it. A lease ends with the connection it was asked for on, so nothing
//! is left when a process is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::definition::{NamedNetwork, Subnet};
use crate::ports::PublishedPort;
use crate::uplink::MTU;
use crate::{Error, Result};

/// Who is on the network, as others see it.
const FILE: &str = "leases.json";
/// Locked by the process that carries the network.
pub(crate) const ALIVE: &str = "alive";

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The network.
    pub network: String,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// Its address of IPv4, the unspecified one if it has none, and the length of the prefix.
    pub ip: (Ipv4Addr, u8),
    /// Its address of IPv6, and the length of the prefix.
    pub ip6: Option<(Ipv6Addr, u8)>,
    /// The addresses that lead out: this machine's, or on a wire that of a router.
    pub gateways: Vec<IpAddr>,
    /// Where questions about names are taken, if not at the gateway.
    #[serde(default)]
    pub names: Option<IpAddr>,
    /// The name servers of a network that does not know names itself; none are those of the machine.
    #[serde(default)]
    pub servers: Option<Vec<IpAddr>>,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Whether that is the address of a device of this machine.
    #[serde(default)]
    pub shares_mac: bool,
    /// Bytes of the largest packet.
    pub mtu: usize,
    /// Whether the network has no way out.
    pub internal: bool,
    /// The bridge, or the device whose wire it is on, if the kernel carries the network.
    #[serde(default)]
    pub bridge: Option<String>,
    /// Its ports on this machine.
    pub published: Vec<PublishedPort>,
}

impl Lease {
    /// The Ethernet address as it is written.
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let six = self.ip6.map(|(address, prefix)| (address.into(), prefix));
        let four = Some(self.ip).filter(|(address, _)| !address.is_unspecified());
        let four = four.map(|(address, prefix)| (address.into(), prefix));
        four.into_iter().chain(six).collect()
    }

    /// The Ethernet address that it can ask for again: not that of the device on whose wire it is.
    pub(crate) fn bridge_mac(&self) -> Option<[u8; 6]> {
        Some(self.mac).filter(|mac| !self.shares_mac && *mac != [0; 6])
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses().iter().any(|(own, _)| *own == address)
    }

    /// Whether it goes by this name: the container's, its short id, or an alias, alone or with the
    /// network's name behind.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let own = |name: &str| {
            let mut aliases = self.aliases.iter();
            self.name.eq_ignore_ascii_case(name)
                || (name.len() == 12 && self.container.starts_with(name))
                || aliases.any(|alias| alias.eq_ignore_ascii_case(name))
        };
        let suffix = name.len().checked_sub(self.network.len() + 1);
        let short = suffix.and_then(|at| name.split_at_checked(at)).filter(|(_, rest)| {
            rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(&self.network))
        });
        own(name) || short.is_some_and(|(short, _)| own(short))
    }
}

/// What a container asks of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// This address of IPv4.
    pub ip: Option<Ipv4Addr>,
    /// This address of IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// This Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Who is asked for names that no container has; the machine's name servers if none.
    #[serde(default)]
    pub servers: Vec<IpAddr>,
}

/// The leases of one network.
#[derive(Debug)]
pub(crate) struct Table {
    network: NamedNetwork,
    place: PathBuf,
    /// The bridge, or the device whose wire it is on, if the kernel carries the network.
    pub(crate) bridge: Option<String>,
    /// Bytes of the largest packet.
    pub(crate) mtu: usize,
    /// Where questions about names are taken, if not at the gateway.
    pub(crate) names: Option<IpAddr>,
    /// The Ethernet address of all.
    pub(crate) mac: Option<[u8; 6]>,
    /// Whether packets go out without a gateway.
    pub(crate) direct: bool,
    leases: BTreeMap<u64, Lease>,
    /// The name servers that containers have of their own.
    servers: BTreeMap<u64, Vec<IpAddr>>,
    next: u64,
    /// What was given last, of each kind.
    last: [Option<u128>; 2],
    /// The leases of the process before this one, with their holders, which come back for them.
    before: Vec<Lease>,
}

impl Table {
    pub(crate) fn new(network: NamedNetwork, place: PathBuf) -> Table {
        let before = parse(&place);
        let mtu = network.mtu(MTU);
        let table = Table {
            network,
            place,
            bridge: None,
            mtu,
            names: None,
            mac: None,
            direct: false,
            leases: BTreeMap::new(),
            servers: BTreeMap::new(),
            next: 1,
            last: [None, None],
            before,
        };
        table.show();
        table
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The lease of the container that has an address.
    pub(crate) fn by_address(&self, address: IpAddr) -> Option<&Lease> {
        self.leases().find(|lease| lease.has(address))
    }

    /// Gives a container its addresses, and its number on this network.
    pub(crate) fn take(&mut self, wanted: &LeaseRequest) -> Result<(u64, Lease)> {
        let name = self.network.name.clone();
        let missing = |kind: &str| Error::InvalidNetwork {
            name: name.clone(),
            reason: format!("it has no addresses of {kind}"),
        };
        let four = self.network.subnet(false).cloned().ok_or_else(|| missing("IPv4"))?;
        let six = self.network.subnet(true).cloned();
        if six.is_none() && wanted.ip6.is_some() {
            return Err(missing("IPv6"));
        }
        let ip = self.address(&four, wanted.ip.map(IpAddr::V4), wanted)?;
        let IpAddr::V4(ip) = ip else { return Err(missing("IPv4")) };
        let ip6 = match &six {
            None => None,
            Some(subnet) => match self.address(subnet, wanted.ip6.map(IpAddr::V6), wanted)? {
                IpAddr::V6(address) => Some((address, subnet.subnet.prefix_len())),
                IpAddr::V4(_) => None,
            },
        };
        if let (Some(_), Some(_)) = (self.mac, wanted.mac) {
            let reason = "its containers have the Ethernet address of the device".to_owned();
            return Err(Error::InvalidNetwork { name, reason });
        }
        let gateways = self.network.subnets.iter().filter(|_| !self.direct);
        let [a, b, c, d] = ip.octets();
        let lease = Lease {
            network: self.network.name.clone(),
            container: wanted.container.clone(),
            name: wanted.name.clone(),
            aliases: wanted.aliases.clone(),
            ip: (ip, four.subnet.prefix_len()),
            ip6,
            gateways: gateways.map(|subnet| subnet.gateway).collect(),
            names: self.names,
            servers: None,
            shares_mac: self.mac.is_some(),
            mac: self.mac.or(wanted.mac).unwrap_or([2, 0x42, a, b, c, d]),
            mtu: self.mtu,
            internal: self.network.internal,
            bridge: self.bridge.clone(),
            published: Vec::new(),
        };
        let id = self.next;
        self.next += 1;
        self.leases.insert(id, lease.clone());
        self.servers.insert(id, wanted.servers.clone());
        self.show();
        Ok((id, lease))
    }

    /// The name servers that the container with an address has of its own.
    pub(crate) fn servers(&self, address: IpAddr) -> &[IpAddr] {
        let mut all = self.leases.iter();
        let own =
            all.find(|(_, lease)| lease.has(address)).and_then(|(id, _)| self.servers.get(id));
        own.map(Vec::as_slice).unwrap_or_default()
    }

    /// Gives a container another name.
    pub(crate) fn rename(&mut self, id: u64, name: String) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.name = name;
        }
        self.show();
    }

    /// Notes where the ports of a container are.
    pub(crate) fn publish(&mut self, id: u64, published: Vec<PublishedPort>) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.published = published;
        }
        self.show();
    }

    pub(crate) fn free(&mut self, id: u64) {
        self.leases.remove(&id);
        self.servers.remove(&id);
        self.show();
    }

    fn address(
        &mut self,
        subnet: &Subnet,
        asked: Option<IpAddr>,
        wanted: &LeaseRequest,
    ) -> Result<IpAddr> {
        let network = self.network.name.clone();
        let Some(address) = asked else {
            let before = self.before.iter().find(|lease| lease.container == wanted.container);
            let before = before.and_then(|lease| {
                let mut all = lease.addresses().into_iter().map(|(address, _)| address);
                all.find(|address| subnet.subnet.contains(address))
            });
            let back = before.filter(|address| self.by_address(*address).is_none());
            return back.or_else(|| self.next(subnet)).ok_or(Error::NetworkFull { network });
        };
        let ends = [subnet.subnet.network(), subnet.subnet.broadcast()];
        if !subnet.subnet.contains(&address) || (address.is_ipv4() && ends.contains(&address)) {
            return Err(Error::AddressOutside { address, subnet: subnet.subnet });
        }
        if address == subnet.gateway {
            let by = "the gateway".to_owned();
            return Err(Error::AddressTaken { address, network, by });
        }
        match self.by_address(address) {
            Some(other) => {
                let by = format!("container {}", other.name);
                Err(Error::AddressTaken { address, network, by })
            }
            None => Ok(address),
        }
    }

    /// A free address: the next after the one given last, so that one that has just become free
    /// rests. What somebody may come back for is given last.
    fn next(&mut self, subnet: &Subnet) -> Option<IpAddr> {
        let range = subnet.range.unwrap_or(subnet.subnet);
        let (first, last) = (number(range.network()), number(range.broadcast()));
        let ends = [number(subnet.subnet.network()), number(subnet.subnet.broadcast())];
        let kind = usize::from(subnet.gateway.is_ipv6());
        let start =
            self.last[kind].filter(|at| (first..last).contains(at)).map_or(first, |at| at + 1);
        let taken = |at: u128| {
            let address = address(at, subnet.subnet);
            ends.contains(&at) || address == subnet.gateway || self.by_address(address).is_some()
        };
        let awaited = |at: u128| {
            let address = address(at, subnet.subnet);
            self.before.iter().any(|lease| lease.has(address))
        };
        let all = || (start..=last).chain(first..start);
        let bound = self.leases.len() + self.before.len() + 4;
        let found = all().take(bound).find(|at| !taken(*at) && !awaited(*at));
        let found = found.or_else(|| all().take(bound).find(|at| !taken(*at)))?;
        self.last[kind] = Some(found);
        Some(address(found, subnet.subnet))
    }

    /// Shows others who is here.
    fn show(&self) {
        let leases: Vec<&Lease> = self.leases.values().collect();
        let write = || -> std::io::Result<()> {
            let new = self.place.join("leases.json.new");
            std::fs::write(&new, serde_json::to_vec(&leases)?)?;
            std::fs::rename(new, self.place.join(FILE))
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the leases of a network cannot be shown");
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, like: IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

fn parse(place: &Path) -> Vec<Lease> {
    let text = std::fs::read(place.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The containers on the network of a directory; none if no process carries it.
pub(crate) fn read(place: &Path) -> Vec<Lease> {
    let Ok(alive) = File::open(place.join(ALIVE)) else { return Vec::new() };
    match rustix::fs::flock(&alive, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Vec::new(),
        Err(_) => parse(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Networks, NewNetwork, NewSubnet};

    fn table(subnet: &str, range: Option<&str>) -> (tempfile::TempDir, Table) {
        let place = tempfile::tempdir().unwrap();
        let networks = Networks::new(place.path().to_owned());
        let subnet = NewSubnet {
            subnet: subnet.parse().unwrap(),
            gateway: None,
            range: range.map(|range| range.parse().unwrap()),
        };
        let new = NewNetwork {
            name: "web".to_owned(),
            subnets: vec![subnet],
            ipv6: true,
            ..NewNetwork::default()
        };
        let network = networks.create(&new, 0).unwrap();
        let table = Table::new(network, networks.place("web"));
        (place, table)
    }

    fn wanted(name: &str) -> LeaseRequest {
        LeaseRequest {
            container: format!("{name:0<64}"),
            name: name.to_owned(),
            ..LeaseRequest::default()
        }
    }

    #[test]
    fn addresses_are_given_once_and_rest_before_they_are_given_again() {
        let (_place, mut table) = table("10.9.0.0/29", None);
        let given: Vec<(u64, u8)> = (0..5)
            .map(|at| table.take(&wanted(&format!("c{at}"))).unwrap())
            .map(|(id, lease)| (id, lease.ip.0.octets()[3]))
            .collect();
        assert_eq!(given.iter().map(|(_, last)| *last).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert!(matches!(table.take(&wanted("more")), Err(Error::NetworkFull { .. })));
        table.free(given[3].0);
        assert_eq!(table.take(&wanted("more")).unwrap().1.ip.0, Ipv4Addr::new(10, 9, 0, 5));
    }

    #[test]
    fn a_wish_is_granted_unless_another_has_it() {
        let (_place, mut table) = table("10.9.0.0/24", Some("10.9.0.64/26"));
        let ask = |last| LeaseRequest { ip: Some(Ipv4Addr::new(10, 9, 0, last)), ..wanted("a") };
        assert_eq!(table.take(&ask(9)).unwrap().1.ip.0.octets()[3], 9);
        for (last, word) in [(9, "container a"), (1, "the gateway"), (0, "not in"), (255, "not in")]
        {
            let error = table.take(&ask(last)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(table.take(&wanted("b")).unwrap().1.ip.0.octets()[3], 64);
    }

    #[test]
    fn one_that_comes_back_has_its_address_again() {
        let (place, mut first) = table("10.9.0.0/24", None);
        first.take(&wanted("a")).unwrap();
        let (_, lease) = first.take(&wanted("b")).unwrap();
        let mut second = Table::new(first.network.clone(), place.path().join("web"));
        assert_eq!(second.take(&wanted("c")).unwrap().1.ip.0.octets()[3], 4);
        let back = second.take(&wanted("b")).unwrap().1;
        assert_eq!((back.ip, back.ip6), (lease.ip, lease.ip6));
    }

    #[test]
    fn a_container_is_called_by_its_names_with_and_without_the_networks() {
        let (_place, mut table) = table("10.9.0.0/24", None);
        let aliases = vec!["db".to_owned()];
        let lease = table.take(&LeaseRequest { aliases, ..wanted("box") }).unwrap().1;
        for name in ["box", "BOX", "db", "db.web", "box.WEB", "box000000000"] {
            assert!(lease.is_called(name), "{name}");
        }
        for name in ["", "web", ".web", "bo", "box.other", "box0"] {
            assert!(!lease.is_called(name), "{name}");
        }
    }
}
