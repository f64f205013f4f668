//! What an image is to look like beyond what the Dockerfile says.

use std::collections::BTreeMap;

use image::{Config, Platform};
use serde::{Deserialize, Serialize};

use crate::plan::environment::set_env;

/// Changes to the image, and how many layers it has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// `--env`: set in the configuration of the result.
    pub env: Vec<(String, String)>,
    /// `--unsetenv`.
    pub unset_env: Vec<String>,
    /// `--unsetlabel`: labels of the base and of the Dockerfile that go; `--label` is set after.
    pub unset_labels: Vec<String>,
    /// `--annotation`.
    pub annotations: Vec<Annotation>,
    /// `--omit-history`.
    pub omit_history: bool,
    /// `--os-version`.
    pub os_version: Option<String>,
    /// `--os-feature`: added to those of the base.
    pub os_features: Vec<String>,
    /// Which layers become one.
    pub squash: Squash,
    /// Layers of the base are compressed as those of our own are.
    pub force_compression: bool,
    /// Times of files in layers are left as they are although a time is given.
    pub keep_times: bool,
    /// What the image inherits of its base, and what it says of it.
    pub inherit: Inherit,
    /// A single image is in an index too, as those for several platforms are.
    pub index: bool,
}

/// What an image inherits of its base image, and what its annotations say of where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inherit {
    /// The labels of the base.
    pub labels: bool,
    /// The annotations of the base's manifest.
    pub annotations: bool,
    /// `org.opencontainers.image.base.name` and `.digest` are set.
    pub names_base: bool,
    /// `org.opencontainers.image.created` is set.
    pub created: bool,
}

impl Default for Inherit {
    /// As BuildKit.
    fn default() -> Inherit {
        Inherit { labels: true, annotations: false, names_base: false, created: false }
    }
}

/// Which layers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Squash {
    /// None: every step that changes files is a layer.
    #[default]
    None,
    /// All, those of the base included.
    All,
    /// Those of the Dockerfile; the base's stay.
    New,
    /// Those of each stage; the base's stay.
    Stage,
}

/// What an annotation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A manifest.
    Manifest,
    /// A manifest's entry in the index.
    ManifestDescriptor,
    /// The index.
    Index,
    /// The entry of the whole in the `index.json` of a layout or archive.
    IndexDescriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// What it is about.
    pub level: Level,
    /// Only of the image for this platform.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value; `None` takes it away.
    pub value: Option<String>,
}

impl ImageOptions {
    /// The annotations of a level for an image.
    pub(crate) fn annotations(
        &self,
        level: Level,
        platform: Option<&Platform>,
    ) -> BTreeMap<String, String> {
        self.annotations_over(BTreeMap::new(), level, platform)
    }

    /// As [`ImageOptions::annotations`], over others.
    pub(crate) fn annotations_over(
        &self,
        mut all: BTreeMap<String, String>,
        level: Level,
        platform: Option<&Platform>,
    ) -> BTreeMap<String, String> {
        let about = |one: &&Annotation| {
            one.level == level && one.platform.as_ref().is_none_or(|p| Some(p) == platform)
        };
        for one in self.annotations.iter().filter(about) {
            match &one.value {
                Some(value) => all.insert(one.key.clone(), value.clone()),
                None => all.remove(&one.key),
            };
        }
        all
    }

    /// The annotations of the entry in `index.json`: a single image is its own manifest there.
    pub(crate) fn entry(&self, single: Option<&Platform>) -> BTreeMap<String, String> {
        let mut all = match single {
            Some(platform) => self.annotations(Level::ManifestDescriptor, Some(platform)),
            None => BTreeMap::new(),
        };
        all.extend(self.annotations(Level::IndexDescriptor, None));
        all
    }

    /// Applies what concerns the configuration; `labels` are those of `--label`.
    pub(crate) fn configure(&self, config: &mut Config, labels: &BTreeMap<String, String>) {
        let own = &mut config.config;
        let name = |line: &String| line.split_once('=').map_or(line.clone(), |(n, _)| n.to_owned());
        own.env.retain(|line| !self.unset_env.contains(&name(line)));
        for (name, value) in &self.env {
            set_env(&mut own.env, name, value);
        }
        own.labels.retain(|key, _| !self.unset_labels.contains(key));
        own.labels.extend(labels.clone());
        if let Some(version) = &self.os_version {
            config.rest.insert("os.version".to_owned(), version.clone().into());
        }
        if !self.os_features.is_empty() {
            let known = config.rest.remove("os.features");
            let mut features: Vec<String> =
                known.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
            features.extend(self.os_features.iter().cloned());
            features.dedup();
            config.rest.insert("os.features".to_owned(), features.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unset_goes_and_what_is_set_stays() {
        let mut config = Config::default();
        config.config.env = vec!["PATH=/bin".to_owned(), "A=1".to_owned(), "B=1".to_owned()];
        config.config.labels.insert("a".to_owned(), "base".to_owned());
        config.config.labels.insert("b".to_owned(), "base".to_owned());
        let options = ImageOptions {
            env: vec![("B".to_owned(), "2".to_owned()), ("C".to_owned(), "3=4".to_owned())],
            unset_env: vec!["A".to_owned()],
            unset_labels: vec!["a".to_owned(), "b".to_owned()],
            os_features: vec!["x".to_owned(), "x".to_owned()],
            ..ImageOptions::default()
        };
        options.configure(&mut config, &BTreeMap::from([("b".to_owned(), "new".to_owned())]));
        assert_eq!(config.config.env, ["PATH=/bin", "B=2", "C=3=4"]);
        assert_eq!(config.config.labels, BTreeMap::from([("b".to_owned(), "new".to_owned())]));
        assert_eq!(config.rest["os.features"], serde_json::json!(["x"]));
    }

    #[test]
    fn annotations_have_levels_and_platforms() {
        let one = |level, platform: Option<&str>, key: &str, value: Option<&str>| Annotation {
            level,
            platform: platform.map(|text| text.parse().unwrap()),
            key: key.to_owned(),
            value: value.map(str::to_owned),
        };
        let options = ImageOptions {
            annotations: vec![
                one(Level::Manifest, None, "a", Some("1")),
                one(Level::Manifest, Some("linux/arm64"), "a", Some("2")),
                one(Level::Index, None, "i", Some("3")),
                one(Level::Manifest, None, "gone", Some("4")),
                one(Level::Manifest, None, "gone", None),
            ],
            ..ImageOptions::default()
        };
        let arm: Platform = "linux/arm64".parse().unwrap();
        let amd: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(options.annotations(Level::Manifest, Some(&arm))["a"], "2");
        assert_eq!(options.annotations(Level::Manifest, Some(&amd))["a"], "1");
        assert_eq!(options.annotations(Level::Manifest, Some(&amd)).len(), 1);
        assert_eq!(options.annotations(Level::Index, None)["i"], "3");
    }
}
