//! The machine's name servers, and those that a container sees.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::lease::Lease;
use crate::sys;

/// As many name servers as the C library asks.
const MOST: usize = 3;

/// Where a container behind an uplink finds the machine's name servers: one address for each.
pub(crate) const STAND_INS: [Ipv4Addr; MOST] =
    [Ipv4Addr::new(192, 0, 0, 1), Ipv4Addr::new(192, 0, 0, 3), Ipv4Addr::new(192, 0, 0, 4)];

/// The name servers of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolvers {
    pub(crate) servers: Vec<SocketAddr>,
}

/// Reads the name servers of a `resolv.conf`; the C library's own default where it names none.
pub fn resolvers(resolv_conf: &[u8]) -> Resolvers {
    let text = String::from_utf8_lossy(resolv_conf);
    let mut servers: Vec<_> = text.lines().filter_map(server).take(MOST).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    Resolvers { servers }
}

impl Resolvers {
    /// The `resolv.conf` of a container behind an uplink: the machine's, with the addresses at
    /// which the uplink takes questions in place of the servers.
    pub fn behind_uplink(&self, resolv_conf: &[u8]) -> Vec<u8> {
        let mut text = String::new();
        for line in String::from_utf8_lossy(resolv_conf).lines() {
            if line.split_ascii_whitespace().next() != Some("nameserver") {
                text.push_str(line);
                text.push('\n');
            }
        }
        for (stand_in, _) in STAND_INS.iter().zip(&self.servers) {
            text.push_str(&format!("nameserver {stand_in}\n"));
        }
        text.into_bytes()
    }

    /// The same for a container on a named network, where questions are taken at `gateway`. A name
    /// without a dot is that of a container before it is one of a search domain.
    pub fn at_gateway(&self, resolv_conf: &[u8], gateway: IpAddr, internal: bool) -> Vec<u8> {
        let behind = String::from_utf8_lossy(&self.behind_uplink(resolv_conf)).into_owned();
        let first = format!("nameserver {}", STAND_INS[0]);
        let kept = |line: &&str| !internal || !line.starts_with("nameserver") || *line == first;
        let mut text = String::new();
        for line in behind.lines().filter(kept) {
            match line == first {
                true => text.push_str(&format!("nameserver {gateway}")),
                false => text.push_str(line),
            }
            text.push('\n');
        }
        text.push_str("options ndots:0\n");
        text.into_bytes()
    }
}

/// The `resolv.conf` of a container on named networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file.
    pub text: Vec<u8>,
    /// Whether the name servers of the container are asked by its network, and are not in the file.
    pub asks: bool,
}

/// The `resolv.conf` of a container with these leases, made from the machine's; `None` where no network
/// takes questions. With name servers of its `own` the network asks those.
pub fn resolv_conf_on(machine: &[u8], own: &[IpAddr], leases: &[Lease]) -> Option<ResolvConf> {
    let first = leases.iter().find(|lease| !lease.internal).or(leases.first())?;
    if let Some(servers) = &first.servers {
        return Some(ResolvConf { text: naming(machine, servers), asks: false });
    }
    let gateway = first.gateways.iter().find(|one| one.is_ipv4());
    let names = first.names.or(gateway.copied())?;
    let own: String = own.iter().map(|one| format!("nameserver {one}\n")).collect();
    let servers = resolvers(if own.is_empty() { machine } else { own.as_bytes() });
    Some(ResolvConf { text: servers.at_gateway(machine, names, first.internal), asks: true })
}

/// The machine's `resolv.conf` with these servers, or without those on its loopback.
fn naming(machine: &[u8], servers: &[IpAddr]) -> Vec<u8> {
    let mut text = String::new();
    for line in String::from_utf8_lossy(machine).lines() {
        let local = server(line).is_some_and(|server| server.ip().is_loopback());
        let is_server = line.split_ascii_whitespace().next() == Some("nameserver");
        if !(is_server && (local || !servers.is_empty())) {
            text.push_str(line);
            text.push('\n');
        }
    }
    servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    text.into_bytes()
}

/// The server of one line, if it has one.
fn server(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let (address, zone) = match words.next()?.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (line.split_ascii_whitespace().nth(1)?, None),
    };
    match (address.parse().ok()?, zone) {
        (IpAddr::V6(address), Some(zone)) => {
            let index = zone.parse().or_else(|_| sys::interface_index(zone)).ok()?;
            Some(SocketAddrV6::new(address, 53, 0, index).into())
        }
        (address, _) => Some((address, 53).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_replaced() {
        let text = b"# by hand\nsearch a.example\nnameserver 127.0.0.53\nnameserver\t::1 \n\
            nameserver fe80::1%lo\nnameserver 9.9.9.9\noptions edns0\nnameserver nonsense\n";
        let found = resolvers(text);
        let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[::1]:53", "[fe80::1%1]:53"]);
        let inside = String::from_utf8(found.behind_uplink(text)).unwrap();
        assert_eq!(
            inside,
            "# by hand\nsearch a.example\noptions edns0\nnameserver 192.0.0.1\n\
             nameserver 192.0.0.3\nnameserver 192.0.0.4\n"
        );
    }

    #[test]
    fn on_a_named_network_the_gateway_stands_for_the_first_server() {
        let text = b"search a.example\nnameserver 127.0.0.53\nnameserver 9.9.9.9\n";
        let told = |internal| {
            let text = resolvers(text).at_gateway(text, [10, 9, 0, 1].into(), internal);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(
            told(false),
            "search a.example\nnameserver 10.9.0.1\nnameserver 192.0.0.3\noptions ndots:0\n"
        );
        assert_eq!(told(true), "search a.example\nnameserver 10.9.0.1\noptions ndots:0\n");
    }

    #[test]
    fn without_a_name_server_it_is_this_machine_as_for_the_c_library() {
        let found = resolvers(b"");
        assert_eq!(found.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(found.behind_uplink(b""), b"nameserver 192.0.0.1\n");
    }
}
