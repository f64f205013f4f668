//! Where signatures are stored and found; the only part of this crate that waits for others.

use std::collections::BTreeMap;

use bytes::Bytes;
use image::{Descriptor, Document, Manifest, MediaType, Node, Reference};
use task::{Cause, Kind, Task};
use transport::{Artifact, Sink, Source, attach, publish_document};

use crate::bundle::{self, Bundle};
use crate::simple_signing::{self, Signed};
use crate::verify::printable;
use crate::{Candidate, Demand, Error, Evidence, Form, Mismatch, PrivateKey, Result, Verified};
use crate::{dsse, verify_any};

/// More signatures of one image than this are not read.
pub const MAX_SIGNATURES: usize = 256;
/// An index with more images than this is not walked.
pub const MAX_MEMBERS: usize = 1000;
/// More bytes of signatures of one image than this are not read (16 MiB).
const MAX_TOTAL: u64 = 16 << 20;
/// When a manifest was made, in RFC 3339 (image-spec, annotations.md).
pub(crate) const CREATED_ANNOTATION: &str = "org.opencontainers.image.created";

/// How to sign.
#[derive(Debug, Clone, Default)]
pub struct SignOptions {
    /// How the signature is stored.
    pub form: Form,
    /// The name that the image is signed under: its repository, and its tag if it has one. The
    /// older form needs it.
    pub name: Option<Reference>,
    /// What else is signed.
    pub annotations: BTreeMap<String, String>,
    /// When the signature is made, in RFC 3339; not signed, and left out where it is `None`.
    pub created: Option<String>,
}

/// Signs an image and stores the signature beside it. Signing twice changes nothing.
///
/// `source` and `sink` are the place where the image is; the older form adds to the signatures
/// that are there. Gives back the manifest that carries the signature.
///
/// # Errors
/// [`Error::Sign`] where the older form lacks a name or the place cannot hold it,
/// [`Error::NotSignatures`], [`Error::Transport`].
pub async fn sign_image(
    image: &Descriptor,
    key: &PrivateKey,
    source: &dyn Source,
    sink: &dyn Sink,
    options: &SignOptions,
    task: &Task,
) -> Result<Descriptor> {
    let name = options.name.as_ref().map(|name| Reference { digest: None, ..name.clone() });
    match options.form {
        Form::Bundle => {
            let name = name.map(|name| name.to_string());
            let bundle = Bundle::sign(&image.digest, name.as_deref(), &options.annotations, key)?;
            let attached = attach(sink, image, &carrier(&bundle, options), task).await;
            attached.map_err(|error| Error::Transport(error.into()))
        }
        Form::Tag => {
            let refuse = |reason: &str| Error::Sign { image: image.digest, reason: reason.into() };
            let name = name.ok_or_else(|| refuse("the tag form needs the image's name"))?;
            let tag = simple_signing::tag(&image.digest)?;
            let sink = sink.sibling(&tag);
            let sink = sink.ok_or_else(|| refuse("this place has no tags to store it under"))?;
            let existing = match source.sibling(&tag) {
                Some(source) => signatures(&*source).await?,
                None => None,
            };
            let existing = existing.as_deref();
            let name = name.to_string();
            let signed =
                simple_signing::sign(&image.digest, &name, &options.annotations, key, existing)?;
            store(&*sink, &signed, task).await?;
            Ok(signed.manifest.descriptor().clone())
        }
    }
}

