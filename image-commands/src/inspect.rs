//! `rcopy inspect`: what an image is, without copying it.

use app::place::Access;
use app::{App, Runnable, format};
use clap::Args;
use image::{Config, Document, Platform, Summary};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use serde::Serialize;
use serde_json::Value;
use task::Kind;
use transport::Location;

/// Show the properties of an image, without copying it
#[derive(Debug, Args)]
pub struct Inspect {
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

impl Runnable for Inspect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "docker://")?;
        let access = Access::new(app, self.registry.reach_at(&location)?);
        let source = access.source(&location)?;
        let platform = self.platform.clone().unwrap_or_else(|| app.conf.settings.platform());
        let resolving = async {
            let root = source.resolve().await.map_err(Failure::of)?;
            if self.raw && !self.config {
                let node = transport::node(&*source, &root).await?;
                return Ok::<_, Failure>((root, InspectOutput::Raw(node.bytes().clone())));
            }
            let (root, image) = transport::open(&*source, &platform).await?;
            Ok((root, InspectOutput::Image(Box::new(image))))
        };
        let (root, shown) = app.wait(resolving)??;
        match shown {
            InspectOutput::Raw(bytes) => raw(&bytes),
            InspectOutput::Image(image) if self.config && self.raw => raw(image.config().bytes()),
            InspectOutput::Image(image) if self.config => self.show(&config_json(image.config())?),
            InspectOutput::Image(image) => {
                let tags = match &location {
                    Location::Registry(reference) if !self.no_tags && self.needs_tags() => {
                        app.wait(access.client()?.repo(&reference.repository).tags(None))?.ok()
                    }
                    _ => None,
                };
                let name = match &location {
                    Location::Registry(reference) => reference.repository.to_string(),
                    _ => String::new(),
                };
                self.show(&Summary::new(name, root.digest, &image, tags.unwrap_or_default()))
            }
        }
    }
}

impl Inspect {
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

enum InspectOutput {
    Raw(bytes::Bytes),
    Image(Box<image::Image>),
}

/// Bytes as they are.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn raw(bytes: &[u8]) -> Result<u8, Failure> {
    app::out::bytes(bytes);
    Ok(0)
}

fn config_json(config: &Document<Config>) -> Result<Value, Failure> {
    serde_json::from_slice(config.bytes())
        .map_err(|error| Failure::new(Kind::Invalid, format!("reading config: {error}")))
}
