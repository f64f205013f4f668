//! What decides a step's result, by name.

use std::collections::BTreeMap;

use image::Digest;
use serde::{Deserialize, Serialize};

use super::files::FileFact;
use super::mark::mark;

/// Everything that decides the result of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The step as the user sees it: `[build 2/5] RUN make`.
    pub(crate) step: String,
    /// The stage it belongs to.
    pub(crate) place: String,
    /// The instruction as written, on one line.
    pub(crate) instruction: String,
    /// What names its result.
    pub(crate) key: String,
    /// When these facts were gathered, seconds since 1970.
    pub(crate) time: i64,
    /// Marks of the options and properties of the instruction, by what the user calls them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, u16>,
    /// Marks of the build arguments the instruction sees.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) args: BTreeMap<String, u16>,
    /// Marks of the command's variables that are not build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, u16>,
    /// The images that it continues or reads: manifest digest and chain id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) images: BTreeMap<String, (String, String)>,
    /// The steps that it continues or reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<Input>,
    /// Whether it continues the first of the inputs.
    #[serde(default)]
    pub(crate) parent: bool,
    /// The files it reads from build contexts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileFact>,
    /// Whether there were too many of them to be listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) many_files: bool,
}

/// A step that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    /// As the user sees it.
    pub(crate) step: String,
    /// The instruction as written.
    pub(crate) instruction: String,
    /// What names its result on this machine, and what names it on every one.
    pub(crate) keys: [Digest; 2],
}

impl Facts {
    pub(super) fn set(&mut self, name: impl Into<String>, value: &(impl Serialize + ?Sized)) {
        let value = serde_json::to_vec(value).unwrap_or_default();
        self.settings.insert(name.into(), mark(&value));
    }
}
