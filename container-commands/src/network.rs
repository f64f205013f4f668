//! `rbuild network`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use app::{App, Runnable, several};
use clap::{Args, Subcommand};
use containers::{NetworkFilter, network_document};
use network::{IpNet, Networks, NewNetwork, NewSubnet};
use options::{Failure, flags};
use runtime::Membership;
use serde_json::Value;

use crate::container::{containers, require};
use crate::table::TableFlags;

/// Manage networks between containers
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Network {
    Create(Create),
    #[command(alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(alias = "remove")]
    Rm(Rm),
    Connect(Connect),
    Disconnect(Disconnect),
    Prune(Prune),
    Exists(Exists),
    Reload(Reload),
}

impl Runnable for Network {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, Network {
            Create, Ls, Inspect, Rm, Connect, Disconnect, Prune, Exists, Reload,
        } }
    }
}

fn networks(app: &App) -> Result<Networks, Failure> {
    Ok(containers::networks(app.store()?))
}

/// A network, as docker shows it.
fn value(networks: &Networks, network: &network::NamedNetwork) -> Value {
    network_document(network, &networks.leases(&network.name))
}

/// The document of a network.
///
/// # Errors
/// There is no such network.
pub fn document(app: &App, name: &str) -> Result<Value, Failure> {
    let networks = networks(app)?;
    Ok(value(&networks, &networks.get(name)?))
}

/// Make a network
#[derive(Debug, Args)]
pub struct Create {
    /// Use this driver: bridge, or macvlan or ipvlan, which connect containers to a device of this
    /// machine
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: network::Driver,
    /// Use this range of addresses, one of each kind (default: a free one)
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// Use this address for the machine in the subnet it is in (default: the first)
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Give containers addresses of this range only
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<IpNet>,
    /// Give containers addresses of IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Leave no way out of the network
    #[arg(long)]
    internal: bool,
    /// Accepted: containers can be put on every network
    #[arg(long)]
    attachable: bool,
    /// Accept that there is a network of this name already
    #[arg(long)]
    ignore: bool,
    /// Add a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Set an option: com.docker.network.driver.mtu=BYTES, carrier=kernel or user; with macvlan and
    /// ipvlan parent=DEVICE, macvlan_mode=MODE and ipvlan_mode=MODE
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// The name of the network
    name: String,
}

impl Create {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let pair = |text: &String| flags::pair(text);
        let new = NewNetwork {
            name: self.name.clone(),
            driver: self.driver,
            subnets: NewSubnet::several(&self.subnet, &self.gateway, &self.ip_range)?,
            ipv6: self.ipv6,
            internal: self.internal,
            labels: self.label.iter().map(pair).collect(),
            options: self.opt.iter().map(pair).collect::<BTreeMap<_, _>>(),
        };
        match containers::create_network(app.store()?, &new) {
            Err(containers::Error::Network(network::Error::NetworkExists { .. }))
                if self.ignore =>
            {
                outln!("{}", networks(app)?.get(&self.name)?.id);
            }
            made => outln!("{}", made?.id),
        }
        Ok(0)
    }
}

/// List networks
#[derive(Debug, Args)]
pub struct Ls {
    /// Show matching networks only: name=, id=, driver=, label=, scope=, type=, dangling=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    table: TableFlags,
    /// Show full ids
    #[arg(long)]
    no_trunc: bool,
}

const HEADERS: [(&str, &str); 9] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
    ("Created", "CREATED AT"),
];

impl Ls {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let networks = networks(app)?;
        let mut all = networks.list()?;
        for text in &self.filter {
            filter(text)?.retain(&mut all, app.store()?)?;
        }
        let rows: Vec<Value> = all
            .iter()
            .map(|network| {
                let mut row = value(&networks, network);
                row["CreatedAt"] = row["Created"].clone();
                let id = network.id.get(..12).filter(|_| !self.no_trunc);
                row["ID"] = Value::from(id.unwrap_or(&network.id));
                row
            })
            .collect();
        let usual = "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}";
        self.table.print(&rows, "ID", usual, &HEADERS)?;
        Ok(0)
    }
}

