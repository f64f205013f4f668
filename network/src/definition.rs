//! Named networks: one document each, in a directory of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::driver::{self, CARRIER_OPTION, Driver, MTU_OPTION, MTU_SHORT};
use crate::lease::{self, Lease};
use crate::{Error, Result, bridge};

/// The network that is always there.
pub const BRIDGE: &str = "bridge";
const DOCUMENT: &str = "network.json";
/// The IPv4 range of the network that is always there, and the one new networks are taken from.
const FIRST_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16);
const POOL: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 90, 0, 0), 15),
];
const POOL_PREFIX: u8 = 24;

/// A range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// All addresses.
    pub subnet: IpNet,
    /// The one of this machine.
    pub gateway: IpAddr,
    /// The range of addresses given by default; the whole subnet if not given.
    pub range: Option<IpNet>,
}

/// A range of addresses as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubnet {
    /// All addresses.
    pub subnet: IpNet,
    /// The one of this machine; the first if not given.
    pub gateway: Option<IpAddr>,
    /// The range of addresses given by default.
    pub range: Option<IpNet>,
}

impl NewSubnet {
    /// Subnets, each with the gateway and the range that are in it.
    ///
    /// # Errors
    /// [`Error::NoSubnet`]: an address is in none of them.
    pub fn several(
        subnets: &[IpNet],
        gateways: &[IpAddr],
        ranges: &[IpNet],
    ) -> Result<Vec<NewSubnet>> {
        let new = |subnet: &IpNet| NewSubnet { subnet: *subnet, gateway: None, range: None };
        let mut all: Vec<NewSubnet> = subnets.iter().map(new).collect();
        for gateway in gateways {
            let of = all.iter_mut().find(|one| one.subnet.contains(gateway));
            let none = || Error::NoSubnet { what: format!("gateway {gateway}") };
            of.ok_or_else(none)?.gateway = Some(*gateway);
        }
        for range in ranges {
            let of = all.iter_mut().find(|one| one.subnet.contains(range));
            let none = || Error::NoSubnet { what: format!("address range {range}") };
            of.ok_or_else(none)?.range = Some(*range);
        }
        Ok(all)
    }
}

/// A named network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedNetwork {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// How it is carried.
    pub driver: Driver,
    /// Its ranges of addresses: one of IPv4, one of IPv6 or none.
    pub subnets: Vec<Subnet>,
    /// Whether there is no way out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A network to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// How it is carried.
    pub driver: Driver,
    /// Its ranges; free ones are found where none is given.
    pub subnets: Vec<NewSubnet>,
    /// Whether it has addresses of IPv6.
    pub ipv6: bool,
    /// Whether there is no way out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

impl NamedNetwork {
    /// The range of one kind of address.
    pub fn subnet(&self, ipv6: bool) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.gateway.is_ipv6() == ipv6)
    }

    /// Bytes of the largest packet, `usual` if no option says so.
    pub(crate) fn mtu(&self, usual: usize) -> usize {
        let option = self.options.get(MTU_OPTION).or_else(|| self.options.get(MTU_SHORT));
        option.and_then(|text| text.parse().ok()).unwrap_or(usual)
    }

    /// Who carries it: the kernel, or a process; either if not given.
    pub(crate) fn carrier(&self) -> Option<&str> {
        self.options.get(CARRIER_OPTION).map(String::as_str)
    }
}

/// The networks in a directory.
#[derive(Debug, Clone)]
pub struct Networks {
    directory: PathBuf,
}

