//! Where the packets of a container may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::resolvers::{Resolvers, STAND_INS};

/// The container's address and prefix length, from a reserved range (RFC 7335).
pub(super) const INSIDE_4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 2)), 29);
/// The same in IPv6: a unique local address (RFC 4193).
pub(super) const INSIDE_6: (IpAddr, u8) =
    (IpAddr::V6(Ipv6Addr::new(0xfd72, 0x6275, 0x696c, 0x6400, 0, 0, 0, 2)), 64);
/// The machine, as the container sees it.
pub(super) const MACHINE_4: IpAddr = IpAddr::V4(STAND_INS[0]);
pub(super) const MACHINE_6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfd72, 0x6275, 0x696c, 0x6400, 0, 0, 0, 1));

const NAMES: u16 = 53;

/// The rules of one uplink.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    pub(super) resolvers: Resolvers,
    /// Whether the loopback services of the machine can be reached, at the machine's address.
    pub(super) loopback: bool,
}

impl Policy {
    /// Where what is sent to `wanted` really goes; `None` if nowhere.
    pub(super) fn target(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        if wanted.port() == 0 {
            return None;
        }
        if wanted.port() == NAMES
            && let Some(server) = self.resolver(wanted.ip())
        {
            return Some(server);
        }
        if ours(wanted.ip()) {
            let local: IpAddr = match wanted.ip() {
                MACHINE_4 => Ipv4Addr::LOCALHOST.into(),
                MACHINE_6 => Ipv6Addr::LOCALHOST.into(),
                _ => return None,
            };
            return self.loopback.then(|| (local, wanted.port()).into());
        }
        elsewhere(wanted.ip()).then_some(wanted)
    }

    fn resolver(&self, address: IpAddr) -> Option<SocketAddr> {
        let place = STAND_INS.iter().position(|stand_in| IpAddr::V4(*stand_in) == address)?;
        self.resolvers.servers.get(place).copied()
    }
}

/// Whether an address is of the network between container and uplink.
pub(super) fn ours(address: IpAddr) -> bool {
    match (address, INSIDE_4.0, INSIDE_6.0) {
        (IpAddr::V4(address), IpAddr::V4(inside), _) => {
            u32::from(address) >> 3 == u32::from(inside) >> 3
        }
        (IpAddr::V6(address), _, IpAddr::V6(inside)) => {
            u128::from(address) >> 64 == u128::from(inside) >> 64
        }
        _ => false,
    }
}

/// Whether an address is one host's that is not this machine by definition: no loopback, in
/// whatever clothes, no group, nothing that needs an interface to mean something.
pub(super) fn elsewhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => {
            let words = address.segments();
            // ::/96 holds :: and ::1; ::ffff:0:0/96 is IPv4 in the clothes of IPv6, as are 6to4 and
            // NAT64, which leave the machine but could be led back.
            let inner = match words {
                [0, 0, 0, 0, 0, 0 | 0xffff, ..] => return false,
                [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
                }
                _ => None,
            };
            !address.is_multicast()
                && !address.is_unicast_link_local()
                && inner.is_none_or(|inner| elsewhere(inner.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_not_reachable_in_any_clothes() {
        let policy =
            Policy { resolvers: crate::resolvers(b"nameserver 127.0.0.53"), loopback: false };
        for refused in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "192.0.0.1:80",
            "192.0.0.2:80",
            "192.0.0.3:53",
            "192.0.0.6:53",
            "10.0.0.1:0",
            "[::]:80",
            "[::1]:80",
            "[::127.0.0.1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:10.0.0.1]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
            "[2002:7f00:1::]:80",
            "[64:ff9b::127.0.0.1]:80",
            "[fd72:6275:696c:6400::1]:80",
        ] {
            assert_eq!(policy.target(at(refused)), None, "{refused}");
        }
        for passed in ["10.0.0.1:53", "169.254.1.1:80", "[2001:db8::1]:80", "[64:ff9b::1.1.1.1]:1"]
        {
            assert_eq!(policy.target(at(passed)), Some(at(passed)));
        }
    }

    #[test]
    fn names_go_to_the_machines_resolvers_and_the_rest_only_where_asked() {
        let resolvers = crate::resolvers(b"nameserver 127.0.0.53\nnameserver ::1\n");
        let mut policy = Policy { resolvers, loopback: false };
        assert_eq!(policy.target(at("192.0.0.1:53")), Some(at("127.0.0.53:53")));
        assert_eq!(policy.target(at("192.0.0.3:53")), Some(at("[::1]:53")));
        policy.loopback = true;
        assert_eq!(policy.target(at("192.0.0.1:80")), Some(at("127.0.0.1:80")));
        assert_eq!(policy.target(at("[fd72:6275:696c:6400::1]:80")), Some(at("[::1]:80")));
        assert_eq!(policy.target(at("192.0.0.3:80")), None);
        assert_eq!(policy.target(at("127.0.0.1:80")), None);
    }
}
