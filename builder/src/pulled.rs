//! Which images of the store came from a registry, so that a policy is asked about them again.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use image::{Descriptor, Digest, Reference};
use serde::{Deserialize, Serialize};
use store::Store;
use task::{Cause, Task};
use transport::{Gate, Location, Source};

use crate::error::ErrorContext;
use crate::images::Base;
use crate::{Places, Result};

/// Where the store remembers it.
const SPACE: &str = "pulled-1";

/// Where an image was pulled from.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PullRecord {
    /// The name on a registry.
    name: String,
    /// What the policy let through: the image, or the index it was in.
    permitted: Descriptor,
    /// The image.
    image: Descriptor,
}

/// A gate that notes what another lets through: an image, or the index it is in.
pub struct RecordingGate<'a> {
    gate: &'a dyn Gate,
    permitted: Mutex<Option<Descriptor>>,
}

impl<'a> RecordingGate<'a> {
    /// Nothing has passed yet.
    pub fn new(gate: &'a dyn Gate) -> RecordingGate<'a> {
        RecordingGate { gate, permitted: Mutex::default() }
    }

    /// What passed.
    pub fn permitted(self) -> Option<Descriptor> {
        self.permitted.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Gate for RecordingGate<'_> {
    async fn check(
        &self,
        source: &dyn Source,
        root: &Descriptor,
        task: &Task,
    ) -> Result<(), Cause> {
        self.gate.check(source, root, task).await?;
        *self.permitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.clone());
        Ok(())
    }

    async fn passed(&self, place: &Location, root: &Digest) -> bool {
        self.gate.passed(place, root).await
    }
}

/// Remembers that an image came from a registry. `permitted` is what a policy let through: the image,
/// or the index it was in.
///
/// # Errors
/// The store cannot be written.
pub fn remember_pulled(
    store: &Store,
    name: &Reference,
    permitted: &Descriptor,
    image: &Descriptor,
) -> Result<(), Cause> {
    let name = name.to_string();
    let pulled = PullRecord { name, permitted: permitted.clone(), image: image.clone() };
    let bytes = serde_json::to_vec(&pulled).unwrap_or_default();
    Ok(store.set_memo(SPACE, image.digest.to_string().as_bytes(), &bytes)?)
}

fn pulled(store: &Store, image: Digest) -> Result<Option<PullRecord>, Cause> {
    let bytes = store.memo(SPACE, image.to_string().as_bytes())?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Where an image of the store came from, if it came from a registry.
///
/// # Errors
/// The store cannot be read; what it remembers is not a name.
pub fn origin(store: &Store, image: Digest) -> Result<Option<Location>, Cause> {
    let Some(pulled) = pulled(store, image)? else { return Ok(None) };
    Ok(Some(Location::Registry(pulled.name.parse::<Reference>()?)))
}

/// Asks a policy about an image of the store, by its manifest. One that came from a registry must be
/// permitted under the name it came by; what was made or loaded here is not asked about.
///
/// # Errors
/// The policy refuses it; its signatures cannot be read.
pub async fn permit_stored(
    store: &Store,
    places: &dyn Places,
    gate: &dyn Gate,
    image: Digest,
    task: &Task,
) -> Result<(), Cause> {
    let Some(pulled) = pulled(store, image)? else { return Ok(()) };
    let place = Location::Registry(pulled.name.parse::<Reference>()?);
    for root in [&pulled.permitted, &pulled.image] {
        if gate.passed(&place, &root.digest).await {
            return Ok(());
        }
    }
    let source = places.source(&place)?;
    transport::permit(&*source, gate, &pulled.permitted, &pulled.image, task).await?;
    Ok(())
}

/// Sees to it that the documents of an image whose layers are here are here too, under this name or
/// the one that it was fetched by.
pub(crate) fn keep(store: &Store, base: &Base, name: Option<&str>) -> Result<()> {
    let (action, image) = ("keeping the image", &base.image);
    let digest = image.descriptor().digest;
    let name = name.or(base.own_name().filter(|_| base.elsewhere().is_some()));
    let known = match name {
        Some(name) => {
            let named = store.resolve(name).during(action)?.map(|named| named.digest);
            named.is_some_and(|named| named == digest || named == base.named)
        }
        None => store.find(&digest.to_string()).during(action)?.is_some(),
    };
    if known {
        return Ok(());
    }
    store.insert(image.config().bytes()).during(action)?;
    store.insert(image.manifest().bytes()).during(action)?;
    match name {
        Some(name) => store.publish(name, image.descriptor()).during(action),
        None => store.publish_untagged(image.descriptor()).during(action),
    }
}
