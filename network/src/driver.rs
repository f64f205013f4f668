//! How a named network is carried, and the options of that.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::uplink::MTU;
use crate::{Error, Result};

/// The option with the bytes of the largest packet.
pub(crate) const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// What podman calls it.
pub(crate) const MTU_SHORT: &str = "mtu";
/// The option that says who carries the network: `kernel` or `user`.
pub(crate) const CARRIER_OPTION: &str = "carrier";
/// The option with the device of this machine whose wire containers are on.
const PARENT: &str = "parent";
/// What podman calls `macvlan_mode` and `ipvlan_mode`.
const MODE: &str = "mode";

/// Options of a driver.
type Options = BTreeMap<String, String>;

/// How a named network is carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A network of its own, whose way out is this machine.
    #[default]
    Bridge,
    /// Containers are on the wire of a device of this machine, with Ethernet addresses of their own.
    Macvlan,
    /// Containers are on the wire of a device of this machine, with its Ethernet address.
    Ipvlan,
}

impl Driver {
    /// `bridge`, `macvlan` or `ipvlan`.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
        }
    }

    /// The values that the option for its mode has, the first by default.
    fn modes(self) -> &'static [&'static str] {
        match self {
            Driver::Bridge => &[],
            Driver::Macvlan => &["bridge", "private", "vepa", "passthru"],
            Driver::Ipvlan => &["l2", "l3", "l3s"],
        }
    }

    /// The option for its mode, as docker calls it.
    fn mode_option(self) -> String {
        format!("{}_mode", self.as_str())
    }

    /// What an option must be; `None` if there is no such option.
    fn expected(self, key: &str) -> Option<String> {
        let bridge = self == Driver::Bridge;
        Some(match key {
            MTU_OPTION | MTU_SHORT => format!("576 to {MTU} bytes"),
            CARRIER_OPTION if bridge => "kernel or user".to_owned(),
            PARENT if !bridge => "the name of a device of this machine".to_owned(),
            MODE if !bridge => self.modes().join(", "),
            key if !bridge && key == self.mode_option() => self.modes().join(", "),
            _ => return None,
        })
    }

    fn takes(self, key: &str, value: &str) -> bool {
        match key {
            MTU_OPTION | MTU_SHORT => {
                value.parse::<usize>().is_ok_and(|mtu| (576..=MTU).contains(&mtu))
            }
            CARRIER_OPTION => matches!(value, "kernel" | "user"),
            PARENT => (1..=15).contains(&value.len()) && !value.contains('/'),
            _ => self.modes().contains(&value),
        }
    }

    fn options(self) -> String {
        match self {
            Driver::Bridge => format!("{MTU_OPTION} and {CARRIER_OPTION}"),
            other => format!("{PARENT}, {} and {MTU_OPTION}", other.mode_option()),
        }
    }
}

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Driver, String> {
        match text {
            "bridge" => Ok(Driver::Bridge),
            "macvlan" => Ok(Driver::Macvlan),
            "ipvlan" => Ok(Driver::Ipvlan),
            "overlay" => Err("overlay spans machines, which is not supported".to_owned()),
            other => Err(format!("{other:?} is not known: bridge, macvlan and ipvlan are")),
        }
    }
}

/// The mode of a network whose driver has modes.
pub(crate) fn mode(driver: Driver, options: &Options) -> &str {
    let given = options.get(&driver.mode_option()).or_else(|| options.get(MODE));
    given.map_or_else(|| driver.modes().first().copied().unwrap_or_default(), String::as_str)
}

/// The device of this machine whose wire containers are on.
pub(crate) fn parent(options: &Options) -> &str {
    options.get(PARENT).map(String::as_str).unwrap_or_default()
}

/// Whether a network that is asked for has the options of its driver, and no others.
///
/// # Errors
/// [`Error::InvalidNetwork`]
pub(crate) fn check(name: &str, driver: Driver, options: &Options) -> Result<()> {
    let wrong = |reason| Err(Error::InvalidNetwork { name: name.to_owned(), reason });
    for (key, value) in options {
        match driver.expected(key) {
            Some(_) if driver.takes(key, value) => {}
            Some(expected) => return wrong(format!("option {key}={value}: expected {expected}")),
            None => {
                return wrong(format!(
                    "option {key}={value} is not supported by {}: {} are",
                    driver.as_str(),
                    driver.options()
                ));
            }
        }
    }
    if driver != Driver::Bridge && !options.contains_key(PARENT) {
        return wrong(format!(
            "{} needs option {PARENT}=DEVICE, the device of this machine that leads to the wire",
            driver.as_str()
        ));
    }
    Ok(())
}
