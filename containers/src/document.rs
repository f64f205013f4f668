//! Everything about containers, volumes and networks as JSON, under docker's names.

use network::{Lease, NamedNetwork};
use runtime::{ExitStatus, Health, Join, Network};
use serde_json::{Map, Value, json};

use crate::{Container, Error, Phase, Result, Volume};

impl Container {
    /// Everything about it, with the fields of `docker inspect`. `image` is what it was made from.
    ///
    /// # Errors
    /// [`Error::Document`]: a path of it is no text; a volume cannot be read.
    pub fn document(&self, image: &str) -> Result<Value> {
        document(self, image)
    }

    /// The networks it is on, or would be on if it ran, as a user names them: `private`, `web`,
    /// `container:NAME`.
    pub fn network_names(&self) -> Vec<String> {
        let wanted = &self.record().spec.network;
        match (wanted.mode, &wanted.join, &wanted.networks[..]) {
            (_, Some(Join::Container(name)), _) => vec![format!("container:{name}")],
            (_, Some(Join::Path(path)), _) => vec![format!("ns:{}", path.display())],
            (Some(Network::Host), ..) => vec!["host".to_owned()],
            (Some(Network::None), ..) => vec!["none".to_owned()],
            (_, None, []) => vec!["private".to_owned()],
            (_, None, named) => named.iter().map(|one| one.network.clone()).collect(),
        }
    }
}

impl Volume {
    /// Everything about it, with the fields of `docker volume inspect`.
    pub fn document(&self) -> Value {
        json!({
            "Name": self.name, "Driver": "local", "Mountpoint": self.path, "Scope": "local",
            "CreatedAt": time(self.created as f64), "Labels": self.labels,
            "Anonymous": self.anonymous, "Options": match &self.device {
                Some(device) => json!({"type": "none", "o": "bind", "device": device}),
                None => json!({}),
            },
        })
    }
}

/// Everything about a network and who is on it, with the fields of `docker network inspect`.
pub fn network_document(network: &NamedNetwork, leases: &[Lease]) -> Value {
    let config = network.subnets.iter().map(|one| {
        let mut config =
            json!({"Subnet": one.subnet.to_string(), "Gateway": one.gateway.to_string()});
        if let Some(range) = one.range {
            config["IPRange"] = Value::from(range.to_string());
        }
        config
    });
    let config: Vec<Value> = config.collect();
    let ipv6 = network.subnet(true).is_some();
    let members = leases.iter().map(|lease| {
        let six = lease.ip6.map(|(address, prefix)| format!("{address}/{prefix}"));
        let member = json!({
            "Name": lease.name, "EndpointID": lease.container, "MacAddress": lease.mac_text(),
            "IPv4Address": format!("{}/{}", lease.ip.0, lease.ip.1),
            "IPv6Address": six.unwrap_or_default(),
        });
        (lease.container.clone(), member)
    });
    let bridge = leases.iter().find_map(|lease| lease.bridge.clone());
    json!({
        "Name": network.name, "Id": network.id, "ID": network.id,
        "Created": time(network.created as f64),
        "Scope": "local", "Driver": network.driver.as_str(), "EnableIPv4": true, "EnableIPv6": ipv6,
        "IPv6": ipv6, "IPAM": {"Driver": "default", "Options": {}, "Config": config},
        "Internal": network.internal, "Attachable": false, "Ingress": false, "ConfigOnly": false,
        "NetworkInterface": bridge.unwrap_or_default(),
        "Containers": members.collect::<Map<_, _>>(),
        "Options": network.options, "Labels": network.labels,
    })
}

/// A moment in seconds since 1970 as RFC 3339.
fn time(seconds: f64) -> Option<String> {
    let millis = (seconds * 1000.0) as i64;
    Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_string())
}

