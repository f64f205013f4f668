//! Networks of containers: namespaces, addresses, names, ports, and the way out.
//!
//! Knows nothing about images, stores or containers: callers say what to connect. An [`Uplink`] is
//! a network namespace whose only way out is a TCP/IP stack in this process. It needs no privilege
//! outside the user namespace of the caller and changes nothing on the machine.

mod error;
mod holder;
mod namespace;
mod netlink;
mod ports;
mod resolvers;
mod sys;
mod uplink;

pub use error::{Error, Result};
pub use holder::{Held, init};
pub use ports::{Port, Protocol, Published, exposed, ports};
pub use resolvers::{Resolvers, resolvers};
pub use uplink::{Uplink, UplinkOptions};
