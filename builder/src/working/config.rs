//! Changes of the configuration that the image of a working container will have.

use std::time::Duration;

use image::{ContainerConfig, Healthcheck};

use super::{State, WorkingContainer, edits};
use crate::Env;

/// What is changed; the rest stays. An empty text takes a value away. Items of lists are added;
/// one that ends with `-` is removed, `-` alone removes all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Annotations of the manifest: `KEY=VALUE`.
    pub annotation: Vec<String>,
    /// Annotations that are removed.
    pub unsetannotation: Vec<String>,
    /// Sets the CPU architecture.
    pub arch: Option<String>,
    /// Sets the author.
    pub author: Option<String>,
    /// Sets the default command: words, or a JSON array.
    pub cmd: Option<String>,
    /// Sets a comment; kept in Docker's format only.
    pub comment: Option<String>,
    /// Sets the command in the history of the layer.
    pub created_by: Option<String>,
    /// Sets the domain name; kept in Docker's format only.
    pub domainname: Option<String>,
    /// Sets the entrypoint: a JSON array, or a line for /bin/sh.
    pub entrypoint: Option<String>,
    /// Variables: `NAME=VALUE`, where `$NAME` in the value is expanded; a bare `NAME` takes its
    /// value from outside.
    pub env: Vec<String>,
    /// Sets the health check: a line, CMD and words, or NONE.
    pub healthcheck: Option<String>,
    /// Sets the time between two health checks (default: 30s).
    pub healthcheck_interval: Option<Duration>,
    /// Sets how many failures in a row make a container unhealthy (default: 3).
    pub healthcheck_retries: Option<u64>,
    /// Sets the start period, in which failures do not count.
    pub healthcheck_start_period: Option<Duration>,
    /// Sets the time between two checks in the start period.
    pub healthcheck_start_interval: Option<Duration>,
    /// Sets the timeout of a health check (default: 30s).
    pub healthcheck_timeout: Option<Duration>,
    /// Sets the comment in the history of the layer.
    pub history_comment: Option<String>,
    /// Sets the host name; kept in Docker's format only.
    pub hostname: Option<String>,
    /// Labels: `KEY=VALUE`.
    pub label: Vec<String>,
    /// Keys of labels to remove.
    pub unsetlabel: Vec<String>,
    /// ONBUILD instructions.
    pub onbuild: Vec<String>,
    /// Sets the operating system.
    pub os: Option<String>,
    /// Features that the operating system must have.
    pub os_feature: Vec<String>,
    /// Sets the version of the operating system.
    pub os_version: Option<String>,
    /// Ports: `PORT[/PROTOCOL]`.
    pub port: Vec<String>,
    /// Sets the shell of shell-form instructions.
    pub shell: Option<String>,
    /// Sets the signal that stops a container.
    pub stop_signal: Option<String>,
    /// Sets the user.
    pub user: Option<String>,
    /// Sets the variant of the CPU architecture.
    pub variant: Option<String>,
    /// Paths of volumes.
    pub volume: Vec<String>,
    /// Sets the working directory.
    pub workingdir: Option<String>,
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The field of [`ConfigChanges`].
    pub field: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

/// An error of this field.
fn of(field: &'static str) -> impl Fn(String) -> ConfigError {
    move |reason| ConfigError { field, reason }
}

/// Replaces a text if another is given; an empty one takes it away.
fn replace(to: &mut Option<String>, from: Option<&String>) {
    if let Some(text) = from {
        *to = Some(text.clone()).filter(|text| !text.is_empty());
    }
}

