//! A container's side of a named network: its connection with the process that carries the
//! network, and its device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::definition::{NamedNetwork, Networks};
use crate::lease::{Lease, LeaseRequest};
use crate::netlink::{Netlink, unless_there};
use crate::server::{DOOR, MARK, Reply, Request, SOCKET, Start};
use crate::uplink::{Device, Link};
use crate::{CniDirectories, Error, Port, PublishedPort, Resolvers, Result, namespace, sys, wire};

/// A network that a container is to be on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// Who asks, and for what.
    pub wanted: LeaseRequest,
    /// What the container calls its device; the next `eth` if not given.
    pub interface: Option<String>,
    /// Ports of the container that are reached from outside.
    pub ports: Vec<Port>,
    /// Whether the container reaches the loopback services of this machine.
    pub loopback: bool,
    /// Where a network in the format of CNI is found.
    #[serde(default)]
    pub cni: Option<CniDirectories>,
}

/// The end of a container's connection to a network.
#[derive(Debug)]
pub(crate) struct NetworkEndpoint {
    line: UnixStream,
    /// The container's device, if a process carries the network.
    device: Option<OwnedFd>,
    /// What it has.
    pub(crate) lease: Lease,
    /// What the container calls its device.
    pub(crate) interface: String,
    /// How much its way out counts.
    pub(crate) metric: u32,
    attachment: Attachment,
}

/// Where networks are, and the machine's name servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    pub(crate) networks: PathBuf,
    pub(crate) resolvers: Resolvers,
}

impl NetworkEndpoint {
    /// Connects the container of a network namespace with a network. Of several networks with a
    /// way out the one with the smallest `metric` is the way. With `again`, the container had its device
    /// before.
    pub(crate) fn new(
        place: &Surroundings,
        attachment: Attachment,
        (namespace, again): (&OwnedFd, bool),
        (interface, metric): (String, u32),
    ) -> Result<NetworkEndpoint> {
        let (line, lease) = lease(place, &attachment)?;
        let mut attached =
            NetworkEndpoint { line, device: None, lease, interface, metric, attachment };
        attached.plug(namespace, again)?;
        Ok(attached)
    }

    /// Makes the device, or has the kernel make it, and connects it.
    fn plug(&mut self, namespace: &OwnedFd, again: bool) -> Result<()> {
        let (lease, interface, metric) = (&self.lease, self.interface.as_str(), self.metric);
        if lease.bridge.is_some() {
            self.attach(namespace.as_fd(), again)?;
            return namespace::entered(namespace, || configure(lease, interface, metric));
        }
        let device = match self.device.take() {
            Some(device) => device,
            None => namespace::entered(namespace, || device(lease, interface, metric))?.into_fd(),
        };
        self.attach(device.as_fd(), again)?;
        self.device = Some(device);
        Ok(())
    }

