//! Telling a service manager that a container is ready (sd_notify).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use runtime::{ContainerSpec, Notify, State};

use crate::volume::bind;
use crate::{Container, Error, Result};

/// Where a program finds the socket.
const INSIDE: &str = "/run/notify.sock";
/// Where the address is kept until the container is healthy.
const ADDRESS: &str = "notify";

/// Gives the socket to the program that is to tell itself.
///
/// # Errors
/// The address is an abstract one, which cannot be mounted.
pub(crate) fn prepare(spec: &mut ContainerSpec, address: Option<&str>) -> Result<()> {
    let Some(address) = address.filter(|_| spec.lifecycle.notify == Notify::Container) else {
        return Ok(());
    };
    if !address.starts_with('/') {
        return Err(Error::Unsupported {
            what: "passing the notify socket on",
            reason: format!(
                "{address} is not a path; the monitor can tell in place of the program"
            ),
        });
    }
    spec.files.mounts.push(bind(address.into(), INSIDE.into(), false));
    spec.process.env.push(format!("NOTIFY_SOCKET={INSIDE}"));
    Ok(())
}

/// Tells that a container was started, as it was asked for.
///
/// # Errors
/// [`Error::File`] where the socket cannot be reached.
pub(crate) fn started(container: &Container, state: &State, address: Option<&str>) -> Result<()> {
    let Some(address) = address else { return Ok(()) };
    let main = format!("MAINPID={}", state.monitor);
    match container.record().spec.lifecycle.notify {
        Notify::Ignore => Ok(()),
        Notify::Container => send(address, &main),
        Notify::Conmon => send(address, &format!("{main}\nREADY=1")),
        Notify::Healthy => {
            let kept = container.directory().join(ADDRESS);
            std::fs::write(&kept, address).map_err(Error::file("writing", &kept))?;
            send(address, &main)
        }
    }
}

/// Tells that a container is healthy, where somebody waits for it.
pub(crate) fn healthy(container: &Container) {
    let kept = container.directory().join(ADDRESS);
    if let Ok(address) = std::fs::read_to_string(&kept)
        && let Err(error) = send(&address, "READY=1")
    {
        tracing::debug!(%error, "sending the healthy message failed");
    }
    let _ = std::fs::remove_file(kept);
}

fn send(address: &str, text: &str) -> Result<()> {
    let send = || {
        let socket = UnixDatagram::unbound()?;
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        socket.send_to_addr(text.as_bytes(), &address)
    };
    send().map(drop).map_err(Error::file("writing to", Path::new(address)))
}
