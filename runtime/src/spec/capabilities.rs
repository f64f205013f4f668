//! Which capabilities a container gets.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use super::{ContainerSpec, Network};
use crate::init::CAPABILITIES;
use crate::{Error, Result};

/// Docker's default set.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The names, without `CAP_`.
pub(super) fn names(spec: &ContainerSpec) -> Result<BTreeSet<&'static str>> {
    if spec.isolation.privileged {
        return Ok(CAPABILITIES.into());
    }
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut set: BTreeSet<&'static str> =
        match (all(&spec.isolation.cap_add), all(&spec.isolation.cap_drop)) {
            (true, _) => CAPABILITIES.into(),
            (false, true) => BTreeSet::new(),
            (false, false) => DEFAULT.into(),
        };
    // On the machine's own network it would read what others say there.
    if spec.network.mode() == Network::Host && !all(&spec.isolation.cap_add) {
        set.remove("NET_RAW");
    }
    let drops_all = all(&spec.isolation.cap_drop);
    for name in known(&spec.isolation.cap_drop)? {
        set.remove(name);
    }
    for name in known(&spec.isolation.cap_add)? {
        // Who drops and adds the same by name wants it, as with docker; ALL is weaker than a name.
        if drops_all || !spec.isolation.cap_drop.iter().any(|dropped| bare(dropped) == name) {
            set.insert(name);
        }
    }
    Ok(set)
}

fn bare(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn known(list: &[String]) -> Result<Vec<&'static str>> {
    let names = list.iter().filter(|name| !name.eq_ignore_ascii_case("all"));
    names
        .map(|name| {
            let wanted = bare(name);
            let found = CAPABILITIES.into_iter().find(|known| *known == wanted);
            found.ok_or_else(|| Error::invalid("capabilities", format!("there is no {name}")))
        })
        .collect()
}

/// The sets of the spec: inheritable and ambient are empty (CVE-2022-24769).
pub(super) fn sets(names: &BTreeSet<&str>) -> Result<LinuxCapabilities> {
    let set = names
        .iter()
        .map(|name| name.parse::<Capability>())
        .collect::<Result<std::collections::HashSet<_>, _>>()
        .map_err(|error| Error::invalid("capabilities", error.to_string()))?;
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()
        .map_err(|error| Error::invalid("capabilities", error.to_string()))
}

/// The sets of a privileged program.
pub(crate) fn all() -> Result<LinuxCapabilities> {
    sets(&CAPABILITIES.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isolation, NetworkSpec};

    fn check(add: &[&str], drop: &[&str], expected: &[&str]) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let spec = ContainerSpec {
            isolation: Isolation {
                cap_add: list(add),
                cap_drop: list(drop),
                ..Isolation::default()
            },
            ..ContainerSpec::default()
        };
        let names: Vec<_> = names(&spec).unwrap().into_iter().collect();
        assert_eq!(names, expected, "+{add:?} -{drop:?}");
    }

    #[test]
    fn added_dropped_and_all() {
        check(&[], &[], &DEFAULT);
        check(&[], &["all"], &[]);
        check(&["cap_sys_admin"], &["ALL"], &["SYS_ADMIN"]);
        check(&["ALL"], &CAPABILITIES[1..], &["CHOWN"]);
        let without: Vec<_> = DEFAULT.into_iter().filter(|name| *name != "MKNOD").collect();
        check(&[], &["MKNOD"], &without);
        let unknown = ContainerSpec {
            isolation: Isolation { cap_add: vec!["FLY".into()], ..Isolation::default() },
            ..ContainerSpec::default()
        };
        assert!(names(&unknown).is_err());
        let host = |add: &[&str]| {
            let cap_add = add.iter().map(|name| (*name).to_owned()).collect();
            let spec = ContainerSpec {
                network: NetworkSpec { mode: Some(Network::Host), ..NetworkSpec::default() },
                isolation: Isolation { cap_add, ..Isolation::default() },
                ..ContainerSpec::default()
            };
            names(&spec).unwrap().contains("NET_RAW")
        };
        assert!(!host(&[]) && host(&["NET_RAW"]) && host(&["all"]));
    }

    #[test]
    fn every_capability_is_known_to_the_spec() {
        assert!(sets(&CAPABILITIES.into()).is_ok());
    }
}
