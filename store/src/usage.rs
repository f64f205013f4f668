//! What takes how much disk.

use std::collections::{BTreeMap, BTreeSet};

use image::{Descriptor, Digest};
use task::Task;

use crate::budget::{Budget, CacheEntry, ItemKind};
use crate::mark::{each, entries, key};
use crate::step::StepNote;
use crate::{Result, Store, file};

/// A number of things and their bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How many.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What one image takes: its blobs, not what they unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// Its names; none for an untagged image.
    pub names: Vec<String>,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// Those of them that no other image has.
    pub unique: u64,
}

/// What takes how much disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Each published image.
    pub images: Vec<ImageUsage>,
    /// All content.
    pub blobs: Total,
    /// Unpacked layers and the trees of steps.
    pub snapshots: Total,
    /// Changes of containers.
    pub containers: Total,
    /// Cache mounts.
    pub mounts: Total,
    /// Remembered steps; their bytes are those of blobs and snapshots that only they keep, and of
    /// what nothing keeps.
    pub steps: Total,
    /// Bytes that [`Store::collect`] would free by itself.
    pub garbage: u64,
}

impl Store {
    /// Bytes that are free on the store's file system.
    ///
    /// # Errors
    /// [`crate::Error::File`].
    pub fn free_space(&self) -> Result<u64> {
        let path = self.path();
        let system = rustix::fs::statvfs(path)
            .map_err(|errno| crate::Error::file("examining", path, std::io::Error::from(errno)))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Bytes that the changes of a container take.
    pub fn container_bytes(&self, container: &crate::ContainerRecord) -> u64 {
        file::disk_usage(&container.directory)
    }

    /// The build cache in single things, the last used first.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`], [`crate::Error::Cancelled`].
    pub fn cache_entries(&self, task: &Task) -> Result<Vec<CacheEntry>> {
        self.measure(task)?;
        let mounts = self.mounts(task)?;
        self.shared().catalog.read("listing the build cache", |db| {
            let mut about: BTreeMap<String, String> = BTreeMap::new();
            each(db, "SELECT directory, id FROM mounts", |row| {
                about.insert(row.get(0)?, row.get(1)?);
                Ok(())
            })?;
            each(db, "SELECT key, note FROM steps", |row| {
                let note = StepNote::read(&row.get::<_, String>(1)?);
                let text = note.step.or_else(|| note.same.map(|same| same.to_string()));
                let text = text.unwrap_or_else(|| "layer".to_owned());
                about.insert(key(row, 0)?.to_string(), text);
                Ok(())
            })?;
            let mut entries = entries(db, &mounts)?;
            for entry in &mut entries {
                entry.about = about.remove(&entry.id).unwrap_or_default();
            }
            Ok(entries)
        })
    }

    /// Adds up what is on disk; measures snapshots that were not measured yet.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`], [`crate::Error::Cancelled`].
    pub fn usage(&self, task: &Task) -> Result<Usage> {
        self.measure(task)?;
        let mut usage = Usage { images: self.image_usage()?, ..Usage::default() };
        self.shared().catalog.read("adding up", |db| {
            each(db, "SELECT size FROM blobs", |row| {
                usage.blobs.add(row.get::<_, i64>(0)?.unsigned_abs());
                Ok(())
            })?;
            // A snapshot that is also the layer of an image counts as that.
            let alone = "SELECT coalesce(size, 0) FROM snapshots WHERE id NOT IN \
                         (SELECT snapshot FROM blobs WHERE snapshot IS NOT NULL)";
            each(db, alone, |row| {
                usage.snapshots.add(row.get::<_, i64>(0)?.unsigned_abs());
                Ok(())
            })
        })?;
        for mount in self.mounts(task)? {
            usage.mounts.add(mount.bytes);
        }
        for container in self.containers()? {
            task.check()?;
            usage.containers.add(file::disk_usage(&container.directory));
        }
        let bytes = |all| -> Result<u64> {
            let plan = self.collect(&Budget { all, dry_run: true, ..Budget::default() }, task)?;
            let content = plan.removed.iter().filter(|removed| removed.kind != ItemKind::Mount);
            Ok(content.map(|removed| removed.bytes).sum())
        };
        usage.garbage = bytes(false)?;
        usage.steps = Total { count: self.step_count()?, bytes: bytes(true)? };
        Ok(usage)
    }

    fn image_usage(&self) -> Result<Vec<ImageUsage>> {
        let roots = self.published()?;
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut children: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        self.shared().catalog.read("adding up images", |db| {
            each(db, "SELECT digest, size FROM blobs", |row| {
                sizes.insert(key(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs());
                Ok(())
            })?;
            each(db, "SELECT parent, child FROM edges", |row| {
                children.entry(key(row, 0)?).or_default().push(key(row, 1)?);
                Ok(())
            })
        })?;
        let below = |root: Digest| {
            let (mut found, mut todo) = (BTreeSet::new(), vec![root]);
            while let Some(digest) = todo.pop() {
                if found.insert(digest) {
                    todo.extend(children.get(&digest).into_iter().flatten());
                }
            }
            found
        };
        let sets: Vec<BTreeSet<Digest>> =
            roots.iter().map(|root| below(root.descriptor.digest)).collect();
        let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
        for digest in sets.iter().flatten() {
            *users.entry(*digest).or_default() += 1;
        }
        let size = |digest: &Digest| sizes.get(digest).copied().unwrap_or(0);
        let images = roots.into_iter().zip(&sets).map(|(root, set)| ImageUsage {
            descriptor: root.descriptor,
            names: root.names,
            bytes: set.iter().map(size).sum(),
            unique: set.iter().filter(|digest| users.get(digest) == Some(&1)).map(size).sum(),
        });
        Ok(images.collect())
    }
}
