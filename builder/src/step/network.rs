//! The network of a command: none, the machine's, or one of its own with a way out.

use std::net::IpAddr;
use std::thread::JoinHandle;

use network::{Uplink, UplinkOptions, resolvers};
use runtime::Network;

use crate::error::During;
use crate::plan::RunOp;
use crate::{Env, Error, Result};

/// Which network the runtime is to give the command.
pub(super) fn mode(op: &RunOp) -> Network {
    match op.network.as_str() {
        "none" => Network::None,
        "host" => Network::Host,
        _ => Network::Private,
    }
}

/// The way out of a command, in the making.
pub(super) struct Beginning(Option<JoinHandle<Result<Uplink, network::Error>>>);

impl Beginning {
    /// Waits for it.
    pub(super) fn join(self) -> Result<Option<Uplink>> {
        let Some(thread) = self.0 else { return Ok(None) };
        let uplink =
            thread.join().map_err(|_| Error::internal("the thread of a network does not panic"))?;
        uplink.during("connecting the command with the network").map(Some)
    }
}

/// Starts the uplink of a command with a network of its own, while its files are prepared. The
/// machine's loopback services are reachable if a name for the machine was requested.
pub(super) fn begin(op: &RunOp, env: &Env, hosts: &[(String, IpAddr)]) -> Result<Beginning> {
    if mode(op) != Network::Private {
        return Ok(Beginning(None));
    }
    let machine = std::fs::read(&env.resolv_conf).unwrap_or_default();
    let loopback = hosts.iter().any(|(_, address)| *address == Uplink::MACHINE);
    let options =
        UplinkOptions { resolvers: resolvers(&machine), loopback, ..UplinkOptions::default() };
    let thread = std::thread::Builder::new().name("network".to_owned());
    let thread = thread.spawn(move || Uplink::start(&options));
    thread.map(|thread| Beginning(Some(thread))).map_err(Error::file("starting", "a thread"))
}

/// The machine's `resolv.conf` as the command is to see it.
pub(super) fn resolv_conf(op: &RunOp, env: &Env) -> Vec<u8> {
    let machine = std::fs::read(&env.resolv_conf).unwrap_or_default();
    match mode(op) {
        Network::Private => resolvers(&machine).behind_uplink(&machine),
        _ => machine,
    }
}
