//! Calls of the plugins of one network for one container.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{Configuration, declares};
use super::outcome;
use crate::{Error, Result};

/// Where plugins find programs of their own.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the plugins are called with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PluginCall {
    pub(super) configuration: Configuration,
    /// Where the plugins are.
    pub(super) directories: Vec<PathBuf>,
    /// The container's id.
    pub(super) container: String,
    /// What it calls its device.
    pub(super) interface: String,
    /// Requests to plugins that can do it, by capability.
    pub(super) wanted: Map<String, Value>,
    /// Further arguments.
    pub(super) arguments: String,
}

impl PluginCall {
    /// Adds the container of a namespace; gives the result of the last plugin.
    pub(super) fn add(&self, namespace: &str) -> Result<Value> {
        let mut result = None;
        for plugin in &self.configuration.plugins {
            let output = self.run("ADD", plugin, namespace, result.as_ref())?;
            let read = serde_json::from_slice(&output);
            result = Some(read.map_err(|error| self.failed("ADD", plugin, error.to_string()))?);
        }
        Ok(result.unwrap_or_default())
    }

    /// Checks that the container is as the plugins made it.
    pub(super) fn check(&self, namespace: &str, result: &Value) -> Result<()> {
        if self.configuration.unchecked || !self.configuration.is_at_least(4) {
            return Ok(());
        }
        let mut plugins = self.configuration.plugins.iter();
        plugins.try_for_each(|plugin| self.run("CHECK", plugin, namespace, Some(result)).map(drop))
    }

    /// Removes the container; each plugin gets its turn, whatever the others say.
    pub(super) fn delete(&self, namespace: &str, result: Option<&Value>) -> Result<()> {
        let result = result.filter(|_| self.configuration.is_at_least(4));
        let mut done = Ok(());
        for plugin in self.configuration.plugins.iter().rev() {
            done = done.and(self.run("DEL", plugin, namespace, result).map(drop));
        }
        done
    }

    fn run(
        &self,
        command: &'static str,
        plugin: &Map<String, Value>,
        namespace: &str,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>> {
        let failed = |reason: String| self.failed(command, plugin, reason);
        let name = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let found =
            self.directories.iter().map(|place| place.join(name)).find(|path| path.is_file());
        let program = found.ok_or_else(|| {
            let places: Vec<_> =
                self.directories.iter().map(|one| one.display().to_string()).collect();
            failed(format!("there is no such plugin in {}", places.join(":")))
        })?;
        let places = std::env::join_paths(&self.directories);
        let mut process = Command::new(&program);
        process.env_clear().env("PATH", PROGRAMS).env("CNI_COMMAND", command);
        process.env("CNI_CONTAINERID", &self.container).env("CNI_NETNS", namespace);
        process.env("CNI_IFNAME", &self.interface).env("CNI_ARGS", &self.arguments);
        process.env("CNI_PATH", places.unwrap_or_default());
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut talk = || -> std::io::Result<std::process::Output> {
            let mut child = process.spawn()?;
            let document = serde_json::to_vec(&self.document(plugin, previous))?;
            let written = child.stdin.take().map(|mut stdin| stdin.write_all(&document));
            let output = child.wait_with_output()?;
            // One that has answered need not have read all.
            match written {
                Some(Err(error)) if output.stdout.is_empty() => Err(error),
                _ => Ok(output),
            }
        };
        let output = talk().map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(failed(outcome::reason(&output.stdout, &output.stderr))),
        }
    }

    /// What a plugin reads.
    fn document(&self, plugin: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut document = plugin.clone();
        document.insert("name".to_owned(), json!(self.configuration.name));
        document.insert("cniVersion".to_owned(), json!(self.configuration.version));
        let mut wanted = self.wanted.clone();
        wanted.retain(|capability, _| declares(plugin, capability));
        if !wanted.is_empty() {
            document.insert("runtimeConfig".to_owned(), Value::Object(wanted));
        }
        if let Some(previous) = previous {
            document.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(document)
    }

    fn failed(&self, command: &'static str, plugin: &Map<String, Value>, reason: String) -> Error {
        let plugin = plugin.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let network = format!("cni:{}", self.configuration.name);
        Error::Plugin { network, plugin, command, reason }
    }
}
