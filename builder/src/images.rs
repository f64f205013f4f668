//! Base images: finding their documents before the plan, and their layers only when needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use image::{Descriptor, Digest, Document, Image, Index, Node, Platform, Reference};
use serde::{Deserialize, Serialize};
use store::SnapshotId;
use task::{Cause, Fault, Kind, Task};
use transport::at::StoreImage;
use transport::{CopyOptions, Gate, Location, Select, Sink, Source, bridge};

use crate::input::{Input, InputKind};
use crate::inputs::Inputs;
use crate::plan::ImageKey;
use crate::pulled::{keep, permit_stored, remember_pulled};
use crate::{Context, Env, Error, Pull, Request, Result};

/// An image whose documents are known.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) image: Image,
    /// What its name points at: its manifest, or the index it is in.
    pub(crate) named: Digest,
    /// From where layers can be fetched that the store does not have.
    from: Option<Location>,
    /// The name under which the store keeps it once it is fetched.
    name: Option<String>,
}

/// The base images of a build.
pub(crate) type Bases = BTreeMap<ImageKey, Base>;

/// Where the store remembers which index an image came from, and images for other platforms than
/// the one that has the name.
const SPACE: &str = "image-origin-1";

/// What a name pointed at when an image was fetched by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Origin {
    /// What the name pointed at: often an index.
    named: Digest,
    /// The image's manifest.
    manifest: Descriptor,
}

impl Origin {
    fn key(name: &str, platform: &Platform) -> Vec<u8> {
        format!("{name}\0{platform}").into_bytes()
    }

    fn recall(env: &Env, name: &str, platform: &Platform) -> Result<Option<Origin>, Cause> {
        let bytes = env.store.memo(SPACE, &Origin::key(name, platform))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    fn remember(&self, env: &Env, name: &str, platform: &Platform) -> Result<(), Cause> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(env.store.set_memo(SPACE, &Origin::key(name, platform), &bytes)?)
    }
}

/// The name an image goes by: what a named context says, or itself.
fn named<'a>(request: &'a Request, key: &'a ImageKey) -> &'a str {
    match request.named_context(&key.name) {
        Some((_, Context::Image(name))) => name,
        _ => &key.name,
    }
}

/// Names in the store that a text may mean, best first.
fn candidates(env: &Env, text: &str) -> Result<Vec<Reference>> {
    let fail = |source: Cause| Error::Image { name: text.to_owned(), source };
    let meanings = env.places.meanings(text).map_err(fail)?;
    if Reference::has_registry(text) {
        return Ok(meanings);
    }
    let local = Reference::parse_with(text, "localhost").map(Reference::or_latest);
    let local = local.map_err(|error| fail(error.into()))?;
    Ok([vec![local], meanings].concat())
}

/// Those of the candidates that a registry may have.
fn on_registries<'a>(text: &str, candidates: &'a [Reference]) -> &'a [Reference] {
    &candidates[usize::from(!Reference::has_registry(text)).min(candidates.len())..]
}

/// Finds the documents of an image: in the store, or where the policy allows in its registry.
pub(crate) async fn resolve(
    request: &Request,
    env: &Env,
    inputs: &Inputs,
    key: &ImageKey,
    task: &Task,
) -> Result<Base> {
    let name = named(request, key);
    let wanted = &key.platform;
    let (kind, identifier) = identify(env, name, wanted)?;
    let admitted = inputs.admit(kind, &identifier)?;
    let name = match admitted.converted {
        true => admitted.image_name()?,
        false => name.to_owned(),
    };
    let base = find(request, env, &name, wanted, admitted.digest()?, task).await?;
    if base.from.is_none() {
        let image = base.image.descriptor().digest;
        let asked = permit_stored(&env.store, &*env.places, &*env.gate, image, task).await;
        asked.map_err(|cause| base.failure(cause))?;
    }
    let found = base.image.platform();
    if found.serves(wanted).is_none() {
        let error = Error::Platform {
            name: named(request, key).to_owned(),
            found: Box::new(found),
            wanted: Box::new(wanted.clone()),
        };
        // An image that is for one platform only may be named to take files from it.
        if *wanted != request.build_platform {
            return Err(error);
        }
        task.warn(error.to_string());
    }
    inputs.record(Input {
        kind,
        name: key.name.clone(),
        identifier: admitted.identifier,
        resolved: base.named.to_string(),
        platform: Some(wanted.clone()),
        manifest: Some(base.image.descriptor().digest),
        place: None,
    });
    Ok(base)
}

