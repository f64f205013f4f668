//! Where files come from: build contexts and the file systems of steps, seen through a [`Root`].

pub(crate) mod digests;
pub(crate) mod http;
pub(crate) mod scan;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dockerfile::Ignore;
use layers::{ApplyOptions, Root, Whiteouts};
use store::{Active, SnapshotId, Store};
use task::{Fault, Kind, Task};

use crate::error::During;
use crate::{Context, Error, Request, Result, SourceFile};
use digests::Digests;

/// No Dockerfile and no ignore file larger than this is read.
const LIMIT: u64 = 4 << 20;

/// A tree that files are taken from.
pub(crate) struct Tree {
    pub(crate) root: Root,
    /// What the user calls it.
    pub(crate) name: String,
    /// Which of its paths do not exist.
    pub(crate) ignore: Option<Ignore>,
    /// Whether the owners of its files mean nothing: they are those of the user's machine.
    pub(crate) foreign: bool,
    /// Digests of files remembered from other builds.
    pub(crate) digests: Arc<Digests>,
    /// The snapshot this is the file system of.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Keeps an unpacked archive.
    pub(crate) _kept: Option<Active>,
}

impl Tree {
    /// The file system of a step or image.
    pub(crate) fn of_step(root: Root, name: String) -> Tree {
        let digests = Arc::new(Digests::empty());
        Tree { root, name, ignore: None, foreign: false, digests, snapshot: None, _kept: None }
    }

    /// A tree of our own making, which lives as long as this value.
    pub(crate) fn own(root: Root, active: Active) -> Tree {
        let tree = Tree::of_step(root, "a file of the Dockerfile".to_owned());
        Tree { _kept: Some(active), ..tree }
    }

    /// Whether a path relative to the tree's root is ignored.
    pub(crate) fn ignores(&self, path: &str, is_dir: bool) -> bool {
        self.ignore.as_ref().is_some_and(|ignore| !path.is_empty() && ignore.excluded(path, is_dir))
    }
}

/// The build contexts, opened when first needed.
pub(crate) struct Contexts {
    store: Store,
    main: Context,
    ignore: Option<SourceFile>,
    named: BTreeMap<String, Context>,
    now: std::time::SystemTime,
    open: Mutex<BTreeMap<String, Arc<Tree>>>,
}

impl Contexts {
    pub(crate) fn new(request: &Request, store: Store, now: std::time::SystemTime) -> Contexts {
        Contexts {
            store,
            main: request.context.clone(),
            ignore: request.ignore.clone(),
            named: request.contexts.clone(),
            now,
            open: Mutex::default(),
        }
    }

    /// The context of this name; the main one has the empty name. Reads files: call it on a
    /// thread that may block.
    pub(crate) fn tree(&self, name: &str, task: &Task) -> Result<Arc<Tree>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.get(name) {
            return Ok(Arc::clone(tree));
        }
        let context = if name.is_empty() { Some(&self.main) } else { self.named.get(name) };
        let tree = Arc::new(self.open(name, context.unwrap_or(&Context::Empty), task)?);
        open.insert(name.to_owned(), Arc::clone(&tree));
        Ok(tree)
    }

    fn open(&self, name: &str, context: &Context, task: &Task) -> Result<Tree> {
        let called = match name {
            "" => "the build context".to_owned(),
            name => format!("the build context {name:?}"),
        };
        let (root, unpacked, digests) = match context {
            Context::Directory(path) => {
                let root = Root::open(path).during(format!("opening {called}"))?;
                let digests = Digests::load(&self.store, path, self.now);
                (root, None, digests)
            }
            Context::Archive(path) => {
                let active = self.store.begin().during(format!("unpacking {called}"))?;
                let root = active.root().during(format!("unpacking {called}"))?;
                let file = File::open(path).map_err(Error::file("opening", path))?;
                let options =
                    ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
                layers::apply(task.reading(file), &root, &options, task)
                    .during(format!("unpacking {called}"))?;
                (root, Some(active), Digests::empty())
            }
            Context::Empty | Context::Image(_) => {
                let active = self.store.begin().during(format!("opening {called}"))?;
                let root = active.root().during(format!("opening {called}"))?;
                (root, Some(active), Digests::empty())
            }
        };
        let given = self.ignore.as_ref().filter(|_| name.is_empty());
        let ignore = match given {
            Some(file) => Some(file.clone()),
            None => ignore_file(&root)?,
        };
        let ignore = ignore.map(|file| {
            let (ignore, problems) = Ignore::parse(&file.text);
            for problem in problems {
                task.warn(format!("{}: {problem}", file.name));
            }
            ignore
        });
        let digests = Arc::new(digests);
        let tree = Tree::of_step(root, called);
        Ok(Tree { ignore, foreign: true, digests, _kept: unpacked, ..tree })
    }

    /// Remembers the digests of the files that were read, for the next build.
    pub(crate) fn remember(&self) {
        for tree in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            tree.digests.save(&self.store);
        }
    }
}

/// The ignore file of a context.
pub(crate) fn ignore_file(root: &Root) -> Result<Option<SourceFile>> {
    for name in [".containerignore", ".dockerignore"] {
        if let Some(file) = read(root, name)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn read(root: &Root, name: &str) -> Result<Option<SourceFile>> {
    match root.read(Path::new(name), LIMIT) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Some(SourceFile { name: name.to_owned(), text }))
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error).during(format!("reading {name}")),
    }
}

/// Finds the Dockerfile in a context directory, as `Containerfile`, `Dockerfile` or
/// `dockerfile`, and the ignore file that belongs to it alone. Links are followed inside the
/// directory only.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub fn find_dockerfile(context: &Path) -> Result<(SourceFile, Option<SourceFile>)> {
    let root = Root::open(context).during("opening the build context")?;
    for name in ["Containerfile", "Dockerfile", "dockerfile"] {
        if let Some(file) = read(&root, name)? {
            return Ok((file, ignore_of(&root, name)?));
        }
    }
    Err(Error::Missing {
        path: "Dockerfile".to_owned(),
        place: context.display().to_string(),
        ignored: false,
        near: None,
    })
}

/// Reads a Dockerfile by its path, and the ignore file that belongs to it alone:
/// `<file>.containerignore` or `<file>.dockerignore`.
///
/// # Errors
/// [`Error::File`].
pub fn read_dockerfile(path: &Path) -> Result<(SourceFile, Option<SourceFile>)> {
    use std::io::Read;
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text))
        .map_err(Error::file("reading", path))?;
    if text.len() as u64 > LIMIT {
        return Err(Error::Invalid(format!("{} is larger than 4 MiB", path.display())));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let file = SourceFile { name: path.display().to_string(), text };
    let ignore = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) if path.is_file() => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            ignore_of(&Root::open(parent).during("reading the ignore file")?, name)?
        }
        _ => None,
    };
    Ok((file, ignore))
}

fn ignore_of(root: &Root, name: &str) -> Result<Option<SourceFile>> {
    for suffix in ["containerignore", "dockerignore"] {
        if let Some(file) = read(root, &format!("{name}.{suffix}"))? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
