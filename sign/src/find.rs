//! Finding what may be a signature of an image, in both forms: bounded, the newest first, and what
//! claims a trusted key before all others.

use std::cmp::Reverse;

use bytes::Bytes;
use copy::Source;
use image::{Descriptor, Document, Manifest, Node};
use task::{Cause, Kind, Task};

use crate::bundle;
use crate::dsse;
use crate::error::{Error, Result};
use crate::key_id::KeyId;
use crate::mismatch::Mismatch;
use crate::printable::printable;
use crate::simple_signing;
use crate::verify::{Candidate, Evidence};

/// More signatures of one image than this are not read, of either form.
pub const MAX_SIGNATURES: usize = 256;
/// More bytes of signatures of one image than this are not read, of either form (16 MiB).
const MAX_TOTAL: u64 = 16 << 20;
/// When a manifest was made, in RFC 3339 (image-spec, annotations.md).
pub(crate) const CREATED_ANNOTATION: &str = "org.opencontainers.image.created";
/// On the manifest that carries a bundle: the key that made it. It only says what is read first.
pub(crate) const KEY_ANNOTATION: &str = "dev.rbuild.signature.key";

/// The documents that may be signatures of an image.
#[derive(Debug, Clone, Default)]
pub struct SignatureCandidates {
    /// What was read, in the order in which it is to be tried.
    pub candidates: Vec<Candidate>,
    /// How many more there are that were not read.
    pub unread: usize,
}

/// Finds everything that may be a signature of an image, in both forms: at most [`MAX_SIGNATURES`]
/// of each. Signatures that name one of `keys` come first, and those that name another key last, so
/// that a signer cannot hide others below many of his own; in between the newest comes first.
///
/// # Errors
/// [`Error::Transport`], [`Error::Cancelled`].
pub async fn collect(
    image: &Descriptor,
    keys: &[KeyId],
    source: &dyn Source,
    task: &Task,
) -> Result<SignatureCandidates> {
    let (bundles, unread) = bundles(image, keys, source, task).await?;
    let candidates = bundles.into_iter().map(|(_, candidate)| candidate).collect();
    let mut found = SignatureCandidates { candidates, unread };
    let tagged = payloads(image, source, task).await?;
    found.candidates.extend(tagged.candidates);
    found.unread += tagged.unread;
    Ok(found)
}

/// The bundles of an image's signatures and what carries each; and how many were not read.
///
/// # Errors
/// [`Error::Transport`], [`Error::Cancelled`].
pub(crate) async fn bundles(
    image: &Descriptor,
    keys: &[KeyId],
    source: &dyn Source,
    task: &Task,
) -> Result<(Vec<(Descriptor, Candidate)>, usize)> {
    let mut referrers = present(source.referrers(image).await)?.unwrap_or_default();
    referrers.retain(may_be_signature);
    let unread = first_ones(&mut referrers, keys);
    let mut candidates = Vec::with_capacity(referrers.len());
    let mut budget = MAX_TOTAL;
    for referrer in &referrers {
        task.check()?;
        let evidence = bundle_of(source, referrer, &mut budget).await?;
        let origin = format!("bundle {}", referrer.digest);
        candidates.push((referrer.clone(), Candidate { origin, evidence }));
    }
    Ok((candidates, unread))
}