/// The index that a name means in the store or in its registry; `None` if it is one image.
pub(crate) async fn index(
    request: &Request,
    env: &Env,
    inputs: &Inputs,
    name: &str,
) -> Result<Option<Document<Index>>> {
    let platform = &request.build_platform;
    let key = ImageKey { name: name.to_owned(), platform: platform.clone() };
    let (kind, identifier) = identify(env, named(request, &key), platform)?;
    let admitted = inputs.admit(kind, &identifier)?;
    let name = match admitted.converted {
        true => admitted.image_name()?,
        false => named(request, &key).to_owned(),
    };
    let fail = |source: Cause| Error::Image { name: name.clone(), source };
    let pin = admitted.digest()?;
    let mut places = Vec::new();
    if let Some(location) = elsewhere(&name) {
        places.push(location);
    } else {
        let candidates = candidates(env, &name)?;
        for candidate in &candidates {
            let stored = env.store.resolve(&candidate.to_string());
            let Some(root) = stored.map_err(|error| fail(error.into()))? else { continue };
            let fits = pin.is_none_or(|pin| pin == root.digest);
            if root.media_type.is_index() && fits && request.pull != Pull::Always {
                let bytes = env.store.read(&root).map_err(|error| fail(error.into()))?;
                let index = Document::read(root, bytes);
                return index.map(Some).map_err(|error| fail(error.into()));
            }
            if candidate.to_string().starts_with("localhost/") || request.pull == Pull::Never {
                return Ok(None);
            }
        }
        if request.pull == Pull::Never {
            return Err(Error::NotPulled { name });
        }
        let remotes = on_registries(&name, &candidates).iter().cloned();
        places.extend(remotes.map(Location::Registry));
    }
    let mut found = Err(Error::NotThere { what: "image", name: name.clone() });
    for place in places {
        let place = match place {
            Location::Registry(reference) => Location::Registry(with_pin(reference, pin)?),
            other => other,
        };
        found = node(env, &place).await.map_err(fail);
        let missing = |error: &Error| matches!(error.kind(), Kind::NotFound | Kind::Denied);
        if !found.as_ref().is_err_and(missing) {
            break;
        }
    }
    match found? {
        Node::Index(index) => Ok(Some(index)),
        Node::Manifest(_) => Ok(None),
    }
}

async fn node(env: &Env, place: &Location) -> Result<Node, Cause> {
    let source = env.places.source(place)?;
    let named = source.resolve().await?;
    Ok(transport::node(&*source, &named).await?)
}

/// The identifier of an image (see [`crate::inputs`]).
fn identify(env: &Env, name: &str, platform: &Platform) -> Result<(InputKind, String)> {
    let image = |reference: &dyn std::fmt::Display| {
        (InputKind::Image, format!("docker-image://{reference}"))
    };
    match elsewhere(name) {
        Some(Location::Registry(reference)) => return Ok(image(&reference)),
        Some(location @ Location::Layout(..)) => {
            let text = location.to_string();
            let rest = text.strip_prefix("oci:").unwrap_or(&text);
            return Ok((InputKind::Layout, format!("oci-layout://{rest}")));
        }
        Some(location) => return Ok((InputKind::Archive, location.to_string())),
        None => {}
    }
    let fail = |source: Cause| Error::Image { name: name.to_owned(), source };
    if by_id(env, name, platform).map_err(fail)?.is_some() {
        return Ok(image(&name));
    }
    let candidates = candidates(env, name)?;
    let stored = local(env, &candidates, platform).map_err(fail)?;
    let own = stored.and_then(|base| base.name).filter(|name| name.starts_with("localhost/"));
    let remote = on_registries(name, &candidates).first().map(ToString::to_string);
    Ok(image(&own.or(remote).unwrap_or_default()))
}

/// The reference with the content that a lock wants.
fn with_pin(reference: Reference, pin: Option<Digest>) -> Result<Reference> {
    match (reference.digest, pin) {
        (Some(own), Some(pin)) if own != pin => Err(Error::Denied {
            identifier: format!("docker-image://{reference}"),
            reason: format!("the lock file requires {pin}"),
        }),
        (_, Some(pin)) => Ok(Reference { digest: Some(pin), ..reference }),
        (_, None) => Ok(reference),
    }
}

