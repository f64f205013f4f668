//! A way out for a network namespace that needs nothing of the machine: a TCP/IP stack of our own.
//!
//! The container has one device. A thread of this process reads what it sends and opens ordinary
//! sockets of the machine. The machine's loopback addresses are not reachable unless the caller
//! asks for that.

mod engine;
mod link;
mod packet;
mod policy;
mod tcp;
mod udp;

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use engine::Engine;
use link::Link;
use policy::{INSIDE_4, INSIDE_6, MACHINE_4, Policy};

use crate::{Error, Port, Published, Resolvers, Result, namespace};

/// What an uplink lets through.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UplinkOptions {
    /// Who answers questions about names.
    pub resolvers: Resolvers,
    /// Whether the loopback services of this machine can be reached, at [`Uplink::MACHINE`].
    pub loopback: bool,
    /// Ports of the container that are reached from outside.
    pub ports: Vec<Port>,
}

/// A network namespace and its way out; both end with this value.
#[derive(Debug)]
pub struct Uplink {
    namespace: OwnedFd,
    stop: OwnedFd,
    published: Vec<Published>,
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
        let takers = options.ports.iter().map(Port::take).collect::<Result<Vec<_>>>()?;
        let ipv6 = has_ipv6();
        let addresses = [INSIDE_4, INSIDE_6];
        let addresses = if ipv6 { &addresses[..] } else { &addresses[..1] };
        let (namespace, link) = namespace::made(|| Link::make(addresses))?;
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags)
            .map_err(|errno| Error::system("making", "an eventfd")(errno.into()))?;
        let theirs = stop.try_clone().map_err(Error::system("copying", "an eventfd"))?;
        let policy = Policy { resolvers: options.resolvers.clone(), loopback: options.loopback };
        let engine = Engine::new(link, policy, theirs);
        let mut engine = engine.map_err(Error::system("starting", "the uplink"))?;
        let mut published = Vec::new();
        let doors = takers.into_iter().map(|(taker, port)| {
            let container = port.container;
            published.push(port);
            (taker, container)
        });
        let doors = doors.collect();
        engine.publish(doors, ipv6).map_err(Error::system("waiting for", "published ports"))?;
        let thread = std::thread::Builder::new().name("uplink".to_owned());
        let thread = thread.spawn(move || engine.run());
        // It ends by itself once it is told to; nobody needs to wait for that.
        drop(thread.map_err(Error::system("starting", "a thread for the uplink"))?);
        Ok(Uplink { namespace, stop, published })
    }

    /// Where on this machine the container's ports are.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// The namespace as a path, for a container to join while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        // An eventfd takes this at any time.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

/// Whether the machine has a way to the addresses of IPv6. Nothing is sent.
fn has_ipv6() -> bool {
    UdpSocket::bind("[::]:0").and_then(|socket| socket.connect("[2000::1]:53")).is_ok()
}
