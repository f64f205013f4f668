//! Where bytes are kept: in memory, or in files named by digest.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use image::{Digest, Digester};

use crate::state::Lock;
use crate::{Error, Result};

/// Bytes that are kept.
pub(crate) enum Content {
    Memory(Bytes),
    File(File, u64),
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(_, length) => *length,
        }
    }
}

/// Bytes that are arriving. Dropped, they are forgotten.
pub(crate) trait Draft: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn len(&self) -> u64;
    /// The digest of what arrived, by the algorithm of `wanted`.
    fn digest(&mut self, wanted: Digest) -> io::Result<Digest>;
    /// Keeps what arrived under its digest.
    fn commit(self: Box<Self>, digest: Digest) -> io::Result<()>;
}

/// A place for bytes and for one document per repository.
pub(crate) trait Store: Send + Sync {
    fn open(&self, digest: Digest) -> io::Result<Option<Content>>;
    fn draft(&self) -> io::Result<Box<dyn Draft>>;
    fn remove(&self, digest: Digest) -> io::Result<()>;
    /// Replaces a repository's document.
    fn save(&self, repository: &str, document: &[u8]) -> io::Result<()>;
    /// All repositories with their documents.
    fn load(&self) -> io::Result<Vec<(String, Vec<u8>)>>;
}

/// Everything in memory.
#[derive(Default)]
pub(crate) struct Memory(std::sync::Arc<Lock<HashMap<Digest, Bytes>>>);

struct MemoryDraft {
    blobs: std::sync::Arc<Lock<HashMap<Digest, Bytes>>>,
    bytes: Vec<u8>,
}

impl Store for Memory {
    fn open(&self, digest: Digest) -> io::Result<Option<Content>> {
        Ok(self.0.lock().get(&digest).cloned().map(Content::Memory))
    }

    fn draft(&self) -> io::Result<Box<dyn Draft>> {
        Ok(Box::new(MemoryDraft { blobs: self.0.clone(), bytes: Vec::new() }))
    }

    fn remove(&self, digest: Digest) -> io::Result<()> {
        self.0.lock().remove(&digest);
        Ok(())
    }

    fn save(&self, _repository: &str, _document: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn load(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}

impl Draft for MemoryDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&mut self, wanted: Digest) -> io::Result<Digest> {
        let mut digester = Digester::new(wanted.algorithm());
        digester.update(&self.bytes);
        Ok(digester.finish())
    }

    fn commit(self: Box<Self>, digest: Digest) -> io::Result<()> {
        self.blobs.lock().insert(digest, self.bytes.into());
        Ok(())
    }
}

/// A directory: `blobs/<algorithm>/<hex>`, `repositories/<name, / as %>.json`, `drafts/`.
pub(crate) struct Directory {
    root: PathBuf,
    next: AtomicU64,
}

struct FileDraft {
    root: PathBuf,
    path: PathBuf,
    file: File,
    length: u64,
    /// sha256 as the bytes pass, the algorithm nearly everybody asks for.
    digester: Option<Digester>,
}

impl Directory {
    pub(crate) fn open(root: &Path) -> Result<Directory> {
        let failed = |path: &Path, source| Error::Store {
            action: "opening the registry's directory",
            path: path.to_owned(),
            source,
        };
        // Drafts of a process that died belong to nobody.
        let drafts = root.join("drafts");
        match fs::remove_dir_all(&drafts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&drafts, error));
            }
            _ => {}
        }
        for part in ["blobs/sha256", "blobs/sha512", "repositories", "drafts"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(|source| failed(&path, source))?;
        }
        Ok(Directory { root: root.to_owned(), next: AtomicU64::new(0) })
    }

    fn draft_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join("drafts").join(number.to_string())
    }
}

fn blob_path(root: &Path, digest: Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

impl Store for Directory {
    fn open(&self, digest: Digest) -> io::Result<Option<Content>> {
        match File::open(blob_path(&self.root, digest)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some(Content::File(file, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn draft(&self) -> io::Result<Box<dyn Draft>> {
        let path = self.draft_path();
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let digester = Some(Digester::default());
        Ok(Box::new(FileDraft { root: self.root.clone(), path, file, length: 0, digester }))
    }

    fn remove(&self, digest: Digest) -> io::Result<()> {
        match fs::remove_file(blob_path(&self.root, digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn save(&self, repository: &str, document: &[u8]) -> io::Result<()> {
        let temporary = self.draft_path();
        let mut file = File::create(&temporary)?;
        file.write_all(document)?;
        file.sync_all()?;
        // `%` is in no repository name, so every name has its own file.
        let name = format!("{}.json", repository.replace('/', "%"));
        fs::rename(&temporary, self.root.join("repositories").join(name))
    }

    fn load(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut documents = Vec::new();
        for entry in fs::read_dir(self.root.join("repositories"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".json") {
                documents.push((name.replace('%', "/"), fs::read(entry.path())?));
            }
        }
        Ok(documents)
    }
}

impl Draft for FileDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        if let Some(digester) = &mut self.digester {
            digester.update(bytes);
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.length
    }

    fn digest(&mut self, wanted: Digest) -> io::Result<Digest> {
        if let (image::Algorithm::Sha256, Some(digester)) = (wanted.algorithm(), &self.digester) {
            return Ok(digester.clone().finish());
        }
        let mut digester = Digester::new(wanted.algorithm());
        io::copy(&mut File::open(&self.path)?, &mut digester)?;
        Ok(digester.finish())
    }

    fn commit(self: Box<Self>, digest: Digest) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, blob_path(&self.root, digest))
    }
}

impl Drop for FileDraft {
    fn drop(&mut self) {
        // After a commit there is nothing left under this name.
        let _ = fs::remove_file(&self.path);
    }
}
