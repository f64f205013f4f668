//! Networks of containers: namespaces, addresses, names, ports, and the way out.
//!
//! Knows nothing about images, stores or containers: callers say what to connect. An [`Uplink`] is
//! a network namespace whose only way out is a TCP/IP stack in this process. It needs no privilege
//! outside the user namespace of the caller and changes nothing on the machine.

mod client;
mod definition;
mod enclosure;
mod error;
mod holder;
mod lease;
mod names;
mod namespace;
mod netlink;
mod ports;
mod resolvers;
mod server;
mod sys;
mod uplink;
mod wire;

pub use client::Attachment;
pub use definition::{BRIDGE, NamedNetwork, Networks, NewNetwork, NewSubnet, Subnet};
pub use enclosure::Enclosure;
pub use error::{Error, Result};
pub use holder::{Held, HeldOptions, connect, disconnect, init, reload, rename};
pub use ipnet::IpNet;
pub use lease::{Lease, LeaseRequest};
pub use ports::{Port, Protocol, Published, exposed, ports};
pub use resolvers::{Resolvers, resolvers};
pub use uplink::{Uplink, UplinkOptions};
