//! The record of running uploads, so that another process can resume them: a small file for each,
//! with the URL of its session and no credential.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use url::Url;

/// The largest entry that is read.
const LARGEST: u64 = 32 << 10;
/// Entries kept; the oldest are those of registries that have forgotten them.
const MOST: usize = 512;

/// Where uploads that were interrupted go on.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The directory of the entries; made when needed, for its owner only.
    pub directory: PathBuf,
    /// Blobs of this size or more are sent so that they can be resumed.
    pub from: u64,
}

/// An upload that has a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    registry: String,
    repository: String,
    digest: Digest,
    size: u64,
    session: String,
    /// How much of it the registry said it has.
    sent: u64,
}

/// The entry of one upload, held by one process at a time.
pub(crate) struct PendingUpload {
    file: File,
    path: PathBuf,
    entry: JournalEntry,
}

impl Resume {
    /// The entry of an upload and where it was, if it was begun before. `None` where another
    /// process is at it or nothing can be kept: the upload is none the worse for it.
    pub(crate) fn entry(
        &self,
        (registry, repository): (&str, &str),
        descriptor: &Descriptor,
    ) -> Option<(PendingUpload, Option<(Url, u64)>)> {
        let key = format!("{registry}\0{repository}\0{}", descriptor.digest);
        let path = self.directory.join(format!("{}.json", Digest::of(key.as_bytes()).hex()));
        let opened = self.open(&path);
        let (file, found) = opened
            .inspect_err(|error| tracing::debug!(%error, "an upload session cannot be stored"))
            .ok()??;
        let noted = JournalEntry {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            digest: descriptor.digest,
            size: descriptor.size,
            session: String::new(),
            sent: 0,
        };
        let known = serde_json::from_slice::<JournalEntry>(&found).ok();
        let session = known
            .filter(|known| {
                JournalEntry { session: String::new(), sent: 0, ..known.clone() } == noted
            })
            .and_then(|known| Some((Url::parse(&known.session).ok()?, known.sent)));
        Some((PendingUpload { file, path, entry: noted }, session))
    }

    fn open(&self, path: &Path) -> io::Result<Option<(File, Vec<u8>)>> {
        if !self.directory.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        }
        self.forget_oldest();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut found = Vec::new();
        (&file).take(LARGEST).read_to_end(&mut found)?;
        Ok(Some((file, found)))
    }

    fn forget_oldest(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut known: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        if known.len() > MOST {
            known.sort();
            for (_, path) in &known[..known.len() - MOST / 2] {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl PendingUpload {
    /// Records the session of an upload. The URL of a session outside the registry may contain a
    /// write permission, so it is not recorded.
    pub(crate) fn note(&mut self, session: &Url, sent: u64, own: bool) {
        if !own {
            return;
        }
        self.entry.session = session.to_string();
        self.entry.sent = sent;
        let written = serde_json::to_vec(&self.entry).map_err(io::Error::other).and_then(|text| {
            // One write: what a kill leaves is the old entry, the new one, or no JSON.
            self.file.write_all_at(&text, 0)?;
            self.file.set_len(text.len() as u64)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "an upload session cannot be stored");
        }
    }

    /// There is nothing to resume.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use image::MediaType;

    use super::*;

    #[test]
    fn entries_are_kept_by_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let resume = Resume { directory: directory.path().join("a/b"), from: 0 };
        let blob = Descriptor::of(MediaType::OCI_LAYER, b"blob");
        let place = ("r.example", "team/app");
        let (mut entry, session) = resume.entry(place, &blob).unwrap();
        assert_eq!(session, None);
        assert!(resume.entry(place, &blob).is_none(), "held");
        let url = Url::parse("https://r.example/v2/x?state=1").unwrap();
        entry.note(&url, 7, true);
        let longer = Url::parse("https://r.example/v2/x?state=longer").unwrap();
        entry.note(&longer, 123_456, true);
        entry.note(&url, 8, true);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&entry.path), mode(&resume.directory)), (0o600, 0o700));
        drop(entry);
        let (entry, session) = resume.entry(place, &blob).unwrap();
        assert_eq!(session, Some((url, 8)));
        // Another repository, and a torn entry.
        assert_eq!(resume.entry(("r.example", "other"), &blob).unwrap().1, None);
        fs::write(&entry.path, "{").unwrap();
        drop(entry);
        let (mut entry, session) = resume.entry(place, &blob).unwrap();
        assert_eq!(session, None);
        entry.note(&longer, 9, false);
        assert_eq!(fs::read_to_string(&entry.path).unwrap(), "{");
        let path = entry.path.clone();
        entry.forget();
        assert!(!path.exists());
    }

    #[test]
    fn there_are_never_too_many() {
        let directory = tempfile::tempdir().unwrap();
        for at in 0..=MOST {
            fs::write(directory.path().join(at.to_string()), "").unwrap();
        }
        let resume = Resume { directory: directory.path().to_owned(), from: 0 };
        let blob = Descriptor::of(MediaType::OCI_LAYER, b"blob");
        resume.entry(("r", "a"), &blob).unwrap();
        assert!(fs::read_dir(directory.path()).unwrap().count() <= MOST / 2 + 1);
    }
}
