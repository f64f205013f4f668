//! Where the packets of a container may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::packet::UnreachableReason;
use crate::kernel;
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

/// The rules of one network.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) resolvers: Resolvers,
    /// The network's ranges, and this machine's address in each.
    pub(crate) subnets: Vec<(IpNet, IpAddr)>,
    /// Whether there is no way out.
    pub(crate) internal: bool,
}

impl Policy {
    /// The rules of a network of one container.
    pub(super) fn private(resolvers: Resolvers) -> Policy {
        let net = |(address, prefix)| IpNet::new_assert(address, prefix);
        let subnets = vec![(net(INSIDE_4), MACHINE_4), (net(INSIDE_6), MACHINE_6)];
        Policy { resolvers, subnets, internal: false }
    }

    /// Where what is sent to `wanted` really goes; `None` if nowhere. The loopback services of the
    /// machine can be reached at the machine's address, if `loopback`.
    pub(super) fn target(&self, wanted: SocketAddr, loopback: bool) -> Option<SocketAddr> {
        if wanted.port() == 0 {
            return None;
        }
        if let Some(server) = self.resolver(wanted) {
            return Some(server).filter(|_| !self.internal);
        }
        if self.is_machine(wanted.ip()) {
            let local: IpAddr = match wanted.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            return loopback.then(|| (local, wanted.port()).into());
        }
        let out = !self.internal
            && !self.ours(wanted.ip())
            && elsewhere(wanted.ip())
            && !kernel::is_inside(wanted.ip());
        out.then_some(wanted)
    }

    /// How what has no target is refused.
    pub(super) fn refusal(&self, address: IpAddr) -> UnreachableReason {
        // There is no such container, or no way out.
        let absent = self.internal || self.ours(address);
        if absent && !self.is_machine(address) && !self.is_alone() {
            UnreachableReason::Host
        } else {
            UnreachableReason::Prohibited
        }
    }

    /// Whether there is one container only.
    fn is_alone(&self) -> bool {
        self.subnets.iter().any(|(_, machine)| *machine == MACHINE_4)
    }

    /// The name server that stands behind one of our addresses.
    fn resolver(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        if wanted.port() != NAMES {
            return None;
        }
        self.resolvers.servers.get(self.place_of(wanted.ip())?).copied()
    }

    /// Which of the name servers stands behind one of our addresses.
    fn place_of(&self, address: IpAddr) -> Option<usize> {
        let stand_in = STAND_INS.iter().position(|stand_in| IpAddr::V4(*stand_in) == address);
        stand_in.or_else(|| self.is_machine(address).then_some(0))
    }

    /// The one of a container's own name servers that stands behind one of our addresses.
    pub(super) fn name_server(&self, own: &[IpAddr], wanted: SocketAddr) -> Option<SocketAddr> {
        let server = own.get(self.place_of(wanted.ip())?)?;
        (!self.internal).then_some((*server, NAMES).into())
    }

    /// Whether questions about names are taken there.
    pub(super) fn takes_names(&self, wanted: SocketAddr) -> bool {
        let ours = self.is_machine(wanted.ip())
            || STAND_INS.iter().any(|stand_in| IpAddr::V4(*stand_in) == wanted.ip());
        wanted.port() == NAMES && ours
    }

    /// Whether an address is this machine's, as containers see it.
    pub(super) fn is_machine(&self, address: IpAddr) -> bool {
        let gateway = self.subnets.iter().any(|(_, machine)| *machine == address);
        gateway || address == MACHINE_4 || address == MACHINE_6
    }

    /// This machine's address for those that have `like`'s kind of address.
    pub(super) fn machine(&self, like: IpAddr) -> IpAddr {
        let mut all = self.subnets.iter().map(|(_, machine)| *machine);
        let found = all.find(|machine| machine.is_ipv4() == like.is_ipv4());
        found.unwrap_or(if like.is_ipv4() { MACHINE_4 } else { MACHINE_6 })
    }

    /// Whether an address is of the network between containers and uplink.
    pub(super) fn ours(&self, address: IpAddr) -> bool {
        let private = [INSIDE_4, INSIDE_6].map(|(own, prefix)| IpNet::new_assert(own, prefix));
        let subnets = self.subnets.iter().map(|(subnet, _)| subnet);
        subnets.chain(&private).any(|subnet| subnet.contains(&address))
    }
}

/// Whether an address stands for many containers.
pub(super) fn is_group(address: IpAddr, subnets: &[(IpNet, IpAddr)]) -> bool {
    let last = |(subnet, _): &(IpNet, IpAddr)| address.is_ipv4() && subnet.broadcast() == address;
    address.is_multicast() || address == Ipv4Addr::BROADCAST || subnets.iter().any(last)
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
        let policy = Policy::private(crate::resolvers(b"nameserver 127.0.0.53"));
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
            assert_eq!(policy.target(at(refused), false), None, "{refused}");
        }
        for passed in ["10.0.0.1:53", "169.254.1.1:80", "[2001:db8::1]:80", "[64:ff9b::1.1.1.1]:1"]
        {
            assert_eq!(policy.target(at(passed), false), Some(at(passed)));
        }
    }

    #[test]
    fn names_go_to_the_machines_resolvers_and_the_rest_only_where_asked() {
        let resolvers = crate::resolvers(b"nameserver 127.0.0.53\nnameserver ::1\n");
        let mut policy = Policy::private(resolvers);
        let target = |policy: &Policy, to, loopback| policy.target(at(to), loopback);
        assert_eq!(target(&policy, "192.0.0.1:53", false), Some(at("127.0.0.53:53")));
        assert_eq!(target(&policy, "192.0.0.3:53", false), Some(at("[::1]:53")));
        assert_eq!(target(&policy, "192.0.0.1:80", true), Some(at("127.0.0.1:80")));
        let six = "[fd72:6275:696c:6400::1]:80";
        assert_eq!(target(&policy, six, true), Some(at("[::1]:80")));
        assert_eq!(target(&policy, "192.0.0.3:80", true), None);
        assert_eq!(target(&policy, "127.0.0.1:80", true), None);
        // A network with more than one container.
        policy.subnets = vec![("10.5.0.0/24".parse().unwrap(), "10.5.0.1".parse().unwrap())];
        assert_eq!(target(&policy, "10.5.0.1:53", false), Some(at("127.0.0.53:53")));
        assert_eq!(target(&policy, "10.5.0.9:53", false), None);
        assert_eq!(target(&policy, "10.5.0.1:80", true), Some(at("127.0.0.1:80")));
        assert_eq!(target(&policy, "10.6.0.1:80", false), Some(at("10.6.0.1:80")));
        policy.internal = true;
        assert_eq!(target(&policy, "10.6.0.1:80", false), None);
        assert_eq!(target(&policy, "10.5.0.1:53", false), None);
    }
}
