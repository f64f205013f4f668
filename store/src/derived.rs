//! Layers that are kept as the snapshots they are of.
//!
//! The result of a step lies unpacked in its snapshot. Its layer is the plain tar of the snapshot,
//! the same bytes every time, so it needs no space of its own: the catalog records the snapshot of
//! the blob, and each read writes the tar again and checks it. Before an image leaves the store it
//! is *sealed*: such layers are compressed, once, and a manifest that names them replaces the old
//! one.

use std::io::{Seek, Write};
use std::num::NonZero;

use image::{Descriptor, Digest, Document, Encoding, MediaType, Node};
use layers::{Compression, DiffOptions, LayerInfo, LayerWriter, Root, Stack};
use rusqlite::{Connection, OptionalExtension, params};
use task::Task;

use crate::blob::{mark_unsynced, pin_blob};
use crate::catalog::{Attempt, DigestKey, Kind, number};
use crate::snapshot::pin_snapshot;
use crate::step::Info;
use crate::{Error, Result, SnapshotId, Store, file};

/// Memos of what images became when they were sealed.
const SEALED: &str = "sealed";

/// What the plain bytes of a layer are made from.
struct Recipe {
    snapshot: SnapshotId,
    /// No file is younger than this, seconds since 1970.
    clamp: Option<i64>,
}

impl Store {
    /// How layers are compressed that leave: what every registry and every runtime reads.
    pub const PACKED: Compression = Compression { encoding: Encoding::Gzip, level: None };

    /// Writes the layer that a snapshot is, what it changes on what it lies on, compressed on
    /// `threads` threads. The same snapshot always gives the same bytes. With `clamp` (seconds
    /// since 1970) no file is younger.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Layer`], [`Error::Catalog`], [`Error::Cancelled`].
    pub fn write_layer<W: Write + Send>(
        &self,
        snapshot: SnapshotId,
        clamp: Option<i64>,
        compression: Compression,
        threads: usize,
        out: W,
        task: &Task,
    ) -> Result<(W, LayerInfo)> {
        let failed = |source| Error::layer(format!("making the layer of {}", snapshot.0), source);
        let stack = self.stack(snapshot)?;
        let Some((top, below)) = stack.lower.split_first() else {
            return Err(Error::NoSnapshot { id: snapshot.0 });
        };
        let upper = Root::open(top).map_err(failed)?;
        let lower = if below.is_empty() {
            None
        } else {
            let stack = Stack { lower: below.to_vec(), top: None, ..stack.clone() };
            Some(stack.mount().map_err(failed)?)
        };
        let options = DiffOptions { user_xattr: stack.user_xattr, clamp, ..DiffOptions::default() };
        let mut layer = LayerWriter::new(out, compression, threads);
        layers::diff(&upper, lower.as_ref(), &mut layer, &options, task).map_err(failed)?;
        layer.finish().map_err(failed)
    }

    /// Makes the plain layer of a snapshot content of the store without storing it: it is pinned,
    /// and can be read like any other blob.
    ///
    /// # Errors
    /// As [`Store::write_layer`].
    pub fn derive(
        &self,
        snapshot: SnapshotId,
        clamp: Option<i64>,
        task: &Task,
    ) -> Result<LayerInfo> {
        let plain = Compression { encoding: Encoding::Plain, level: None };
        let (_, info) = self.write_layer(snapshot, clamp, plain, 1, std::io::sink(), task)?;
        let shared = self.shared();
        let Descriptor { digest, size, .. } = info.descriptor;
        self.slot.write("registering a layer", |db, pins| {
            if pin_blob(db, pins, digest)?.is_some() {
                return Ok(());
            }
            let Some(found) = pin_snapshot(db, pins, snapshot)? else {
                return Err(Error::NoSnapshot { id: snapshot.0 }.into());
            };
            db.prepare_cached(
                "INSERT INTO blobs(digest, size, added, snapshot, clamp) VALUES(?, ?, ?, ?, ?)",
            )?
            .execute(params![
                DigestKey(digest),
                number(size),
                shared.now(),
                DigestKey(found.0),
                clamp
            ])?;
            mark_unsynced(db, &shared.options.boot_id, Kind::Blob, digest)?;
            pins.add(db, Kind::Blob, digest)
        })?;
        Ok(info)
    }

