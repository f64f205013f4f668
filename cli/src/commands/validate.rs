//! `rcopy validate`: whether every part of an image is what it is named.

use std::path::PathBuf;

use clap::Args;
use image::{Descriptor, Image, Node};
use layers::Tree;
use serde_json::json;
use task::{Kind, Task};
use transport::{Location, Named, Source, Trees};

use super::copy::OneEnd;
use super::place::{self, Access};
use crate::app::{App, observed};
use crate::config;
use crate::render::Progress;
use crate::report::{self, Failure};

/// The most images that are checked.
const MAX_IMAGES: usize = 10_000;

/// Check every digest, size and diffID of an image, and that its documents are consistent
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The image: a name on a registry, or transport:…
    #[arg(required_unless_present_any = ["remote", "tarball"], conflicts_with_all = ["remote", "tarball"])]
    image: Option<String>,
    /// Check an image on a registry
    #[arg(long, value_name = "NAME", conflicts_with = "tarball")]
    remote: Option<String>,
    /// Check an image in a tarball of `docker save`
    #[arg(long, value_name = "FILE")]
    tarball: Option<PathBuf>,
    /// Check the documents only, not the layers
    #[arg(long)]
    fast: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    end: OneEnd,
}

/// What was found of one document.
struct Found {
    descriptor: Descriptor,
    what: String,
    problems: Vec<String>,
}

impl Validate {
    /// Checks every image there is; ends with 1 if one has a fault.
    ///
    /// # Errors
    /// The image is not there.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let location = match (&self.image, &self.remote, &self.tarball) {
            (Some(image), ..) => place::location(image, "docker://")?,
            (None, Some(name), _) => place::location(name, "docker://")?,
            (None, None, Some(file)) => {
                Location::DockerArchive(config::absolute(file)?, Named::Only)
            }
            (None, None, None) => return Err(Failure::usage("there is no image to validate")),
        };
        let found = observed(&format!("validate {location}"), Progress::Auto, |task| {
            let source = Access::new(app, self.end.reach_at(&location)?).source(&location)?;
            app.wait(self.walk(&*source, task))?
        })?;
        let bad = found.iter().any(|one| !one.problems.is_empty());
        if self.json {
            let one = |one: &Found| {
                json!({"digest": one.descriptor.digest, "what": one.what,
                    "ok": one.problems.is_empty(), "problems": one.problems})
            };
            let list: Vec<_> = found.iter().map(one).collect();
            outln!("{:#}", json!({"image": location.to_string(), "ok": !bad, "parts": list}));
        } else {
            for one in &found {
                let word = if one.problems.is_empty() { "ok" } else { "BAD" };
                outln!("{word} {} {}", one.descriptor.digest, one.what);
                one.problems.iter().for_each(|problem| outln!("  {problem}"));
            }
            outln!("{}: {location}", if bad { "FAIL" } else { "PASS" });
        }
        Ok(u8::from(bad))
    }

    async fn walk(&self, source: &dyn Source, task: &Task) -> Result<Vec<Found>, Failure> {
        let root = source.resolve().await.map_err(|cause| report::cause(&cause))?;
        let (mut found, mut seen) = (Vec::new(), std::collections::BTreeSet::from([root.digest]));
        let mut todo = vec![root];
        while let Some(descriptor) = todo.pop() {
            task.check().map_err(|_| Failure::new(Kind::Cancelled, "cancelled"))?;
            if found.len() >= MAX_IMAGES {
                let what = format!("validating: there are more than {MAX_IMAGES} images");
                return Err(Failure::new(Kind::Invalid, what));
            }
            let (mut problems, mut what) = (Vec::new(), String::new());
            match transport::node(source, &descriptor).await {
                Err(error) => problem(error, "document", &mut problems)?,
                Ok(Node::Index(index)) => {
                    what = format!("index of {}", index.manifests.len());
                    let children = index.manifests.iter().filter(|c| c.media_type.is_node());
                    let new = children.filter(|child| seen.insert(child.digest));
                    todo.extend(new.cloned().collect::<Vec<_>>().into_iter().rev());
                }
                Ok(Node::Manifest(manifest)) if manifest.config.media_type.is_config() => {
                    match transport::image(source, &descriptor).await {
                        Err(error) => problem(error, "config", &mut problems)?,
                        Ok(image) => {
                            what = self
                                .image(source, &descriptor, &image, &mut problems, task)
                                .await?;
                        }
                    }
                }
                Ok(Node::Manifest(manifest)) => {
                    what = format!("artifact of {} blobs", manifest.layers.len());
                    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                    for blob in blobs.filter(|_| !self.fast) {
                        let read = transport::read_layer(source, blob, task, |mut reader| {
                            std::io::copy(&mut reader, &mut std::io::sink())
                                .map_err(transport::Error::Stream)
                        });
                        if let Err(error) = read.await {
                            problem(error, &format!("blob {}", blob.digest), &mut problems)?;
                        }
                    }
                }
            }
            found.push(Found { descriptor, what, problems });
        }
        Ok(found)
    }

    async fn image(
        &self,
        source: &dyn Source,
        descriptor: &Descriptor,
        image: &Image,
        problems: &mut Vec<String>,
        task: &Task,
    ) -> Result<String, Failure> {
        let (said, is) = (descriptor.platform.as_ref(), image.platform());
        if let Some(said) =
            said.filter(|said| said.os != is.os || said.architecture != is.architecture)
        {
            problems.push(format!("the index says {said}, the config says {is}"));
        }
        let steps = image.config().history.iter().filter(|step| !step.empty_layer).count();
        let layers = image.layers().len();
        if !image.config().history.is_empty() && steps != layers {
            problems
                .push(format!("the history has {steps} steps with a layer for {layers} layers"));
        }
        let size: u64 = image.manifest().layers.iter().map(|layer| layer.size).sum();
        let what = format!("{is}: {layers} layers, {size} bytes");
        if self.fast {
            return Ok(what);
        }
        let mut tree = Tree::new();
        for (at, layer) in image.layers().enumerate() {
            let one = [(layer.descriptor.clone(), layer.diff_id)];
            match Trees::default().on(tree, source, &one, task).await {
                Ok((grown, _)) => tree = grown,
                Err(error) => {
                    problem(error, &format!("layer {at}"), problems)?;
                    // Others are looked at by themselves: links between layers cannot be.
                    tree = Tree::new();
                }
            }
        }
        Ok(what)
    }
}

/// What is wrong with the image is listed; what stops us from looking ends the command.
fn problem(error: transport::Error, part: &str, problems: &mut Vec<String>) -> Result<(), Failure> {
    use task::Fault;
    if !matches!(error.kind(), Kind::Invalid | Kind::NotFound) {
        return Err(error.into());
    }
    problems.push(format!("{part}: {}", task::chain(&error).join(": ")));
    Ok(())
}
