//! Where signatures are stored and found; the only part of this crate that waits for others.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use copy::{Artifact, Sink, Source, attach, publish_document};
use image::{Descriptor, MediaType, Node, Reference};
use task::{Fault, Kind, Task};
use tokio::time::Instant;

use crate::bundle::{self, Bundle};
use crate::dsse;
use crate::error::{Error, Result};
use crate::find::{self, CREATED_ANNOTATION, KEY_ANNOTATION};
use crate::key::PublicKey;
use crate::sealer::Sealer;
use crate::signers::Signers;
use crate::simple_signing;
use crate::verify::{Demand, Form, Verified, verify, verify_any};

/// An index with more images than this is not walked.
pub const MAX_MEMBERS: usize = 1000;
/// How often a list of signatures that others replace is written again.
const ROUNDS: u32 = 24;
/// How often a list is sent again whose parts the registry says that it misses.
const REFUSALS: u32 = 5;
/// How often a new signature is looked for before it counts as lasting: tags have no lock, and
/// another signer may have read the list before and write it after.
const LOOKS: u32 = 2;

/// The least pause before a look, and how many times as long it is as it took us to read the list
/// and to write it: on a busy machine the others, who may have read before us, are slow as well.
const BETWEEN: Duration = Duration::from_millis(60);
const SLOWER: u32 = 4;
/// No pause is longer, but for the chance in it.
const LONGEST: Duration = Duration::from_secs(2);

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
/// `source` and `sink` are the place where the image is; what is there already is not added again.
/// Gives back the manifest that carries the signature.
///
/// # Errors
/// [`Error::Sign`] where the older form lacks a name or the place cannot hold it, or where other
/// signers keep replacing the list of signatures; [`Error::NotSignatures`], [`Error::Transport`].
pub async fn sign_image<'a>(
    image: &Descriptor,
    sealer: impl Into<Sealer<'a>>,
    source: &dyn Source,
    sink: &dyn Sink,
    options: &SignOptions,
    task: &Task,
) -> Result<Descriptor> {
    let sealer = sealer.into();
    let name = options.name.as_ref().map(|name| Reference { digest: None, ..name.clone() });
    let name = name.map(|name| name.to_string());
    let refuse = |reason: &str| Error::Sign { image: image.digest, reason: reason.into() };
    match options.form {
        Form::Bundle => {
            let name = name.as_deref();
            if let Some(key) = sealer.public()
                && let Some(there) =
                    signed_already(image, &key, name, source, options, task).await?
            {
                return Ok(there);
            }
            let payload = dsse::statement(&image.digest, name, &options.annotations);
            let payload = payload.map_err(|error| refuse(&error.to_string()))?;
            let bundle = sealer.seal(&payload, task).await?;
            let attached = attach(sink, image, &carrier(&bundle, sealer, options), task).await;
            attached.map_err(|error| Error::Transport(error.into()))
        }
        Form::Tag => {
            let name = name.ok_or_else(|| refuse("the tag form needs the image's name"))?;
            let payload = simple_signing::to_sign(&image.digest, &name, &options.annotations)?;
            let signature = sealer.sign(&payload).await?;
            let made = signature.zip(sealer.public());
            let made = made.ok_or_else(|| refuse("the tag form is signed with a key alone"))?;
            sign_tag(image, &payload, &made, (source, sink), task).await
        }
    }
}

/// The bundle that says the same and was made by the same key, if there is one.
async fn signed_already(
    image: &Descriptor,
    key: &PublicKey,
    name: Option<&str>,
    source: &dyn Source,
    options: &SignOptions,
    task: &Task,
) -> Result<Option<Descriptor>> {
    let signers = Signers::keys(vec![key.clone()]);
    let demand = Demand { signers, ..Demand::default() };
    let found = match find::bundles(image, &[key.id()], source, task).await {
        Ok((found, _)) => found,
        // Who may only push learns here that reading is denied, and pushes.
        Err(error) if error.kind() == Kind::Denied => return Ok(None),
        Err(error) => return Err(error),
    };
    let same = |good: &Verified| good.name() == name && *good.annotations() == options.annotations;
    let there = found.iter().find(|(_, candidate)| {
        verify(&image.digest, candidate, &demand).is_ok_and(|good| same(&good))
    });
    Ok(there.map(|(carrier, _)| carrier.clone()))
}

/// Adds a signature to those under the tag, and looks whether it stays there.
async fn sign_tag(
    image: &Descriptor,
    payload: &[u8],
    (signature, key): &(Vec<u8>, PublicKey),
    (source, sink): (&dyn Source, &dyn Sink),
    task: &Task,
) -> Result<Descriptor> {
    let refuse = |reason: &str| Error::Sign { image: image.digest, reason: reason.into() };
    let tag = simple_signing::tag(&image.digest)?;
    let sink = sink.sibling(&tag);
    let sink = sink.ok_or_else(|| refuse("this place has no tags to store it under"))?;
    let source = source.sibling(&tag);
    let (mut looks, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for _ in 0..ROUNDS {
        task.check()?;
        let began = Instant::now();
        let existing = match &source {
            Some(source) => find::signatures(&**source).await?,
            None => None,
        };
        let existing = existing.as_deref();
        let made = (signature.as_slice(), key);
        let signed = simple_signing::add(&image.digest, payload.to_vec(), made, existing)?;
        if signed.unchanged && looks == 0 {
            return Ok(signed.manifest.descriptor().clone());
        }
        if signed.unchanged {
            looks -= 1;
        } else {
            let published = publish_document(&*sink, &signed.manifest, &signed.blobs, task).await;
            match published {
                Ok(()) => {}
                // Some registries lose sight of a blob for a moment that two signers send at once.
                Err(error) if refused < REFUSALS && error.kind() == Kind::NotFound => {
                    refused += 1;
                    pause(began.elapsed()).await;
                    continue;
                }
                Err(error) => return Err(Error::Transport(error.into())),
            }
            if source.is_none() {
                return Ok(signed.manifest.descriptor().clone());
            }
            looks = LOOKS;
        }
        slowest = slowest.max(began.elapsed());
        pause(slowest).await;
    }
    Err(refuse("other signers keep replacing the list of signatures; sign again"))
}

/// Between half and one and a half of the usual pause, so that signers who got in each other's way
/// do not meet again. `round` is how long it takes to read the list and to write it.
async fn pause(round: Duration) {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let share = 0.5 + (random % 1024) as f64 / 1024.0;
    tokio::time::sleep((round * SLOWER).clamp(BETWEEN, LONGEST).mul_f64(share)).await;
}

/// An image and, for an index, every image below it, each once: what is signed and verified for a
/// multi-platform image as a whole.
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
        let opened = copy::node(source, &member).await;
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
fn carrier(bundle: &Bundle, sealer: Sealer<'_>, options: &SignOptions) -> Artifact {
    let mut annotations = BTreeMap::from([
        (bundle::CONTENT_ANNOTATION.to_owned(), "dsse-envelope".to_owned()),
        (bundle::PREDICATE_ANNOTATION.to_owned(), dsse::SIGN_V1.to_owned()),
    ]);
    if let Some(key) = sealer.key_id() {
        annotations.insert(KEY_ANNOTATION.to_owned(), key.to_string());
    }
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
    let keys = demand.signers.key_ids();
    let found = find::collect(image, &keys, source, task).await?;
    let verified = verify_any(&image.digest, &found.candidates, demand);
    find::told(image, found.unread, verified)
}
