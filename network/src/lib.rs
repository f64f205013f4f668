//! Networks of containers: namespaces, addresses, names, ports, and the way out.
//!
//! Knows nothing about images, stores or containers: callers say what to connect. An [`Uplink`] is
//! a network namespace whose only way out is a TCP/IP stack in this process. It needs no privilege
//! outside the user namespace of the caller and changes nothing on the machine.
//!
//! What is published, and which networks there are, is read without any namespace:
//!
//! ```
//! use network::{NewNetwork, Networks};
//!
//! let ports = network::ports("127.0.0.1:8080-8081:80-81/tcp")?;
//! assert_eq!((ports.len(), ports[1].machine, ports[1].container), (2, (8081, 8081), 81));
//!
//! let place = tempfile::tempdir()?;
//! let networks = Networks::new(place.path().to_owned());
//! let new = NewNetwork { name: "web".to_owned(), ..NewNetwork::default() };
//! let made = networks.create(&new, 0)?;
//! assert_eq!(networks.get("web")?.id, made.id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bridge;
mod carrier;
mod client;
mod cni;
mod definition;
mod devices;
mod driver;
mod enclosure;
mod error;
mod guard;
mod holder;
mod kernel;
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
pub use cni::{CNI, CniDirectories, leases as cni_leases, sweep as sweep_cni};
pub use definition::{BRIDGE, NamedNetwork, Networks, NewNetwork, NewSubnet, Subnet};
pub use devices::move_device;
pub use driver::Driver;
pub use enclosure::Enclosure;
pub use error::{Error, Result};
pub use holder::{ContainerNetwork, HeldOptions, connect, disconnect, init, reload, rename};
pub use ipnet::IpNet;
pub use kernel::try_wire;
pub use lease::{Lease, LeaseRequest};
pub use ports::{Port, Protocol, PublishedPort, exposed, ports};
pub use resolvers::{ResolvConf, Resolvers, resolv_conf_on, resolvers};
pub use uplink::{Uplink, UplinkOptions};
