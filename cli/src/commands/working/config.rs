//! `rbuild config`.

use std::time::Duration;

use builder::Env;
use builder::working::{State, Working, edits};
use clap::Args;

use super::{HistoryFlag, env, locked, wants_history};
use crate::app::{App, Reach, observed};
use crate::render::Progress;
use crate::report::Failure;

/// Change the config of the image of a working container
///
/// A value of --annotation, --env, --label, --port, --volume, --onbuild and --os-feature that ends
/// with '-' is removed; '-' alone removes all of them.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(flatten)]
    history: HistoryFlag,
    /// Add an annotation to the manifest
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    annotation: Vec<String>,
    /// Set the CPU architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Set the author
    #[arg(long, value_name = "TEXT")]
    author: Option<String>,
    /// Set the default command: words, or a JSON array
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// Set a comment; kept in Docker's format only
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Set the command in the history of the layer
    #[arg(long, value_name = "TEXT")]
    created_by: Option<String>,
    /// Set the domain name; kept in Docker's format only
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Set the entrypoint: a JSON array, or a line for /bin/sh
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// Set a variable; $NAME in the value is expanded; a bare NAME takes its value from the
    /// environment
    #[arg(short, long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Set the health check: a line, CMD and words, or NONE
    #[arg(long, value_name = "COMMAND")]
    healthcheck: Option<String>,
    /// Set the time between two health checks (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_interval: Option<Duration>,
    /// Set how many failures in a row make a container unhealthy (default: 3)
    #[arg(long, value_name = "NUMBER")]
    healthcheck_retries: Option<u64>,
    /// Set the start period, in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_start_period: Option<Duration>,
    /// Set the time between two checks in the start period
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_start_interval: Option<Duration>,
    /// Set the timeout of a health check (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    healthcheck_timeout: Option<Duration>,
    /// Set the comment in the history of the layer
    #[arg(long, value_name = "TEXT")]
    history_comment: Option<String>,
    /// Set the host name; kept in Docker's format only
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add a label
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    label: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    unsetlabel: Vec<String>,
    /// Add an ONBUILD instruction
    #[arg(long, value_name = "INSTRUCTION", allow_hyphen_values = true)]
    onbuild: Vec<String>,
    /// Set the operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Add a required feature of the operating system
    #[arg(long, value_name = "FEATURE", allow_hyphen_values = true)]
    os_feature: Vec<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Add a port
    #[arg(
        short,
        long,
        value_name = "PORT[/PROTOCOL]",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    port: Vec<String>,
    /// Set the shell of shell-form instructions
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    shell: Option<String>,
    /// Set the signal that stops a container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Set the user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set the variant of the CPU architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Add a volume path
    #[arg(short, long, value_name = "PATH", value_delimiter = ',', allow_hyphen_values = true)]
    volume: Vec<String>,
    /// Set the working directory
    #[arg(long, value_name = "DIR")]
    workingdir: Option<String>,
    /// The container
    container: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    dockerfile::duration::parse(text)
}

