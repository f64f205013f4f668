use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use task::Task;

use crate::catalog::{Catalog, SCHEMA_VERSION, number};
use crate::format::StoreFormat;
use crate::lease::{self, Slot};
use crate::{Error, Result, file, recover, reserve};

/// What the store must know of the world outside, which it does not look at itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether whiteouts and opaque marks are `user.overlay.*` attributes: outside the initial
    /// user namespace they must be.
    pub user_xattr: bool,
    /// The kernel's boot id; content not known to be on disk is checked when it has changed.
    pub boot_id: String,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
    /// What stops the work that reading or writing a blob brings with it: making room below the
    /// bound, and writing again a layer that is kept as its snapshot.
    pub task: Arc<Task>,
}

/// The images of this machine. Cheap to clone; safe to use from many threads and processes.
///
/// What is looked up or created through a handle is pinned: it is not collected while the handle
/// or a clone of it lives. See [`Store::lease`] for shorter pins.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) slot: Arc<Slot>,
}

/// What all handles of one process on one store share.
#[derive(Debug)]
pub(crate) struct StoreInner {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    pub(crate) catalog: Catalog,
    /// Bytes that may be on disk; the largest number for no bound.
    pub(crate) limit: AtomicU64,
}

/// The directories of a store.
pub(crate) const DIRECTORIES: [&str; 8] =
    ["blobs", "snapshots", "mounts", "containers", "active", "ingest", "leases", "trash"];

impl Store {
    /// Opens the store in a directory, and makes it where there is none.
    ///
    /// What dead processes left is put away, and after a crash of the machine the content that
    /// had not reached the disk for sure is checked and dropped where it is broken.
    ///
    /// # Errors
    /// [`Error::Format`] for a store this version or this user cannot use, [`Error::File`],
    /// [`Error::Catalog`].
    pub fn open(root: &Path, options: Options) -> Result<Store> {
        let catalog = match StoreFormat::read(root)? {
            Some(format) => {
                reserve::tend(root);
                format.admit(root, options.user_xattr)?;
                Catalog::open(&root.join("catalog.db"))?
            }
            None => create(root, options.user_xattr)?,
        };
        if catalog.version()? < SCHEMA_VERSION {
            catalog.migrate()?;
        }
        let version = catalog.version()?;
        if version != SCHEMA_VERSION {
            let reason =
                format!("its catalog version is {version}, this program supports {SCHEMA_VERSION}");
            return Err(Error::Format { path: root.to_owned(), reason });
        }
        let shared = Arc::new(StoreInner {
            root: root.to_owned(),
            options,
            catalog,
            limit: AtomicU64::new(u64::MAX),
        });
        lease::bury_dead(&shared)?;
        recover::drop_torn(&shared)?;
        empty_trash_meanwhile(&shared)?;
        Ok(Store { slot: Slot::new(shared) })
    }

    /// The directory of the store.
    pub fn path(&self) -> &Path {
        &self.shared().root
    }
}

/// Makes a store, or completes one whose making was interrupted; `store.json` comes last.
fn create(root: &Path, user_xattr: bool) -> Result<Catalog> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(root).map_err(|error| Error::file("creating", root, error))?;
    // One process makes it, the others wait here and then find it made.
    let lock = File::open(root).map_err(|error| Error::file("opening", root, error))?;
    lock.lock().map_err(|error| Error::file("locking", root, error))?;
    if let Some(format) = StoreFormat::read(root)? {
        format.admit(root, user_xattr)?;
        return Catalog::open(&root.join("catalog.db"));
    }
    let occupied = file::list(root)?.into_iter().find(|name| {
        let name = name.to_string_lossy();
        !DIRECTORIES.contains(&&*name)
            && name != "reserve"
            && !name.starts_with("catalog.db")
            && !name.starts_with(".tmp-")
    });
    if let Some(name) = occupied {
        let reason = format!("it holds {name:?} but no store.json: it is something else");
        return Err(Error::Format { path: root.to_owned(), reason });
    }
    for directory in DIRECTORIES {
        file::make_dir(&root.join(directory), 0o700)?;
    }
    for algorithm in ["sha256", "sha512"] {
        file::make_dir(&root.join("blobs").join(algorithm), 0o700)?;
    }
    let catalog = root.join("catalog.db");
    if !catalog.exists() {
        file::create_new(&catalog, 0o600)?;
    }
    let catalog = Catalog::create(&catalog)?;
    StoreFormat::new(user_xattr).write(root)?;
    reserve::tend(root);
    Ok(catalog)
}

/// Deletes what is in the trash beside the caller's work; if the process ends first, the next
/// one goes on.
fn empty_trash_meanwhile(shared: &Arc<StoreInner>) -> Result<()> {
    if file::list(&shared.root.join("trash"))?.is_empty() {
        return Ok(());
    }
    let shared = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("empty-trash".to_owned()).spawn(move || {
        if let Err(error) = shared.empty_trash() {
            tracing::debug!(%error, "the trash is not empty");
        }
    });
    if let Err(error) = spawned {
        tracing::debug!(%error, "the trash stays");
    }
    Ok(())
}

impl StoreInner {
    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        let since = (self.options.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        number(since.as_secs())
    }
}
