use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::nullable::nullable;
use crate::{ChainId, Digest, Platform};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An image configuration (image-spec, config.md; also Docker's).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture, as in [`Platform`].
    #[serde(default)]
    pub architecture: String,
    /// CPU variant, as in [`Platform`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system, as in [`Platform`].
    #[serde(default)]
    pub os: String,
    /// Operating system version, as in [`Platform`].
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Operating system features, as in [`Platform`].
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub config: ContainerConfig,
    /// What the layers unpack to.
    #[serde(default)]
    pub rootfs: RootFs,
    /// Which steps made it, oldest first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Config {
    /// The platform the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// The chain id of the whole layer stack; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        self.rootfs
            .diff_ids
            .iter()
            .fold(None, |parent, diff_id| Some(ChainId::of(parent, *diff_id)))
    }
}

/// How to run an image: the `config` object inside the configuration. Shell, Healthcheck and
/// OnBuild are Docker's; they are kept in OCI images too, as every builder but one does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User and group, by name or number: `user[:group]`; empty is root.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol` sets.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value` lines.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint, or the program if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to check that a container works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether the arguments are escaped already (Windows).
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    /// Paths that hold data of the container.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory; empty is `/`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Instructions a build on this image runs first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Free text by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks a container to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The shell of shell-form instructions.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// How to check that a container works. Times are in nanoseconds, zero means inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`; empty means inherited.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interval: u64,
    /// Time after which one check has failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout: u64,
    /// Time in which failures do not count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_period: u64,
    /// Time between two checks in the start period.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_interval: u64,
    /// How many failures in a row make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u64,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// What the layers unpack to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    /// The digests of the uncompressed layers, base first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

fn layers() -> String {
    "layers".to_owned()
}

impl Default for RootFs {
    fn default() -> Self {
        RootFs { kind: layers(), diff_ids: Vec::new() }
    }
}

/// One step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub empty_layer: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, MediaType};

    #[test]
    fn docker_only_and_unknown_fields_survive_and_bytes_are_stable() {
        let text = r#"{"architecture":"amd64","os":"linux","os.version":"10","config":{"Env":["A=b"],"Entrypoint":[],"Cmd":null,"Healthcheck":{"Test":["CMD","x"],"Interval":5},"OnBuild":["RUN x"],"Labels":{"b":"1","a":"2"},"Shell":["/bin/bash","-c"],"Memory":7},"rootfs":{"type":"layers","diff_ids":[]},"docker_version":"28"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let written = Document::write(MediaType::OCI_CONFIG, config.clone());
        let expected = r#"{"architecture":"amd64","os":"linux","os.version":"10","config":{"Env":["A=b"],"Entrypoint":[],"Healthcheck":{"Test":["CMD","x"],"Interval":5},"OnBuild":["RUN x"],"Labels":{"a":"2","b":"1"},"Shell":["/bin/bash","-c"],"Memory":7},"rootfs":{"type":"layers","diff_ids":[]},"docker_version":"28"}"#;
        assert_eq!(std::str::from_utf8(written.bytes()).unwrap(), expected);
    }

    #[test]
    fn go_nulls_are_read_as_empty() {
        let text = r#"{"architecture":"a","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.chain_id(), None);
        assert_eq!(config.config, ContainerConfig::default());
    }
}
