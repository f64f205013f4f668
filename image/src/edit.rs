//! Changes to a configuration, as values.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Config, History, Platform};

/// What is changed of a configuration; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigEdit {
    /// `NAME=value` lines; one of the same name takes the place of the old one.
    pub env: Vec<String>,
    /// Names of variables that go.
    pub unset_env: Vec<String>,
    /// Labels that are set.
    pub labels: BTreeMap<String, String>,
    /// Labels that go.
    pub unset_labels: Vec<String>,
    /// The arguments.
    pub cmd: Option<Vec<String>>,
    /// The program; without new arguments the old ones go, as they were the old program's.
    pub entrypoint: Option<Vec<String>>,
    /// The user.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// Ports that are exposed beside those that are: `80/tcp`.
    pub ports: Vec<String>,
    /// Volumes beside those that are.
    pub volumes: Vec<String>,
    /// The signal that asks a container to stop.
    pub stop_signal: Option<String>,
    /// The platform.
    pub platform: Option<Platform>,
    /// When the image was made.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
}

impl ConfigEdit {
    /// Makes the changes.
    pub fn apply(&self, config: &mut Config) {
        let run = &mut config.config;
        for line in &self.env {
            let name = name_of(line);
            match run.env.iter_mut().find(|known| name_of(known) == name) {
                Some(known) => known.clone_from(line),
                None => run.env.push(line.clone()),
            }
        }
        run.env.retain(|line| !self.unset_env.iter().any(|name| name_of(line) == name));
        run.labels.extend(self.labels.clone());
        run.labels.retain(|key, _| !self.unset_labels.contains(key));
        if let Some(entrypoint) = &self.entrypoint {
            run.entrypoint = Some(entrypoint.clone());
            run.cmd = None;
        }
        if let Some(cmd) = &self.cmd {
            run.cmd = Some(cmd.clone());
        }
        let set = |field: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                field.clone_from(value);
            }
        };
        set(&mut run.user, &self.user);
        set(&mut run.working_dir, &self.working_dir);
        let empty = || Value::Object(serde_json::Map::new());
        run.exposed_ports.extend(self.ports.iter().map(|port| (port.clone(), empty())));
        run.volumes.extend(self.volumes.iter().map(|path| (path.clone(), empty())));
        if self.stop_signal.is_some() {
            run.stop_signal.clone_from(&self.stop_signal);
        }
        if let Some(platform) = &self.platform {
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            config.variant.clone_from(&platform.variant);
            config.os_version.clone_from(&platform.os_version);
            config.os_features.clone_from(&platform.os_features);
        }
        if self.created.is_some() {
            config.created.clone_from(&self.created);
        }
        if self.author.is_some() {
            config.author.clone_from(&self.author);
        }
    }
}

fn name_of(line: &str) -> &str {
    line.split_once('=').map_or(line, |(name, _)| name)
}

/// For each layer the step that made it, by its place in the history; `None` where the history
/// does not say.
pub fn steps(config: &Config) -> Vec<Option<usize>> {
    let with_layers = config.history.iter().enumerate().filter(|(_, step)| !step.empty_layer);
    let steps: Vec<usize> = with_layers.map(|(at, _)| at).collect();
    let layers = config.rootfs.diff_ids.len();
    if steps.len() != layers {
        return vec![None; layers];
    }
    steps.into_iter().map(Some).collect()
}

/// The history behind that of the first `layers` layers: what a later image added.
pub fn history_behind(config: &Config, layers: usize) -> Option<&[History]> {
    if layers == 0 {
        return Some(&config.history);
    }
    let at = *steps(config).get(layers - 1)?;
    Some(&config.history[at? + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerConfig, Digest, RootFs};

    #[test]
    fn only_what_is_named_changes() {
        let mut config = Config {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            config: ContainerConfig {
                env: vec!["A=1".to_owned(), "B=2".to_owned(), "C=3".to_owned()],
                cmd: Some(vec!["old".to_owned()]),
                user: "me".to_owned(),
                labels: BTreeMap::from([("x".to_owned(), "1".to_owned())]),
                ..ContainerConfig::default()
            },
            ..Config::default()
        };
        let untouched = config.clone();
        ConfigEdit::default().apply(&mut config);
        assert_eq!(config, untouched);
        let edit = ConfigEdit {
            env: vec!["B=x=y".to_owned(), "D=".to_owned()],
            unset_env: vec!["A".to_owned()],
            labels: BTreeMap::from([("y".to_owned(), String::new())]),
            unset_labels: vec!["x".to_owned()],
            entrypoint: Some(vec!["/run".to_owned()]),
            working_dir: Some("/w".to_owned()),
            ports: vec!["80/tcp".to_owned()],
            platform: Some("linux/arm64".parse().unwrap()),
            ..ConfigEdit::default()
        };
        edit.apply(&mut config);
        assert_eq!(config.config.env, ["B=x=y", "C=3", "D="]);
        assert_eq!(config.config.labels.keys().collect::<Vec<_>>(), ["y"]);
        assert_eq!((config.config.cmd.as_ref(), config.config.user.as_str()), (None, "me"));
        assert_eq!(config.config.working_dir, "/w");
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.architecture, "arm64");
    }

    #[test]
    fn history_is_matched_to_layers_only_where_it_fits() {
        let step = |empty_layer| History { empty_layer, ..History::default() };
        let mut config = Config {
            rootfs: RootFs {
                diff_ids: vec![Digest::of(b"a"), Digest::of(b"b")],
                ..RootFs::default()
            },
            history: vec![step(false), step(true), step(false), step(true)],
            ..Config::default()
        };
        assert_eq!(steps(&config), [Some(0), Some(2)]);
        assert_eq!(history_behind(&config, 1).map(<[_]>::len), Some(3));
        assert_eq!(history_behind(&config, 2).map(<[_]>::len), Some(1));
        config.history.pop();
        config.history.pop();
        assert_eq!(steps(&config), [None, None]);
        assert_eq!(history_behind(&config, 1), None);
    }
}
