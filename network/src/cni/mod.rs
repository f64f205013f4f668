//! Networks in the format of CNI: programs that others have configured connect a container, and take
//! it off again.
//!
//! The process that holds the network of a container calls them. What it has done is written down
//! before, so that it is undone whatever is killed.

mod call;
mod config;
mod outcome;
mod record;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use call::PluginCall;
use config::Configuration;
use outcome::Addresses;
use record::{AddResult, CniRecord};

use crate::lease::{Lease, LeaseRequest};
use crate::ports::{Port, PublishedPort, Taker};
use crate::{Error, Result};

pub use record::leases;

/// What the names of networks in the format of CNI begin with.
pub const CNI: &str = "cni:";

/// Where the configurations of networks are, and the plugins that they name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniDirectories {
    /// Files with configurations.
    pub configurations: PathBuf,
    /// Programs.
    pub plugins: Vec<PathBuf>,
}

impl CniDirectories {
    /// Where a network is found; `None` if it is not in the format of CNI.
    ///
    /// # Errors
    /// [`Error::InvalidNetwork`] without `privileges` on the network of this machine, which plugins
    /// change.
    pub fn of(
        network: &str,
        configurations: Option<&Path>,
        plugins: &[PathBuf],
        privileges: bool,
    ) -> Result<Option<CniDirectories>> {
        if !network.starts_with(CNI) {
            return Ok(None);
        }
        if !privileges {
            let reason = "its plugins change the network of this machine, which needs root";
            let (name, reason) = (network.to_owned(), reason.to_owned());
            return Err(Error::InvalidNetwork { name, reason });
        }
        let configurations = configurations.unwrap_or(Path::new("")).to_owned();
        Ok(Some(CniDirectories { configurations, plugins: plugins.to_vec() }))
    }
}

/// What a container wants of a network.
pub(crate) struct CniRequest<'a> {
    /// The network's name.
    pub(crate) name: &'a str,
    pub(crate) directories: &'a CniDirectories,
    pub(crate) wanted: &'a LeaseRequest,
    pub(crate) ports: &'a [Port],
    /// What the container calls its device.
    pub(crate) interface: &'a str,
}

/// A container on a network; it is taken off when this ends.
#[derive(Debug)]
pub(crate) struct CniAttachment {
    call: PluginCall,
    record: CniRecord,
    result: Value,
    namespace: String,
    /// What it has.
    pub(crate) lease: Lease,
    /// The sockets that keep its ports from others.
    _takers: Vec<Taker>,
}

impl CniAttachment {
    /// Adds the container of the namespace at a path.
    ///
    /// # Errors
    /// [`Error::InvalidNetwork`], [`Error::Plugin`]; [`Error::Taken`] for a port.
    pub(crate) fn add(
        networks: &Path,
        wish: &CniRequest<'_>,
        namespace: &Path,
    ) -> Result<CniAttachment> {
        record::wait(networks, &wish.wanted.container);
        let (call, takers, published) = prepare(wish)?;
        let namespace = namespace.display().to_string();
        let record = CniRecord::new(networks, &call);
        let record = record.map_err(Error::system("writing the record of", &wish.wanted.name))?;
        let added = call.add(&namespace).and_then(|result| {
            let lease = lease(wish, &result, published)?;
            Ok(AddResult { result, lease })
        });
        let noted = added.and_then(|added| {
            let noted = record.added(&added);
            noted.map_err(Error::system("writing the record of", &wish.wanted.name))?;
            Ok(added)
        });
        match noted {
            Ok(AddResult { result, lease }) => {
                Ok(CniAttachment { call, record, result, namespace, lease, _takers: takers })
            }
            Err(error) => {
                undo(&call, &record, &namespace, None);
                Err(error)
            }
        }
    }

    /// What a killed process has left of a container that still runs.
    pub(crate) fn take_over(
        networks: &Path,
        wish: &CniRequest<'_>,
        namespace: &Path,
    ) -> Result<CniAttachment> {
        let lost = || Error::InvalidNetwork {
            name: format!("cni:{}", wish.name),
            reason: "the record of the container is lost".to_owned(),
        };
        let found = CniRecord::take(networks, &wish.wanted.container, wish.interface);
        let (record, call) = found.ok_or_else(lost)?;
        let AddResult { result, lease } = record.result().ok_or_else(lost)?;
        // Another one may have taken a port meanwhile, which does not concern the plugins.
        let takers = lease.published.iter().zip(wish.ports).filter_map(|(published, port)| {
            let machine = (published.machine.port(), published.machine.port());
            Port { machine, ..port.clone() }.take().ok()
        });
        let takers = takers.map(|(taker, _)| taker).collect();
        let namespace = namespace.display().to_string();
        Ok(CniAttachment { call, record, result, namespace, lease, _takers: takers })
    }

    /// What the container calls its device.
    pub(crate) fn interface(&self) -> &str {
        &self.call.interface
    }

    /// Whether the container is still as the plugins made it.
    ///
    /// # Errors
    /// [`Error::Plugin`]: what a plugin misses.
    pub(crate) fn check(&self) -> Result<()> {
        self.call.check(&self.namespace, &self.result)
    }
}

