//! Signatures and SBOMs of the older form, which are found by tags made of their image's digest.

use image::{Digest, Node, Tag};
use task::{Kind, Task};

use crate::select::{self, Choice};
use crate::{CopyOptions, Error, Open, Result, Select, Side, Sink, Source};

const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// Copies what such tags of the root and of the images below it point at.
pub(crate) async fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    choice: &Choice,
    options: &CopyOptions,
    task: &Task,
) -> Result<()> {
    let mut digests = vec![choice.root.digest];
    if choice.root.media_type.is_index() {
        let node = match &choice.node {
            Some(node) => node.clone(),
            None => select::node(source, &choice.root).await?,
        };
        if let Node::Index(index) = node {
            digests.extend(index.manifests.iter().map(|child| child.digest));
        }
    }
    let options = CopyOptions { select: Select::All, digest_tags: false, ..options.clone() };
    for digest in digests {
        for suffix in SUFFIXES {
            task.check()?;
            if let Some(tag) = tag(digest, suffix) {
                one(source, sink, &tag, &options, task).await?;
            }
        }
    }
    Ok(())
}

/// `None` where the digest is too long for a tag, so that nobody can have written one.
fn tag(digest: Digest, suffix: &str) -> Option<Tag> {
    format!("{}-{}.{suffix}", digest.algorithm().as_str(), digest.hex()).parse().ok()
}

async fn one(
    source: &dyn Source,
    sink: &dyn Sink,
    tag: &Tag,
    options: &CopyOptions,
    task: &Task,
) -> Result<()> {
    let Some(from) = source.sibling(tag) else { return Ok(()) };
    match from.resolve().await {
        Ok(_) => {}
        Err(cause) if cause.kind() == Kind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::at(format!("looking for {tag}"), Side::Source)(cause)),
    }
    let Some(to) = sink.sibling(tag) else {
        task.warn(format!("{tag} stays behind: the destination has one name only"));
        return Ok(());
    };
    let child = task.child(format!("tag {tag}"));
    Box::pin(crate::copy(&*from, &*to, &Open, options, &child)).await?;
    child.done();
    Ok(())
}
