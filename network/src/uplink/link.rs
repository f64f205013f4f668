//! The device between a container and the uplink: IP packets in, IP packets out.
//!
//! A tun device where there is one; where `/dev/net/tun` is closed, a packet socket on the other end
//! of a veth pair. Nothing passes a wire, so no transport checksum is ever computed: the kernel
//! tells us not to look, and we tell it the same.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use smoltcp::wire::IpProtocol;

use super::packet;
use crate::netlink::{Netlink, unless_there};
use crate::sys::{self, Frames, OFFLOAD_HEADER};
use crate::{Error, Result};

/// What the container calls the device of an uplink of its own.
pub(super) const NAME: &str = "eth0";
/// Bytes of a packet; so large that a segment holds what a socket buffer gives at once.
pub(crate) const MTU: usize = 65_520;
/// Room for any packet; the kernel joins segments up to this.
pub(super) const LARGEST: usize = 65_535;

const ETHERNET_HEADER: usize = 14;
/// Where packets begin in the buffers that are sent.
pub(super) const HEAD: usize = OFFLOAD_HEADER + ETHERNET_HEADER;

/// The address of an Ethernet device.
pub(crate) type Mac = [u8; 6];

/// A device of a container.
#[derive(Debug, Clone)]
pub(crate) struct Device<'a> {
    /// What the container calls it.
    pub(crate) name: &'a str,
    /// Its addresses and the lengths of their prefixes.
    pub(crate) addresses: &'a [(IpAddr, u8)],
    /// Bytes of a packet.
    pub(crate) mtu: usize,
    /// Its Ethernet address; without one it carries IP packets alone.
    pub(crate) mac: Option<Mac>,
}

/// The machine's end of a device.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
    /// What stands between offload header and packet: nothing, or an Ethernet header.
    frame: Vec<u8>,
}

impl Link {
    /// Makes and configures the device, unless it is there from before, in the network namespace of this thread.
    pub(crate) fn make(device: &Device<'_>) -> Result<Link> {
        let open = Error::system("opening", "the network configuration");
        let mut netlink = Netlink::open().map_err(open)?;
        let configure = Error::system("configuring", device.name);
        let loopback = sys::interface_index("lo")
            .and_then(|lo| netlink.up(lo, LinkFlags::empty(), Vec::new()));
        loopback.map_err(Error::system("starting", "the loopback device"))?;
        let frames = device.mac.map_or(Frames::Packets, |_| Frames::Ethernet);
        let (fd, veth) = match sys::tun(device.name, frames) {
            Ok(fd) => (fd, None),
            Err(_) => {
                let made = veth(&mut netlink, device);
                let (fd, mac) = made.map_err(|source| Error::NoDevice { source })?;
                (fd, Some(mac))
            }
        };
        let mut attributes = vec![LinkAttribute::Mtu(device.mtu as u32)];
        attributes.extend(device.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        let set_up = |netlink: &mut Netlink| -> io::Result<()> {
            let index = sys::interface_index(device.name)?;
            netlink.up(index, LinkFlags::Noarp, attributes)?;
            device.addresses.iter().try_for_each(|(address, prefix)| {
                unless_there(netlink.add_address(index, *address, *prefix))
            })
        };
        set_up(&mut netlink).map_err(configure)?;
        let frame = device.mac.or(veth).map(frame).unwrap_or_default();
        Ok(Link { fd, frame })
    }

    /// The link of an Ethernet device that another process made.
    pub(crate) fn ethernet(fd: OwnedFd, mac: Mac) -> Link {
        Link { fd, frame: frame(mac) }
    }

    /// A link over any socket that keeps packets apart.
    #[cfg(test)]
    pub(super) fn over(fd: OwnedFd) -> Link {
        Link { fd, frame: Vec::new() }
    }

    /// A buffer for any packet.
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; HEAD + LARGEST]
    }

    /// The next packet at [`HEAD`] of `buffer`, and its length; `None` when there is none now.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let start = ETHERNET_HEADER - self.frame.len();
        match rustix::io::read(&self.fd, &mut buffer[start..]) {
            Ok(count) => Ok(Some((start + count).saturating_sub(HEAD))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes on a frame as another Ethernet link gave it, `length` bytes of packet at [`HEAD`].
    pub(super) fn pass(&self, buffer: &mut [u8], length: usize) {
        if let Some(header) = self.frame.get(..ETHERNET_HEADER - 2) {
            buffer[OFFLOAD_HEADER..HEAD - 2].copy_from_slice(header);
            self.write(&buffer[..HEAD + length]);
        }
    }

    /// Sends the packet of `length` bytes that stands at [`HEAD`]. A packet that does not go is
    /// lost, as on any network.
    pub(super) fn send(&self, buffer: &mut [u8], length: usize) {
        let start = ETHERNET_HEADER - self.frame.len();
        let (header, packet) = buffer[start..HEAD + length].split_at_mut(HEAD - start);
        header.fill(0);
        if let Some((start, field)) = packet::partial_checksum(packet) {
            const NEEDS_CHECKSUM: u8 = 1;
            header[0] = NEEDS_CHECKSUM;
            let start = (start + self.frame.len()) as u16;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&(field as u16).to_ne_bytes());
        }
        if let Some(kind) = self.frame.len().checked_sub(2) {
            let frame = &mut header[OFFLOAD_HEADER..];
            frame.copy_from_slice(&self.frame);
            let protocol = if packet[0] >> 4 == 4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
            frame[kind..].copy_from_slice(&(protocol as u16).to_be_bytes());
        }
        self.write(&buffer[start..HEAD + length]);
    }

    fn write(&self, bytes: &[u8]) {
        if let Err(error) = rustix::io::write(&self.fd, bytes) {
            tracing::trace!(%error, length = bytes.len(), "a packet is lost");
        }
    }

    /// The descriptor, for another process.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A veth pair whose one end is a packet socket; gives the container's Ethernet address too.
fn veth(netlink: &mut Netlink, device: &Device<'_>) -> io::Result<(OwnedFd, Mac)> {
    let peer_name = format!("uplink-{}", device.name);
    unless_there(netlink.add_veth(device.name, &peer_name))?;
    let peer = sys::interface_index(&peer_name)?;
    let fd = sys::packet_socket(peer)?;
    netlink.up(peer, LinkFlags::Noarp, vec![LinkAttribute::Mtu(device.mtu as u32)])?;
    let address = sys::hardware_address(fd.as_fd(), device.name)?;
    Ok((fd, address))
}

/// The Ethernet header of what is sent to a device.
fn frame(mac: Mac) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_HEADER];
    frame[..6].copy_from_slice(&mac);
    frame[6..12].copy_from_slice(&mac);
    // Ours, not a copy of the container's: locally administered, and another one.
    frame[6] = 2;
    frame[7] ^= 0xff;
    frame
}

/// Whether a packet of this protocol carries a checksum that is left to the reader, and where.
pub(super) fn checksum_field(protocol: IpProtocol) -> Option<usize> {
    match protocol {
        IpProtocol::Tcp => Some(16),
        IpProtocol::Udp => Some(6),
        _ => None,
    }
}
