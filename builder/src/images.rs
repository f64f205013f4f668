//! Base images: finding their documents before the plan, and their layers only when needed.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use image::{Image, Platform, Reference};
use store::SnapshotId;
use task::{Cause, Fault, Kind, Task};
use transport::at::StoreImage;
use transport::{CopyOptions, Gate, Location, Select, Sink, Source, bridge};

use crate::plan::ImageKey;
use crate::{Context, Env, Error, Pull, Request, Result};

/// An image whose documents are known.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) image: Image,
    /// From where layers can be fetched that the store does not have.
    from: Option<Location>,
    /// The name under which the store keeps it once it is fetched.
    name: Option<String>,
}

/// The base images of a build.
pub(crate) type Bases = BTreeMap<ImageKey, Base>;

/// The name an image goes by: what a named context says, or itself.
fn named<'a>(request: &'a Request, key: &'a ImageKey) -> &'a str {
    match request.contexts.get(&key.name) {
        Some(Context::Image(name)) => name,
        _ => &key.name,
    }
}

/// Names in the store that a text may mean, best first.
fn candidates(text: &str) -> Result<Vec<Reference>> {
    let parse = |text: &str| {
        let parsed = Reference::from_str(text).map(Reference::or_latest);
        parsed.map_err(|error| Error::Image { name: text.to_owned(), source: error.into() })
    };
    let plain = parse(text)?;
    if Reference::has_registry(text) {
        return Ok(vec![plain]);
    }
    Ok(vec![parse(&format!("localhost/{text}"))?, plain])
}

/// Finds the documents of an image: in the store, or where the policy allows in its registry.
pub(crate) async fn resolve(
    request: &Request,
    env: &Env,
    key: &ImageKey,
    task: &Task,
) -> Result<Base> {
    let base = find(request, env, key, task).await?;
    let (found, wanted) = (base.image.platform(), &key.platform);
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
    Ok(base)
}

async fn find(request: &Request, env: &Env, key: &ImageKey, task: &Task) -> Result<Base> {
    let name = named(request, key);
    let task = task.child(format!("resolving {name}"));
    let fail = |source: Cause| Error::Image { name: name.to_owned(), source };
    if let Some(location) = elsewhere(name) {
        let base = remote(env, location, None, &key.platform).await.map_err(fail)?;
        task.done();
        return Ok(base);
    }
    if let Some(base) = by_id(env, name, &key.platform).map_err(fail)? {
        task.done();
        return Ok(base);
    }
    let candidates = candidates(name)?;
    let stored = local(env, &candidates, &key.platform).map_err(fail)?;
    let base = match (request.pull, stored) {
        (Pull::Missing | Pull::Never, Some(base)) => base,
        (Pull::Never, None) => return Err(Error::NotPulled { name: name.to_owned() }),
        (_, stored) => {
            let reference =
                candidates.last().cloned().ok_or_else(|| Error::Invalid(name.into()))?;
            let own = stored.as_ref().and_then(|base| base.name.as_deref());
            if own.is_some_and(|own| own.starts_with("localhost/")) {
                // Made here: there is no registry to ask.
                task.reused();
                return stored.ok_or_else(|| Error::Invalid(name.into()));
            }
            let location = Location::Registry(reference.clone());
            let found = remote(env, location, Some(reference), &key.platform).await;
            match (found, stored) {
                (Ok(base), _) => base,
                // A registry that does not answer is no reason to stop; one that says no, or a
                // policy that does, is.
                (Err(cause), Some(base))
                    if request.pull == Pull::Newer && cause.kind() == Kind::Unavailable =>
                {
                    task.warn(format!("using the {name} of the store: {cause}"));
                    base
                }
                (Err(cause), _) => return Err(fail(cause)),
            }
        }
    };
    task.note(base.image.descriptor().digest.to_string());
    task.done();
    Ok(base)
}

/// A name that says by itself where the image is.
fn elsewhere(name: &str) -> Option<Location> {
    let transports = ["docker:", "oci:", "oci-archive:", "docker-archive:", "dir:"];
    transports.iter().any(|t| name.starts_with(t)).then(|| name.parse().ok()).flatten()
}

/// An image of the store by its id or digest, or the beginning of one.
fn by_id(env: &Env, text: &str, platform: &Platform) -> Result<Option<Base>, Cause> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let id = (12..=64).contains(&hex.len())
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let Some(descriptor) = (if id { env.store.find(text)? } else { None }) else {
        return Ok(None);
    };
    let image = env.store.image(&descriptor, platform)?;
    Ok(Some(Base { image, from: None, name: None }))
}

fn local(env: &Env, names: &[Reference], platform: &Platform) -> Result<Option<Base>, Cause> {
    for name in names {
        let name = name.to_string();
        let Some(descriptor) = env.store.resolve(&name)? else { continue };
        match env.store.image(&descriptor, platform) {
            Ok(image) => return Ok(Some(Base { image, from: None, name: Some(name) })),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn remote(
    env: &Env,
    location: Location,
    name: Option<Reference>,
    platform: &Platform,
) -> Result<Base, Cause> {
    let source = env.places.source(&location)?;
    let (named, image) = transport::open(&*source, platform).await?;
    // As in a copy: what the name points at is let through, or else what was chosen from it.
    if let Err(refused) = env.gate.check(&*source, &named).await {
        let chosen = image.descriptor();
        if chosen.digest == named.digest || env.gate.check(&*source, chosen).await.is_err() {
            return Err(refused);
        }
    }
    let name = name.map(|name| name.to_string());
    let location = pinned(location, image.descriptor().digest);
    Ok(Base { image, from: Some(location), name })
}

/// The same place by digest, so that what was planned is what is fetched.
fn pinned(location: Location, digest: image::Digest) -> Location {
    match location {
        Location::Registry(reference) => {
            Location::Registry(Reference { digest: Some(digest), ..reference })
        }
        other => other,
    }
}

/// Brings the blobs of a base image into the store, those that are not there.
pub(crate) async fn fetch(env: &Env, base: &Base, task: &Task) -> Result<()> {
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
    if missing.map_err(|error| base.failure(error.into()))? {
        let sink = StoreImage::new(&env.store, base.name.as_deref());
        pull(env, base, sink, task).await?;
    }
    Ok(())
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
        let sink = StoreImage::new(&env.store, base.name.as_deref())
            .unpacked(base.image.platform(), task.child("unpacking"));
        pull(env, base, sink, task).await?;
    }
    Ok(Some(chain.into()))
}

impl Base {
    fn failure(&self, source: Cause) -> Error {
        let digest = || self.image.descriptor().digest.to_string();
        Error::Image { name: self.name.clone().unwrap_or_else(digest), source }
    }
}

async fn pull(env: &Env, base: &Base, sink: StoreImage, task: &Task) -> Result<()> {
    let Some(from) = &base.from else {
        let digest = base.image.descriptor().digest;
        return Err(Error::Invalid(format!("layers of {digest} are missing in the store")));
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