impl Config {
    /// Changes the container's configuration, all of it or nothing.
    ///
    /// # Errors
    /// There is no such container; a value is not understood.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        observed("config", Progress::Quiet, |task| {
            let mut working = locked(app.store()?, &self.container, task)?;
            let env = env(app, &Reach::default())?;
            self.apply(&mut working.state)?;
            if wants_history(self.history.add_history) {
                self.tell(&mut working, &env);
            }
            Ok(working.save()?)
        })?;
        Ok(0)
    }

    fn apply(&self, state: &mut State) -> Result<(), Failure> {
        let usage = |flag: &str| {
            let flag = flag.to_owned();
            move |why: String| Failure::usage(format!("--{flag}: {why}"))
        };
        self.about(state)?;
        let config = &mut state.config.config;
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(shell) = &self.shell {
            config.shell = edits::words(shell).map_err(usage("shell"))?;
        }
        if let Some(signal) = &self.stop_signal {
            config.stop_signal = Some(signal.clone()).filter(|signal| !signal.is_empty());
        }
        if let Some(directory) = &self.workingdir {
            config.working_dir.clone_from(directory);
        }
        for port in &self.port {
            let plain = port.strip_suffix('-').unwrap_or(port);
            if !plain.is_empty() && dockerfile::expose::parse(plain).is_err() {
                return Err(Failure::usage(format!("--port {port:?} is no port such as 80/tcp")));
            }
        }
        edits::set(&mut config.exposed_ports, &self.port);
        edits::set(&mut config.volumes, &self.volume);
        edits::pairs(&mut config.labels, &self.label).map_err(usage("label"))?;
        config.labels.retain(|key, _| !self.unsetlabel.contains(key));
        edits::list(&mut config.on_build, &self.onbuild);
        let outside = |name: &str| std::env::var(name).ok();
        let unknown = |name: &str| {
            eprintln!("warning: there is no variable {name} in the container's environment");
        };
        edits::variables(&mut config.env, &self.env, &outside, &unknown).map_err(usage("env"))?;
        if let Some(text) = &self.entrypoint {
            let shell = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
            config.entrypoint = match (edits::array(text), text.is_empty()) {
                (Some(words), _) => Some(words).filter(|words| !words.is_empty()),
                (None, true) => None,
                (None, false) => Some(shell(text)),
            };
            if config.cmd.is_some() && self.cmd.is_none() && config.entrypoint.is_some() {
                eprintln!("warning: the entrypoint gets the command that is set as its arguments");
            }
        }
        if let Some(text) = &self.cmd {
            let words =
                edits::array(text).map_or_else(|| edits::words(text).map_err(usage("cmd")), Ok)?;
            config.cmd = Some(words).filter(|words| !words.is_empty());
        }
        self.health(config)
    }

    /// What is not about running it.
    fn about(&self, state: &mut State) -> Result<(), Failure> {
        let text = |to: &mut Option<String>, from: &Option<String>| {
            if let Some(text) = from {
                *to = Some(text.clone()).filter(|text| !text.is_empty());
            }
        };
        edits::pairs(&mut state.annotations, &self.annotation)
            .map_err(|why| Failure::usage(format!("--annotation: {why}")))?;
        text(&mut state.created_by, &self.created_by);
        text(&mut state.history_comment, &self.history_comment);
        text(&mut state.comment, &self.comment);
        let config = &mut state.config;
        text(&mut config.author, &self.author);
        text(&mut config.variant, &self.variant);
        text(&mut config.os_version, &self.os_version);
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

    fn health(&self, config: &mut image::ContainerConfig) -> Result<(), Failure> {
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
        let fresh = || image::Healthcheck {
            interval: 30 * second,
            timeout: 30 * second,
            retries: 3,
            ..image::Healthcheck::default()
        };
        let check = config.healthcheck.get_or_insert_with(fresh);
        if let Some(text) = &self.healthcheck {
            check.test = match text.split_once(' ').unwrap_or((text, "")) {
                ("NONE", "") => vec!["NONE".to_owned()],
                ("CMD", rest) => {
                    let rest = edits::words(rest)
                        .map_err(|why| Failure::usage(format!("--healthcheck: {why}")))?;
                    std::iter::once("CMD".to_owned()).chain(rest).collect()
                }
                ("CMD-SHELL", rest) => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
                _ => vec!["CMD-SHELL".to_owned(), text.clone()],
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
    fn tell(&self, working: &mut Working, env: &Env) {
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
            one("HEALTHCHECK", &self.healthcheck),
            many("LABEL", &self.label),
            one("WORKDIR", &self.workingdir),
            many("ONBUILD", &self.onbuild),
        ];
        for entry in entries.into_iter().flatten() {
            working.note(entry, env);
        }
    }
}
