//! What plugins answer: addresses, or an error.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

/// What a plugin says when it fails.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PluginFailure {
    msg: String,
    details: String,
}

/// Why a plugin failed: what it wrote, as well as it can be understood.
pub(super) fn reason(output: &[u8], errors: &[u8]) -> String {
    let failure: PluginFailure = serde_json::from_slice(output).unwrap_or_default();
    let parts = [failure.msg, failure.details];
    let told: Vec<&str> =
        parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    if !told.is_empty() {
        return told.join("; ");
    }
    let errors = String::from_utf8_lossy(errors);
    match errors.trim() {
        "" => "it does not say why".to_owned(),
        errors => errors.chars().take(500).collect(),
    }
}

/// What a container has on the network.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) addresses: Vec<IpNet>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) mac: Option<[u8; 6]>,
    /// Name servers, if the network has its own.
    pub(super) servers: Vec<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PluginResult {
    interfaces: Vec<Interface>,
    ips: Vec<Address>,
    // Before 0.3.0.
    ip4: Option<LegacyIpConfig>,
    ip6: Option<LegacyIpConfig>,
    dns: Dns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: String,
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Address {
    address: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    interface: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct LegacyIpConfig {
    ip: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Dns {
    nameservers: Vec<IpAddr>,
}

impl Addresses {
    /// Reads the result of the last plugin, for the device `interface` of the container.
    pub(super) fn read(result: &Value, interface: &str) -> Result<Addresses, String> {
        let document: PluginResult =
            serde_json::from_value(result.clone()).map_err(|error| error.to_string())?;
        let own = |one: &Interface| one.name == interface && !one.sandbox.is_empty();
        let place = document.interfaces.iter().position(own);
        let mac = place.and_then(|place| mac(&document.interfaces[place].mac));
        let older = document.ip4.into_iter().chain(document.ip6);
        let older = older.map(|one| (one.ip, one.gateway));
        // Addresses of the other end, which are this machine's, are listed too.
        let ours =
            |one: &Address| one.interface.is_none() || place.is_none() || one.interface == place;
        let newer = document.ips.into_iter().filter(ours).map(|one| (one.address, one.gateway));
        let all: Vec<_> = newer.chain(older).collect();
        Ok(Addresses {
            addresses: all.iter().map(|(address, _)| *address).collect(),
            gateways: all.iter().filter_map(|(_, gateway)| *gateway).collect(),
            mac,
            servers: document.dns.nameservers,
        })
    }

    /// The address of IPv4; the unspecified one if there is none.
    pub(super) fn four(&self) -> (Ipv4Addr, u8) {
        let four = self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some((net.addr(), net.prefix_len())),
            IpNet::V6(_) => None,
        });
        four.unwrap_or((Ipv4Addr::UNSPECIFIED, 0))
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn results_of_all_versions_are_read() {
        let new = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/proc/1/ns/net"},
            ],
            "ips": [
                {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::5/64", "interface": 1},
                {"address": "10.1.0.1/16", "interface": 0},
            ],
            "dns": {"nameservers": ["10.1.0.1"]},
        });
        let outcome = Addresses::read(&new, "eth0").unwrap();
        assert_eq!(outcome.four(), ([10, 1, 0, 5].into(), 16));
        assert_eq!(outcome.addresses.len(), 2);
        assert_eq!(outcome.gateways, [IpAddr::from([10, 1, 0, 1])]);
        assert_eq!(outcome.mac, Some([2, 0, 0, 0, 0, 2]));
        assert_eq!(outcome.servers, outcome.gateways);
        let old = json!({"ip4": {"ip": "10.2.0.5/24", "gateway": "10.2.0.1"}});
        let outcome = Addresses::read(&old, "eth0").unwrap();
        assert_eq!((outcome.four().1, outcome.gateways.len()), (24, 1));
        assert!(Addresses::read(&json!({"ips": [{"address": "x"}]}), "eth0").is_err());
    }

    #[test]
    fn a_failure_is_read_from_what_the_plugin_wrote() {
        let said = br#"{"code": 11, "msg": "no address", "details": "range is full"}"#;
        assert_eq!(reason(said, b"log"), "no address; range is full");
        assert_eq!(reason(b"", b" cannot start\n"), "cannot start");
        assert_eq!(reason(b"nonsense", b""), "it does not say why");
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = reason(&bytes, &bytes);
            if let Ok(value) = serde_json::from_slice(&bytes) {
                let _ = Addresses::read(&value, "eth0");
            }
        }
    }
}
