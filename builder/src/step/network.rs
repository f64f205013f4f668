//! The network of a command: none, the machine's, or one of its own with a way out.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use network::{Enclosure, Uplink, UplinkOptions, resolvers};
use recorder::{Recorder, Session};
use runtime::Network;

use super::recorded::PORT;
use super::room::Surroundings;

use crate::error::During;
use crate::plan::{RunOp, Step};
use crate::{Env, Error, Result};

/// Which network the runtime is to give the command.
pub(super) fn mode(op: &RunOp) -> Network {
    match op.network.as_str() {
        "none" => Network::None,
        "host" => Network::Host,
        _ => Network::Private,
    }
}

/// The network of a command besides the machine's, and the way out of it.
pub(super) enum Way {
    /// No way out; the runtime makes the network.
    Nowhere,
    /// Everywhere.
    Uplink(Uplink),
    /// To a recorder.
    Recorder {
        /// The network.
        enclosure: Enclosure,
        /// Its only other member.
        session: Session,
    },
}

impl Way {
    /// The network for the command to join.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Way::Nowhere => None,
            Way::Uplink(uplink) => Some(uplink.path()),
            Way::Recorder { enclosure, .. } => Some(enclosure.path()),
        }
    }
}

/// The way out of a command, in the making.
pub(super) enum Beginning {
    Made(Way),
    Making(JoinHandle<Result<Uplink, network::Error>>),
}

impl Beginning {
    /// Waits for it.
    pub(super) fn join(self) -> Result<Way> {
        let thread = match self {
            Beginning::Made(way) => return Ok(way),
            Beginning::Making(thread) => thread,
        };
        let uplink =
            thread.join().map_err(|_| Error::internal("the thread of a network does not panic"))?;
        uplink.during("connecting the command with the network").map(Way::Uplink)
    }
}

/// A network that leads to the recorder alone.
fn enclosed(recorder: &Arc<Recorder>, step: &Step) -> Result<Way> {
    let (enclosure, listener) =
        Enclosure::listening(PORT).during("making the network of the command")?;
    // Steps run on threads of the runtime that may block.
    let runtime = tokio::runtime::Handle::current();
    let session = Session::start(recorder, &step.instruction, listener, &runtime)
        .during("starting the recorder")?;
    Ok(Way::Recorder { enclosure, session })
}

/// Starts the uplink of a command with a network of its own, while its files are prepared. The
/// machine's loopback services are reachable if a name for the machine was requested.
pub(super) fn begin(
    op: &RunOp,
    with: &Surroundings<'_>,
    hosts: &[(String, IpAddr)],
) -> Result<Beginning> {
    if mode(op) != Network::Private {
        return Ok(Beginning::Made(Way::Nowhere));
    }
    if let Some(recorder) = with.recorder {
        return enclosed(recorder, with.step).map(Beginning::Made);
    }
    let machine = std::fs::read(&with.env.resolv_conf).unwrap_or_default();
    let loopback = hosts.iter().any(|(_, address)| *address == Uplink::MACHINE);
    let options =
        UplinkOptions { resolvers: resolvers(&machine), loopback, ..UplinkOptions::default() };
    let thread = std::thread::Builder::new().name("network".to_owned());
    let thread = thread.spawn(move || Uplink::start(&options));
    thread.map(Beginning::Making).map_err(Error::file("starting", "a thread"))
}

/// The machine's `resolv.conf` as the command is to see it.
pub(super) fn resolv_conf(op: &RunOp, env: &Env) -> Vec<u8> {
    let machine = std::fs::read(&env.resolv_conf).unwrap_or_default();
    match mode(op) {
        Network::Private => resolvers(&machine).behind_uplink(&machine),
        _ => machine,
    }
}
