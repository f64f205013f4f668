//! Conditions by which containers are listed: `name=web`, `before=db`, `publish=80-90/tcp`.

use network::Protocol;
use regex::Regex;
use runtime::Restart;

use crate::filter::LabelFilter;
use crate::{Container, Containers, Error, Phase, Result};

/// Which containers are listed.
#[derive(Debug, Clone)]
pub struct ContainerFilter {
    key: FilterKey,
    text: String,
}

/// The key of a filter, with its value.
#[derive(Debug, Clone)]
enum FilterKey {
    Id,
    Name(Regex),
    Status,
    Label(LabelFilter),
    NoLabel(LabelFilter),
    Ancestor,
    Exited(u8),
    Volume,
    Network,
    Health,
    /// Those made before the container with this name or id, or after it.
    Before,
    Since,
    /// Those with an id among these: what [`FilterKey::Before`] and [`FilterKey::Since`] mean.
    Among(Vec<String>),
    Publish(Vec<(u16, Protocol)>),
    Expose(Vec<(u16, Protocol)>),
    /// Those made before this second.
    Until(u64),
    RestartPolicy,
    Command,
    /// Whether it is a task of a swarm: none is.
    Task(bool),
}

fn ports(value: &str) -> Option<Vec<(u16, Protocol)>> {
    network::exposed(value).ok()
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

impl ContainerFilter {
    /// The keys, as help and errors name them.
    pub const KEYS: &str = "id, name, label, label!, status, exited, ancestor, before, since, until, volume, \
                            network, publish, expose, health, restart-policy, command and is-task";

    /// Reads `KEY=VALUE`; `moment` reads the time of `until`, in seconds since 1970. `None` if there is no such condition, or it
    /// has no such value.
    pub fn parse(text: &str, moment: &dyn Fn(&str) -> Option<f64>) -> Option<ContainerFilter> {
        if let Some(label) = text.strip_prefix("label!=") {
            let key = FilterKey::NoLabel(LabelFilter::parse(label));
            return Some(ContainerFilter { key, text: label.to_owned() });
        }
        let (key, value) = text.split_once('=')?;
        let key = match key {
            "id" => FilterKey::Id,
            "name" => FilterKey::Name(Regex::new(value.strip_prefix('/').unwrap_or(value)).ok()?),
            "label" => FilterKey::Label(LabelFilter::parse(value)),
            "ancestor" => FilterKey::Ancestor,
            "exited" => FilterKey::Exited(value.parse().ok()?),
            "volume" => FilterKey::Volume,
            "network" => FilterKey::Network,
            "health" => {
                let known = ["none", "starting", "healthy", "unhealthy"];
                known.contains(&value).then_some(FilterKey::Health)?
            }
            "before" => FilterKey::Before,
            "since" => FilterKey::Since,
            "publish" => FilterKey::Publish(ports(value)?),
            "expose" => FilterKey::Expose(ports(value)?),
            "until" => FilterKey::Until(moment(value)?.max(0.0) as u64),
            "status" => {
                // podman's words.
                let text = match value {
                    "stopped" => "exited",
                    "configured" | "initialized" => "created",
                    phase => phase,
                };
                // No container here is in these states of docker and podman.
                let known = Phase::ALL.map(Phase::as_str);
                (known.contains(&text) || ["removing", "unknown"].contains(&text)).then_some(())?;
                return Some(ContainerFilter { key: FilterKey::Status, text: text.to_owned() });
            }
            "restart-policy" if value == "none" => {
                return Some(ContainerFilter {
                    key: FilterKey::RestartPolicy,
                    text: "no".to_owned(),
                });
            }
            "restart-policy" => {
                let known = ["no", "on-failure", "always", "unless-stopped"];
                known.contains(&value).then_some(FilterKey::RestartPolicy)?
            }
            "command" => FilterKey::Command,
            "is-task" => FilterKey::Task(truth(value)?),
            _ => return None,
        };
        Some(ContainerFilter { key, text: value.to_owned() })
    }

    /// Finds the container that `before` and `since` name.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; the store cannot be read.
    pub fn resolve(&mut self, all: &Containers) -> Result<()> {
        let after = match self.key {
            FilterKey::Before => false,
            FilterKey::Since => true,
            _ => return Ok(()),
        };
        let found = all.find(&self.text)?;
        let id = found.ok_or_else(|| Error::NoContainer { name: self.text.clone() })?.row.id;
        let listed = all.list()?;
        let at = listed.iter().position(|one| one.id() == id).unwrap_or(listed.len());
        let part = if after { listed.get(at + 1..) } else { listed.get(..at) };
        let ids = part.unwrap_or_default().iter().map(|one| one.id().to_owned());
        self.key = FilterKey::Among(ids.collect());
        Ok(())
    }

    /// Whether it is about what became of containers, so that stopped ones are meant too.
    pub fn is_of_state(&self) -> bool {
        matches!(self.key, FilterKey::Status | FilterKey::Exited(_))
    }

    /// Whether a container meets several conditions: those of one key are alternatives, those of
    /// several keys must all hold, and so must all labels and moments. `image` is what it was made from.
    pub fn all(filters: &[ContainerFilter], container: &Container, image: &str) -> bool {
        filters.iter().all(|filter| {
            let same = filters.iter().filter(|other| other.is_alternative(filter));
            filter.matches(container, image)
                || same.into_iter().any(|other| other.matches(container, image))
        })
    }

    fn is_alternative(&self, other: &ContainerFilter) -> bool {
        let adds_up = matches!(
            self.key,
            FilterKey::Label(_)
                | FilterKey::NoLabel(_)
                | FilterKey::Among(_)
                | FilterKey::Until(_)
                | FilterKey::Task(_)
        );
        !adds_up && std::mem::discriminant(&self.key) == std::mem::discriminant(&other.key)
    }

    fn matches(&self, container: &Container, image: &str) -> bool {
        let (value, record) = (self.text.as_str(), container.record());
        let labels = &record.spec.lifecycle.labels;
        match &self.key {
            FilterKey::Id => container.id().starts_with(value),
            FilterKey::Name(pattern) => pattern.is_match(container.name()),
            FilterKey::Health => {
                let health = container.health().map(|health| health.status.as_str());
                health.unwrap_or("none") == value
            }
            // A container that is being stopped runs.
            FilterKey::Status => {
                let phase = container.phase();
                phase.as_str() == value || phase == Phase::Stopping && value == "running"
            }
            FilterKey::Exited(code) => container.exit().is_some_and(|exit| exit.code() == *code),
            FilterKey::Network => container.network_names().iter().any(|name| name == value),
            FilterKey::Volume => is_mounted(container, value),
            FilterKey::Label(label) => label.matches(labels),
            FilterKey::NoLabel(label) => !label.matches(labels),
            FilterKey::Ancestor => is_of(container, image, value),
            FilterKey::Before | FilterKey::Since => false,
            FilterKey::Among(ids) => ids.iter().any(|id| id == container.id()),
            FilterKey::Publish(ports) => {
                let published = container.published();
                published.iter().any(|port| ports.contains(&(port.container, port.protocol)))
            }
            FilterKey::Expose(ports) => container.exposed().iter().any(|port| ports.contains(port)),
            FilterKey::Until(until) => container.row().created < *until,
            FilterKey::RestartPolicy => policy(record.spec.lifecycle.restart) == value,
            FilterKey::Command => record.command.iter().any(|word| word == value),
            FilterKey::Task(task) => !task,
        }
    }
}

/// The word of `--restart`, without its number.
pub(crate) fn policy(policy: Restart) -> &'static str {
    match policy {
        Restart::No => "no",
        Restart::OnFailure(_) => "on-failure",
        Restart::Always => "always",
        Restart::UnlessStopped => "unless-stopped",
    }
}

