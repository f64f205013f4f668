//! `rcopy inspect`: what an image is, without copying it.

use clap::Args;
use image::{Config, Descriptor, Document, Platform};
use serde_json::{Value, json};
use task::Kind;
use transport::Location;

use super::copy::OneEnd;
use super::place::{self, Access};
use crate::app::App;
use crate::format;
use crate::report::{self, Failure};

/// Show what an image is, without copying it
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Which image
    image: String,
    /// The manifest as it is
    #[arg(long)]
    raw: bool,
    /// The configuration; with --raw, as it is
    #[arg(long)]
    config: bool,
    /// A Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Do not list the repository's tags
    #[arg(short = 'n', long)]
    no_tags: bool,
    /// Which image of an index
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
                self.show(&summary(&location, &root, &image, tags))
            }
        }
    }

    fn needs_tags(&self) -> bool {
        self.format.as_ref().is_none_or(|format| format.contains("RepoTags") || format == "json")
    }

    fn show(&self, value: &Value) -> Result<u8, Failure> {
        match &self.format {
            None => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, value)?),
        }
        Ok(0)
    }
}

enum Shown {
    Raw(bytes::Bytes),
    Image(Box<image::Image>),
}

fn raw(bytes: &[u8]) -> Result<u8, Failure> {
    crate::out::bytes(bytes);
    Ok(0)
}

fn config_json(config: &Document<Config>) -> Result<Value, Failure> {
    serde_json::from_slice(config.bytes())
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading config: {error}")))
}

/// The summary in skopeo's words.
fn summary(
    location: &Location,
    root: &Descriptor,
    image: &image::Image,
    tags: Option<Vec<String>>,
) -> Value {
    let config = image.config();
    let name = match location {
        Location::Registry(reference) => reference.repository.to_string(),
        _ => String::new(),
    };
    let layers = &image.manifest().layers;
    let data = layers.iter().map(|layer| {
        let annotations = (!layer.annotations.is_empty()).then_some(&layer.annotations);
        json!({"MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size, "Annotations": annotations})
    });
    json!({
        "Name": name, "Digest": root.digest, "RepoTags": tags.unwrap_or_default(),
        "Created": config.created, "DockerVersion": config.rest.get("docker_version").cloned().unwrap_or("".into()),
        "Labels": config.config.labels, "Architecture": config.architecture, "Os": config.os,
        "Layers": layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(),
        "LayersData": data.collect::<Vec<_>>(),
        "Env": config.config.env,
    })
}
