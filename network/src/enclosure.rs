//! A network namespace without a way out.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use crate::netlink::Netlink;
use crate::{Error, Result, namespace};

/// The index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// A network namespace that has only its loopback. What is inside reaches what this process listens
/// at there, and nothing else.
#[derive(Debug)]
pub struct Enclosure {
    namespace: OwnedFd,
}

impl Enclosure {
    /// Makes one, and listens at a port of its loopback.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn listening(port: u16) -> Result<(Enclosure, TcpListener)> {
        let (namespace, listener) = namespace::made(|| {
            Netlink::open()
                .and_then(|mut netlink| netlink.up(LOOPBACK, Default::default(), Vec::new()))
                .map_err(Error::system("bringing up", "the loopback"))?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .map_err(Error::system("listening on", "the loopback"))
        })?;
        Ok((Enclosure { namespace }, listener))
    }

    /// The namespace as a path, for a container to join while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }
}
