//! What the commands of a Dockerfile may do beyond the usual when the user allows it: the
//! entitlements of `--allow`.

use serde::{Deserialize, Serialize};

/// Everything that is allowed; by default nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allow {
    /// `security.insecure`: `RUN --security=insecure` runs with all privileges.
    pub insecure: bool,
    /// `network.host`: `RUN --network=host` has the machine's network although the build does not.
    pub host_network: bool,
    /// `device`: `RUN --device` may name every device.
    pub all_devices: bool,
    /// `device=PATH`: it may name this one.
    pub devices: Vec<String>,
}

impl Allow {
    /// Whether a command may have this device.
    pub(crate) fn device(&self, path: &str) -> bool {
        self.all_devices || self.devices.iter().any(|allowed| allowed == path)
    }
}
