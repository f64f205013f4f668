//! The update framework (TUF 1.0), by which a trusted root and its changes are handed out: metadata
//! that is signed by several keyholders, expires, and never goes back.
//!
//! [`update`] follows the client's workflow (section 5) in its order: roots one by one, each signed
//! by the one before it and by itself; then the timestamp, the snapshot and the targets; then the
//! files. Delegations are not followed: what is handed out here stands in the targets themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use self::metadata::{MetaFile, Metadata, Role, Root, Targets, Versions, time};
use crate::error::{Error, Result};
use crate::keyless::Seconds;
use crate::online::Http;

mod canonical;
mod directory;
mod metadata;
#[cfg(test)]
mod tests;

pub use self::directory::TrustDirectory;

/// The public instance of sigstore.
pub const PUBLIC_MIRROR: &str = "https://tuf-repo-cdn.sigstore.dev";
/// A root of the public instance; later ones are reached from it.
pub const PUBLIC_ROOT: &[u8] = include_bytes!("public-root.json");

/// No larger file is read (1 MiB).
const MAX_FILE: u64 = 1 << 20;
/// No more roots are followed at once.
const MAX_ROOTS: usize = 256;

/// Where metadata and files are handed out.
#[async_trait]
pub trait Mirror: Send + Sync {
    /// A file of at most `limit` bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Service`], [`Error::File`].
    async fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>>;
}

/// A mirror on the network.
#[derive(Debug)]
pub struct Remote {
    /// Asks it.
    pub http: Http,
    /// Its URL.
    pub url: String,
}

#[async_trait]
impl Mirror for Remote {
    async fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/{name}", self.url.trim_end_matches('/'));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.http.find("the mirror of trusted roots", &url, limit).await
    }
}

/// A mirror in a directory.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

#[async_trait]
impl Mirror for Directory {
    async fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let path = self.0.join(name);
        let failed = |source| Error::File {
            what: "the mirror of trusted roots",
            path: path.clone(),
            source,
        };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 > limit {
            true => Err(refuse(name, format!("it is larger than {limit} bytes"))),
            false => Ok(Some(bytes)),
        }
    }
}

/// The newest metadata that was verified. It is kept between updates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedMetadata {
    /// `root.json`.
    pub root: Vec<u8>,
    /// `timestamp.json`.
    pub timestamp: Option<Vec<u8>>,
    /// `snapshot.json`.
    pub snapshot: Option<Vec<u8>>,
    /// `targets.json`.
    pub targets: Option<Vec<u8>>,
}

fn refuse(file: &str, reason: impl Into<String>) -> Error {
    Error::Update { file: file.to_owned(), reason: reason.into() }
}

/// Names the file in what went wrong with it.
fn of<T>(file: &str, result: Result<T, String>) -> Result<T> {
    result.map_err(|reason| refuse(file, crate::printable::printable(&reason)))
}

/// Brings what is kept up to date. Gives back what is to be kept from now on, and those of `files`
/// that the targets list. `now` is in seconds since 1970.
///
/// # Errors
/// [`Error::Update`]: a file is not signed by enough keyholders, has expired, is older than the one
/// that is kept, or is not what another lists; those of the mirror.
pub async fn update(
    trusted: &TrustedMetadata,
    mirror: &dyn Mirror,
    files: &[&str],
    now: u64,
) -> Result<(TrustedMetadata, BTreeMap<String, Vec<u8>>)> {
    let first: Metadata<Root> = of("root.json", Metadata::read(Role::Root, trusted.root.clone()))?;
    of("root.json", first.check(&first.content))?;
    let root = newest_root(first.clone(), mirror).await?;
    of("root.json", root.check_time(now))?;
    let update = Update { root: &root, mirror, now };
    // Keys that were lost may have signed a version that is far ahead; such metadata is forgotten.
    let keep = |role, bytes: &Option<Vec<u8>>| {
        bytes.clone().filter(|_| !root.content.changes(&first.content, role))
    };
    let known =
        (keep(Role::Timestamp, &trusted.timestamp), keep(Role::Snapshot, &trusted.snapshot));
    let timestamp = update.timestamp(known.0).await?;
    let snapshot: Metadata<Versions> =
        update.listed(Role::Snapshot, &timestamp.content, known.1.as_deref()).await?;
    let targets = update.targets(&snapshot, known.1.as_deref(), trusted.targets.as_deref()).await?;
    let mut found = BTreeMap::new();
    for name in files {
        if let Some(bytes) = update.file(&targets, name).await? {
            found.insert((*name).to_owned(), bytes);
        }
    }
    let kept = TrustedMetadata {
        timestamp: Some(timestamp.bytes),
        snapshot: Some(snapshot.bytes),
        targets: Some(targets.bytes),
        root: root.bytes,
    };
    Ok((kept, found))
}

/// Follows roots from one to the next as long as there are any (section 5.3).
async fn newest_root(mut root: Metadata<Root>, mirror: &dyn Mirror) -> Result<Metadata<Root>> {
    for _ in 0..MAX_ROOTS {
        let next = root.version.saturating_add(1);
        let name = format!("{next}.root.json");
        let Some(bytes) = mirror.get(&name, MAX_FILE).await? else { return Ok(root) };
        let new: Metadata<Root> = of(&name, Metadata::read(Role::Root, bytes))?;
        of(&name, new.check(&root.content).map_err(|why| format!("by the root before it, {why}")))?;
        of(&name, new.check(&new.content))?;
        if new.version != next {
            return Err(refuse(&name, format!("it is version {}", new.version)));
        }
        root = new;
    }
    Err(refuse("root.json", format!("there are more than {MAX_ROOTS} new ones")))
}

