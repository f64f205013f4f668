//! What containers.conf says of all containers.

use std::collections::BTreeMap;

use configuration::ContainersTable;
use runtime::{ContainerSpec, Isolation, Network};

use crate::syntax::{self, SyntaxError};
use crate::{Error, Result, is_device_name};

/// Completes a specification by `[containers]` of containers.conf: what it says itself holds.
///
/// Gives back the names of devices of the Container Device Interface that the file has; see
/// [`add_devices`](crate::add_devices).
///
/// # Errors
/// [`Error::Conf`]: a value is not understood; [`Error::File`]: a device is not there.
pub fn apply_defaults(table: &ContainersTable, spec: &mut ContainerSpec) -> Result<Vec<String>> {
    let limits = &mut spec.limits;
    for text in table.default_ulimits.iter().flatten() {
        let limit = syntax::ulimit(text).map_err(refuse("default_ulimits"))?;
        if !limits.ulimits.iter().any(|known| known.name == limit.name) {
            limits.ulimits.push(limit);
        }
    }
    if let (None, Some(text)) = (limits.shm_size, &table.shm_size) {
        limits.shm_size = Some(syntax::size(text).map_err(refuse("shm_size"))?);
    }
    limits.pids_limit = limits.pids_limit.or(table.pids_limit);
    spec.network.http_proxy = spec.network.http_proxy.or(table.http_proxy);
    apply_namespaces(table, spec)?;
    sysctls(table, spec)?;
    if let Some(usual) = &table.default_capabilities {
        capabilities(usual, &mut spec.isolation);
    }
    resolver(table, spec)?;
    let (named, paths): (Vec<_>, Vec<_>) =
        table.devices.iter().flatten().cloned().partition(|text| is_device_name(text));
    for text in &paths {
        spec.isolation.devices.push(syntax::device(text)?);
    }
    Ok(named)
}

/// Gives a specification the namespaces that containers.conf names, where it does not say itself.
///
/// # Errors
/// [`Error::Conf`]: a value is not understood.
pub fn apply_namespaces(table: &ContainersTable, spec: &mut ContainerSpec) -> Result<()> {
    let isolation = &mut spec.isolation;
    if isolation.chroot {
        return Ok(());
    }
    let wanted = [
        (&mut isolation.pid, &table.pidns, "pidns"),
        (&mut isolation.uts, &table.utsns, "utsns"),
        (&mut isolation.cgroup, &table.cgroupns, "cgroupns"),
    ];
    for (own, text, key) in wanted {
        if let (None, Some(text)) = (&own, text) {
            *own = Some(syntax::namespace(text).map_err(refuse(key))?);
        }
    }
    if let (None, Some(text)) = (&isolation.ipc, &table.ipcns) {
        isolation.ipc = Some(syntax::ipc_namespace(text).map_err(refuse("ipcns"))?);
    }
    // Other words are ways to a private network, or names that not every store has.
    if spec.network.mode.is_none() && spec.network.networks.is_empty() {
        spec.network.mode = match table.netns.as_deref() {
            Some("host") => Some(Network::Host),
            Some("none") => Some(Network::None),
            _ => None,
        };
    }
    Ok(())
}

fn refuse(key: &'static str) -> impl Fn(SyntaxError) -> Error {
    move |error| Error::Conf { key, reason: error.reason }
}

/// Kernel parameters, where the container has the namespace that they belong to.
fn sysctls(table: &ContainersTable, spec: &mut ContainerSpec) -> Result<()> {
    // A network with a way out does not belong to the container's own user namespace.
    let foreign = spec.isolation.ids.is_some() && spec.network.mode() == Network::Private;
    let network = spec.network.mode != Some(Network::Host) && !foreign;
    let has = |name: &str| match name.starts_with("net.") {
        true => network,
        false => spec.isolation.owns_ipc(),
    };
    let mut added = BTreeMap::new();
    for text in table.default_sysctls.iter().flatten() {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| SyntaxError::new(format!("{text:?}: expected NAME=VALUE")))
            .map_err(refuse("default_sysctls"))?;
        if has(name.trim()) {
            added.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    let own = &mut spec.isolation.sysctls;
    added.into_iter().for_each(|(name, value)| _ = own.entry(name).or_insert(value));
    Ok(())
}

fn resolver(table: &ContainersTable, spec: &mut ContainerSpec) -> Result<()> {
    let dns = &mut spec.network.dns;
    if dns.none {
        return Ok(());
    }
    if dns.servers.is_empty() {
        let servers = table.dns_servers.clone().unwrap_or_default();
        let read = syntax::dns(&servers, &[], &[]).map_err(refuse("dns_servers"))?;
        (dns.none, dns.servers) = (read.none, read.servers);
    }
    for (own, usual) in
        [(&mut dns.search, &table.dns_searches), (&mut dns.options, &table.dns_options)]
    {
        if own.is_empty() {
            own.extend(usual.iter().flatten().cloned());
        }
    }
    Ok(())
}

/// The capabilities of the file are the whole set, which the specification adds to and takes from.
fn capabilities(usual: &[String], isolation: &mut Isolation) {
    let plain = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
    if isolation.cap_drop.iter().any(|name| plain(name) == "ALL") {
        return;
    }
    let dropped: Vec<String> = isolation.cap_drop.iter().map(plain).collect();
    isolation.cap_add.extend(usual.iter().map(plain).filter(|name| !dropped.contains(name)));
    isolation.cap_drop = vec!["ALL".to_owned()];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn what_a_container_says_itself_holds() {
        let table = ContainersTable {
            default_ulimits: strings(&["nofile=5", "nproc=6"]),
            default_capabilities: strings(&["CAP_CHOWN", "KILL"]),
            default_sysctls: strings(&["net.a = 1", "net.b=2"]),
            devices: strings(&["/dev/null", "example.com/gpu=0"]),
            dns_servers: strings(&["9.9.9.9"]),
            dns_searches: strings(&["a"]),
            shm_size: Some("1m".to_owned()),
            pids_limit: Some(7),
            ..ContainersTable::default()
        };
        let mut spec = ContainerSpec::default();
        spec.limits.ulimits.push(syntax::ulimit("nofile=9").unwrap());
        spec.limits.pids_limit = Some(8);
        spec.isolation.sysctls.insert("net.a".to_owned(), "9".to_owned());
        spec.isolation.cap_drop.push("kill".to_owned());
        spec.network.dns.search.push("b".to_owned());
        assert_eq!(apply_defaults(&table, &mut spec).unwrap(), ["example.com/gpu=0"]);
        let ContainerSpec { isolation, limits, network, .. } = &spec;
        let ulimits: Vec<_> = limits.ulimits.iter().map(|limit| limit.soft).collect();
        assert_eq!(
            (ulimits, limits.pids_limit, limits.shm_size),
            (vec![9, 6], Some(8), Some(1 << 20))
        );
        assert_eq!((&isolation.sysctls["net.a"][..], &isolation.sysctls["net.b"][..]), ("9", "2"));
        assert_eq!(
            (&isolation.cap_add[..], &isolation.cap_drop[..]),
            (&["CHOWN".to_owned()][..], &["ALL".to_owned()][..])
        );
        assert_eq!(
            (network.dns.servers.len(), &network.dns.search[..]),
            (1, &["b".to_owned()][..])
        );
        assert_eq!(isolation.devices.len(), 1);
        let flawed = ContainersTable { shm_size: Some("x".to_owned()), ..table };
        let refused = apply_defaults(&flawed, &mut ContainerSpec::default()).unwrap_err();
        assert!(refused.to_string().starts_with("containers.conf: shm_size: "), "{refused}");
    }
}
