//! The bridges of networks that the kernel carries, by the ids of the networks.

use crate::netlink::Netlink;
use crate::sys;

/// What the names of our bridges and tables begin with.
pub(crate) const PREFIX: &str = "rb-";
/// As many digits of the id as the name of a device has room for.
const DIGITS: usize = 12;
/// What passes any Ethernet.
const USUAL: usize = 1500;

/// The name of the bridge of a network.
pub(crate) fn name(id: &str) -> String {
    format!("{PREFIX}{}", id.get(..DIGITS).unwrap_or(id))
}

/// Removes the bridge of a network that no process carries.
pub(crate) fn remove(id: &str) {
    let Ok(index) = sys::interface_index(&name(id)) else { return };
    if let Err(error) = Netlink::open().and_then(|mut netlink| netlink.delete(index)) {
        tracing::debug!(%error, "a bridge is left");
    }
}

/// The bytes of the largest packet on the way out of this machine.
pub(crate) fn mtu() -> usize {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = text.lines().find_map(|line| {
        let (device, rest) = line.split_once('\t')?;
        rest.starts_with("00000000\t").then_some(device)
    });
    let mtu = default.and_then(|device| sys::mtu(device).ok());
    mtu.filter(|mtu| (576..=65_520).contains(mtu)).unwrap_or(USUAL)
}
