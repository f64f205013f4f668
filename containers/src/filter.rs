//! Conditions by which containers, networks and volumes are listed: `label=app=web`, `dangling=true`.

use std::collections::BTreeMap;

use network::{BRIDGE, NamedNetwork};
use store::Store;

use crate::{Container, Containers, Result, Volume, Volumes};

/// A label that a thing must have, with any value or this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    key: String,
    value: Option<String>,
}

impl LabelFilter {
    /// Reads `KEY` or `KEY=VALUE`.
    pub fn parse(text: &str) -> LabelFilter {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        LabelFilter { key: key.to_owned(), value }
    }

    /// Whether these labels have it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let own = labels.get(&self.key);
        own.is_some_and(|own| self.value.as_ref().is_none_or(|value| own == value))
    }
}

/// Which networks are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {
    /// Part of the name.
    Name(String),
    /// The beginning of the id.
    Id(String),
    /// The driver: `bridge`, `macvlan` or `ipvlan`.
    Driver(String),
    /// The scope; every network is `local`.
    Scope(String),
    /// The network that is always there, or the others.
    Builtin(bool),
    /// A label.
    Label(LabelFilter),
    /// Those that no container names, or that one does.
    Dangling(bool),
}

impl NetworkFilter {
    /// Reads `KEY=VALUE`; `None` if there is no such condition.
    pub fn parse(text: &str) -> Option<NetworkFilter> {
        let (key, value) = text.split_once('=')?;
        Some(match (key, value) {
            ("name", name) => NetworkFilter::Name(name.to_owned()),
            ("id", id) => NetworkFilter::Id(id.to_owned()),
            ("driver", driver) => NetworkFilter::Driver(driver.to_owned()),
            ("scope", scope) => NetworkFilter::Scope(scope.to_owned()),
            ("type", "builtin") => NetworkFilter::Builtin(true),
            ("type", "custom") => NetworkFilter::Builtin(false),
            ("label", label) => NetworkFilter::Label(LabelFilter::parse(label)),
            ("dangling", value) => NetworkFilter::Dangling(truth(value)?),
            _ => return None,
        })
    }

    /// Keeps the networks that meet the condition.
    ///
    /// # Errors
    /// The containers of the store cannot be read.
    pub fn retain(&self, networks: &mut Vec<NamedNetwork>, store: &Store) -> Result<()> {
        let used = match self {
            NetworkFilter::Dangling(_) => used_networks(store)?,
            _ => Vec::new(),
        };
        networks.retain(|network| match self {
            NetworkFilter::Name(name) => network.name.contains(name),
            NetworkFilter::Id(id) => network.id.starts_with(id),
            NetworkFilter::Driver(driver) => network.driver.as_str() == driver,
            NetworkFilter::Scope(scope) => scope == "local",
            NetworkFilter::Builtin(builtin) => (network.name == BRIDGE) == *builtin,
            NetworkFilter::Label(label) => label.matches(&network.labels),
            NetworkFilter::Dangling(dangling) => {
                (network.name != BRIDGE && !used.contains(&network.name)) == *dangling
            }
        });
        Ok(())
    }
}

/// The networks that containers name, running or not.
fn used_networks(store: &Store) -> Result<Vec<String>> {
    let all = Containers::new(store.clone()).list()?;
    let named = all.iter().flat_map(|container| &container.record().spec.network.networks);
    let mut names: Vec<String> = named.map(|membership| membership.network.clone()).collect();
    names.extend(all.iter().flat_map(Container::networks).map(|lease| lease.network));
    Ok(names)
}

/// Which volumes are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeFilter {
    /// Part of the name.
    Name(String),
    /// A label.
    Label(LabelFilter),
    /// The lack of a label.
    NoLabel(LabelFilter),
    /// The driver or the scope `local`, which every volume has, or another one.
    Local(bool),
    /// Those that no container uses, or that one does.
    Dangling(bool),
}

impl VolumeFilter {
    /// Reads `KEY=VALUE`; `None` if there is no such condition.
    pub fn parse(text: &str) -> Option<VolumeFilter> {
        Some(match text.split_once('=')? {
            ("name", name) => VolumeFilter::Name(name.to_owned()),
            ("label", label) => VolumeFilter::Label(LabelFilter::parse(label)),
            ("label!", label) => VolumeFilter::NoLabel(LabelFilter::parse(label)),
            ("driver" | "scope", local) => VolumeFilter::Local(local == "local"),
            ("dangling", value) => VolumeFilter::Dangling(truth(value)?),
            _ => return None,
        })
    }

    /// Whether a volume meets the condition.
    ///
    /// # Errors
    /// The containers of the store cannot be read.
    pub fn matches(&self, volume: &Volume, volumes: &Volumes) -> Result<bool> {
        Ok(match self {
            VolumeFilter::Name(name) => volume.name.contains(name),
            VolumeFilter::Label(label) => label.matches(&volume.labels),
            VolumeFilter::NoLabel(label) => !label.matches(&volume.labels),
            VolumeFilter::Local(local) => *local,
            VolumeFilter::Dangling(dangling) => {
                volumes.users(&volume.name)?.is_empty() == *dangling
            }
        })
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_match_by_key_or_value() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        for (text, matches) in [("app", true), ("app=web", true), ("app=", false), ("no", false)] {
            assert_eq!(LabelFilter::parse(text).matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn unknown_conditions_are_refused() {
        for text in ["name", "dangling=perhaps", "type=odd", "color=red"] {
            assert_eq!(NetworkFilter::parse(text), None, "{text}");
        }
        assert_eq!(VolumeFilter::parse("color=red"), None);
        assert_eq!(VolumeFilter::parse("dangling=1"), Some(VolumeFilter::Dangling(true)));
    }
}