struct Update<'a> {
    root: &'a Metadata<Root>,
    mirror: &'a dyn Mirror,
    now: Seconds,
}

impl Update<'_> {
    async fn metadata<T: DeserializeOwned>(&self, name: &str, role: Role) -> Result<Metadata<T>> {
        let bytes = self.mirror.get(name, MAX_FILE).await?;
        let bytes = bytes.ok_or_else(|| refuse(name, "the mirror does not have it"))?;
        let read = of(name, Metadata::<T>::read(role, bytes))?;
        of(name, read.check(&self.root.content))?;
        Ok(read)
    }

    /// Section 5.4.
    async fn timestamp(&self, known: Option<Vec<u8>>) -> Result<Metadata<Versions>> {
        const NAME: &str = "timestamp.json";
        let new: Metadata<Versions> = self.metadata(NAME, Role::Timestamp).await?;
        if let Some(old) = known.and_then(|old| self.known::<Versions>(Role::Timestamp, &old)) {
            forward(NAME, new.version, old.version)?;
            let snapshot = |of: &Metadata<Versions>| {
                of.content.meta.get("snapshot.json").map_or(0, |listed| listed.version)
            };
            forward("snapshot.json", snapshot(&new), snapshot(&old))?;
        }
        of(NAME, new.check_time(self.now))?;
        Ok(new)
    }

    /// What is kept, if it is still good by the root.
    fn known<T: DeserializeOwned>(&self, role: Role, bytes: &[u8]) -> Option<Metadata<T>> {
        let read = Metadata::<T>::read(role, bytes.to_vec()).ok()?;
        read.check(&self.root.content).is_ok().then_some(read)
    }

    /// The metadata of a role that other metadata lists (sections 5.5 and 5.6).
    async fn listed<T: DeserializeOwned>(
        &self,
        role: Role,
        by: &Versions,
        known: Option<&[u8]>,
    ) -> Result<Metadata<T>> {
        let plain = format!("{}.json", role.name());
        let listed: &MetaFile =
            by.meta.get(&plain).ok_or_else(|| refuse(&plain, "nothing lists it"))?;
        let name = match self.root.content.consistent_snapshot {
            true => format!("{}.{plain}", listed.version),
            false => plain,
        };
        // What is kept already need not be fetched again.
        let known = known.and_then(|known| self.known::<T>(role, known));
        let read = match known.filter(|old| old.version == listed.version) {
            Some(old) => old,
            None => self.metadata(&name, role).await?,
        };
        of(&name, listed.check(&read.bytes))?;
        if read.version != listed.version {
            let reason =
                format!("it is version {}, and {} is listed", read.version, listed.version);
            return Err(refuse(&name, reason));
        }
        of(&name, read.check_time(self.now))?;
        Ok(read)
    }

    /// Section 5.6, after the second half of 5.5.5: no file that was listed may go back or away.
    async fn targets(
        &self,
        snapshot: &Metadata<Versions>,
        before: Option<&[u8]>,
        known: Option<&[u8]>,
    ) -> Result<Metadata<Targets>> {
        let before = before.and_then(|old| self.known::<Versions>(Role::Snapshot, old));
        for (name, old) in before.iter().flat_map(|before| &before.content.meta) {
            let new = snapshot.content.meta.get(name);
            let new = new.ok_or_else(|| refuse(name, "the snapshot lists it no more"))?;
            forward(name, new.version, old.version)?;
        }
        self.listed(Role::Targets, &snapshot.content, known).await
    }

    /// A file that the targets list (section 5.7).
    async fn file(&self, targets: &Metadata<Targets>, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(target) = targets.content.targets.get(name) else { return Ok(None) };
        let hash = of(name, target.hash())?;
        if target.length > MAX_FILE {
            return Err(refuse(name, format!("it is larger than {MAX_FILE} bytes")));
        }
        let path = match self.root.content.consistent_snapshot {
            true => format!("targets/{hash}.{name}"),
            false => format!("targets/{name}"),
        };
        let bytes = self.mirror.get(&path, target.length).await?;
        let bytes = bytes.ok_or_else(|| refuse(name, "the mirror does not have it"))?;
        match target.is(&bytes) {
            true => Ok(Some(bytes)),
            false => Err(refuse(name, "it is not the file that the targets list")),
        }
    }
}

/// Versions never go back.
fn forward(name: &str, new: u64, old: u64) -> Result<()> {
    match new >= old {
        true => Ok(()),
        false => Err(refuse(name, format!("it is version {new}, older than {old} which is kept"))),
    }
}

/// What is kept, in lines for people. `now` is in seconds since 1970.
///
/// # Errors
/// [`Error::Update`]: what is kept is malformed.
pub fn summary(trusted: &TrustedMetadata, now: u64) -> Result<Vec<String>> {
    let line = |name: &str, version: u64, expires: Seconds| {
        let ends = if now < expires { "expires" } else { "has expired" };
        format!("{name}: version {version}, {ends} {}", time(expires))
    };
    let root: Metadata<Root> = of("root.json", Metadata::read(Role::Root, trusted.root.clone()))?;
    let mut lines = vec![line("root", root.version, root.expires)];
    if let Some(bytes) = &trusted.timestamp {
        let read: Metadata<Versions> =
            of("timestamp.json", Metadata::read(Role::Timestamp, bytes.clone()))?;
        lines.push(line("timestamp", read.version, read.expires));
    }
    Ok(lines)
}
