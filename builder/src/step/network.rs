//! The network of a command: none, the machine's, or one of its own with a way out.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use network::{
    Attachment, CniDirectories, ContainerNetwork, Enclosure, HeldOptions, Lease, LeaseRequest,
    Networks, Uplink, UplinkOptions, resolvers,
};
use recorder::{Recorder, Session};
use runtime::{Join, MachineFiles, Membership, Network, NetworkSpec};

use super::recorded::PORT;
use super::sandbox::Surroundings;

use crate::error::ErrorContext;
use crate::plan::{RunOp, Step};
use crate::{Error, Result};

/// What failed where a network cannot be had.
const CONNECTING: &str = "connecting the command with the network";

/// Which network the runtime is to give the command.
pub(super) fn mode(op: &RunOp) -> Network {
    match op.network.as_str() {
        "none" => Network::None,
        "host" => Network::Host,
        _ => Network::Private,
    }
}

/// The network of a command, other than the machine's, and its way out.
pub(super) enum StepNetwork {
    /// No way out; the runtime makes the network.
    Nowhere,
    /// Everywhere.
    Uplink(Uplink),
    /// What named networks reach.
    Named(ContainerNetwork),
    /// To a recorder.
    Recorder {
        /// The network.
        enclosure: Enclosure,
        /// Its only other member.
        session: Session,
    },
    /// Whatever the network namespace at this path reaches.
    Other(PathBuf),
}

impl StepNetwork {
    /// The network for the command to join.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            StepNetwork::Nowhere => None,
            StepNetwork::Uplink(uplink) => Some(uplink.path()),
            StepNetwork::Named(held) => Some(held.path()),
            StepNetwork::Recorder { enclosure, .. } => Some(enclosure.path()),
            StepNetwork::Other(path) => Some(path.clone()),
        }
    }
}

/// The network of a command, ready or being set up.
pub(super) enum PendingNetwork {
    Made(StepNetwork),
    Making(JoinHandle<Result<Uplink, network::Error>>),
}

impl PendingNetwork {
    /// What the command has on named networks.
    pub(super) fn leases(&self) -> &[Lease] {
        match self {
            PendingNetwork::Made(StepNetwork::Named(held)) => held.leases(),
            _ => &[],
        }
    }

    /// Waits for it.
    pub(super) fn join(self) -> Result<StepNetwork> {
        let thread = match self {
            PendingNetwork::Made(way) => return Ok(way),
            PendingNetwork::Making(thread) => thread,
        };
        let uplink =
            thread.join().map_err(|_| Error::internal("the thread of a network does not panic"))?;
        uplink.during(CONNECTING).map(StepNetwork::Uplink)
    }
}

/// A network that leads to the recorder alone.
fn enclosed(recorder: &Arc<Recorder>, step: &Step) -> Result<StepNetwork> {
    let (enclosure, listener) =
        Enclosure::listening(PORT).during("making the network of the command")?;
    // Steps run on threads of the runtime that may block.
    let runtime = tokio::runtime::Handle::current();
    let session = Session::start(recorder, &step.instruction, listener, &runtime)
        .during("starting the recorder")?;
    Ok(StepNetwork::Recorder { enclosure, session })
}

/// Puts the command on named networks, and gives it an uplink of its own if it is to have that too.
fn named(
    wanted: &NetworkSpec,
    with: &Surroundings<'_>,
    uplink: UplinkOptions,
) -> Result<ContainerNetwork, network::Error> {
    let networks = Networks::beside(with.env.store.path());
    let (id, servers) = (task::random_id(), &wanted.dns.servers);
    let attachment = |one: &Membership| -> Result<Attachment, network::Error> {
        let (place, privileges) = (one.configurations.as_deref(), !with.env.user_namespace);
        let cni = CniDirectories::of(&one.network, place, &one.plugins, privileges)?;
        Ok(Attachment {
            network: match cni {
                Some(_) => one.network.clone(),
                None => networks.get(&one.network)?.name,
            },
            wanted: LeaseRequest {
                container: id.clone(),
                name: id[..12].to_owned(),
                aliases: one.aliases.clone(),
                servers: servers.clone(),
                ..LeaseRequest::default()
            },
            interface: one.interface.clone(),
            ports: Vec::new(),
            loopback: uplink.loopback,
            cni,
        })
    };
    let named = wanted.networks.iter().filter(|one| one.network != Membership::PRIVATE);
    let options = HeldOptions {
        attachments: named.map(attachment).collect::<Result<_, _>>()?,
        networks: networks.directory().to_owned(),
        resolvers: uplink.resolvers.clone(),
        uplink: wanted.networks.iter().any(|one| one.network == Membership::PRIVATE).then(|| {
            UplinkOptions {
                neighbours: Some((networks.directory().to_owned(), id.clone())),
                ..uplink
            }
        }),
        ..HeldOptions::default()
    };
    ContainerNetwork::start(&options)
}

/// Starts the network of a command with one of its own, while its files are prepared. The machine's
/// loopback services are reachable if a name for the machine was requested.
pub(super) fn begin(
    op: &RunOp,
    with: &Surroundings<'_>,
    wanted: &NetworkSpec,
) -> Result<PendingNetwork> {
    if mode(op) != Network::Private {
        return Ok(PendingNetwork::Made(StepNetwork::Nowhere));
    }
    if let Some(recorder) = with.recorder {
        return enclosed(recorder, with.step).map(PendingNetwork::Made);
    }
    if let Some(Join::Path(path)) = &wanted.join {
        return Ok(PendingNetwork::Made(StepNetwork::Other(path.clone())));
    }
    let machine = std::fs::read(&with.env.resolv_conf).unwrap_or_default();
    let loopback = wanted.hosts.iter().any(|(_, address)| *address == Uplink::MACHINE);
    let options =
        UplinkOptions { resolvers: resolvers(&machine), loopback, ..UplinkOptions::default() };
    if !wanted.networks.is_empty() {
        let held = named(wanted, with, options).during(CONNECTING)?;
        return Ok(PendingNetwork::Made(StepNetwork::Named(held)));
    }
    let thread = std::thread::Builder::new().name("network".to_owned());
    let thread = thread.spawn(move || Uplink::start(&options));
    thread.map(PendingNetwork::Making).map_err(Error::file("starting", "a thread"))
}

/// Hosts, hostname and `resolv.conf` as the command is to see them.
pub(super) fn files(
    op: &RunOp,
    with: &Surroundings<'_>,
    leases: &[Lease],
) -> runtime::NetworkFiles {
    let run = &with.request.run;
    let mut wanted = run.base.network.clone();
    let machine = std::fs::read(&with.env.resolv_conf).unwrap_or_default();
    let uplink = wanted.networks.iter().any(|one| one.network == Membership::PRIVATE);
    let there = network::resolv_conf_on(&machine, &wanted.dns.servers, leases);
    let resolv_conf = match (mode(op), there.filter(|_| !uplink)) {
        (Network::Private, Some(there)) => {
            if there.asks {
                wanted.dns.servers.clear();
            }
            there.text
        }
        (Network::Private, None) => resolvers(&machine).behind_uplink(&machine),
        _ => machine,
    };
    let machine = MachineFiles { hosts: "", resolv_conf: &resolv_conf };
    wanted.files(machine, run.hostname(), &[])
}