async fn payloads(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<SignatureCandidates> {
    let mut found = SignatureCandidates::default();
    let tag = simple_signing::tag(&image.digest).ok();
    let Some((tag, source)) = tag.and_then(|tag| Some((tag.clone(), source.sibling(&tag)?))) else {
        return Ok(found);
    };
    let Some(manifest) = signatures(&*source).await? else { return Ok(found) };
    let layers = manifest.layers.iter().enumerate();
    let mut layers: Vec<_> = layers.filter(|(_, l)| simple_signing::is_payload(l)).collect();
    // A new one is put at the end.
    layers.reverse();
    found.unread = layers.len().saturating_sub(MAX_SIGNATURES);
    let mut budget = MAX_TOTAL;
    for (index, layer) in layers.into_iter().take(MAX_SIGNATURES) {
        task.check()?;
        let bytes = read(&*source, layer, simple_signing::MAX_PAYLOAD, &mut budget).await?;
        let evidence = match bytes {
            Ok(bytes) => Evidence::Payload(bytes, layer.annotations.clone()),
            Err(mismatch) => Evidence::Unreadable(mismatch),
        };
        let origin = format!("signature {} of {tag}", index + 1);
        found.candidates.push(Candidate { origin, evidence });
    }
    Ok(found)
}

/// Keeps the referrers that are read, in the order in which they are; gives back how many are not.
pub(crate) fn first_ones(referrers: &mut Vec<Descriptor>, keys: &[KeyId]) -> usize {
    let keys: Vec<String> = keys.iter().map(KeyId::to_string).collect();
    referrers.sort_by_cached_key(|referrer| {
        let claimed = referrer.annotations.get(KEY_ANNOTATION);
        let rank = match claimed {
            Some(key) if keys.contains(key) => 0,
            None => 1,
            Some(_) => 2,
        };
        (rank, Reverse(referrer.annotations.get(CREATED_ANNOTATION).cloned()))
    });
    let unread = referrers.len().saturating_sub(MAX_SIGNATURES);
    referrers.truncate(MAX_SIGNATURES);
    unread
}

/// Says how many signatures were not read, where none of those that were is good.
///
/// # Errors
/// Those of `result`; [`Error::TooMany`].
pub fn told<T>(image: &Descriptor, unread: usize, result: Result<T>) -> Result<T> {
    match result {
        Err(Error::Unverified { rejected, .. }) if unread > 0 => {
            let (image, found) = (image.digest, rejected.len() + unread);
            Err(Error::TooMany { image, found, rejected })
        }
        other => other,
    }
}

/// Whether a referrer is to be looked at. Its list may leave out the annotations, so that only
/// what says it is something else is passed over.
fn may_be_signature(referrer: &Descriptor) -> bool {
    let predicate = referrer.annotations.get(bundle::PREDICATE_ANNOTATION);
    bundle::is_carrier(referrer) && predicate.is_none_or(|predicate| predicate == dsse::SIGN_V1)
}

/// Reads the bundle that a referrer carries.
async fn bundle_of(
    source: &dyn Source,
    referrer: &Descriptor,
    budget: &mut u64,
) -> Result<Evidence> {
    let unreadable =
        |reason: String| Ok(Evidence::Unreadable(Mismatch::Unreadable(printable(&reason))));
    let bytes = match read(source, referrer, bundle::MAX_BUNDLE, budget).await? {
        Ok(bytes) => bytes,
        Err(mismatch) => return Ok(Evidence::Unreadable(mismatch)),
    };
    let manifest = match Node::read(referrer.clone(), bytes) {
        Ok(Node::Manifest(manifest)) => manifest,
        Ok(Node::Index(_)) => return unreadable("it is an index, not a manifest".to_owned()),
        Err(error) => return unreadable(error.to_string()),
    };
    let [layer] = manifest.layers.as_slice() else {
        let count = manifest.layers.len();
        return unreadable(format!("its manifest has {count} layers, a bundle's has one"));
    };
    match read(source, layer, bundle::MAX_BUNDLE, budget).await? {
        Ok(bytes) => Ok(Evidence::Bundle(bytes)),
        Err(mismatch) => Ok(Evidence::Unreadable(mismatch)),
    }
}

/// The manifest that lists an image's signatures in the older form, if there is one.
///
/// # Errors
/// [`Error::NotSignatures`], [`Error::Transport`].
pub(crate) async fn signatures(source: &dyn Source) -> Result<Option<Document<Manifest>>> {
    let Some(descriptor) = present(source.resolve().await)? else { return Ok(None) };
    let fetched = source.fetch(&descriptor).await?;
    let bytes = fetched.verify(&descriptor).read().await?;
    match Node::read(descriptor.clone(), bytes)? {
        Node::Manifest(manifest) => Ok(Some(manifest)),
        Node::Index(_) => {
            let reason = "it is an index, not a list of signatures".to_owned();
            Err(Error::NotSignatures { name: descriptor.digest.to_string(), reason })
        }
    }
}

/// Reads a small piece of content. Wrong content is a signature that is not accepted; trouble on
/// the way is an error.
///
/// # Errors
/// [`Error::Transport`].
pub(crate) async fn read(
    source: &dyn Source,
    descriptor: &Descriptor,
    limit: u64,
    budget: &mut u64,
) -> Result<Result<Bytes, Mismatch>> {
    let size = descriptor.size;
    if size > limit {
        return Ok(Err(Mismatch::TooLarge { size, limit }));
    }
    let Some(rest) = budget.checked_sub(size) else { return Ok(Err(Mismatch::TooMuch)) };
    *budget = rest;
    let blob = match source.fetch(descriptor).await {
        Ok(fetched) => fetched.verify(descriptor).read().await,
        Err(cause) => Err(cause),
    };
    match blob {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(cause) if matches!(cause.kind(), Kind::NotFound | Kind::Invalid) => {
            Ok(Err(Mismatch::Unreadable(printable(&cause.to_string()))))
        }
        Err(cause) => Err(cause.into()),
    }
}

/// Treats a missing object as an answer.
///
/// # Errors
/// [`Error::Transport`].
pub(crate) fn present<T>(result: Result<T, Cause>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(cause) if cause.kind() == Kind::NotFound => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}