/// An image and, where it is an index, every image below it, each once: what is signed and
/// verified when the whole of a multi-platform image is meant.
///
/// # Errors
/// [`Error::Sign`] where there are more than [`MAX_MEMBERS`]; [`Error::Transport`].
pub async fn members(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Descriptor>> {
    let mut members = vec![image.clone()];
    let mut next = 0;
    while let Some(member) = members.get(next).cloned() {
        next += 1;
        task.check()?;
        if !member.media_type.is_index() {
            continue;
        }
        let opened = transport::node(source, &member).await;
        let Node::Index(index) = opened.map_err(|error| Error::Transport(error.into()))? else {
            continue;
        };
        for child in index.manifests.iter().filter(|child| child.media_type.is_node()) {
            if members.iter().all(|known| known.digest != child.digest) {
                members.push(child.clone());
            }
        }
        if members.len() > MAX_MEMBERS {
            let reason = format!("it is made of more than {MAX_MEMBERS} images");
            return Err(Error::Sign { image: image.digest, reason });
        }
    }
    Ok(members)
}

/// The manifest that carries a bundle, as cosign 3 writes it.
fn carrier(bundle: &Bundle, options: &SignOptions) -> Artifact {
    let mut annotations = BTreeMap::from([
        (bundle::CONTENT_ANNOTATION.to_owned(), "dsse-envelope".to_owned()),
        (bundle::PREDICATE_ANNOTATION.to_owned(), dsse::SIGN_V1.to_owned()),
    ]);
    if let Some(created) = &options.created {
        annotations.insert(CREATED_ANNOTATION.to_owned(), created.clone());
    }
    let blob = (MediaType::SIGSTORE_BUNDLE, Bytes::from(bundle.to_json()), BTreeMap::new());
    Artifact {
        artifact_type: bundle::MEDIA_TYPE.to_owned(),
        config: None,
        blobs: vec![blob],
        annotations,
    }
}

async fn store(sink: &dyn Sink, signed: &Signed, task: &Task) -> Result<()> {
    if signed.unchanged {
        return Ok(());
    }
    let published = publish_document(sink, &signed.manifest, &signed.blobs, task).await;
    published.map_err(|error| Error::Transport(error.into()))
}

/// Finds the signatures of an image and gives back the good ones, at least one.
///
/// # Errors
/// [`Error::Unsigned`], [`Error::Unverified`], [`Error::TooMany`], [`Error::Transport`].
pub async fn verify_image(
    image: &Descriptor,
    demand: &Demand,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Verified>> {
    let candidates = collect(image, source, task).await?;
    verify_any(&image.digest, &candidates, demand)
}

/// Finds everything that may be a signature of an image, in both forms.
///
/// # Errors
/// [`Error::TooMany`], [`Error::Transport`], [`Error::Cancelled`].
pub async fn collect(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Candidate>> {
    let mut budget = MAX_TOTAL;
    let mut candidates = Vec::new();
    let referrers = found(source.referrers(image).await)?.unwrap_or_default();
    let referrers: Vec<_> = referrers.into_iter().filter(may_be_signature).collect();
    limit(image, referrers.len())?;
    for referrer in &referrers {
        task.check()?;
        let evidence = bundle_of(source, referrer, &mut budget).await?;
        candidates.push(Candidate { origin: format!("bundle {}", referrer.digest), evidence });
    }
    let tag = simple_signing::tag(&image.digest).ok();
    let Some((tag, source)) = tag.and_then(|tag| Some((tag.clone(), source.sibling(&tag)?))) else {
        return Ok(candidates);
    };
    let Some(manifest) = signatures(&*source).await? else { return Ok(candidates) };
    let payloads: Vec<_> =
        manifest.layers.iter().filter(|layer| simple_signing::is_payload(layer)).collect();
    limit(image, candidates.len() + payloads.len())?;
    for (index, layer) in payloads.into_iter().enumerate() {
        task.check()?;
        let bytes = read(&*source, layer, simple_signing::MAX_PAYLOAD, &mut budget).await?;
        let evidence = match bytes {
            Ok(bytes) => Evidence::Payload(bytes, layer.annotations.clone()),
            Err(mismatch) => Evidence::Unreadable(mismatch),
        };
        candidates
            .push(Candidate { origin: format!("signature {} of {tag}", index + 1), evidence });
    }
    Ok(candidates)
}

fn limit(image: &Descriptor, found: usize) -> Result<()> {
    let (image, limit) = (image.digest, MAX_SIGNATURES);
    if found > limit { Err(Error::TooMany { image, found, limit }) } else { Ok(()) }
}

/// Whether a referrer is to be looked at. Its list may leave out the annotations, so that only
/// what says it is something else is passed over.
fn may_be_signature(referrer: &Descriptor) -> bool {
    let predicate = referrer.annotations.get(bundle::PREDICATE_ANNOTATION);
    let typed = referrer.artifact_type.as_deref().is_some_and(|artifact_type| {
        artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
    });
    typed && predicate.is_none_or(|predicate| predicate == dsse::SIGN_V1)
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
async fn signatures(source: &dyn Source) -> Result<Option<Document<Manifest>>> {
    let Some(descriptor) = found(source.resolve().await)? else { return Ok(None) };
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
async fn read(
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

/// Takes "there is no such thing" as an answer.
fn found<T>(result: Result<T, Cause>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(cause) if cause.kind() == Kind::NotFound => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}
