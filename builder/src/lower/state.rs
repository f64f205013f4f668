//! The state while a stage is lowered.

use std::collections::BTreeMap;

use dockerfile::{Diagnostic, Word};
use image::{Config, ContainerConfig, Platform};

use super::args::Variables;
use crate::plan::environment::{PROXY, in_env};
use crate::plan::{HistoryItem, ImageKey, StepId};
use crate::redact::without_credentials;

/// What a stage has come to after some of its instructions.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) rootfs: Option<StepId>,
    pub(super) base: Option<ImageKey>,
    pub(super) config: Config,
    pub(super) history: Vec<HistoryItem>,
    pub(super) args: Variables,
    /// Whether this stage has a `CMD` of its own.
    pub(super) own_cmd: bool,
    pub(super) platform: Platform,
    /// Steps to wait for before the first step of our own (`--after`).
    pub(super) after: Vec<StepId>,
}

impl State {
    pub(super) fn scratch(platform: Platform) -> State {
        let config = Config {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: ContainerConfig { working_dir: "/".to_owned(), ..ContainerConfig::default() },
            ..Config::default()
        };
        State {
            rootfs: None,
            base: None,
            config,
            history: Vec::new(),
            args: Variables::default(),
            own_cmd: false,
            platform,
            after: Vec::new(),
        }
    }

    /// The value of a variable: `ENV` beats `ARG`.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        in_env(&self.config.config.env, name).or_else(|| self.args.get(name)).map(str::to_owned)
    }

    /// The build arguments that have a value and may be in a key.
    pub(super) fn visible_args(&self) -> BTreeMap<String, String> {
        let all = self.args.iter().filter(|(name, _)| !PROXY.contains(name));
        all.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
    }

    /// Replaces the variables in a word.
    pub(super) fn expand(&self, word: &Word) -> Result<String, Diagnostic> {
        dockerfile::expand(word, &|name| self.variable(name))
    }

    /// Notes what was done; it made no layer.
    pub(super) fn note(&mut self, created_by: String) {
        self.history.push(HistoryItem { created_by, layer: None });
    }
}

/// Where in a Dockerfile the instruction that is lowered stands.
pub(super) struct Place<'a> {
    pub(super) stage: usize,
    pub(super) label: &'a str,
    pub(super) number: &'a mut usize,
    pub(super) total: usize,
    pub(super) fresh: bool,
}

/// A text on one line, its blanks as they are.
pub(super) fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).collect::<Vec<_>>().join(" ")
}

/// An instruction as it is shown: on one line, URLs without the credentials in them.
pub(super) fn shown(text: &str) -> String {
    let line = one_line(text);
    let words: Vec<_> = line
        .split(' ')
        .map(|word| match word.contains("://") {
            true => without_credentials(word),
            false => word.to_owned(),
        })
        .collect();
    words.join(" ")
}