fn document(container: &Container, image: &str) -> Result<Value> {
    let record = container.record();
    let spec = serde_json::to_value(&record.spec)
        .map_err(|source| Error::Document { path: container.directory().to_owned(), source })?;
    let at = |name: &str| container.directory().join(name);
    let manifest = container.row().image.as_ref().map(|image| image.digest);
    Ok(json!({
        "Id": container.id(), "Name": container.name(),
        "Created": time(container.row().created as f64),
        "Image": container.image_id().or(manifest), "ImageDigest": manifest, "ImageName": image,
        "Path": record.command.first(), "Args": record.command.get(1..).unwrap_or_default(),
        "State": state(container),
        "RestartCount": container.restarts(), "Driver": "overlay", "Platform": "linux",
        "LogPath": at("log"), "HostsPath": at("hosts"), "HostnamePath": at("hostname"),
        "ResolvConfPath": at("resolv.conf"),
        "NetworkSettings": networks(container),
        "Mounts": container.mount_documents()?,
        "Config": container.config_document(image),
        "HostConfig": container.host_config_document(),
        "Spec": spec,
    }))
}

/// Ports and networks, as docker shows them.
fn networks(container: &Container) -> Value {
    let mut ports = Map::new();
    for port in container.published() {
        let key = format!("{}/{}", port.container, port.protocol.as_str());
        let place = json!({
            "HostIp": port.machine.ip().to_string(), "HostPort": port.machine.port().to_string(),
        });
        if let Value::Array(list) = ports.entry(key).or_insert_with(|| json!([])) {
            list.push(place);
        }
    }
    let leases = container.networks();
    let mut all = Map::new();
    for name in container.network_names() {
        let lease = leases.iter().find(|lease| lease.network == name);
        all.insert(name, lease.map_or_else(|| json!({"IPAddress": ""}), on_network));
    }
    let first = leases.first();
    json!({
        "Ports": ports, "Networks": all,
        "IPAddress": first.map(|lease| lease.ip.0.to_string()).unwrap_or_default(),
        "Gateway": first.map(|lease| gateway(lease, false)).unwrap_or_default(),
        "MacAddress": first.map(Lease::mac_text).unwrap_or_default(),
    })
}

fn gateway(lease: &Lease, ipv6: bool) -> String {
    let found = lease.gateways.iter().find(|gateway| gateway.is_ipv6() == ipv6);
    found.map(ToString::to_string).unwrap_or_default()
}

/// A container's place on one network, as docker shows it.
fn on_network(lease: &Lease) -> Value {
    let short = &lease.container[..lease.container.len().min(12)];
    let mut names = vec![lease.name.clone()];
    names.extend(lease.aliases.iter().cloned());
    names.push(short.to_owned());
    json!({
        "IPAddress": lease.ip.0.to_string(), "IPPrefixLen": lease.ip.1,
        "Gateway": gateway(lease, false), "MacAddress": lease.mac_text(),
        "GlobalIPv6Address": lease.ip6.map(|(address, _)| address.to_string()).unwrap_or_default(),
        "GlobalIPv6PrefixLen": lease.ip6.map_or(0, |(_, prefix)| prefix),
        "IPv6Gateway": gateway(lease, true),
        "Aliases": lease.aliases, "DNSNames": names,
    })
}

fn state(container: &Container) -> Value {
    let state = container.state();
    let exit = container.exit();
    let phase = container.phase();
    json!({
        "Status": phase.as_str(), "Running": container.is_running(),
        "Paused": phase == Phase::Paused, "Restarting": phase == Phase::Restarting,
        "Dead": phase == Phase::Dead,
        "Pid": state.map_or(0, |state| state.pid),
        "ConmonPid": state.map_or(0, |state| state.monitor),
        "ExitCode": exit.map(ExitStatus::code),
        "OOMKilled": matches!(exit, Some(ExitStatus::OutOfMemory(_))),
        "StartedAt": state.and_then(|state| time(state.started)),
        "FinishedAt": state.and_then(|state| state.finished).and_then(time),
        "Health": container.health().map(|health| told_health(&health)),
    })
}

fn told_health(health: &Health) -> Value {
    let log = health.log.iter().map(|probe| {
        json!({
            "Start": time(probe.start), "End": time(probe.end),
            "ExitCode": probe.exit_code, "Output": probe.output,
        })
    });
    json!({
        "Status": health.status.as_str(), "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    })
}