    fn attach(&self, given: BorrowedFd<'_>, again: bool) -> Result<()> {
        let request = Request::Attach { interface: self.interface.clone(), again };
        let talk = wire::send(&self.line, &request, Some(given));
        let talk = talk.and_then(|()| wire::expect(&self.line));
        match talk.map_err(talking("device"))? {
            Reply::Attached => Ok(()),
            Reply::Failed { error } => Err(error.into()),
            Reply::Leased { .. } | Reply::Renamed => {
                Err(talking("device")(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// What it was connected by, with what it got.
    pub(crate) fn settled(&self) -> Attachment {
        let mut attachment = self.attachment.clone();
        attachment.interface = Some(self.interface.clone());
        attachment.wanted.ip = Some(self.lease.ip.0);
        attachment.wanted.ip6 = self.lease.ip6.map(|(address, _)| address);
        attachment.wanted.mac = self.lease.bridge_mac();
        settle(&mut attachment.ports, &self.lease.published);
        attachment
    }

    /// Connects again, where the process that carried the network is gone.
    pub(crate) fn again(&mut self, place: &Surroundings, namespace: &OwnedFd) -> Result<()> {
        let (line, lease) = lease(place, &self.settled())?;
        let before = std::mem::replace(&mut self.lease, lease);
        self.line = line;
        let same = before.bridge == self.lease.bridge;
        if !same {
            // What carried it before needs another kind of device.
            self.device = None;
            remove(namespace, &self.interface)?;
        }
        self.plug(namespace, same)
    }

    /// Has others find the container by another name.
    pub(crate) fn rename(&mut self, name: &str) -> Result<()> {
        self.attachment.wanted.name = name.to_owned();
        let request = Request::Rename(name.to_owned());
        let talk = wire::send(&self.line, &request, None).and_then(|()| wire::expect(&self.line));
        match talk.map_err(talking(&self.lease.network))? {
            Reply::Renamed => {
                self.lease.name = name.to_owned();
                Ok(())
            }
            _ => Err(talking(&self.lease.network)(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Takes the device away; the rest ends with the connection.
    pub(crate) fn leave(self, namespace: &OwnedFd) -> Result<()> {
        remove(namespace, &self.interface)
    }
}

/// Has ports be where they were.
pub(crate) fn settle(ports: &mut [Port], published: &[PublishedPort]) {
    for (port, published) in ports.iter_mut().zip(published) {
        port.machine = (published.machine.port(), published.machine.port());
    }
}

/// Removes a device of a network namespace.
fn remove(namespace: &OwnedFd, interface: &str) -> Result<()> {
    namespace::entered(namespace, || {
        let remove = || Netlink::open()?.delete(sys::interface_index(interface)?);
        match remove() {
            // The container has done so itself.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            removed => removed.map_err(Error::system("removing device", interface)),
        }
    })
}

impl AsFd for NetworkEndpoint {
    /// The connection, which nothing comes from but its end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

fn talking(network: &str) -> impl Fn(io::Error) -> Error {
    let network = format!("network {network}");
    move |error| Error::system("talking to", &network)(error)
}

/// Asks for addresses and ports.
fn lease(place: &Surroundings, attachment: &Attachment) -> Result<(UnixStream, Lease)> {
    let network = Networks::new(place.networks.clone()).get(&attachment.network)?;
    let line = reach(place, &network)?;
    let request = Request::Lease {
        wanted: attachment.wanted.clone(),
        ports: attachment.ports.clone(),
        loopback: attachment.loopback,
    };
    let talk = wire::send(&line, &request, None).and_then(|()| wire::expect(&line));
    match talk.map_err(talking(&network.name))? {
        Reply::Leased { lease } => Ok((line, lease)),
        Reply::Failed { error } => Err(error.into()),
        Reply::Attached | Reply::Renamed => {
            Err(talking(&network.name)(io::ErrorKind::InvalidData.into()))
        }
    }
}

/// Connects with the process that carries a network; starts it where there is none.
fn reach(place: &Surroundings, network: &NamedNetwork) -> Result<UnixStream> {
    let directory = place.networks.join(&network.name);
    let start = || -> io::Result<UnixStream> {
        let door = File::create(directory.join(DOOR))?;
        rustix::fs::flock(&door, FlockOperation::LockExclusive)?;
        match wire::connect(&directory, SOCKET) {
            Ok(line) => return Ok(line),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            },
        }
        let listener = wire::listen(&directory, SOCKET)?;
        spawn(place, network, &directory, listener.into())?;
        wire::connect(&directory, SOCKET)
    };
    start().map_err(Error::system("starting network", &network.name))
}

fn spawn(
    place: &Surroundings,
    network: &NamedNetwork,
    directory: &Path,
    listener: OwnedFd,
) -> io::Result<()> {
    let start = Start {
        place: directory.to_owned(),
        network: network.clone(),
        resolvers: place.resolvers.clone(),
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg0(MARK).arg(serde_json::to_string(&start)?).env_clear().current_dir("/");
    command.process_group(0).stdin(Stdio::from(listener));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Makes the device in the network namespace of this thread.
fn device(lease: &Lease, interface: &str, metric: u32) -> Result<Link> {
    let addresses = lease.addresses();
    let device =
        Device { name: interface, addresses: &addresses, mtu: lease.mtu, mac: Some(lease.mac) };
    let link = Link::make(&device)?;
    if lease.internal {
        return Ok(link);
    }
    routes(lease, interface, metric).map_err(Error::system("adding a route to", interface))?;
    Ok(link)
}

/// Gives a device that the kernel made addresses and a way out, in the network namespace of this
/// thread.
fn configure(lease: &Lease, interface: &str, metric: u32) -> Result<()> {
    let set_up = || -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        netlink.up(sys::interface_index("lo")?, Default::default(), Vec::new())?;
        let index = sys::interface_index(interface)?;
        for (address, prefix) in lease.addresses() {
            unless_there(netlink.add_address(index, address, prefix))?;
        }
        netlink.up(index, Default::default(), Vec::new())?;
        if lease.internal { Ok(()) } else { routes(lease, interface, metric) }
    };
    set_up().map_err(Error::system("configuring", interface))
}

/// The ways out.
fn routes(lease: &Lease, interface: &str, metric: u32) -> io::Result<()> {
    let index = sys::interface_index(interface)?;
    let mut netlink = Netlink::open()?;
    lease.addresses().into_iter().try_for_each(|(address, _)| {
        let gateway = lease.gateways.iter().find(|one| one.is_ipv4() == address.is_ipv4());
        unless_there(netlink.add_default_route(index, address, gateway.copied(), metric))
    })
}
