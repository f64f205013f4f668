//! Whether every part of an image is what it is named, and its documents agree.

use std::collections::BTreeSet;

use image::{Descriptor, Image, Node};
use layers::Tree;
use task::{Fault, Kind, Task};

use crate::edit::read_layer;
use crate::{Error, Result, Side, Source, Trees, image, node};

/// The most documents that are checked.
const MAX_DOCUMENTS: usize = 10_000;

/// What was found of one manifest or index.
#[derive(Debug)]
pub struct Finding {
    /// The document.
    pub descriptor: Descriptor,
    /// What it is, in a few words; empty where it cannot be read.
    pub summary: String,
    /// What is wrong with it, with its config and with its layers.
    pub problems: Vec<String>,
}

/// Checks digest and size of every document below what the source names, and digest, size and
/// diffID of every layer unless `documents_only`. An index comes before its images.
///
/// # Errors
/// What keeps it from looking: [`Error::Place`] when the source fails, [`Error::Cancelled`],
/// [`Error::TooComplex`].
pub async fn validate(
    source: &dyn Source,
    documents_only: bool,
    task: &Task,
) -> Result<Vec<Finding>> {
    let root = source.resolve().await;
    let root = root.map_err(Error::at("resolving the name", Side::Source))?;
    let (mut found, mut seen) = (Vec::new(), BTreeSet::from([root.digest]));
    let mut todo = vec![root];
    while let Some(descriptor) = todo.pop() {
        task.check()?;
        if found.len() >= MAX_DOCUMENTS {
            let what = format!("more than {MAX_DOCUMENTS} images");
            return Err(Error::TooComplex { digest: descriptor.digest, what });
        }
        let (mut problems, mut summary) = (Vec::new(), String::new());
        match node(source, &descriptor).await {
            Err(error) => problem(error, "document", &mut problems)?,
            Ok(Node::Index(index)) => {
                summary = format!("index of {}", index.manifests.len());
                let children = index.manifests.iter().filter(|c| c.media_type.is_node());
                let new = children.filter(|child| seen.insert(child.digest));
                todo.extend(new.cloned().collect::<Vec<_>>().into_iter().rev());
            }
            Ok(Node::Manifest(manifest)) if manifest.config.media_type.is_config() => {
                match image(source, &descriptor).await {
                    Err(error) => problem(error, "config", &mut problems)?,
                    Ok(image) => {
                        summary = documents(&descriptor, &image, &mut problems);
                        if !documents_only {
                            layers(source, &image, &mut problems, task).await?;
                        }
                    }
                }
            }
            Ok(Node::Manifest(manifest)) => {
                summary = format!("artifact of {} blobs", manifest.layers.len());
                let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                for blob in blobs.filter(|_| !documents_only) {
                    self::blob(source, blob, &mut problems, task).await?;
                }
            }
        }
        found.push(Finding { descriptor, summary, problems });
    }
    Ok(found)
}

/// Whether the documents of an image agree; what it is.
fn documents(descriptor: &Descriptor, image: &Image, problems: &mut Vec<String>) -> String {
    let (said, is) = (descriptor.platform.as_ref(), image.platform());
    let other = said.filter(|said| said.os != is.os || said.architecture != is.architecture);
    if let Some(said) = other {
        problems.push(format!("the index says {said}, the config says {is}"));
    }
    let steps = image.config().history.iter().filter(|step| !step.empty_layer).count();
    let layers = image.layers().len();
    if !image.config().history.is_empty() && steps != layers {
        problems.push(format!("the history has {steps} steps with a layer for {layers} layers"));
    }
    let size: u64 = image.manifest().layers.iter().map(|layer| layer.size).sum();
    format!("{is}: {layers} layers, {size} bytes")
}

async fn layers(
    source: &dyn Source,
    image: &Image,
    problems: &mut Vec<String>,
    task: &Task,
) -> Result<()> {
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
    Ok(())
}

async fn blob(
    source: &dyn Source,
    blob: &Descriptor,
    problems: &mut Vec<String>,
    task: &Task,
) -> Result<()> {
    let read = read_layer(source, blob, task, |mut reader| {
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(Error::Stream)
    });
    match read.await {
        Ok(_) => Ok(()),
        Err(error) => problem(error, &format!("blob {}", blob.digest), problems),
    }
}

/// What is wrong with the image is listed; what keeps us from looking is an error.
fn problem(error: Error, part: &str, problems: &mut Vec<String>) -> Result<()> {
    if !matches!(error.kind(), Kind::Invalid | Kind::NotFound) {
        return Err(error);
    }
    problems.push(format!("{part}: {}", task::chain(&error).join(": ")));
    Ok(())
}
