//! A way out for a network namespace that needs nothing of the machine: a TCP/IP stack of our own.
//!
//! The container has one device. A thread of this process reads what it sends and opens ordinary
//! sockets of the machine. The machine's loopback addresses are not reachable unless the caller
//! asks for that.

mod engine;
mod link;
mod listeners;
mod outgoing;
mod packet;
mod policy;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use serde::{Deserialize, Serialize};

use engine::{Command, Endpoint, Engine};
pub(crate) use engine::{NameService, Reach};
pub(crate) use link::{Device, Link, MTU};
pub(crate) use policy::Policy;
use policy::{INSIDE_4, INSIDE_6, MACHINE_4};

use crate::netlink::{Netlink, unless_there};
use crate::ports::Taker;
use crate::{Error, Port, PublishedPort, Resolvers, Result, names, namespace, sys};

/// The only container of an uplink.
const ALONE: u64 = 1;

/// What an uplink lets through.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UplinkOptions {
    /// Who answers questions about names.
    pub resolvers: Resolvers,
    /// Whether the loopback services of this machine can be reached, at [`Uplink::MACHINE`].
    pub loopback: bool,
    /// Ports of the container that are reached from outside.
    pub ports: Vec<Port>,
    /// Where named networks are and the container's id: it finds those who are on one with it.
    pub neighbours: Option<(PathBuf, String)>,
}

/// A network of containers: what they send each other, what they send out, and what comes to
/// their published ports. A thread of this process carries it, until this value ends.
#[derive(Debug)]
pub(crate) struct Switch {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Switch {
    /// Begins to carry a network, whose packets have at most `mtu` bytes.
    ///
    /// # Errors
    /// [`Error::System`]
    pub(crate) fn start(policy: Policy, mtu: usize, names: Option<NameService>) -> Result<Switch> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags)
            .map_err(|errno| Error::system("making", "an eventfd")(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, theirs) = channel();
        let engine = Engine::new((policy, mtu), names, (theirs, Arc::clone(&wake)));
        let engine = engine.map_err(Error::system("starting", "the uplink"))?;
        let thread = std::thread::Builder::new().name("uplink".to_owned());
        let thread = thread.spawn(move || engine.run());
        // It ends by itself once it is stopped; no caller needs to wait for that.
        drop(thread.map_err(Error::system("starting", "a thread for the uplink"))?);
        Ok(Switch { commands, wake })
    }

    /// Takes a container with these addresses in, one of each kind, and publishes its ports. No
    /// two containers have the same number.
    pub(crate) fn attach(
        &self,
        id: u64,
        link: Link,
        (four, six): (IpAddr, Option<IpAddr>),
        reach: Reach,
        doors: Vec<(Taker, u16)>,
    ) {
        let addresses = std::iter::once(four).chain(six).collect();
        let own = [four, six.unwrap_or(four)];
        let endpoint = Endpoint { addresses, reach, ipv6: six.is_some(), own };
        self.command(Command::Attach(id, link, endpoint, doors));
    }

    /// Takes it out again.
    pub(crate) fn detach(&self, id: u64) {
        self.command(Command::Detach(id));
    }

    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        // An eventfd takes this at any time.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.command(Command::Stop);
    }
}

/// A network namespace and its way out; both end with this value.
#[derive(Debug)]
pub struct Uplink {
    namespace: OwnedFd,
    _switch: Switch,
    published: Vec<PublishedPort>,
}

impl Uplink {
    /// The address of this machine, as seen through an uplink.
    pub const MACHINE: IpAddr = MACHINE_4;

    /// Makes the namespace and begins to serve it. Needs `CAP_SYS_ADMIN` in the user namespace of
    /// this process, nothing beyond.
    ///
    /// # Errors
    /// [`Error::System`], [`Error::NoDevice`].
    pub fn start(options: &UplinkOptions) -> Result<Uplink> {
        Uplink::start_in(None, options)
    }

    /// As [`Uplink::start`], in the namespace of an uplink whose process was killed.
    pub(crate) fn start_in(given: Option<OwnedFd>, options: &UplinkOptions) -> Result<Uplink> {
        let takers = options.ports.iter().map(Port::take).collect::<Result<Vec<_>>>()?;
        let ipv6 = has_ipv6();
        let addresses = [INSIDE_4, INSIDE_6];
        let addresses = if ipv6 { &addresses[..] } else { &addresses[..1] };
        let (namespace, link) = match given {
            None => namespace::made(|| private(addresses))?,
            Some(given) => {
                let link = namespace::entered(&given, || private(addresses))?;
                (given, link)
            }
        };
        let names = options.neighbours.clone().map(|(networks, container)| -> NameService {
            Box::new(move |_, question| {
                let neighbours = || names::neighbours(&networks, &container, &[]);
                names::answer(question, false, neighbours)
            })
        });
        let switch = Switch::start(Policy::private(options.resolvers.clone()), MTU, names)?;
        let mut published = Vec::new();
        let doors = takers.into_iter().map(|(taker, port)| {
            let container = port.container;
            published.push(port);
            (taker, container)
        });
        let (doors, endpoint) = (doors.collect(), Endpoint::alone(options.loopback, ipv6));
        switch.command(Command::Attach(ALONE, link, endpoint, doors));
        Ok(Uplink { namespace, _switch: switch, published })
    }

    /// Whether a container with an uplink of its own reaches an address.
    pub fn reaches(address: IpAddr) -> bool {
        let policy = Policy::private(Resolvers::default());
        let elsewhere = policy.target((address, 1).into(), false);
        elsewhere.is_some_and(|target| target.ip() == address)
    }

    /// Where on this machine the container's ports are.
    pub fn published(&self) -> &[PublishedPort] {
        &self.published
    }

    /// The namespace as a path, for a container to join while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }
}

/// The device of a container that is alone, in the network namespace of this thread.
fn private(addresses: &[(IpAddr, u8)]) -> Result<Link> {
    let device = Device { name: link::NAME, addresses, mtu: MTU, mac: None };
    let link = Link::make(&device)?;
    let route = || -> io::Result<()> {
        let (mut netlink, index) = (Netlink::open()?, sys::interface_index(link::NAME)?);
        let mut each = addresses.iter();
        each.try_for_each(|(address, _)| {
            unless_there(netlink.add_default_route(index, *address, None, 0))
        })
    };
    route().map_err(Error::system("adding a route to", link::NAME))?;
    Ok(link)
}

/// Whether the machine has a way to the addresses of IPv6. Nothing is sent.
fn has_ipv6() -> bool {
    UdpSocket::bind("[::]:0").and_then(|socket| socket.connect("[2000::1]:53")).is_ok()
}
