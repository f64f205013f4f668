//! Names, and what they point at.

use std::collections::BTreeMap;

use image::{Config, Descriptor, Digest, Document, Image, Node, Platform};
use rusqlite::{Connection, OptionalExtension, params};

use crate::blob::has_blob;
use crate::catalog::{Attempt, DigestKey, Failure, Kind};
use crate::{Error, Result, Store, file, select};

/// A name and what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The full reference, as it was published: `localhost/app:latest`.
    pub name: String,
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// When the name was last published, in seconds since 1970.
    pub updated: u64,
}

/// Something that was published: the root of an image, an index or an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedRoot {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// Its names, sorted; none for an untagged image.
    pub names: Vec<String>,
    /// The image ids below it: the digests of the configurations of its manifests.
    pub images: Vec<Digest>,
    /// When it was first published, in seconds since 1970.
    pub published: u64,
}

/// What a name must point at before it moves.
#[derive(Debug, Clone, Copy)]
enum Precondition {
    Anything,
    This(Option<Digest>),
}

/// What came of an attempt to publish.
enum Outcome {
    Named,
    /// A part may not be on disk yet.
    Unsynced,
    /// The name points elsewhere than it should.
    Moved,
}

/// A manifest or index with the content that it needs to be complete.
struct CheckedNode {
    node: Node,
    config: Option<Digest>,
    chain: Option<Digest>,
}

