use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use task::{Fault, Kind};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when a network is made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step.
    #[error("{action} {subject}")]
    System {
        /// What was done.
        action: &'static str,
        /// To what.
        subject: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A port that cannot be meant.
    #[error("reading port {port:?}: {reason}")]
    Port {
        /// As given.
        port: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A port of this machine that cannot be had.
    #[error("publishing at port {port}")]
    Taken {
        /// Address, port and protocol.
        port: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The processes that held the network of a running container were killed.
    #[error("the process that holds the network of the container was killed")]
    NotHeld,
    /// The kernel has neither a tun nor a veth device.
    #[error("making a network device for the uplink")]
    NoDevice {
        /// What the kernel said about the veth pair, which was tried last.
        source: io::Error,
    },
    /// The kernel cannot carry a network.
    #[error("carrying network {network} by the kernel")]
    Kernel {
        /// The network.
        network: String,
        /// Why not.
        source: io::Error,
    },
    /// Containers cannot be on the wire of a device of this machine.
    #[error("putting containers on device {parent} by {driver}")]
    Lan {
        /// The driver.
        driver: &'static str,
        /// The device.
        parent: String,
        /// Why not.
        source: io::Error,
    },
    /// A plugin of a network of CNI failed.
    #[error("network {network}: calling plugin {plugin} for {command}: {reason}")]
    Plugin {
        /// The network.
        network: String,
        /// The plugin.
        plugin: String,
        /// `ADD`, `CHECK` or `DEL`.
        command: &'static str,
        /// What it said.
        reason: String,
    },
    /// There is no such network.
    #[error("there is no network {name:?}")]
    NoNetwork {
        /// As asked for.
        name: String,
    },
    /// The name is that of a network.
    #[error("there is a network {name:?} already")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// A container is on the network.
    #[error("network {name} is used by container {by}")]
    NetworkInUse {
        /// The network.
        name: String,
        /// A container.
        by: String,
    },
    /// What is asked of a network makes no sense.
    #[error("network {name}: {reason}")]
    InvalidNetwork {
        /// The network.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An address of a new network is in none of its subnets.
    #[error("{what} is in no subnet")]
    NoSubnet {
        /// The address.
        what: String,
    },
    /// Two networks would have the same addresses.
    #[error("subnet {subnet} overlaps that of network {other}")]
    Overlap {
        /// What was asked for.
        subnet: IpNet,
        /// The other network.
        other: String,
    },
    /// The address is in use.
    #[error("address {address} of network {network} is that of {by}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// Who has it.
        by: String,
    },
    /// No container can have the address.
    #[error("address {address} is not in subnet {subnet}, or not for containers")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// What there is.
        subnet: IpNet,
    },
    /// All addresses are taken.
    #[error("network {network} has no free address")]
    NetworkFull {
        /// The network.
        network: String,
    },
    /// The document of a network could not be read.
    #[error("reading {}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What another process of ours met with.
    #[error("{text}")]
    Elsewhere {
        /// What it said.
        text: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl Error {
    pub(crate) fn system(
        action: &'static str,
        subject: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Error {
        let subject = subject.into();
        move |source| Error::System { action, subject, source }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Port { .. } => Kind::Invalid,
            Error::Taken { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::Denied
            }
            Error::Taken { .. } => Kind::Refused,
            Error::Lan { source, .. } if source.raw_os_error() == Some(libc::EPERM) => Kind::Denied,
            Error::System { .. }
            | Error::NoDevice { .. }
            | Error::Kernel { .. }
            | Error::Plugin { .. }
            | Error::NotHeld
            | Error::Lan { .. } => Kind::System,
            Error::NoNetwork { .. } => Kind::NotFound,
            Error::InvalidNetwork { .. }
            | Error::NoSubnet { .. }
            | Error::AddressOutside { .. }
            | Error::Document { .. } => Kind::Invalid,
            Error::NetworkExists { .. }
            | Error::NetworkInUse { .. }
            | Error::Overlap { .. }
            | Error::AddressTaken { .. }
            | Error::NetworkFull { .. }
            | Error::Elsewhere { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::NotHeld => Some("restart the container".to_owned()),
            Error::NoDevice { .. } => Some(
                "the kernel needs module tun (and an accessible /dev/net/tun) or veth".to_owned(),
            ),
            Error::Taken { source, .. } => match source.raw_os_error() {
                Some(libc::EADDRINUSE) => Some(
                    "another program listens there (`ss -lntup` names it); choose another port, or none for any"
                        .to_owned(),
                ),
                Some(libc::EACCES) => Some(
                    "an ordinary user has ports from net.ipv4.ip_unprivileged_port_start on (1024)"
                        .to_owned(),
                ),
                Some(libc::EADDRNOTAVAIL) => Some("this machine does not have the address".to_owned()),
                _ => None,
            },
            Error::Lan { driver, source, .. } => match source.raw_os_error() {
                Some(libc::EPERM) => Some(
                    "it needs root; an ordinary user has networks of the driver bridge".to_owned(),
                ),
                Some(libc::ENODEV) => Some("`ip link` lists the devices".to_owned()),
                Some(libc::EOPNOTSUPP) => {
                    Some(format!("load the module of the kernel: `modprobe {driver}`"))
                }
                Some(libc::EBUSY) => Some(
                    "a device carries macvlan or ipvlan, not both, and is not part of a bridge"
                        .to_owned(),
                ),
                _ => None,
            },
            Error::Kernel { .. } => Some(
                "it needs root, nftables, bridge and veth (Linux 5.12); without option carrier=kernel \
                 a process carries the network where the kernel cannot"
                    .to_owned(),
            ),
            Error::NoSubnet { .. } => Some("name its subnet too".to_owned()),
            Error::Overlap { .. } => {
                Some("choose another subnet, or name none for a free one".to_owned())
            }
            Error::AddressTaken { .. } => {
                Some("choose another address, or name none for a free one".to_owned())
            }
            Error::NetworkFull { .. } => {
                Some("make a network with a larger subnet or address range".to_owned())
            }
            Error::Elsewhere { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

/// An error as it is sent to the process that made the request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireError {
    Taken { port: String, errno: i32 },
    NoDevice { errno: i32 },
    System { subject: String, errno: i32 },
    NoNetwork { name: String },
    Said { text: String, hint: Option<String> },
}

impl WireError {
    /// An error in words, with what the kernel said.
    pub(crate) fn said(error: &Error) -> WireError {
        let source = std::error::Error::source(error);
        let source = source.map(|source| format!(": {source}")).unwrap_or_default();
        WireError::Said { text: format!("{error}{source}"), hint: error.hint() }
    }
}

impl From<WireError> for Error {
    fn from(failed: WireError) -> Self {
        let error = io::Error::from_raw_os_error;
        match failed {
            WireError::Taken { port, errno } => Error::Taken { port, source: error(errno) },
            WireError::NoDevice { errno } => Error::NoDevice { source: error(errno) },
            WireError::System { subject, errno } => {
                Error::System { action: "connecting:", subject, source: error(errno) }
            }
            WireError::NoNetwork { name } => Error::NoNetwork { name },
            WireError::Said { text, hint } => Error::Elsewhere { text, hint },
        }
    }
}

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        let number = |source: &io::Error| source.raw_os_error().unwrap_or(libc::EIO);
        match error {
            Error::Taken { port, source } => WireError::Taken { port, errno: number(&source) },
            Error::NoDevice { source } => WireError::NoDevice { errno: number(&source) },
            Error::System { action, subject, source } => {
                WireError::System { subject: format!("{action} {subject}"), errno: number(&source) }
            }
            Error::NoNetwork { name } => WireError::NoNetwork { name },
            other => WireError::said(&other),
        }
    }
}