async fn find(
    request: &Request,
    env: &Env,
    name: &str,
    platform: &Platform,
    pin: Option<Digest>,
    task: &Task,
) -> Result<Base> {
    let task = task.child(format!("resolving {name}"));
    let fail = |source: Cause| Error::Image { name: name.to_owned(), source };
    let end = |task: Task, base: Base| {
        task.note(base.image.descriptor().digest.to_string());
        task.done();
        Ok(base)
    };
    if let Some(location) = elsewhere(name) {
        let location = match location {
            Location::Registry(reference) => Location::Registry(with_pin(reference, pin)?),
            other => other,
        };
        let base = remote(env, location, None, platform, &task).await.map_err(fail)?;
        return end(task, expected(base, name, pin)?);
    }
    if let Some(base) = by_id(env, name, platform).map_err(fail)? {
        return end(task, expected(base, name, pin)?);
    }
    if name.starts_with("sha256:") {
        // No registry is asked for what is in no repository.
        return Err(Error::Unknown { name: name.to_owned() });
    }
    let candidates = candidates(env, name)?;
    let stored = local(env, &candidates, platform).map_err(fail)?;
    let stored = match stored {
        None if is_short_id(name) => found_by_id(env, name, platform).map_err(fail)?,
        stored => stored,
    };
    let fits = |base: &Base| pin.is_none_or(|pin| base.has(pin));
    let serves = |base: &Base| base.image.platform().serves(platform).is_some();
    let usable = stored.as_ref().is_some_and(|base| fits(base) && serves(base));
    let base = match (request.pull, stored) {
        (Pull::Missing | Pull::Never, Some(base)) if usable => base,
        (Pull::Never, Some(base)) if fits(&base) => base,
        (Pull::Never, _) => return Err(Error::NotPulled { name: name.to_owned() }),
        (_, stored) => {
            let own = stored.as_ref().and_then(|base| base.name.as_deref());
            if own.is_some_and(|own| own.starts_with("localhost/")) {
                // Made here: there is no registry to ask.
                task.reused();
                let base =
                    stored.ok_or(Error::internal("an image that was made here is in the store"))?;
                return expected(base, name, pin);
            }
            // The name stays with the platform that has it.
            let taken = stored.as_ref().is_some_and(|base| !serves(base));
            let remotes = on_registries(name, &candidates);
            let (found, reference) = first(env, remotes, pin, taken, platform, &task).await?;
            match (found, stored) {
                (Ok(base), _) => {
                    let named = reference.to_string();
                    let manifest = base.image.descriptor().clone();
                    let origin = Origin { named: base.named, manifest };
                    origin.remember(env, &named, platform).map_err(fail)?;
                    base
                }
                // A registry that does not answer is no reason to stop; one that says no, or a
                // policy that does, is.
                (Err(cause), Some(base))
                    if request.pull == Pull::Newer
                        && fits(&base)
                        && cause.kind() == Kind::Unavailable =>
                {
                    task.warn(format!("using the {name} of the store: {cause}"));
                    base
                }
                // What is here is for another platform, and the registry has nothing better.
                (Err(cause), Some(base))
                    if request.pull == Pull::Missing
                        && fits(&base)
                        && matches!(cause.kind(), Kind::Unavailable | Kind::NotFound) =>
                {
                    base
                }
                (Err(cause), _) => return Err(fail(cause)),
            }
        }
    };
    end(task, expected(base, name, pin)?)
}

/// The first of the images that exists on a registry, or why the last one cannot be fetched.
async fn first(
    env: &Env,
    references: &[Reference],
    pin: Option<Digest>,
    taken: bool,
    platform: &Platform,
    task: &Task,
) -> Result<(Result<Base, Cause>, Reference)> {
    let mut left = references.iter();
    loop {
        let reference = left.next();
        let reference = reference.ok_or(Error::internal("a name means at least one image"))?;
        let location = Location::Registry(with_pin(reference.clone(), pin)?);
        let keep = (!taken).then(|| reference.clone());
        let found = remote(env, location, keep, platform, task).await;
        match &found {
            // Docker Hub and others deny what is not there.
            Err(cause)
                if left.len() > 0 && matches!(cause.kind(), Kind::NotFound | Kind::Denied) => {}
            _ => return Ok((found, reference.clone())),
        }
    }
}

/// Refuses an image that is not what a lock wants.
fn expected(base: Base, name: &str, pin: Option<Digest>) -> Result<Base> {
    match pin.filter(|pin| !base.has(*pin)) {
        None => Ok(base),
        Some(pin) => Err(Error::Denied {
            identifier: name.to_owned(),
            reason: format!("the lock file requires {pin}, it is {} now", base.named),
        }),
    }
}