impl Networks {
    /// Those in this directory, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Networks {
        Networks { directory }
    }

    /// Those of the user whose other data is in this directory.
    pub fn beside(data: &Path) -> Networks {
        Networks::new(data.join("networks"))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of one network.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`Error::System`], [`Error::Document`].
    pub fn list(&self) -> Result<Vec<NamedNetwork>> {
        let mut all = vec![self.bridge()?];
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let found = read(&entry.path().join(DOCUMENT))?;
            all.extend(found.filter(|network| network.name != BRIDGE));
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The network with this name, this id, or an id that alone begins so.
    ///
    /// # Errors
    /// [`Error::NoNetwork`]; as [`Networks::list`].
    pub fn get(&self, name: &str) -> Result<NamedNetwork> {
        if name == BRIDGE {
            return self.bridge();
        }
        let missing = || Error::NoNetwork { name: name.to_owned() };
        if check(name).is_ok()
            && let Some(found) = read(&self.place(name).join(DOCUMENT))?
        {
            return Ok(found);
        }
        let mut by_id = self.list()?.into_iter().filter(|network| network.id.starts_with(name));
        match (by_id.next(), by_id.next()) {
            (Some(found), None) if !name.is_empty() => Ok(found),
            _ => Err(missing()),
        }
    }

    /// The network that is always there.
    fn bridge(&self) -> Result<NamedNetwork> {
        let path = self.place(BRIDGE).join(DOCUMENT);
        if let Some(found) = read(&path)? {
            return Ok(found);
        }
        let _lock = self.lock()?;
        match read(&path)? {
            Some(found) => Ok(found),
            None => {
                let new = NewNetwork { name: BRIDGE.to_owned(), ..NewNetwork::default() };
                self.write(&new, 0, &self.stored()?)
            }
        }
    }

    /// Those that have a document.
    fn stored(&self) -> Result<Vec<NamedNetwork>> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let all = entries.map(|entry| read(&entry.path().join(DOCUMENT)));
        Ok(all.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Makes a network, at `created` (seconds since 1970).
    ///
    /// # Errors
    /// [`Error::NetworkExists`], [`Error::InvalidNetwork`], [`Error::Overlap`].
    pub fn create(&self, new: &NewNetwork, created: u64) -> Result<NamedNetwork> {
        check(&new.name)?;
        self.bridge()?;
        let _lock = self.lock()?;
        let others = self.stored()?;
        if others.iter().any(|other| other.name == new.name) {
            return Err(Error::NetworkExists { name: new.name.clone() });
        }
        self.write(new, created, &others)
    }

    fn write(
        &self,
        new: &NewNetwork,
        created: u64,
        others: &[NamedNetwork],
    ) -> Result<NamedNetwork> {
        let id = task::random_id();
        driver::check(&new.name, new.driver, &new.options)?;
        let network = NamedNetwork {
            name: new.name.clone(),
            subnets: subnets(new, others, &id)?,
            id,
            created,
            driver: new.driver,
            internal: new.internal,
            labels: new.labels.clone(),
            options: new.options.clone(),
        };
        let place = self.place(&new.name);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&place)?;
            let temporary = place.join("network.json.new");
            std::fs::write(&temporary, serde_json::to_vec(&network)?)?;
            std::fs::rename(&temporary, place.join(DOCUMENT))
        };
        write().map_err(Error::system("writing", place.display().to_string()))?;
        Ok(network)
    }

    /// Removes a network that no running container is on.
    ///
    /// # Errors
    /// [`Error::NetworkInUse`], [`Error::NoNetwork`]; [`Error::InvalidNetwork`] for the one that is
    /// always there.
    pub fn remove(&self, name: &str) -> Result<NamedNetwork> {
        let network = self.get(name)?;
        if network.name == BRIDGE {
            let reason = "it is always there".to_owned();
            return Err(Error::InvalidNetwork { name: network.name, reason });
        }
        let _lock = self.lock()?;
        if let Some(lease) = self.leases(&network.name).pop() {
            return Err(Error::NetworkInUse { name: network.name, by: lease.name });
        }
        let place = self.place(&network.name);
        let removed = std::fs::remove_file(place.join(DOCUMENT))
            .and_then(|()| std::fs::remove_dir_all(&place));
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(Error::system("removing", place.display().to_string()))?,
        }
        bridge::remove(&network.id);
        Ok(network)
    }

    /// Who is on a network now.
    pub fn leases(&self, name: &str) -> Vec<Lease> {
        lease::read(&self.place(name))
    }

    /// Where a container is now, by network.
    pub fn leases_of(&self, container: &str) -> Vec<Lease> {
        let places = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let leases = places.flat_map(|place| lease::read(&place.path()));
        let mut own: Vec<Lease> = leases.filter(|lease| lease.container == container).collect();
        own.sort_by(|one, other| one.network.cmp(&other.network));
        own
    }

    fn lock(&self) -> Result<File> {
        let path = self.directory.join("lock");
        let open = || -> std::io::Result<File> {
            std::fs::create_dir_all(&self.directory)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&self.directory, mode)?;
            let file = File::create(&path)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        open().map_err(Error::system("locking", path.display().to_string()))
    }
}

