//! Settings of the machine that a network of the kernel needs.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bridge;
use crate::definition::{NamedNetwork, routes};

const SETTINGS: &str = "/proc/sys/net";

fn path(name: &str) -> PathBuf {
    Path::new(SETTINGS).join(name)
}

fn read(name: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(name)).ok()?.trim().to_owned())
}

/// Gives a setting a value, unless it has that.
fn set(name: &str, value: &str) -> io::Result<()> {
    if read(name).as_deref() == Some(value) {
        return Ok(());
    }
    let failed = |error: io::Error| {
        let name = name.replace('/', ".");
        io::Error::new(error.kind(), format!("setting net.{name} to {value}: {error}"))
    };
    std::fs::write(path(name), value).map_err(failed)
}

/// Whether the tables of the older packet filter are in use, whose rules we cannot see.
pub(super) fn old_firewall() -> Option<String> {
    let names = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    let filter = names.lines().any(|name| name == "filter");
    filter.then(|| "rules of iptables-legacy may drop what is forwarded".to_owned())
}

/// No other device may lead to the addresses of the network.
pub(super) fn free(network: &NamedNetwork, device: &str) -> io::Result<()> {
    let four = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    let own: Vec<Ipv4Net> = network.subnets.iter().filter_map(|one| four(one.subnet)).collect();
    for (other, route) in routes() {
        let meets = |net: &&Ipv4Net| net.contains(&route) || route.contains(*net);
        if let Some(net) = own.iter().find(|net| other != device && meets(net)) {
            let text = format!("device {other} leads to {route}, which meets {net}");
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

/// The bridge takes no orders from containers, and has addresses of IPv6 only if the network has.
pub(super) fn quiet(network: &NamedNetwork, device: &str) -> io::Result<()> {
    if !path(&format!("ipv6/conf/{device}")).exists() {
        return Ok(());
    }
    set(&format!("ipv6/conf/{device}/accept_ra"), "0")?;
    let off = if network.subnet(true).is_some() { "0" } else { "1" };
    set(&format!("ipv6/conf/{device}/disable_ipv6"), off)
}

/// Has the machine pass packets on, and the bridge lead to loopback addresses, for published ports.
pub(super) fn route(network: &NamedNetwork, device: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{device}/route_localnet"), "1")?;
    if network.internal {
        return Ok(());
    }
    set("ipv4/ip_forward", "1")?;
    if network.subnet(true).is_none() || read("ipv6/conf/all/forwarding").as_deref() == Some("1") {
        return Ok(());
    }
    // A machine that forwards does not learn its own routes any more, by default.
    for entry in std::fs::read_dir(path("ipv6/conf"))?.flatten() {
        let name = format!("ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy());
        if read(&name).as_deref() == Some("1") {
            set(&name, "2")?;
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}

/// Whether an address is of a network that the kernel carries.
pub(crate) fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let ours =
                |(device, net): &(String, Ipv4Net)| is_bridge(device) && net.contains(&address);
            routes().iter().any(ours)
        }
        IpAddr::V6(address) => {
            let text = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
            text.lines().filter_map(route_of_ipv6).any(|net| net.contains(&address))
        }
    }
}

/// Whether a device is a bridge of ours.
fn is_bridge(device: &str) -> bool {
    device.starts_with(bridge::PREFIX)
}

/// The destination of a line of `/proc/net/ipv6_route`, if it is behind a bridge of ours.
fn route_of_ipv6(line: &str) -> Option<Ipv6Net> {
    let mut fields = line.split_ascii_whitespace();
    let destination = u128::from_str_radix(fields.next()?, 16).ok()?;
    let prefix = u8::from_str_radix(fields.next()?, 16).ok()?;
    let ours = fields.last().is_some_and(is_bridge);
    let net = Ipv6Net::new(destination.into(), prefix).ok()?;
    (ours && prefix > 0 && !net.network().is_unicast_link_local()).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_ipv6_behind_our_bridges_are_read() {
        let none = "0".repeat(32);
        let line = |net: &str, device: &str| {
            format!("{net} 40 {none} 00 {none} 00000100 00000001 00000000 00000001   {device}")
        };
        let net = "fd123456000000000000000000000000";
        assert_eq!(route_of_ipv6(&line(net, "rb-0123")), Some("fd12:3456::/64".parse().unwrap()));
        assert_eq!(route_of_ipv6(&line(net, "eth0")), None);
        assert_eq!(route_of_ipv6(&line("fe800000000000000000000000000000", "rb-0123")), None);
        assert_eq!(route_of_ipv6("nonsense"), None);
    }
}
