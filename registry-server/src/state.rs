//! What repositories have: links to blobs, manifests, tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// A mutex whose data is good whatever a panicking thread did.
#[derive(Default, Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Repository {
    #[serde(default)]
    pub(crate) blobs: BTreeSet<Digest>,
    #[serde(default)]
    pub(crate) manifests: BTreeMap<Digest, Entry>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, Digest>,
}

/// One manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) media_type: String,
    /// What it refers to.
    #[serde(default)]
    pub(crate) subject: Option<Digest>,
    /// How it is listed among the referrers of its subject.
    pub(crate) referrer: Descriptor,
}

/// All repositories by name.
pub(crate) type Repositories = BTreeMap<String, Repository>;
