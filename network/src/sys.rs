//! System calls that have no safe wrapper elsewhere, each behind a safe function.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The header before every packet of a device with checksum offload (`virtio_net_hdr`), in bytes.
pub(crate) const OFFLOAD_HEADER: usize = 10;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Leaves the network namespace of this thread for a new one.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: takes a flag word; a network namespace is a property of the thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Splits this process, which has one thread, in two; gives the number of the new one to the old one.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: without other threads the new process has all of this one.
    let pid = check(unsafe { libc::fork() })?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// What passes through a tun device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// IP packets.
    Packets,
    /// Ethernet frames.
    Ethernet,
}

/// A descriptor of the tun device `name`, made in the network namespace of this thread. The kernel
/// leaves transport checksums to the reader and computes those of what is written.
pub(crate) fn tun(name: &str, frames: Frames) -> io::Result<OwnedFd> {
    const TUN_F_CSUM: libc::c_ulong = 1;
    const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
    let flags =
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty())?;
    let mut request = interface_request(name)?;
    let kind = match frames {
        Frames::Packets => libc::IFF_TUN,
        Frames::Ethernet => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    check(unsafe {
        libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request)
    })?;
    // SAFETY: TUNSETOFFLOAD takes a flag word.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, TUN_F_CSUM) })?;
    // The device goes with its namespace, which is not waited for; with the descriptor it would
    // keep the process that closes it waiting for tens of milliseconds.
    // SAFETY: TUNSETPERSIST takes a number.
    check(unsafe {
        libc::ioctl(fd.as_raw_fd(), TUNSETPERSIST as libc::Ioctl, 1 as libc::c_ulong)
    })?;
    Ok(fd)
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

/// A socket that gets and sends whole frames of the interface `index` of this thread's network
/// namespace, each behind an offload header.
pub(crate) fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    const PACKET_VNET_HDR: libc::c_int = 15;
    const PACKET_QDISC_BYPASS: libc::c_int = 20;
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
    set_option(fd.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    // A queue would lose what is sent before it is there, which the kernel sees to later.
    set_option(fd.as_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1)?;
    for (forced, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Beyond the machine's limit where that is allowed, else up to it.
        set_option(fd.as_fd(), libc::SOL_SOCKET, forced, 8 << 20)
            .or_else(|_| set_option(fd.as_fd(), libc::SOL_SOCKET, plain, 8 << 20))?;
    }
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = std::mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length of one sockaddr_ll.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let length = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointer and length of one int.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length)
    })
    .map(drop)
}

/// Gives a socket room for messages of this size, beyond the machine's limit where that is allowed.
pub(crate) fn enlarge(socket: &impl AsRawFd, room: i32) -> io::Result<()> {
    // SAFETY: the caller's socket is open as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, room))
}

/// The index of an interface of this thread's network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Bytes of the largest packet of an interface of this thread's network namespace.
pub(crate) fn mtu(name: &str) -> io::Result<usize> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut request = interface_request(name)?;
    // SAFETY: SIOCGIFMTU reads and writes one ifreq.
    check(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as libc::Ioctl, &raw mut request)
    })?;
    // SAFETY: SIOCGIFMTU has filled this member of the union.
    usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).map_err(io::Error::other)
}

/// The soft limit on descriptors of this process.
pub(crate) fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The hardware address of an interface of the network namespace `socket` is of.
pub(crate) fn hardware_address(socket: BorrowedFd<'_>, name: &str) -> io::Result<[u8; 6]> {
    let mut request = interface_request(name)?;
    // SAFETY: SIOCGIFHWADDR reads and writes one ifreq.
    check(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as libc::Ioctl, &raw mut request)
    })?;
    // SAFETY: SIOCGIFHWADDR has filled this member of the union.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut address = [0; 6];
    for (byte, given) in address.iter_mut().zip(data) {
        *byte = given as u8;
    }
    Ok(address)
}