impl Drop for CniAttachment {
    fn drop(&mut self) {
        undo(&self.call, &self.record, &self.namespace, Some(&self.result));
    }
}

/// Takes a container off. What a plugin cannot do now is tried again by [`sweep`].
fn undo(call: &PluginCall, record: &CniRecord, namespace: &str, result: Option<&Value>) {
    match call.delete(namespace, result) {
        Ok(()) => record.remove(),
        Err(error) => tracing::warn!(%error, "a container is still known to a network"),
    }
}

/// Takes containers off networks of CNI whose processes were killed, but for those that still run. The
/// namespaces of the others are gone.
pub fn sweep(networks: &Path, running: &dyn Fn(&str) -> bool) {
    for (record, call) in record::left(networks) {
        if running(&call.container) {
            continue;
        }
        let result = record.result().map(|added| added.result);
        undo(&call, &record, "", result.as_ref());
    }
}

type PreparedCall = (PluginCall, Vec<Taker>, Vec<PublishedPort>);

/// Finds the network, and what its plugins are asked for.
fn prepare(wish: &CniRequest<'_>) -> Result<PreparedCall> {
    let CniRequest { name, directories, wanted, ports, interface } = wish;
    let configuration = Configuration::find(name, &directories.configurations)?;
    let cannot = |what: &str, capability: &str| Error::InvalidNetwork {
        name: format!("cni:{name}"),
        reason: format!("none of its plugins {what} (capability {capability})"),
    };
    let (mut asked, mut takers, mut published) = (Map::new(), Vec::new(), Vec::new());
    if !ports.is_empty() {
        if !configuration.can("portMappings") {
            return Err(cannot("publishes ports", "portMappings"));
        }
        for port in *ports {
            let (taker, place) = port.hold(&[])?;
            takers.extend(taker);
            published.push(place);
        }
        asked.insert("portMappings".to_owned(), mappings(&published));
    }
    if !wanted.aliases.is_empty() {
        if !configuration.can("aliases") {
            return Err(cannot("knows names of containers", "aliases"));
        }
        asked.insert("aliases".to_owned(), json!({*name: wanted.aliases}));
    }
    let addresses = wanted.ip.map(|ip| ip.to_string()).into_iter();
    let addresses: Vec<String> = addresses.chain(wanted.ip6.map(|ip| ip.to_string())).collect();
    let mut arguments = vec!["IgnoreUnknown=1".to_owned(), format!("K8S_POD_NAME={}", wanted.name)];
    if !addresses.is_empty() {
        asked.insert("ips".to_owned(), json!(addresses));
        arguments.push(format!("IP={}", addresses.join(",")));
    }
    if let Some(mac) = wanted.mac {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        asked.insert("mac".to_owned(), json!(mac));
        arguments.push(format!("MAC={mac}"));
    }
    let call = PluginCall {
        configuration,
        directories: directories.plugins.clone(),
        container: wanted.container.clone(),
        interface: (*interface).to_owned(),
        wanted: asked,
        arguments: arguments.join(";"),
    };
    Ok((call, takers, published))
}

/// Ports as plugins read them.
fn mappings(published: &[PublishedPort]) -> Value {
    let one = |port: &PublishedPort| {
        let mut mapping = json!({
            "hostPort": port.machine.port(), "containerPort": port.container,
            "protocol": port.protocol.as_str(),
        });
        if !port.machine.ip().is_unspecified() {
            mapping["hostIP"] = port.machine.ip().to_string().into();
        }
        mapping
    };
    published.iter().map(one).collect()
}

/// A result as we show it; what was asked for must be in it.
fn lease(wish: &CniRequest<'_>, result: &Value, published: Vec<PublishedPort>) -> Result<Lease> {
    let CniRequest { name, wanted, interface, .. } = wish;
    let network = format!("cni:{name}");
    let wrong = |reason: String| Error::InvalidNetwork { name: network.clone(), reason };
    let outcome = Addresses::read(result, interface).map_err(|reason| {
        wrong(format!("the result of its plugins is not understood: {reason}"))
    })?;
    let has = |address: std::net::IpAddr| outcome.addresses.iter().any(|net| net.addr() == address);
    let asked = wanted.ip.map(Into::into).into_iter().chain(wanted.ip6.map(Into::into));
    if let Some(address) = asked.into_iter().find(|address| !has(*address)) {
        return Err(wrong(format!("its plugins do not give address {address}")));
    }
    if wanted.mac.is_some() && wanted.mac != outcome.mac {
        return Err(wrong("its plugins do not give the Ethernet address".to_owned()));
    }
    let six = outcome.addresses.iter().find_map(|net| match net {
        ipnet::IpNet::V6(net) => Some((net.addr(), net.prefix_len())),
        ipnet::IpNet::V4(_) => None,
    });
    Ok(Lease {
        network: network.clone(),
        container: wanted.container.clone(),
        name: wanted.name.clone(),
        aliases: wanted.aliases.clone(),
        ip: outcome.four(),
        ip6: six,
        gateways: outcome.gateways,
        names: None,
        mac: outcome.mac.unwrap_or_default(),
        shares_mac: false,
        mtu: 0,
        internal: false,
        bridge: None,
        servers: Some(outcome.servers),
        published,
    })
}
