//! What the commands of `RUN` get beyond what the Dockerfile says.

use std::fmt::Write;

use runtime::{ContainerSpec, OtherRuntime};
use serde::{Deserialize, Serialize};

/// The name commands see of the machine.
const HOSTNAME: &str = "rbuild";

/// How every command of `RUN` runs. Of all this only names decide what a command gives: those of
/// other machines and that of the container are part of its key, privileges and limits are not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// Capabilities, devices, limits, mounts, namespaces and names. Program, user, environment,
    /// directory and network are the Dockerfile's.
    pub base: ContainerSpec,
    /// Whether commands read the standard input of this process.
    pub stdin: bool,
    /// The runtime of commands, if it is not the built-in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherRuntime>,
}

impl RunOptions {
    /// What commands call the machine.
    pub(crate) fn hostname(&self) -> &str {
        self.base.network.hostname.as_deref().unwrap_or(HOSTNAME)
    }

    /// The names that decide what commands give; empty as long as they are the usual ones.
    pub(crate) fn names(&self) -> String {
        let network = &self.base.network;
        let mut names = String::new();
        if network.no_hosts {
            names.push_str("\0nohosts");
        } else if !network.hosts.is_empty() {
            let _ = write!(names, "\0hosts{:?}", network.hosts);
        }
        if self.hostname() != HOSTNAME {
            let _ = write!(names, "\0hostname{:?}", self.hostname());
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_keys_and_privileges_do_not() {
        let mut options = RunOptions::default();
        options.base.isolation.cap_add.push("ALL".to_owned());
        options.base.network.dns.servers.push("9.9.9.9".parse().unwrap());
        assert_eq!(options.names(), "");
        options.base.network.hosts.push(("db".to_owned(), "10.0.0.2".parse().unwrap()));
        let one = options.names();
        options.base.network.hostname = Some("here".to_owned());
        let two = options.names();
        options.base.network.no_hosts = true;
        let three = options.names();
        assert!(!one.is_empty() && one != two && two != three);
    }
}