fn read(path: &Path) -> Result<Option<NamedNetwork>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Document { path: path.to_owned(), source }),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Ok(None),
            _ => Err(Error::system("reading", path.display().to_string())(error)),
        },
    }
}

fn check(name: &str) -> Result<()> {
    let wrong = |reason: &str| {
        let name = name.chars().take(300).collect();
        Err(Error::InvalidNetwork { name, reason: reason.to_owned() })
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !first || !name.bytes().all(word) || name.len() > 255 {
        return wrong("a name is letters, digits, '_', '.' and '-', a letter or digit first");
    }
    match name {
        "none" | "host" | "private" | "cni" | "default" | "container" | "pasta" | "slirp4netns"
        | "ns" | "lock" => wrong("this word means a network of another kind"),
        _ => Ok(()),
    }
}

/// The ranges of a new network: those asked for, and free ones for what is missing.
fn subnets(new: &NewNetwork, others: &[NamedNetwork], id: &str) -> Result<Vec<Subnet>> {
    let mut subnets =
        new.subnets.iter().map(|wanted| subnet(new, wanted)).collect::<Result<Vec<_>>>()?;
    for (place, one) in subnets.iter().enumerate() {
        if subnets[..place].iter().any(|known| known.gateway.is_ipv4() == one.gateway.is_ipv4()) {
            let reason = "it has two subnets of one kind".to_owned();
            return Err(Error::InvalidNetwork { name: new.name.clone(), reason });
        }
        let overlap = |other: &&NamedNetwork| {
            other.subnets.iter().any(|known| overlap(known.subnet, one.subnet))
        };
        if let Some(other) = others.iter().find(overlap) {
            let (subnet, other) = (one.subnet, other.name.clone());
            return Err(Error::Overlap { subnet, other });
        }
    }
    if !subnets.iter().any(|subnet| subnet.gateway.is_ipv4()) {
        let free = free(&new.name, others).ok_or_else(|| Error::InvalidNetwork {
            name: new.name.clone(),
            reason: "no range of IPv4 is free; name a subnet".to_owned(),
        })?;
        subnets.insert(
            0,
            subnet(new, &NewSubnet { subnet: free.into(), gateway: None, range: None })?,
        );
    }
    if new.ipv6 && !subnets.iter().any(|subnet| subnet.gateway.is_ipv6()) {
        let random = u64::from_str_radix(&id[..14], 16).unwrap_or(0);
        // A unique local address (RFC 4193).
        let prefix = 0xfd << 56 | random;
        let local = Ipv6Net::new_assert(Ipv6Addr::from(u128::from(prefix) << 64), 64);
        subnets.push(subnet(new, &NewSubnet { subnet: local.into(), gateway: None, range: None })?);
    }
    Ok(subnets)
}

fn subnet(new: &NewNetwork, wanted: &NewSubnet) -> Result<Subnet> {
    let subnet = wanted.subnet.trunc();
    let wrong = |reason: String| Error::InvalidNetwork { name: new.name.clone(), reason };
    let longest = if subnet.addr().is_ipv4() { 30 } else { 126 };
    if subnet.prefix_len() > longest {
        return Err(wrong(format!("subnet {subnet} is too small")));
    }
    let address = subnet.network();
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(wrong(format!("subnet {subnet} is not for containers")));
    }
    let first = || subnet.hosts().find(|host| *host != subnet.network()).unwrap_or(address);
    let gateway = wanted.gateway.unwrap_or_else(first);
    if !subnet.contains(&gateway) || gateway == subnet.network() {
        return Err(wrong(format!("gateway {gateway} is not in subnet {subnet}")));
    }
    if let Some(range) = wanted.range.filter(|range| !subnet.contains(range)) {
        return Err(wrong(format!("address range {range} is not in subnet {subnet}")));
    }
    Ok(Subnet { subnet, gateway, range: wanted.range.map(|range| range.trunc()) })
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// A range of IPv4 that neither another network nor this machine uses.
fn free(name: &str, others: &[NamedNetwork]) -> Option<Ipv4Net> {
    let mut used: Vec<IpNet> = routes().into_iter().map(|(_, net)| IpNet::V4(net)).collect();
    used.extend(others.iter().flat_map(|other| &other.subnets).map(|subnet| subnet.subnet));
    let first = Some(FIRST_POOL).filter(|_| name == BRIDGE);
    let rest = POOL.iter().flat_map(|pool| pool.subnets(POOL_PREFIX).into_iter().flatten());
    first.into_iter().chain(rest).find(|net| !used.iter().any(|used| overlap(*used, (*net).into())))
}

/// Where this machine sends packets: each device and what it leads to, but the default.
pub(crate) fn routes() -> Vec<(String, Ipv4Net)> {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let device = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    text.lines().filter_map(|line| Some((device(line), route(line)?))).collect()
}

/// The destination of a line of `/proc/net/route`, but the default.
fn route(line: &str) -> Option<Ipv4Net> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let mut number = || u32::from_str_radix(fields.next()?, 16).ok().map(u32::swap_bytes);
    let destination = number()?;
    let mask = fields.nth(5).and_then(|mask| u32::from_str_radix(mask, 16).ok())?.swap_bytes();
    let prefix = u8::try_from(mask.count_ones()).ok().filter(|prefix| *prefix > 0)?;
    Ipv4Net::new(destination.into(), prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> (tempfile::TempDir, Networks) {
        let place = tempfile::tempdir().unwrap();
        let networks = Networks::new(place.path().join("networks"));
        (place, networks)
    }

    fn new(name: &str, subnets: &[&str]) -> NewNetwork {
        let subnets = subnets.iter().map(|text| NewSubnet {
            subnet: text.parse().unwrap(),
            gateway: None,
            range: None,
        });
        NewNetwork { name: name.to_owned(), subnets: subnets.collect(), ..NewNetwork::default() }
    }

    #[test]
    fn a_network_is_found_by_name_and_id_until_it_is_removed() {
        let (_place, networks) = networks();
        let made = networks.create(&NewNetwork { ipv6: true, ..new("web", &[]) }, 7).unwrap();
        assert_eq!(made.subnets.len(), 2);
        assert_eq!(networks.get("web").unwrap(), made);
        assert_eq!(networks.get(&made.id[..12]).unwrap(), made);
        let names: Vec<String> = networks.list().unwrap().into_iter().map(|n| n.name).collect();
        assert_eq!(names, ["bridge", "web"]);
        assert!(matches!(networks.create(&new("web", &[]), 7), Err(Error::NetworkExists { .. })));
        networks.remove("web").unwrap();
        assert!(matches!(networks.get("web"), Err(Error::NoNetwork { .. })));
        assert!(networks.remove(BRIDGE).is_err());
    }

    #[test]
    fn ranges_do_not_overlap() {
        let (_place, networks) = networks();
        let one = networks.create(&new("a", &["10.200.0.0/16"]), 0).unwrap();
        assert_eq!(one.subnets[0].gateway, IpAddr::from([10, 200, 0, 1]));
        let error = networks.create(&new("b", &["10.200.7.0/24"]), 0).unwrap_err();
        assert!(error.to_string().contains("10.200.7.0/24"), "{error}");
        let two = networks.create(&new("c", &[]), 0).unwrap();
        let three = networks.create(&new("d", &[]), 0).unwrap();
        assert_ne!(two.subnets, three.subnets);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (_place, networks) = networks();
        for name in ["", "-a", "a/b", "host", "..", "none"] {
            assert!(networks.create(&new(name, &[]), 0).is_err(), "{name}");
        }
        for subnet in ["10.201.0.0/31", "127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/0"] {
            assert!(networks.create(&new("a", &[subnet]), 0).is_err(), "{subnet}");
        }
        let mut outside = new("a", &["10.202.0.0/24"]);
        outside.subnets[0].gateway = Some([10, 203, 0, 1].into());
        assert!(networks.create(&outside, 0).is_err());
        outside.subnets[0].gateway = None;
        outside.options = [(MTU_OPTION.to_owned(), "5".to_owned())].into();
        assert!(networks.create(&outside, 0).is_err());
    }

    #[test]
    fn routes_of_this_machine_are_read() {
        let line = "eth0\t0000640A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(route(line), Some("10.100.0.0/24".parse().unwrap()));
        assert_eq!(route("eth0\t00000000\t0100640A\t0003\t0\t0\t0\t00000000\t0\t0\t0"), None);
        assert_eq!(route("Iface\tDestination\tGateway"), None);
    }
}