impl Store {
    /// All names, sorted.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn names(&self) -> Result<Vec<Name>> {
        self.shared().catalog.read("listing names", |db| {
            let mut query =
                db.prepare_cached("SELECT name, descriptor, updated FROM names ORDER BY name")?;
            let rows = query.query_map([], |row| {
                let updated: i64 = row.get(2)?;
                Ok(Name {
                    name: row.get(0)?,
                    descriptor: json_column(row, 1)?,
                    updated: updated.unsigned_abs(),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What a name points at, pinned with everything below it.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn resolve(&self, name: &str) -> Result<Option<Descriptor>> {
        let lookup = |db: &Connection| -> Attempt<Option<Descriptor>> {
            let mut query = db.prepare_cached("SELECT descriptor FROM names WHERE name = ?")?;
            Ok(query.query_row([name], |row| json_column(row, 0)).optional()?)
        };
        let found = self.shared().catalog.read("looking up a name", lookup)?;
        match found {
            None => Ok(None),
            Some(found) if self.slot.has_pinned(Kind::Blob, found.digest) => Ok(Some(found)),
            Some(_) => self.slot.write("looking up a name", |db, pins| {
                let found = lookup(db)?;
                if let Some(found) = &found {
                    pins.add(db, Kind::Blob, found.digest)?;
                }
                Ok(found)
            }),
        }
    }

    /// Gives a name to a manifest or index whose parts are all in the store. When this returns,
    /// all of it is on disk, and the name points at it; before, the name points where it did.
    ///
    /// # Errors
    /// [`Error::MissingChild`], [`Error::BadName`], the errors of [`Store::read`].
    pub fn publish(&self, name: &str, root: &Descriptor) -> Result<()> {
        check_name(name)?;
        self.publish_root(Some(name), Precondition::Anything, root).map(drop)
    }

    /// As [`Store::publish`], if the name still points at `before` (`None`: at nothing); otherwise
    /// `false`, and nothing has changed.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub fn publish_over(
        &self,
        name: &str,
        before: Option<Digest>,
        root: &Descriptor,
    ) -> Result<bool> {
        check_name(name)?;
        self.publish_root(Some(name), Precondition::This(before), root)
    }

    /// As [`Store::publish`] without a name: an untagged image, which stays until it is
    /// collected, or a referrer, which stays as long as its subject.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub fn publish_untagged(&self, root: &Descriptor) -> Result<()> {
        self.publish_root(None, Precondition::Anything, root).map(drop)
    }

    /// `false` if the name points elsewhere than it should.
    fn publish_root(
        &self,
        name: Option<&str>,
        condition: Precondition,
        root: &Descriptor,
    ) -> Result<bool> {
        let nodes = self.walk(root)?;
        // A part that another process brought after our sync makes one more round.
        loop {
            match self.name_if_synced(name, condition, root, &nodes)? {
                Outcome::Named => return Ok(true),
                Outcome::Moved => return Ok(false),
                Outcome::Unsynced => self.sync()?,
            }
        }
    }

    /// The transaction of publishing.
    fn name_if_synced(
        &self,
        name: Option<&str>,
        condition: Precondition,
        root: &Descriptor,
        nodes: &BTreeMap<Digest, CheckedNode>,
    ) -> Result<Outcome> {
        let now = self.shared().now();
        self.slot.write("publishing", |db, pins| {
            if let (Some(name), Precondition::This(expected)) = (name, condition) {
                let mut query = db.prepare_cached("SELECT digest FROM names WHERE name = ?")?;
                let found = query.query_row([name], |row| row.get::<_, DigestKey>(0)).optional()?;
                if found.map(|key| key.0) != expected {
                    return Ok(Outcome::Moved);
                }
            }
            for checked in nodes.values() {
                let children = checked.node.children();
                require_children(db, root.digest, &children)?;
                let mut parts = children.iter().map(|child| child.digest);
                if self.is_unsynced(db, checked.node.digest())?
                    || parts.try_fold(false, |any, part| {
                        Ok::<_, Failure>(any || self.is_unsynced(db, part)?)
                    })?
                {
                    return Ok(Outcome::Unsynced);
                }
            }
            for checked in nodes.values() {
                record(db, checked, checked.node.digest() == root.digest, now)?;
            }
            pins.add(db, Kind::Blob, root.digest)?;
            if let Some(name) = name {
                db.prepare_cached(
                    "INSERT OR REPLACE INTO names(name, digest, descriptor, updated) \
                     VALUES(?, ?, ?, ?)",
                )?
                .execute(params![
                    name,
                    DigestKey(root.digest),
                    to_json(root),
                    now
                ])?;
            }
            Ok(Outcome::Named)
        })
    }

    fn is_unsynced(&self, db: &Connection, digest: Digest) -> Attempt<bool> {
        let mut query = db.prepare_cached(
            "SELECT EXISTS(SELECT 1 FROM unsynced WHERE kind = ? AND digest = ? AND boot = ?)",
        )?;
        let boot = &self.shared().options.boot_id;
        Ok(query.query_row(params![Kind::Blob, DigestKey(digest), boot], |row| row.get(0))?)
    }

    /// Reads a root and all manifests and indexes below it.
    fn walk(&self, root: &Descriptor) -> Result<BTreeMap<Digest, CheckedNode>> {
        let mut nodes = BTreeMap::new();
        let mut todo = vec![root.clone()];
        while let Some(descriptor) = todo.pop() {
            let digest = descriptor.digest;
            if nodes.contains_key(&digest) {
                continue;
            }
            if !self.contains(digest)? {
                return Err(missing(root.digest, &descriptor));
            }
            let bytes = self.read(&descriptor)?;
            let node =
                Node::read(descriptor, bytes).map_err(|source| Error::document(digest, source))?;
            let mut checked = CheckedNode { node, config: None, chain: None };
            match &checked.node {
                Node::Index(index) => {
                    let below = index.manifests.iter().filter(|child| child.media_type.is_node());
                    todo.extend(below.cloned());
                }
                Node::Manifest(manifest) if manifest.config.media_type.is_config() => {
                    let descriptor = manifest.config.clone();
                    if !self.contains(descriptor.digest)? {
                        return Err(missing(root.digest, &descriptor));
                    }
                    let bytes = self.read(&descriptor)?;
                    let config = Document::<Config>::read(descriptor, bytes)
                        .map_err(|source| Error::document(digest, source))?;
                    checked.config = Some(config.digest());
                    checked.chain = config.chain_id().map(|chain| chain.0);
                }
                Node::Manifest(_) => {}
            }
            nodes.insert(digest, checked);
        }
        Ok(nodes)
    }

    /// Brings everything made so far to the disk, if there is anything, and forgets the marks.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn sync(&self) -> Result<()> {
        let shared = self.shared();
        let newest: Option<i64> = shared.catalog.read("looking for unsynced content", |db| {
            Ok(db
                .prepare_cached("SELECT max(seq) FROM unsynced")?
                .query_row([], |row| row.get(0))?)
        })?;
        let Some(newest) = newest else { return Ok(()) };
        file::sync_file_system(&shared.root)?;
        // Marks of another boot are not ours to clear: opening has dealt with those it saw.
        shared.catalog.write("clearing marks", |db| {
            db.prepare_cached("DELETE FROM unsynced WHERE seq <= ? AND boot = ?")?
                .execute(params![newest, shared.options.boot_id])?;
            Ok(())
        })
    }

    /// Takes a name away; what it pointed at stays until it is collected. `false` if there was no
    /// such name.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn unname(&self, name: &str) -> Result<bool> {
        self.shared().catalog.write("removing a name", |db| {
            Ok(db.prepare_cached("DELETE FROM names WHERE name = ?")?.execute([name])? > 0)
        })
    }

    /// Forgets that a root was published, and all its names; it goes with the next collection
    /// unless something else uses it. `false` if there was no such root.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn unpublish(&self, root: Digest) -> Result<bool> {
        self.shared().catalog.write("removing an image", |db| {
            db.prepare_cached("DELETE FROM names WHERE digest = ?")?.execute([DigestKey(root)])?;
            let mut update = db.prepare_cached(
                "UPDATE nodes SET published = NULL WHERE digest = ? AND published IS NOT NULL",
            )?;
            Ok(update.execute([DigestKey(root)])? > 0)
        })
    }

    /// Everything that was published and is still there, newest first. Referrers are left out.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn published(&self) -> Result<Vec<PublishedRoot>> {
        self.shared().catalog.read("listing images", |db| {
            let mut roots = db.prepare_cached(
                "SELECT digest, descriptor, published FROM nodes WHERE published IS NOT NULL \
                 AND (digest NOT IN (SELECT referrer FROM referrers) \
                      OR digest IN (SELECT digest FROM names)) \
                 ORDER BY published DESC, digest",
            )?;
            let mut names =
                db.prepare_cached("SELECT name FROM names WHERE digest = ? ORDER BY name")?;
            let mut images = db.prepare_cached(
                "WITH RECURSIVE below(digest) AS (SELECT ?1 UNION SELECT e.child FROM edges e \
                 JOIN below ON e.parent = below.digest) SELECT config FROM nodes JOIN below \
                 USING(digest) WHERE config IS NOT NULL",
            )?;
            let rows = roots.query_map([], |row| {
                let digest: DigestKey = row.get(0)?;
                let published: i64 = row.get(2)?;
                let names = names.query_map([digest], |row| row.get(0))?;
                let images = images.query_map([digest], |row| Ok(row.get::<_, DigestKey>(0)?.0))?;
                Ok(PublishedRoot {
                    descriptor: json_column(row, 1)?,
                    names: names.collect::<rusqlite::Result<_>>()?,
                    images: images.collect::<rusqlite::Result<_>>()?,
                    published: published.unsigned_abs(),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The published root whose digest, or the digest of whose configuration, begins with these
    /// hexadecimal digits (with or without `sha256:`); pinned with everything below it.
    ///
    /// # Errors
    /// [`Error::Ambiguous`], [`Error::Catalog`].
    pub fn find(&self, prefix: &str) -> Result<Option<Descriptor>> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix).to_ascii_lowercase();
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let fits = |digest: Digest| digest.hex().starts_with(&hex);
        let mut found = self.published()?;
        found.retain(|root| {
            fits(root.descriptor.digest) || root.images.iter().any(|image| fits(*image))
        });
        if let Some(image) = one_image(&found, fits) {
            found = vec![image];
        }
        let found: Vec<Descriptor> = found.into_iter().map(|root| root.descriptor).collect();
        match found.as_slice() {
            [] => match format!("sha256:{hex}").parse() {
                Ok(digest) => self.became(digest),
                Err(_) => Ok(None),
            },
            [one] => Ok(self.contains(one.digest)?.then(|| one.clone())),
            several => Err(Error::Ambiguous {
                name: prefix.to_owned(),
                candidates: several.iter().take(5).map(|d| d.digest.short()).collect(),
            }),
        }
    }

    /// The manifests in the store that refer to a subject, whether or not that is here.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn referrers(&self, subject: Digest) -> Result<Vec<Descriptor>> {
        self.slot.write("listing referrers", |db, pins| {
            let mut query = db.prepare_cached(
                "SELECT n.descriptor FROM referrers r JOIN nodes n ON n.digest = r.referrer \
                 WHERE r.subject = ? ORDER BY n.digest",
            )?;
            let rows = query.query_map([DigestKey(subject)], |row| json_column(row, 0))?;
            let found = rows.collect::<rusqlite::Result<Vec<Descriptor>>>()?;
            for referrer in &found {
                pins.add(db, Kind::Blob, referrer.digest)?;
            }
            Ok(found)
        })
    }

    /// The image below a descriptor: of an index, the one that serves the platform best.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], [`Error::Document`], the errors of [`Store::read`].
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        select::image(&|descriptor| self.read(descriptor), descriptor, platform)
    }
}

/// Refuses a node with a child that is not in the store, or has not the declared size.
fn require_children(db: &Connection, root: Digest, children: &[Descriptor]) -> Attempt<()> {
    for child in children {
        match has_blob(db, child.digest)? {
            None => return Err(missing(root, child).into()),
            Some(size) if size.unsigned_abs() != child.size => {
                let (digest, expected, found) = (child.digest, child.size, size.unsigned_abs());
                return Err(Error::Size { digest, expected, found }.into());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A node as a list of referrers describes it (distribution-spec, "Listing Referrers").
pub(crate) fn describe(node: &Node) -> Descriptor {
    let mut described = node.descriptor().bare();
    let (annotations, artifact) = match node {
        Node::Index(index) => (&index.annotations, index.artifact_type.clone()),
        Node::Manifest(manifest) => {
            // Without a type of its own, the type of the config stands in.
            let config =
                || manifest.subject.as_ref().map(|_| manifest.config.media_type.to_string());
            (&manifest.annotations, manifest.artifact_type.clone().or_else(config))
        }
    };
    described.annotations.clone_from(annotations);
    described.artifact_type = artifact;
    described
}

fn record(db: &Connection, checked: &CheckedNode, is_root: bool, now: i64) -> Attempt<()> {
    let node = &checked.node;
    let described = describe(node);
    db.prepare_cached(
        "INSERT INTO nodes(digest, descriptor, config, chain, published) VALUES(?, ?, ?, ?, ?) \
         ON CONFLICT(digest) DO UPDATE SET published = coalesce(published, excluded.published)",
    )?
    .execute(params![
        DigestKey(node.digest()),
        to_json(&described),
        checked.config.map(DigestKey),
        checked.chain.map(DigestKey),
        is_root.then_some(now),
    ])?;
    let mut edge = db.prepare_cached("INSERT OR IGNORE INTO edges(parent, child) VALUES(?, ?)")?;
    for child in node.children() {
        edge.execute(params![DigestKey(node.digest()), DigestKey(child.digest)])?;
    }
    if let Some(subject) = node.subject() {
        db.prepare_cached("INSERT OR IGNORE INTO referrers(subject, referrer) VALUES(?, ?)")?
            .execute(params![DigestKey(subject.digest), DigestKey(node.digest())])?;
    }
    Ok(())
}

fn missing(root: Digest, child: &Descriptor) -> Error {
    Error::MissingChild { root, child: child.digest, media_type: child.media_type.to_string() }
}

fn check_name(name: &str) -> Result<()> {
    let refuse = |reason| Err(Error::BadName { name: name.chars().take(300).collect(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > 4096 {
        return refuse("it has more than 4096 bytes");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("it has a blank or a control character");
    }
    Ok(())
}

/// A value as JSON text.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("descriptors are plain data with string keys")
}

/// A column of JSON text.
pub(crate) fn json_column<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

/// The root to take where several hold the one image whose id fits and none is named by its own
/// digest: the image itself rather than a list it is in.
fn one_image(found: &[PublishedRoot], fits: impl Fn(Digest) -> bool) -> Option<PublishedRoot> {
    let own = found.iter().any(|root| fits(root.descriptor.digest));
    let images = found.iter().flat_map(|root| &root.images).filter(|image| fits(**image));
    let images: std::collections::BTreeSet<&Digest> = images.collect();
    if own || images.len() != 1 {
        return None;
    }
    let alone = found.iter().find(|root| root.descriptor.media_type.is_manifest());
    alone.or(found.first()).cloned()
}
