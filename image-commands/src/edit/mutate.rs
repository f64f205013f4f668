use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use app::{App, Runnable, observed};
use clap::Args;
use image::{ConfigEdit, History, Platform, Repository};
use layers::LayerEdit;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use options::{Failure, flags};
use transport::{Draft, Location};

use super::append::archive;

/// Change the config, annotations or layers of an image
#[derive(Debug, Args)]
pub struct Mutate {
    /// The image
    image: String,
    /// Choose the image of this platform in an index (default: change all and the index)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE", help_heading = "Changes")]
    env: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME", help_heading = "Changes")]
    unset_env: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = "Changes")]
    label: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY", help_heading = "Changes")]
    unset_label: Vec<String>,
    /// Set an annotation of the manifest
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = "Changes")]
    annotation: Vec<String>,
    /// Remove an annotation of the manifest
    #[arg(long, value_name = "KEY", help_heading = "Changes")]
    unset_annotation: Vec<String>,
    /// Set the arguments: separate words by commas, or repeat the flag
    #[arg(
        long,
        value_name = "WORD,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Changes"
    )]
    cmd: Option<Vec<String>>,
    /// Set the entrypoint and clear the arguments
    #[arg(
        long,
        value_name = "WORD,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        help_heading = "Changes"
    )]
    entrypoint: Option<Vec<String>>,
    /// Set the user
    #[arg(short, long, help_heading = "Changes")]
    user: Option<String>,
    /// Set the working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Changes")]
    workdir: Option<String>,
    /// Expose ports: 80/tcp
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', help_heading = "Changes")]
    exposed_ports: Vec<String>,
    /// Add volumes
    #[arg(long, value_name = "PATH", help_heading = "Changes")]
    volume: Vec<String>,
    /// Set the signal that stops a container
    #[arg(long, value_name = "SIGNAL", help_heading = "Changes")]
    stop_signal: Option<String>,
    /// Set the platform in the config
    #[arg(long, value_name = "OS/ARCH", help_heading = "Changes")]
    set_platform: Option<Platform>,
    /// Set the creation time, in RFC 3339
    #[arg(long, value_name = "TIME", help_heading = "Changes")]
    set_created: Option<String>,
    /// Add a layer archive; repeatable
    #[arg(long, value_name = "FILE,…", value_delimiter = ',', help_heading = "Changes")]
    append: Vec<PathBuf>,
    /// Take away the layer of this number; the lowest is 0, as `rcopy explore` counts them
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', help_heading = "Changes")]
    drop_layer: Vec<usize>,
    /// Take this file or directory out of every layer; repeatable
    #[arg(long, value_name = "PATH", help_heading = "Changes")]
    strip: Vec<PathBuf>,
    /// Set the creation time, and let no file and no step of the history be younger: seconds since
    /// 1970, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "set_created", help_heading = "Changes")]
    timestamp: Option<jiff::Timestamp>,
    /// Push to this repository, by digest
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["tag", "output"], help_heading = "Destination")]
    repo: Option<String>,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Mutate {
    /// Makes and writes the image; without a destination beside the original, by its digest.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let edit = self.edit()?;
        let from = location(&self.image, "docker://")?;
        let to = self.to.location()?;
        let repository = self.repo.as_deref().map(repository).transpose()?;
        self.append.iter().try_for_each(|path| archive(path).map(drop))?;
        let (to, root) = observed(&format!("mutate {from}"), Progress::Auto, |task| {
            let ends = (&from, to.as_ref());
            let (source, originals) =
                super::open_all(app, &self.end, ends, self.platform.as_ref(), task)?;
            if self.set_platform.is_some() && originals.images().count() > 1 {
                return Err(Failure::usage(
                    "--set-platform is for one image, and this is an index",
                )
                .hint("choose one with --platform"));
            }
            let change = |image: &image::Image| {
                let mut draft = Draft::new(&*source, image, app.conf.settings.room());
                if let Some(number) = draft.drop_layers(&self.drop_layer.iter().copied().collect())
                {
                    let what = format!("--drop-layer {number}: the image has no such layer");
                    return Err(Failure::usage(what)
                        .hint(format!("it has {}, and the lowest is 0", draft.layers().len())));
                }
                for path in &self.append {
                    let file = archive(path)?;
                    app.wait(draft.append(file, &path.display().to_string(), task))??;
                    draft.step_of_layer(path, "rcopy append");
                }
                let entries = self.entries();
                if !entries.is_empty() {
                    app.wait(draft.edit_layers(&entries, task))??;
                }
                edit.apply(&mut draft.config);
                if let Some(time) = self.timestamp {
                    clamp(&mut draft.config.history, time);
                }
                let annotations = &mut draft.manifest.annotations;
                annotations.extend(self.annotation.iter().map(|text| flags::pair(text)));
                annotations.retain(|key, _| !self.unset_annotation.contains(key));
                if !annotations.is_empty() && image.descriptor().media_type.is_docker() {
                    let what = "--annotation: Docker's manifests have no annotations";
                    return Err(Failure::usage(what)
                        .hint("convert the image first: `rcopy copy --format oci`"));
                }
                Ok(draft.finish())
            };
            let made = originals.images().map(change).collect::<Result<Vec<_>, Failure>>()?;
            let made = originals.join(&*source, made)?;
            let root = made.root().clone();
            let to = match (to, repository) {
                (Some(to), _) => to,
                (None, Some(repository)) => Location::Registry(repository.pinned(root.digest)),
                (None, None) => options::place::beside(&from, &root)?,
            };
            let root = super::publish(app, &self.end, &made, &to, task)?;
            Ok((to, root))
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}

impl Mutate {
    /// What is done to files in layers.
    fn entries(&self) -> LayerEdit {
        let path = |path: &PathBuf| LayerEdit::path(path.as_os_str().as_bytes());
        LayerEdit {
            strip: self.strip.iter().map(path).collect(),
            clamp: self.timestamp.map(jiff::Timestamp::as_second),
        }
    }

    fn edit(&self) -> Result<ConfigEdit, Failure> {
        for line in &self.env {
            if line.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                return Err(Failure::usage(format!("--env {line:?}: it is not NAME=VALUE")));
            }
        }
        for (flag, list) in [("--label", &self.label), ("--annotation", &self.annotation)] {
            if let Some(text) =
                list.iter().find(|text| text.starts_with('=') || !text.contains('='))
            {
                return Err(Failure::usage(format!("{flag} {text:?}: it is not KEY=VALUE")));
            }
        }
        let ports = self.exposed_ports.iter().map(|text| port(text)).collect::<Result<_, _>>()?;
        if let Some(text) = &self.set_created
            && text.parse::<jiff::Timestamp>().is_err()
        {
            return Err(Failure::usage(format!(
                "--set-created {text:?}: it is not an RFC 3339 time"
            )));
        }
        Ok(ConfigEdit {
            env: self.env.clone(),
            unset_env: self.unset_env.clone(),
            labels: self.label.iter().map(|text| flags::pair(text)).collect(),
            unset_labels: self.unset_label.clone(),
            cmd: self.cmd.clone(),
            entrypoint: self.entrypoint.clone(),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            ports,
            volumes: self.volume.clone(),
            stop_signal: self.stop_signal.clone(),
            platform: self.set_platform.clone(),
            created: self.timestamp.map(|time| time.to_string()).or(self.set_created.clone()),
            author: None,
        })
    }
}

/// No step is younger than the time.
fn clamp(history: &mut [History], time: jiff::Timestamp) {
    for step in history {
        let made = step.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if made.is_some_and(|made| made > time) {
            step.created = Some(time.to_string());
        }
    }
}

/// Seconds since 1970, or RFC 3339.
fn seconds(text: &str) -> Result<jiff::Timestamp, String> {
    let read = match text.parse::<i64>() {
        Ok(seconds) => jiff::Timestamp::from_second(seconds),
        Err(_) => text.parse(),
    };
    read.map_err(|_| "it is neither seconds since 1970 nor an RFC 3339 time".to_owned())
}

fn repository(text: &str) -> Result<Repository, Failure> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let reference: image::Reference = text.parse()?;
    match (&reference.tag, &reference.digest) {
        (None, None) => Ok(reference.repository),
        _ => Err(Failure::usage(format!("--repo {text}: a repository has no tag or digest"))),
    }
}

/// `80`, `80/tcp`, `53/udp`.
fn port(text: &str) -> Result<String, Failure> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let good = number.parse::<u16>().is_ok() && matches!(protocol, "tcp" | "udp" | "sctp");
    match good {
        true => Ok(format!("{number}/{protocol}")),
        false => Err(Failure::usage(format!(
            "--exposed-ports {text:?}: it is not a port such as 80/tcp"
        ))),
    }
}
