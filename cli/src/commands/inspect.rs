//! `rcopy inspect`: what an image is, without copying it.

use std::collections::BTreeMap;

use clap::Args;
use image::{Config, Descriptor, Digest, Document, Platform};
use serde::Serialize;
use serde_json::Value;
use task::Kind;
use transport::Location;

use super::copy::OneEnd;
use super::place::{self, Access};
use crate::app::App;
use crate::format;
use crate::report::{self, Failure};

/// Show the properties of an image, without copying it
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The image
    image: String,
    /// Print the manifest unchanged
    #[arg(long)]
    raw: bool,
    /// Print the config; with --raw unchanged
    #[arg(long)]
    config: bool,
    /// Format the output with a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Do not list the tags of the repository
    #[arg(short = 'n', long)]
    no_tags: bool,
    /// Choose the image of this platform in an index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: OneEnd,
}

impl Inspect {
    /// Shows.
    ///
    /// # Errors
    /// The image is not there.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = place::location(&self.image, "docker://")?;
        let access = Access::new(app, self.registry.reach_at(&location)?);
        let source = access.source(&location)?;
        let platform = self.platform.clone().unwrap_or_else(|| app.settings.platform());
        let resolving = async {
            let root = source.resolve().await.map_err(|cause| report::cause(&cause))?;
            if self.raw && !self.config {
                let node = transport::node(&*source, &root).await?;
                return Ok::<_, Failure>((root, Shown::Raw(node.bytes().clone())));
            }
            let (root, image) = transport::open(&*source, &platform).await?;
            Ok((root, Shown::Image(Box::new(image))))
        };
        let (root, shown) = app.wait(resolving)??;
        match shown {
            Shown::Raw(bytes) => raw(&bytes),
            Shown::Image(image) if self.config && self.raw => raw(image.config().bytes()),
            Shown::Image(image) if self.config => self.show(&config_json(image.config())?),
            Shown::Image(image) => {
                let tags = match &location {
                    Location::Registry(reference) if !self.no_tags && self.needs_tags() => {
                        app.wait(access.client()?.repo(&reference.repository).tags(None))?.ok()
                    }
                    _ => None,
                };
                self.show(&Summary::of(&location, &root, &image, tags))
            }
        }
    }

    fn needs_tags(&self) -> bool {
        self.format.as_ref().is_none_or(|format| format.contains("RepoTags") || format == "json")
    }

    fn show(&self, value: &impl Serialize) -> Result<u8, Failure> {
        let unfit = |error: serde_json::Error| Failure::new(Kind::Invalid, error.to_string());
        match &self.format {
            None => outln!("{}", serde_json::to_string_pretty(value).map_err(unfit)?),
            Some(template) => {
                let value = serde_json::to_value(value).map_err(unfit)?;
                outln!("{}", format::template(template, &value)?);
            }
        }
        Ok(0)
    }
}

enum Shown {
    Raw(bytes::Bytes),
    Image(Box<image::Image>),
}

/// Bytes as they are.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn raw(bytes: &[u8]) -> Result<u8, Failure> {
    crate::out::bytes(bytes);
    Ok(0)
}

fn config_json(config: &Document<Config>) -> Result<Value, Failure> {
    serde_json::from_slice(config.bytes())
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading config: {error}")))
}

/// The summary in skopeo's words and order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    digest: Digest,
    repo_tags: Vec<String>,
    created: Option<String>,
    docker_version: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
    architecture: &'a str,
    os: &'a str,
    layers: Vec<Digest>,
    layers_data: Vec<LayerData<'a>>,
    env: Option<&'a [String]>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerData<'a> {
    #[serde(rename = "MIMEType")]
    mime_type: &'a str,
    digest: Digest,
    size: u64,
    annotations: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Summary<'a> {
    fn of(
        location: &Location,
        root: &Descriptor,
        image: &'a image::Image,
        tags: Option<Vec<String>>,
    ) -> Summary<'a> {
        let config = image.config();
        let layers = &image.manifest().layers;
        Summary {
            name: match location {
                Location::Registry(reference) => reference.repository.to_string(),
                _ => String::new(),
            },
            digest: root.digest,
            repo_tags: tags.unwrap_or_default(),
            created: config.created.as_deref().map(as_go_writes),
            docker_version: config.rest.get("docker_version").and_then(Value::as_str).unwrap_or(""),
            labels: some(&config.config.labels),
            architecture: &config.architecture,
            os: &config.os,
            layers: layers.iter().map(|layer| layer.digest).collect(),
            layers_data: layers.iter().map(LayerData::of).collect(),
            env: Some(&config.config.env[..]).filter(|env| !env.is_empty()),
        }
    }
}

impl<'a> LayerData<'a> {
    fn of(layer: &'a Descriptor) -> LayerData<'a> {
        LayerData {
            mime_type: layer.media_type.as_str(),
            digest: layer.digest,
            size: layer.size,
            annotations: some(&layer.annotations),
        }
    }
}

fn some(map: &BTreeMap<String, String>) -> Option<&BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// A time as Go's programs write it: no zeros at the end of a fraction, `Z` for UTC.
fn as_go_writes(time: &str) -> String {
    let time = time.strip_suffix("+00:00").map_or(time.to_owned(), |time| format!("{time}Z"));
    let Some((whole, rest)) = time.split_once('.') else { return time };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(end);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}"),
        fraction => format!("{whole}.{fraction}{zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (time, written) in [
            ("2023-01-02T03:04:05Z", "2023-01-02T03:04:05Z"),
            ("2023-01-02T03:04:05.000000000Z", "2023-01-02T03:04:05Z"),
            ("2023-01-02T03:04:05.120Z", "2023-01-02T03:04:05.12Z"),
            ("2023-01-02T03:04:05.5+00:00", "2023-01-02T03:04:05.5Z"),
            ("2023-01-02T03:04:05.50+02:00", "2023-01-02T03:04:05.5+02:00"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(as_go_writes(time), written);
        }
    }
}
