//! Devices of this machine that a container gets as they are.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::LinkFlags;

use crate::netlink::{Netlink, unless_there};
use crate::{Error, Result, namespace, sys};

/// Moves a device of this network namespace into another one, under a new name if one is given. It keeps its
/// addresses, but for those that the kernel made or that expire, and is up there. With the namespace it
/// comes back, if it is a real one, or ends.
///
/// # Errors
/// [`Error::System`]: there is no such device; the other namespace has one of that name, or is this one.
pub fn move_device(name: &str, inside: Option<&str>, namespace: &Path) -> Result<()> {
    let inside = inside.filter(|inside| !inside.is_empty()).unwrap_or(name);
    [name, inside].into_iter().try_for_each(check_name)?;
    let open =
        |path: &Path| File::open(path).map_err(Error::system("opening", path.to_string_lossy()));
    let (there, here) = (open(namespace)?, open(Path::new("/proc/thread-self/ns/net"))?);
    let number = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    if number(&there) == number(&here) {
        let own = std::io::Error::other("the container has the network of this machine");
        return Err(Error::system("moving device", name)(own));
    }
    let failed = |action: &'static str| Error::system(action, name);
    let there = OwnedFd::from(there);
    // The kernel moves first and renames then: what fails there would be lost with the namespace.
    let taken = namespace::entered(&there, || Ok(sys::interface_index(inside).is_ok()))?;
    if taken {
        let taken = std::io::Error::other(format!("the container has a device {inside}"));
        return Err(failed("moving device")(taken));
    }
    let mut netlink = Netlink::open().map_err(failed("moving device"))?;
    let index = sys::interface_index(name).map_err(failed("finding device"))?;
    let addresses = netlink.addresses(index).map_err(failed("reading the addresses of"))?;
    netlink.move_link(index, there.as_raw_fd(), inside).map_err(failed("moving device"))?;
    namespace::entered(&there, || {
        let mut netlink = Netlink::open().map_err(failed("setting up device"))?;
        let index = sys::interface_index(inside).map_err(failed("finding device"))?;
        for address in addresses.iter().filter(|address| stays(address)) {
            let added = netlink.give_address(index, address);
            unless_there(added).map_err(failed("keeping an address of"))?;
        }
        let up = netlink.up(index, LinkFlags::empty(), Vec::new());
        up.map_err(failed("bringing up"))
    })
}

/// As the kernel has it.
fn check_name(name: &str) -> Result<()> {
    let wrong = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
    if name.is_empty() || name.len() > 15 || [".", ".."].contains(&name) || name.bytes().any(wrong)
    {
        let what = std::io::Error::other("this cannot be the name of a device");
        return Err(Error::system("moving device", name)(what));
    }
    Ok(())
}

/// Whether an address is one that somebody gave the device for good.
fn stays(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe
        && address.header.flags.contains(AddressHeaderFlags::Permanent)
}

/// What of an address does not depend on where its device is.
pub(crate) fn portable(attribute: &AddressAttribute) -> bool {
    matches!(
        attribute,
        AddressAttribute::Address(_)
            | AddressAttribute::Local(_)
            | AddressAttribute::Broadcast(_)
            | AddressAttribute::RoutePriority(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_the_kernels() {
        for name in ["eth0", "a.b-c", "fifteen-letters"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "a b", "a/b", "a:1", "sixteen--letters"] {
            check_name(name).unwrap_err();
        }
    }
}
