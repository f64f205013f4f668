use std::io;

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
    /// The kernel has neither a tun nor a veth device.
    #[error("making a network device for the uplink")]
    NoDevice {
        /// What the kernel said about the veth pair, which was tried last.
        source: io::Error,
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
            Error::System { .. } | Error::NoDevice { .. } => Kind::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
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
            Error::System { .. } | Error::Port { .. } => None,
        }
    }
}