/// A name that says by itself where the image is.
fn elsewhere(name: &str) -> Option<Location> {
    let transports = ["docker:", "oci:", "oci-archive:", "docker-archive:", "dir:"];
    transports.iter().any(|t| name.starts_with(t)).then(|| name.parse().ok()).flatten()
}

/// Whether a text looks like an image's id or digest, or the beginning of one.
fn is_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (12..=64).contains(&hex.len())
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a text may be the beginning of an id, if it is no name.
fn is_short_id(text: &str) -> bool {
    (3..12).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// An image of the store by its id or digest, or the beginning of one.
fn by_id(env: &Env, text: &str, platform: &Platform) -> Result<Option<Base>, Cause> {
    if is_id(text) { found_by_id(env, text, platform) } else { Ok(None) }
}

fn found_by_id(env: &Env, text: &str, platform: &Platform) -> Result<Option<Base>, Cause> {
    let Some(descriptor) = env.store.find(text)? else { return Ok(None) };
    let image = env.store.image(&descriptor, platform)?;
    Ok(Some(Base { named: descriptor.digest, image, from: None, name: None }))
}

/// An image of the store, if it is there.
pub(crate) fn stored(env: &Env, name: &str, platform: &Platform) -> Option<Image> {
    let base = local(env, &candidates(env, name).ok()?, platform).ok()??;
    Some(base.image)
}

fn local(env: &Env, names: &[Reference], platform: &Platform) -> Result<Option<Base>, Cause> {
    let mut other = None;
    for name in names {
        let name = name.to_string();
        let origin = Origin::recall(env, &name, platform)?;
        // Without the name, or with the name being another platform's, the image for this one may
        // be here all the same.
        let nameless = || -> Result<Option<Base>, Cause> {
            let Some(origin) = &origin else { return Ok(None) };
            // What was removed is there until it is collected, and is no longer meant.
            if env.store.find(&origin.manifest.digest.to_string())?.is_none() {
                return Ok(None);
            }
            let image = env.store.image(&origin.manifest, platform).ok();
            Ok(image.map(|image| Base { image, named: origin.named, from: None, name: None }))
        };
        let Some(descriptor) = env.store.resolve(&name)? else {
            match nameless()? {
                Some(base) => return Ok(Some(base)),
                None => continue,
            }
        };
        let image = match env.store.image(&descriptor, platform) {
            Ok(image) => image,
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let same = |origin: &&Origin| origin.manifest.digest == image.descriptor().digest;
        let named = match origin.as_ref().filter(same) {
            Some(origin) if descriptor.digest == image.descriptor().digest => origin.named,
            _ => descriptor.digest,
        };
        if image.platform().serves(platform).is_some() {
            return Ok(Some(Base { image, named, from: None, name: Some(name) }));
        }
        if let Some(base) = nameless()? {
            return Ok(Some(base));
        }
        other.get_or_insert(Base { image, named, from: None, name: Some(name) });
    }
    Ok(other)
}

async fn remote(
    env: &Env,
    location: Location,
    name: Option<Reference>,
    platform: &Platform,
    task: &Task,
) -> Result<Base, Cause> {
    let source = env.places.source(&location)?;
    let (named, image) = transport::open(&*source, platform).await?;
    // As in a copy: what the name points at is let through, or else what was chosen from it.
    if let Err(refused) = env.gate.check(&*source, &named, task).await {
        let chosen = image.descriptor();
        if chosen.digest == named.digest || env.gate.check(&*source, chosen, task).await.is_err() {
            return Err(refused);
        }
    }
    if let Location::Registry(from) = &location {
        remember_pulled(&env.store, from, &named, image.descriptor())?;
    }
    let name = name.map(|name| name.to_string());
    let location = pinned(location, image.descriptor().digest);
    Ok(Base { image, named: named.digest, from: Some(location), name })
}

/// The same place by digest, so that what was planned is what is fetched.
fn pinned(location: Location, digest: Digest) -> Location {
    match location {
        Location::Registry(reference) => {
            Location::Registry(Reference { digest: Some(digest), ..reference })
        }
        other => other,
    }
}

/// Brings the blobs of a base image into the store, those that are not there.
pub(crate) async fn fetch(env: &Env, base: &Base, task: &Task) -> Result<()> {
    if is_missing(env, base).await? {
        let sink = StoreImage::new(&env.store, base.own_name());
        pull(env, base, sink, task).await?;
    }
    Ok(())
}

/// Whether the store lacks a layer of a base image.
pub(crate) async fn is_missing(env: &Env, base: &Base) -> Result<bool> {
    let store = env.store.clone();
    let digests: Vec<_> = base.image.layers().map(|layer| layer.descriptor.digest).collect();
    let missing = move || -> Result<bool, store::Error> {
        for digest in digests {
            if !store.contains(digest)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let missing = bridge::blocking(missing).await;
    missing.map_err(|error| base.failure(error.into()))
}

/// Makes the file system of a base image available.
pub(crate) async fn unpack(env: &Env, base: &Base, task: &Arc<Task>) -> Result<Option<SnapshotId>> {
    let Some(chain) = base.image.chain_id() else { return Ok(None) };
    let (store, image, own) = (env.store.clone(), base.image.clone(), Arc::clone(task));
    let here = move || -> Result<bool, store::Error> {
        if store.has_snapshot(chain.into())? {
            return Ok(true);
        }
        for layer in image.layers() {
            if !store.contains(layer.descriptor.digest)? {
                return Ok(false);
            }
        }
        store.unpack(&image, &own).map(|_| true)
    };
    if !bridge::blocking(here).await.map_err(|error| base.failure(error.into()))? {
        // A downloaded byte is not read back: layers are unpacked while they arrive.
        let sink = StoreImage::new(&env.store, base.own_name())
            .unpacked(base.image.platform(), task.later("unpacking"));
        pull(env, base, sink, task).await?;
    } else if base.from.is_some() && !is_missing(env, base).await? {
        // Another image has the same layers: this one is in the store all the same.
        keep(&env.store, base, None)?;
    }
    Ok(Some(chain.into()))
}

impl Base {
    /// The name under which the store keeps it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether this is the image with that digest, or the one of that index for a platform.
    fn has(&self, digest: Digest) -> bool {
        digest == self.named || digest == self.image.descriptor().digest
    }

    /// The name the store keeps it by: none for another machine's, which would take the name away
    /// from this machine's.
    pub(crate) fn own_name(&self) -> Option<&str> {
        let own = self.image.platform().serves(&Platform::host()).is_some();
        self.name.as_deref().filter(|_| own)
    }

    /// Where its layers can be fetched that the store does not have.
    pub(crate) fn elsewhere(&self) -> Option<&Location> {
        self.from.as_ref()
    }

    /// The digests of its layers.
    pub(crate) fn layers(&self) -> BTreeSet<Digest> {
        self.image.layers().map(|layer| layer.descriptor.digest).collect()
    }

    pub(crate) fn failure(&self, source: Cause) -> Error {
        let digest = || self.image.descriptor().digest.to_string();
        Error::Image { name: self.name.clone().unwrap_or_else(digest), source }
    }
}

async fn pull(env: &Env, base: &Base, sink: StoreImage, task: &Task) -> Result<()> {
    let Some(from) = &base.from else {
        let digest = base.image.descriptor().digest;
        return Err(Error::Gone { what: format!("a layer of {digest}") });
    };
    let child = task.child(format!("pulling {from}"));
    let source = env.places.source(from).map_err(|cause| base.failure(cause))?;
    let options =
        CopyOptions { select: Select::One(base.image.platform()), ..CopyOptions::default() };
    let gate: Arc<dyn Gate> = match from {
        // Pinned to what the gate has let through, perhaps by a signature of the index it is in.
        Location::Registry(Reference { digest: Some(_), .. }) => Arc::new(transport::Open),
        _ => Arc::clone(&env.gate),
    };
    let copied = carry(source, Box::new(sink), gate, options, child).await;
    copied.map_err(|cause| base.failure(cause))
}

/// Copies an image from one place to another. The copy is waited for on a thread of its own: its
/// future borrows from both ends in ways that keep it from moving between threads.
pub(crate) async fn carry(
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    gate: Arc<dyn Gate>,
    options: CopyOptions,
    task: Task,
) -> Result<(), Cause> {
    let runtime = tokio::runtime::Handle::current();
    bridge::blocking(move || {
        let copying = transport::copy(&*source, &*sink, &*gate, &options, &task);
        runtime.block_on(copying)?;
        task.done();
        Ok(())
    })
    .await
}
