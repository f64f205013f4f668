//! What is attached to an image: manifests that refer to it, and the older form, tags derived from
//! its digest.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use image::{Descriptor, Digest, Node, Tag};
use task::{Kind, Task};

use crate::select::{self, Choice};
use crate::stop::Stop;
use crate::{CopyOptions, Error, Open, Plan, Result, Select, Side, Sink, Source};

const SIGNATURE: &str = "sig";
const SUFFIXES: [&str; 3] = [SIGNATURE, "att", "sbom"];
/// How the types of artifacts that are signatures begin: sigstore's, cosign's, notation's.
const SIGNATURES: [&str; 3] = [
    "application/vnd.dev.sigstore.bundle",
    "application/vnd.dev.cosign.artifact.sig.",
    "application/vnd.cncf.notary.signature",
];
/// Questions to the source at a time.
const QUESTIONS: usize = 16;

/// Whether a tag is derived from a digest: `sha256-<hex>`, with or without a suffix.
pub fn is_digest_tag(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("sha256-") else { return false };
    let hex = rest.split('.').next().unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether an artifact of this type is a signature.
pub(crate) fn is_signature(artifact_type: &str) -> bool {
    SIGNATURES.iter().any(|known| artifact_type.starts_with(known))
}

/// Reads the root's document if there are images below it, so that it is read once.
pub(crate) async fn open(source: &dyn Source, choice: Choice, stop: &Stop) -> Result<Choice> {
    if choice.node.is_some() || !choice.root.media_type.is_index() {
        return Ok(choice);
    }
    let node = tokio::select! {
        biased;
        () = stop.wait() => return Err(Error::Cancelled),
        node = select::node(source, &choice.root) => node?,
    };
    Ok(Choice { node: Some(node), ..choice })
}

/// The root and the images right below it.
fn subjects(choice: &Choice) -> Vec<Descriptor> {
    let mut subjects = vec![choice.root.clone()];
    if let Some(Node::Index(index)) = &choice.node {
        subjects.extend(index.manifests.iter().filter(|child| child.media_type.is_node()).cloned());
    }
    subjects
}

/// Whether anything refers to the root, to an image right below it, or to what refers to those,
/// that the destination does not list.
pub(crate) async fn any_missing(
    source: &dyn Source,
    sink: &dyn Sink,
    choice: &Choice,
    options: &CopyOptions,
    stop: &Stop,
) -> Result<bool> {
    let (mut seen, mut level) = (BTreeSet::new(), subjects(choice));
    for depth in 0..select::MAX_DEPTH {
        level.retain(|subject| seen.insert(subject.digest));
        let lists = stream::iter(std::mem::take(&mut level)).map(|subject| async move {
            let what = || format!("listing referrers of {}", subject.digest);
            let at = Error::at(what(), Side::Source);
            let listed = stop.guard(source.referrers(&subject)).await.map_err(at)?;
            if listed.is_empty() {
                return Ok::<_, Error>((listed, Vec::new()));
            }
            let at = Error::at(what(), Side::Destination);
            let there = stop.guard(sink.referring(&subject)).await.map_err(at)?;
            Ok((listed, there))
        });
        let mut lists = lists.buffer_unordered(QUESTIONS);
        while let Some((listed, there)) = lists.try_next().await? {
            for referrer in listed.into_iter().filter(|one| is_wanted(one, depth == 0, options)) {
                if there.iter().all(|known| known.digest != referrer.digest) {
                    return Ok(true);
                }
                level.push(referrer);
            }
        }
        if level.is_empty() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Whether a referrer is copied, going by the list it is in; what does not say its type may be.
fn is_wanted(referrer: &Descriptor, filtered: bool, options: &CopyOptions) -> bool {
    let Some(kind) = &referrer.artifact_type else { return referrer.media_type.is_node() };
    let types = &options.artifact_types;
    referrer.media_type.is_node()
        && !(filtered && !types.is_empty() && !types.contains(kind))
        && (options.signatures || !is_signature(kind))
}

/// The tags derived from these images' digests that the source has.
pub(crate) async fn tags(
    source: &dyn Source,
    choice: &Choice,
    signatures: bool,
    stop: &Stop,
) -> Result<Vec<Tag>> {
    let digests = subjects(choice).into_iter().map(|subject| subject.digest);
    tags_of(source, digests, signatures, stop).await
}

/// The tags derived from these digests that the source has.
pub(crate) async fn tags_of(
    source: &dyn Source,
    digests: impl Iterator<Item = Digest>,
    signatures: bool,
    stop: &Stop,
) -> Result<Vec<Tag>> {
    let suffixes = || SUFFIXES.iter().filter(move |suffix| signatures || **suffix != SIGNATURE);
    let all = digests.flat_map(|digest| suffixes().filter_map(move |suffix| tag(digest, suffix)));
    let questions = stream::iter(all.collect::<Vec<_>>()).map(|tag| async move {
        let Some(from) = source.sibling(&tag) else { return Ok(None) };
        match stop.guard(from.resolve()).await {
            Ok(_) => Ok(Some(tag)),
            Err(cause) if cause.kind() == Kind::NotFound => Ok(None),
            Err(cause) if cause.kind() == Kind::Cancelled => Err(Error::Cancelled),
            Err(cause) => Err(Error::at(format!("looking for {tag}"), Side::Source)(cause)),
        }
    });
    let found: Vec<_> = questions.buffered(QUESTIONS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Those of the tags whose images the copy has: a converted image has another digest, which has no
/// signature.
pub(crate) fn that_hold(tags: Vec<Tag>, plan: &Plan, task: &Task) -> Vec<Tag> {
    let kept: BTreeSet<String> = plan.documents().map(|one| of_digest(one.digest)).collect();
    let (held, left): (Vec<Tag>, Vec<Tag>) = tags.into_iter().partition(|tag| {
        let image = tag.as_str().rsplit_once('.').map_or(tag.as_str(), |(image, _)| image);
        kept.contains(image)
    });
    for tag in left {
        task.warn(format!("{tag} stays behind: the copy has another digest"));
    }
    held
}

/// Copies what such tags point at.
pub(crate) async fn copy_tags(
    source: &dyn Source,
    sink: &dyn Sink,
    tags: &[Tag],
    options: &CopyOptions,
    task: &Task,
) -> Result<()> {
    let options = CopyOptions {
        select: Select::All,
        digest_tags: false,
        format: None,
        recompress: None,
        gzip_index: false,
        only_for: Vec::new(),
        tell_left: false,
        ..options.clone()
    };
    for tag in tags {
        task.check()?;
        let Some(from) = source.sibling(tag) else { continue };
        let Some(to) = sink.sibling(tag) else {
            task.warn(format!("{tag} stays behind: the destination has one name only"));
            continue;
        };
        let child = task.child(format!("tag {tag}"));
        Box::pin(crate::copy(&*from, &*to, &Open, &options, &child)).await?;
        child.done();
    }
    Ok(())
}

/// `None` if the digest is too long for a tag, so that such a tag cannot exist.
fn tag(digest: Digest, suffix: &str) -> Option<Tag> {
    format!("{}.{suffix}", of_digest(digest)).parse().ok()
}

fn of_digest(digest: Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}