    /// The compressed form of a derived layer, if it was made before and is still here; it is
    /// pinned.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn packed(&self, derived: Digest) -> Result<Option<LayerInfo>> {
        let known = self.shared().catalog.read("looking up a layer", |db| packed(db, derived))?;
        match known {
            Some(info) if self.contains(info.descriptor.digest)? => Ok(Some(info.into())),
            _ => Ok(None),
        }
    }

    /// Compresses a derived layer, if that was not done before; `None` for a blob that is stored.
    ///
    /// # Errors
    /// [`Error::Digest`] when the files of its snapshot are not what they were; as
    /// [`Store::write_layer`], [`Error::File`].
    pub fn pack(&self, derived: Digest, task: &Task) -> Result<Option<LayerInfo>> {
        if let Some(info) = self.packed(derived)? {
            return Ok(Some(info));
        }
        let Some(Recipe { snapshot, clamp }) = self.recipe(derived)? else { return Ok(None) };
        let task = task.child(format!("compressing layer {}", derived.short()));
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let writer = self.writer()?;
        let (writer, info) =
            self.write_layer(snapshot, clamp, Store::PACKED, threads, writer, &task)?;
        if info.diff_id != derived {
            return Err(changed(derived, snapshot, info.diff_id));
        }
        writer.commit(Some(&info.descriptor))?;
        let text = crate::name::to_json(&Info::from(&info));
        self.shared().catalog.write("recording a layer", |db| {
            db.prepare_cached("UPDATE blobs SET packed = ? WHERE digest = ?")?
                .execute(params![text, DigestKey(derived)])?;
            Ok(())
        })?;
        task.done();
        Ok(Some(info))
    }

    /// The manifest or index with every derived layer below it compressed; it takes over the names
    /// of the original. An image without derived layers stays unchanged.
    ///
    /// # Errors
    /// As [`Store::pack`], [`Store::read`] and [`Store::publish`].
    pub fn seal(&self, root: &Descriptor, task: &Task) -> Result<Descriptor> {
        let sealed = self.sealed(root, task)?;
        if sealed.digest == root.digest {
            return Ok(sealed);
        }
        self.publish_untagged(&sealed)?;
        self.shared().catalog.write("naming a sealed image", |db| {
            db.prepare_cached("UPDATE names SET digest = ?1, descriptor = ?2 WHERE digest = ?3")?
                .execute(params![
                DigestKey(sealed.digest),
                crate::name::to_json(&sealed),
                DigestKey(root.digest)
            ])?;
            db.prepare_cached("UPDATE nodes SET published = NULL WHERE digest = ?")?
                .execute([DigestKey(root.digest)])?;
            Ok(())
        })?;
        // Who knows it by the digest it had finds it still.
        let described = crate::name::to_json(&sealed);
        self.set_memo(SEALED, root.digest.as_bytes(), described.as_bytes())?;
        Ok(sealed)
    }

    /// Whether no layer below a manifest or index is derived: [`Store::seal`] has nothing to do.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn is_sealed(&self, root: &Descriptor) -> Result<bool> {
        if !root.media_type.is_node() || !self.contains(root.digest)? {
            return Ok(true);
        }
        let node = Node::read(root.clone(), self.read(root)?)
            .map_err(|source| Error::document(root.digest, source))?;
        for child in node.children() {
            if !self.is_sealed(&child)? || self.recipe(child.digest)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What an image became whose manifest or index had this digest before it was sealed, if it is
    /// still here; it is pinned.
    pub(crate) fn became(&self, digest: Digest) -> Result<Option<Descriptor>> {
        let known = self.memo(SEALED, digest.as_bytes())?;
        let Some(sealed) =
            known.and_then(|bytes| serde_json::from_slice::<Descriptor>(&bytes).ok())
        else {
            return Ok(None);
        };
        Ok(self.contains(sealed.digest)?.then_some(sealed))
    }

    fn sealed(&self, root: &Descriptor, task: &Task) -> Result<Descriptor> {
        let digest = root.digest;
        if !root.media_type.is_node() || !self.contains(digest)? {
            return Ok(root.clone());
        }
        let node = Node::read(root.clone(), self.read(root)?)
            .map_err(|source| Error::document(digest, source))?;
        let like = |new: &Descriptor, old: &Descriptor, media_type: MediaType| Descriptor {
            media_type,
            digest: new.digest,
            size: new.size,
            ..old.clone()
        };
        let document = match &node {
            Node::Manifest(manifest) => {
                let mut written = (**manifest).clone();
                for layer in &mut written.layers {
                    let Some(info) = self.pack(layer.digest, task)? else { continue };
                    let media_type = MediaType::layer(Encoding::Gzip, layer.media_type.is_docker());
                    *layer = like(&info.descriptor, layer, media_type);
                }
                if written.layers == manifest.layers {
                    return Ok(root.clone());
                }
                Document::write(root.media_type.clone(), written).bytes().clone()
            }
            Node::Index(index) => {
                let mut written = (**index).clone();
                for child in &mut written.manifests {
                    let sealed = self.sealed(child, task)?;
                    *child = like(&sealed, child, child.media_type.clone());
                }
                if written.manifests == index.manifests {
                    return Ok(root.clone());
                }
                Document::write(root.media_type.clone(), written).bytes().clone()
            }
        };
        let new =
            Descriptor::new(root.media_type.clone(), Digest::of(&document), document.len() as u64);
        self.insert(&document)?;
        Ok(Descriptor { data: None, ..like(&new, root, root.media_type.clone()) })
    }

    /// Writes a derived layer again into a file without a name; `None` for a stored blob.
    pub(crate) fn reproduce(&self, digest: Digest, task: &Task) -> Result<Option<std::fs::File>> {
        let Some(Recipe { snapshot, clamp }) = self.recipe(digest)? else { return Ok(None) };
        let path = self.slot.path_in("ingest")?;
        let file = file::create_new(&path, 0o600)?;
        file::remove_file(&path)?;
        let plain = Compression { encoding: Encoding::Plain, level: None };
        let (mut file, info) = self.write_layer(snapshot, clamp, plain, 1, file, task)?;
        if info.diff_id != digest {
            return Err(changed(digest, snapshot, info.diff_id));
        }
        file.rewind().map_err(|error| Error::file("reading", &path, error))?;
        Ok(Some(file))
    }

    /// Says what is wrong with a derived layer; `None` for one that is whole, and for a blob that
    /// is stored.
    pub(crate) fn check_derived(&self, digest: Digest, task: &Task) -> Result<Option<String>> {
        let Some(Recipe { snapshot, clamp }) = self.recipe(digest)? else {
            return Ok(Some("its file is missing".to_owned()));
        };
        let plain = Compression { encoding: Encoding::Plain, level: None };
        let sink = std::io::sink();
        match self.write_layer(snapshot, clamp, plain, 1, sink, task) {
            Ok((_, info)) if info.diff_id == digest => Ok(None),
            Ok((_, info)) => Ok(Some(changed(digest, snapshot, info.diff_id).to_string())),
            Err(Error::Cancelled(cancelled)) => Err(Error::Cancelled(cancelled)),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn recipe(&self, digest: Digest) -> Result<Option<Recipe>> {
        self.shared().catalog.read("looking up a layer", |db| {
            let mut query = db.prepare_cached(
                "SELECT snapshot, clamp FROM blobs WHERE digest = ? AND snapshot IS NOT NULL",
            )?;
            let row = query.query_row([DigestKey(digest)], |row| {
                Ok(Recipe {
                    snapshot: SnapshotId(row.get::<_, DigestKey>(0)?.0),
                    clamp: row.get(1)?,
                })
            });
            Ok(row.optional()?)
        })
    }
}

fn packed(db: &Connection, derived: Digest) -> Attempt<Option<Info>> {
    let mut query = db.prepare_cached("SELECT packed FROM blobs WHERE digest = ?")?;
    let text: Option<Option<String>> =
        query.query_row([DigestKey(derived)], |row| row.get(0)).optional()?;
    Ok(text.flatten().and_then(|text| serde_json::from_str(&text).ok()))
}

fn changed(digest: Digest, snapshot: SnapshotId, found: Digest) -> Error {
    Error::Changed { digest, snapshot: snapshot.0, found }
}