fn filter(text: &str) -> Result<NetworkFilter, Failure> {
    NetworkFilter::parse(text).ok_or_else(|| {
        Failure::usage(format!("--filter {text:?} is not supported"))
            .hint("name=, id=, driver=, label=, scope=, type= and dangling= are supported")
    })
}

/// Show networks as JSON
#[derive(Debug, Args)]
pub struct Inspect {
    /// Format each network with a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Accepted: it adds the services of a swarm, and networks of this machine have none
    #[arg(short, long)]
    verbose: bool,
    /// The networks
    #[arg(required = true)]
    networks: Vec<String>,
}

impl Inspect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let networks = networks(app)?;
        several::show(&self.networks, self.format.as_deref(), |name| {
            Ok(value(&networks, &networks.get(name)?))
        })
    }
}

/// Remove networks that no running container is on
#[derive(Debug, Args)]
pub struct Rm {
    /// Ignore networks that are missing
    #[arg(short, long)]
    force: bool,
    /// The networks
    #[arg(required = true)]
    networks: Vec<String>,
}

impl Rm {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let (_, answer) = several::each(&self.networks, |name| {
            match containers::remove_network(store, name) {
                Err(containers::Error::Network(network::Error::NoNetwork { .. })) if self.force => {
                }
                removed => drop(removed?),
            }
            outln!("{name}");
            Ok(())
        });
        answer
    }
}

/// Connect a container to a network
#[derive(Debug, Args)]
pub struct Connect {
    /// Add a name by which others on the network find the container
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Use this IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Use this IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The network
    network: String,
    /// The container
    container: String,
}

impl Connect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = require(app, &self.container)?;
        let Connect { alias, ip, ip6, network, .. } = self;
        container.connect(Membership {
            network,
            aliases: alias,
            ip,
            ip6,
            ..Membership::default()
        })?;
        Ok(0)
    }
}

/// Disconnect a container from a network
#[derive(Debug, Args)]
pub struct Disconnect {
    /// Ignore a container that is missing, or not on the network
    #[arg(short, long)]
    force: bool,
    /// The network
    network: String,
    /// The container
    container: String,
}

impl Disconnect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let found = containers(app)?.find(&self.container)?;
        if found.is_none() && self.force {
            return Ok(0);
        }
        let container = found.map_or_else(|| require(app, &self.container), Ok)?;
        match container.disconnect(&self.network) {
            Err(containers::Error::Network(network::Error::InvalidNetwork { .. }))
                if self.force => {}
            done => done?,
        }
        Ok(0)
    }
}

/// Remove all networks that no container uses
#[derive(Debug, Args)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove matching networks only: label=, name=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Prune {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if !self.force && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::usage("this removes all networks that no container uses")
                .hint("`rbuild network prune --force`"));
        }
        let mut all = networks(app)?.list()?;
        NetworkFilter::Dangling(true).retain(&mut all, app.store()?)?;
        for text in &self.filter {
            filter(text)?.retain(&mut all, app.store()?)?;
        }
        for network in all {
            match containers::remove_network(app.store()?, &network.name) {
                // Used, or removed meanwhile.
                Err(containers::Error::Network(
                    network::Error::NetworkInUse { .. } | network::Error::NoNetwork { .. },
                )) => {}
                removed => {
                    removed?;
                    outln!("{}", network.name);
                }
            }
        }
        Ok(0)
    }
}

/// Exit with 0 if the network exists, else with 1
#[derive(Debug, Args)]
pub struct Exists {
    /// The network
    network: String,
}

impl Exists {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match networks(app)?.get(&self.network) {
            Ok(_) => Ok(0),
            Err(network::Error::NoNetwork { .. }) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }
}

/// Connect containers again to networks whose process has ended
#[derive(Debug, Args)]
pub struct Reload {
    /// Reload those of all running containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Reload {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let chosen = if self.all {
            let mut all = containers(app)?.list()?;
            all.retain(|container| container.is_running() && !container.networks().is_empty());
            all
        } else {
            let named = self.containers.iter().map(|name| require(app, name));
            named.collect::<Result<Vec<_>, _>>()?
        };
        for container in chosen {
            container.reload_networks()?;
            outln!("{}", container.id());
        }
        Ok(0)
    }
}