impl ConfigChanges {
    /// Changes the state of a working container, all of it or nothing. `outside` gives the values of
    /// variables without one. Gives back what the user should know.
    ///
    /// # Errors
    /// A value is not understood.
    pub fn apply(
        &self,
        state: &mut State,
        outside: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, ConfigError> {
        let mut changed = state.clone();
        self.about(&mut changed)?;
        let config = &mut changed.config.config;
        let mut warnings = self.lists(config, outside)?;
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(shell) = &self.shell {
            config.shell = edits::words(shell).map_err(of("shell"))?;
        }
        replace(&mut config.stop_signal, self.stop_signal.as_ref());
        if let Some(directory) = &self.workingdir {
            config.working_dir.clone_from(directory);
        }
        if let Some(text) = &self.entrypoint {
            let shell = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
            config.entrypoint = match (edits::array(text), text.is_empty()) {
                (Some(words), _) => Some(words).filter(|words| !words.is_empty()),
                (None, true) => None,
                (None, false) => Some(shell(text)),
            };
            if config.cmd.is_some() && self.cmd.is_none() && config.entrypoint.is_some() {
                let what = "the entrypoint gets the command that is set as its arguments";
                warnings.push(what.to_owned());
            }
        }
        if let Some(text) = &self.cmd {
            let words = edits::array(text).map_or_else(|| edits::words(text), Ok);
            config.cmd = Some(words.map_err(of("cmd"))?).filter(|words| !words.is_empty());
        }
        self.health(config)?;
        *state = changed;
        Ok(warnings)
    }

    /// What has several items.
    fn lists(
        &self,
        config: &mut ContainerConfig,
        outside: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, ConfigError> {
        for port in &self.port {
            let plain = port.strip_suffix('-').unwrap_or(port);
            if !plain.is_empty() && dockerfile::expose::parse(plain).is_err() {
                return Err(of("port")(format!("{port:?} is no port such as 80/tcp")));
            }
        }
        edits::set(&mut config.exposed_ports, &self.port);
        edits::set(&mut config.volumes, &self.volume);
        edits::pairs(&mut config.labels, &self.label).map_err(of("label"))?;
        config.labels.retain(|key, _| !self.unsetlabel.contains(key));
        edits::list(&mut config.on_build, &self.onbuild);
        let warnings = std::cell::RefCell::new(Vec::new());
        let unknown = |name: &str| {
            let what = format!("there is no variable {name} in the container's environment");
            warnings.borrow_mut().push(what);
        };
        edits::variables(&mut config.env, &self.env, outside, &unknown).map_err(of("env"))?;
        Ok(warnings.into_inner())
    }

    /// What is not about running it.
    fn about(&self, state: &mut State) -> Result<(), ConfigError> {
        edits::pairs(&mut state.annotations, &self.annotation).map_err(of("annotation"))?;
        state.annotations.retain(|key, _| !self.unsetannotation.contains(key));
        state.unset_annotations.retain(|key| !state.annotations.contains_key(key));
        state.unset_annotations.extend(self.unsetannotation.iter().cloned());
        replace(&mut state.created_by, self.created_by.as_ref());
        replace(&mut state.history_comment, self.history_comment.as_ref());
        replace(&mut state.comment, self.comment.as_ref());
        let config = &mut state.config;
        replace(&mut config.author, self.author.as_ref());
        replace(&mut config.variant, self.variant.as_ref());
        replace(&mut config.os_version, self.os_version.as_ref());
        edits::list(&mut config.os_features, &self.os_feature);
        if let Some(architecture) = &self.arch {
            config.architecture.clone_from(architecture);
        }
        if let Some(os) = &self.os {
            config.os.clone_from(os);
        }
        for (key, value) in [("Hostname", &self.hostname), ("Domainname", &self.domainname)] {
            if let Some(value) = value {
                config.config.rest.insert(key.to_owned(), value.as_str().into());
            }
        }
        Ok(())
    }

    fn health(&self, config: &mut ContainerConfig) -> Result<(), ConfigError> {
        let times = [
            self.healthcheck_interval,
            self.healthcheck_timeout,
            self.healthcheck_start_period,
            self.healthcheck_start_interval,
        ];
        if self.healthcheck.is_none()
            && self.healthcheck_retries.is_none()
            && times.iter().all(Option::is_none)
        {
            return Ok(());
        }
        let second = 1_000_000_000;
        let fresh = || Healthcheck {
            interval: 30 * second,
            timeout: 30 * second,
            retries: 3,
            ..Healthcheck::default()
        };
        let check = config.healthcheck.get_or_insert_with(fresh);
        if let Some(text) = &self.healthcheck {
            check.test = match text.split_once(' ').unwrap_or((text, "")) {
                ("NONE", "") => vec!["NONE".to_owned()],
                ("CMD", rest) => {
                    let rest = edits::words(rest).map_err(of("healthcheck"))?;
                    std::iter::once("CMD".to_owned()).chain(rest).collect()
                }
                ("CMD-SHELL", rest) => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
                _ => {
                    // A shell would not understand it either.
                    edits::words(text).map_err(of("healthcheck"))?;
                    vec!["CMD-SHELL".to_owned(), text.clone()]
                }
            };
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let slots = [
            &mut check.interval,
            &mut check.timeout,
            &mut check.start_period,
            &mut check.start_interval,
        ];
        for (slot, time) in slots.into_iter().zip(times) {
            if let Some(time) = time {
                *slot = nanos(time);
            }
        }
        if let Some(retries) = self.healthcheck_retries {
            check.retries = retries;
        }
        Ok(())
    }

    /// Puts what was changed into the history, in the words of a Dockerfile.
    pub fn note(&self, working: &mut WorkingContainer, env: &Env) {
        let nop = |text: String| format!("/bin/sh -c #(nop) {text}");
        let one = |keyword: &'static str, value: &Option<String>| {
            value.iter().map(move |value| nop(format!("{keyword} {value}"))).collect::<Vec<_>>()
        };
        let many = |keyword: &'static str, values: &[String]| {
            values.iter().map(|value| nop(format!("{keyword} {value}"))).collect::<Vec<_>>()
        };
        let entries = [
            one("MAINTAINER", &self.author),
            one("USER", &self.user),
            one("SHELL", &self.shell),
            one("STOPSIGNAL", &self.stop_signal),
            many("EXPOSE", &self.port),
            many("ENV", &self.env),
            one("ENTRYPOINT", &self.entrypoint),
            one("CMD", &self.cmd),
            many("VOLUME", &self.volume),
            self.noted_check().map(nop).into_iter().collect(),
            many("LABEL", &self.label),
            one("WORKDIR", &self.workingdir),
            many("ONBUILD", &self.onbuild),
        ];
        for entry in entries.into_iter().flatten() {
            working.note(entry, env);
        }
    }
}

impl ConfigChanges {
    /// The check with its options, as an instruction of a Dockerfile.
    fn noted_check(&self) -> Option<String> {
        let check = self.healthcheck.as_ref()?;
        let time = |name: &str, time: Option<Duration>| {
            let nanoseconds = time.map(|time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
            nanoseconds.map(|n| format!("--{name}={} ", format::go_span(n))).unwrap_or_default()
        };
        let retries = self.healthcheck_retries.map(|n| format!("--retries={n} "));
        Some(format!(
            "HEALTHCHECK {}{}{}{}{}{check}",
            time("interval", self.healthcheck_interval),
            retries.unwrap_or_default(),
            time("start-period", self.healthcheck_start_period),
            time("start-interval", self.healthcheck_start_interval),
            time("timeout", self.healthcheck_timeout),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_understood_changes_nothing() {
        let mut state = State::default();
        let changes = ConfigChanges {
            author: Some("me".to_owned()),
            env: vec!["A=$NOPE.".to_owned(), "B".to_owned()],
            entrypoint: Some("run it".to_owned()),
            port: vec!["80".to_owned()],
            healthcheck: Some("CMD a 'b c'".to_owned()),
            ..ConfigChanges::default()
        };
        let outside = |name: &str| (name == "B").then(|| "2".to_owned());
        let warnings = changes.apply(&mut state, &outside).unwrap();
        assert_eq!(warnings, ["there is no variable NOPE in the container's environment"]);
        let config = &state.config.config;
        assert_eq!(config.env, ["A=.", "B=2"]);
        assert_eq!(config.entrypoint.as_deref().unwrap()[2], "run it");
        let check = config.healthcheck.as_ref().unwrap();
        assert_eq!(
            (&check.test[..], check.retries),
            (&["CMD", "a", "b c"].map(str::to_owned)[..], 3)
        );
        let before = state.clone();
        for (changes, field) in [
            (ConfigChanges { port: vec!["x".to_owned()], ..changes.clone() }, "port"),
            (ConfigChanges { shell: Some("'".to_owned()), ..changes.clone() }, "shell"),
            (ConfigChanges { label: vec!["=".to_owned()], ..changes }, "label"),
        ] {
            let refused = changes.apply(&mut state, &|_| Some(String::new())).unwrap_err();
            assert_eq!((refused.field, &state), (field, &before));
        }
    }
}