/// Whether it has a volume of this name, or something mounted at this place or from it.
fn is_mounted(container: &Container, value: &str) -> bool {
    let record = container.record();
    let volume = record
        .volumes
        .iter()
        .any(|mounted| mounted.volume == value || mounted.target.to_str() == Some(value));
    volume
        || record.spec.files.mounts.iter().any(|mount| match mount {
            runtime::Mount::Bind { source, target, .. } => {
                [source, target].into_iter().any(|path| path.to_str() == Some(value))
            }
            _ => false,
        })
}

/// Whether it was made of this image, by name or the beginning of an id.
fn is_of(container: &Container, image: &str, value: &str) -> bool {
    let tag = format!("{value}:latest");
    let tail = |name: &str| image == name || image.ends_with(&format!("/{name}"));
    if tail(value) || tail(&tag) {
        return true;
    }
    let is = |digest: image::Digest| {
        let text = digest.to_string();
        value.len() >= 4 && (text.starts_with(value) || text["sha256:".len()..].starts_with(value))
    };
    container.row().image.as_ref().is_some_and(|image| is(image.digest))
        || container.image_id().is_some_and(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_conditions_and_values_are_refused() {
        let moment = |text: &str| text.parse().ok();
        for text in [
            "name",
            "color=red",
            "exited=x",
            "publish=web",
            "until=soon",
            "name=(",
            "restart-policy=x",
        ] {
            assert!(ContainerFilter::parse(text, &moment).is_none(), "{text}");
        }
        for text in ["name=^a$", "label!=a", "until=7", "expose=80-90/udp", "is-task=false"] {
            assert!(ContainerFilter::parse(text, &moment).is_some(), "{text}");
        }
    }
}
