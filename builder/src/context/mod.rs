//! Where files come from: build contexts and the file systems of steps, seen through a [`Root`].

pub(crate) mod archive;
mod authorization;
pub(crate) mod context_files;
pub(crate) mod digests;
pub(crate) mod dockerfile;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod scan;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ::dockerfile::Ignore;
use layers::{FileType, Root};
use recorder::Recorder;
use store::{Active, SnapshotId, Store};
use task::Task;
use transport::bridge;

use crate::error::ErrorContext;
use crate::input::{Input, InputKind};
use crate::inputs::Inputs;
use crate::traffic;
use crate::{Context, Dialect, DockerfileAt, Env, Error, Request, Result, SourceFile, TimeOf};
use context_files::ContextFiles;
use digests::Digests;
use git::{GitUrl, Surroundings};

/// A tree that files are taken from.
pub(crate) struct Tree {
    pub(crate) root: Root,
    /// What the user calls it.
    pub(crate) name: String,
    /// Which of its paths do not exist.
    pub(crate) ignore: Option<Ignore>,
    /// The name of the file that says so.
    pub(crate) ignore_file: String,
    /// Whether the owners of its files mean nothing: they are those of the user's machine.
    pub(crate) foreign: bool,
    /// Digests of files remembered from other builds.
    pub(crate) digests: Arc<Digests>,
    /// The snapshot this is the file system of.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Where its files come from, if it is a context.
    pub(crate) fetched: Option<Arc<ContextFiles>>,
    /// Keeps files of our own making.
    pub(crate) _kept: Option<Active>,
}

impl Tree {
    /// The file system of a step or image.
    pub(crate) fn of_step(root: Root, name: String) -> Tree {
        let digests = Arc::new(Digests::empty());
        Tree {
            root,
            name,
            ignore: None,
            ignore_file: String::new(),
            foreign: false,
            digests,
            snapshot: None,
            fetched: None,
            _kept: None,
        }
    }

    /// A tree of our own making, which lives as long as this value.
    pub(crate) fn own(root: Root, active: Active) -> Tree {
        let tree = Tree::of_step(root, "a file of the Dockerfile".to_owned());
        Tree { _kept: Some(active), ..tree }
    }

    /// The files of a context or repository.
    pub(crate) fn of_fetched(fetched: Arc<ContextFiles>, name: String) -> Result<Tree> {
        let root = fetched.root.try_clone().during(format!("opening {name}"))?;
        let digests = Arc::clone(&fetched.digests);
        let tree = Tree::of_step(root, name);
        Ok(Tree { foreign: true, digests, fetched: Some(fetched), ..tree })
    }

    /// Whether a path relative to the tree's root is ignored.
    pub(crate) fn ignores(&self, path: &str, is_dir: bool) -> bool {
        self.ignore.as_ref().is_some_and(|ignore| !path.is_empty() && ignore.excluded(path, is_dir))
    }

    /// What excludes a path, for a message: `line 3 of .dockerignore`.
    pub(crate) fn ignored_by(&self, path: &str) -> Option<String> {
        let line = self.ignore.as_ref()?.excluded_by(path)?;
        Some(format!("line {line} of {}", self.ignore_file))
    }

    /// The permission bits of a copy: a repository only knows whether a file is executable.
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        match &self.fetched {
            Some(fetched) if fetched.git => {
                let directory = mode & 0o170_000 == 0o040_000;
                mode & !0o7777 | if directory || mode & 0o100 != 0 { 0o755 } else { 0o644 }
            }
            _ => mode,
        }
    }

    /// The time of a copy, where it is not the file's.
    pub(crate) fn modified(&self) -> Option<i64> {
        self.fetched.as_ref().and_then(|fetched| fetched.modified)
    }
}

type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

/// The build contexts, brought here when first needed.
pub(crate) struct Contexts {
    store: Store,
    main: Context,
    ignore: Mutex<Option<SourceFile>>,
    named: BTreeMap<String, Context>,
    now: std::time::SystemTime,
    keep_git_dir: bool,
    dialect: Dialect,
    /// What git works with.
    pub(crate) git: Surroundings,
    /// `Authorization` headers for downloads by host.
    authorization: BTreeMap<String, String>,
    download_limit: u64,
    /// What is between the steps and the network, if anything is.
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// What was taken from elsewhere.
    pub(crate) inputs: Inputs,
    fetched: Mutex<BTreeMap<String, Slot<ContextFiles>>>,
    open: Mutex<BTreeMap<String, Slot<Tree>>>,
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts").field("main", &self.main).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is in a slot, made if nothing is; others who want it wait.
fn once<T>(
    slots: &Mutex<BTreeMap<String, Slot<T>>>,
    name: &str,
    make: impl FnOnce() -> Result<T>,
) -> Result<Arc<T>> {
    let slot = Arc::clone(lock(slots).entry(name.to_owned()).or_default());
    let mut slot = lock(&slot);
    if let Some(known) = &*slot {
        return Ok(Arc::clone(known));
    }
    let made = Arc::new(make()?);
    *slot = Some(Arc::clone(&made));
    Ok(made)
}

/// What messages call a context.
fn called(name: &str) -> String {
    match name {
        "" => "the build context".to_owned(),
        name => format!("the build context {name:?}"),
    }
}

impl Contexts {
    /// The contexts of a request; none is opened yet.
    pub(crate) fn new(request: &Request, env: &Env) -> Result<Contexts> {
        let keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        Ok(Contexts {
            store: env.store.clone(),
            main: request.context.clone(),
            ignore: Mutex::new(request.ignore.clone()),
            named: request.contexts.clone(),
            now: (env.clock)(),
            dialect: request.dialect,
            keep_git_dir: keep.is_some_and(|text| matches!(text.as_str(), "1" | "true")),
            git: authorization::git(request)?,
            authorization: authorization::http(request)?,
            download_limit: request.sources.download_limit,
            recorder: traffic::recorder(request)?,
            inputs: Inputs::new(request.inputs.clone()),
            fetched: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// The context of this name; the main one has the empty name. Reads files and perhaps the
    /// network: call it on a thread that may block.
    pub(crate) fn tree(&self, name: &str, task: &Task) -> Result<Arc<Tree>> {
        once(&self.open, name, || {
            let fetched = self.fetched(name, task)?;
            let given = lock(&self.ignore).clone().filter(|_| name.is_empty());
            let ignore = match given {
                Some(file) => Some(file),
                None => dockerfile::ignore_file(&fetched.root)?,
            };
            let ignore_file = ignore.as_ref().map(|file| file.name.clone()).unwrap_or_default();
            let ignore = ignore.map(|file| {
                let (ignore, problems) = Ignore::parse(&file.text);
                for problem in problems {
                    task.warn(format!("{}: {problem}", file.name));
                }
                match self.dialect {
                    Dialect::BuildKit => ignore,
                    Dialect::Buildah => ignore.entering_literally(),
                }
            });
            Ok(Tree { ignore, ignore_file, ..Tree::of_fetched(fetched, called(name))? })
        })
    }

    /// The files of a context, whatever an ignore file says.
    fn fetched(&self, name: &str, task: &Task) -> Result<Arc<ContextFiles>> {
        once(&self.fetched, name, || {
            let context = if name.is_empty() { Some(&self.main) } else { self.named.get(name) };
            self.fetch(name, context.unwrap_or(&Context::Empty), task)
        })
    }

    fn fetch(&self, name: &str, context: &Context, task: &Task) -> Result<ContextFiles> {
        let called = called(name);
        let action = format!("opening {called}");
        let local = || {
            let name = if name.is_empty() { "context" } else { name };
            let identifier = format!("local://{name}");
            let admitted = self.inputs.admit(InputKind::Local, &identifier)?;
            if admitted.converted {
                let reason = format!("the source policy substitutes it for {identifier}");
                return Err(Error::Denied { identifier: admitted.identifier, reason });
            }
            Ok(())
        };
        match context {
            Context::Directory(path) => {
                local()?;
                let root = Root::open(path).during(action)?;
                let digests = Arc::new(Digests::load(&self.store, path, self.now));
                Ok(ContextFiles { digests, ..ContextFiles::new(root) })
            }
            Context::Archive(path) => {
                local()?;
                let file = File::open(path).map_err(Error::file("opening", path))?;
                let action = format!("unpacking {called}");
                ContextFiles::unpacked(task.reading(file), &self.store, &action, task)
            }
            Context::Stream(stream) => {
                local()?;
                let action = format!("unpacking {called}");
                let reader =
                    stream.take().ok_or_else(|| Error::Consumed { what: called.clone() })?;
                ContextFiles::unpacked(task.reading(reader), &self.store, &action, task)
            }
            Context::Git(url) => self.repository(name, url, task),
            Context::Http(url) => {
                let work = self.file(&url.0, None, option(name), task);
                let download = tokio::runtime::Handle::current().block_on(work)?;
                let action = format!("unpacking {called}");
                ContextFiles::downloaded(&download, &self.store, &action, task)
            }
            Context::Empty | Context::Image(_) => ContextFiles::nothing(&self.store, &action),
        }
    }

    fn repository(&self, name: &str, url: &GitUrl, task: &Task) -> Result<ContextFiles> {
        let keep = url.keep_git_dir.unwrap_or(self.keep_git_dir);
        let commit = self.commit(url, None, keep, option(name), task)?;
        commit.fetch(&self.git, &self.store, task)
    }

    /// The commit that an address means, if it may be used. `place` is where it is named.
    pub(crate) fn commit(
        &self,
        url: &GitUrl,
        checksum: Option<&str>,
        keep_git_dir: bool,
        place: String,
        task: &Task,
    ) -> Result<git::Commit> {
        let mut url = url.clone();
        if let Some(checksum) = checksum {
            if url.checksum.as_deref().is_some_and(|own| own != checksum) {
                let (url, checksum) = (url.to_string(), checksum.to_owned());
                return Err(Error::Checksums { url, checksum });
            }
            url.checksum = Some(checksum.to_owned());
        }
        let written = url.to_string();
        let admitted = self.inputs.admit(InputKind::Git, &url.identifier())?;
        let (url, wanted) = git::admitted(&url, &admitted)?;
        let with = &self.git;
        let commit = git::resolve(&url, wanted.as_deref(), keep_git_dir, with, &self.store, task)?;
        let commit = match self.recorder.as_deref() {
            None => commit,
            Some(recorder) if recorder.replays() => commit.replayed(&self.store, recorder, task)?,
            Some(recorder) => {
                commit.record(with, &self.store, recorder, task)?;
                commit
            }
        };
        self.inputs.record(Input {
            kind: InputKind::Git,
            name: written,
            identifier: admitted.identifier,
            resolved: commit.name.clone(),
            platform: None,
            manifest: None,
            place: Some(place),
        });
        Ok(commit)
    }

    /// Downloads a file, if it may be used. `place` is where it is named.
    pub(crate) async fn file(
        &self,
        url: &str,
        checksum: Option<image::Digest>,
        place: String,
        task: &Task,
    ) -> Result<http::Download> {
        let shown = crate::redact::without_credentials(url);
        let admitted = self.inputs.admit(InputKind::Http, &shown)?;
        let (url, checksums) = http::admitted(url, &admitted, checksum)?;
        let header = http::host(&url).and_then(|host| self.authorization.get(&host));
        let header = header.map(String::as_str);
        let replaying = self.recorder.as_deref().filter(|recorder| recorder.replays());
        let download = match replaying {
            Some(recorder) => http::replayed(&self.store, recorder, &url, &checksums, task).await?,
            None => {
                http::download(&self.store, &url, &checksums, header, self.download_limit, task)
                    .await?
            }
        };
        if let Some(recorder) = self.recorder.as_deref().filter(|recorder| !recorder.replays()) {
            http::recorded(&self.store, recorder, &url, &download).await?;
        }
        self.inputs.record(Input {
            kind: InputKind::Http,
            name: shown,
            identifier: admitted.identifier,
            resolved: download.digest.to_string(),
            platform: None,
            manifest: None,
            place: Some(place),
        });
        Ok(download)
    }

    /// Finds what the contexts that are elsewhere hold now.
    pub(crate) fn resolve(&self, task: &Task) -> Result<()> {
        let main = (String::new(), &self.main);
        let named = self.named.iter().map(|(name, context)| (name.clone(), context));
        for (name, context) in std::iter::once(main).chain(named) {
            match context {
                Context::Git(url) => {
                    let keep = url.keep_git_dir.unwrap_or(self.keep_git_dir);
                    self.commit(url, None, keep, option(&name), task)?;
                }
                Context::Http(url) => {
                    let work = self.file(&url.0, None, option(&name), task);
                    tokio::runtime::Handle::current().block_on(work)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The time of the main context: that of its commit, what the server says, else that of its
    /// newest file; `None` if it has no files.
    fn time(&self, task: &Task) -> Result<Option<i64>> {
        let tree = self.tree("", task)?;
        if let Some(published) = tree.fetched.as_ref().and_then(|fetched| fetched.published) {
            return Ok(Some(published));
        }
        let action = "looking for the newest file of the build context";
        let (mut newest, mut directories) = (None, vec![PathBuf::new()]);
        while let Some(directory) = directories.pop() {
            task.check()?;
            for entry in tree.root.entries(&directory).during(action)? {
                let path = directory.join(&entry.name);
                let stat = tree.root.symlink_metadata(&path).during(action)?;
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let ignored = path.to_str().is_some_and(|path| tree.ignores(path, is_dir));
                if is_dir {
                    // An ignored directory may hold exceptions.
                    directories.push(path);
                } else if !ignored {
                    newest = newest.max(Some(stat.st_mtime));
                }
            }
        }
        Ok(newest)
    }

    /// The Dockerfile in the main context, and the ignore file that belongs to it alone.
    fn dockerfile(
        &self,
        name: Option<&str>,
        task: &Task,
    ) -> Result<(SourceFile, Option<SourceFile>)> {
        let fetched = self.fetched("", task)?;
        if let (None, Some(alone)) = (name, &fetched.alone) {
            return Ok((alone.clone(), None));
        }
        dockerfile::find_in(&fetched.root, name, "the build context")
    }

    /// Remembers the digests of the files that were read, for the next build.
    pub(crate) fn remember(&self) {
        for slot in lock(&self.open).values() {
            if let Some(tree) = &*lock(slot) {
                tree.digests.save(&self.store);
            }
        }
    }
}

/// What messages call a context.
fn option(name: &str) -> String {
    match name {
        "" => "the build context".to_owned(),
        name => format!("build context {name:?}"),
    }
}

/// Reads the Dockerfile of a request that only names its place (see [`DockerfileAt`]), fetches the
/// context if the file is there, and finds the time of the context if that is requested.
///
/// # Errors
/// [`Error::Missing`] when there is none; those of fetching.
pub async fn complete(request: Request, env: &Env, task: &Task) -> Result<Request> {
    opened(request, env, task).await.map(|(request, _)| request)
}

/// As [`complete`], with the contexts: what was fetched of them is not fetched again.
pub(crate) async fn opened(
    request: Request,
    env: &Env,
    task: &Task,
) -> Result<(Request, Arc<Contexts>)> {
    let contexts = Arc::new(Contexts::new(&request, env)?);
    let mut request = with_dockerfile(request, &contexts, env, task).await?;
    let wish = match request.time_of {
        TimeOf::Commit if !matches!(contexts.main, Context::Git(_)) => TimeOf::Clock,
        wish => wish,
    };
    if wish == TimeOf::Clock || request.source_date_epoch.is_some() {
        return Ok((request, contexts));
    }
    let child = Arc::new(task.child("finding the time of the build context"));
    let (own, from) = (Arc::clone(&child), Arc::clone(&contexts));
    request.source_date_epoch = bridge::blocking(move || from.time(&own)).await?;
    match (request.source_date_epoch, request.traffic.is_recorded()) {
        (Some(time), _) => child.note(time.to_string()),
        // A replay is at another time, and is to give the same image.
        (None, true) => request.source_date_epoch = Some(env.now()),
        (None, false) => child.warn("SOURCE_DATE_EPOCH=context: the build context has no files"),
    }
    if let Ok(child) = Arc::try_unwrap(child) {
        child.done();
    }
    Ok((request, contexts))
}

async fn with_dockerfile(
    mut request: Request,
    contexts: &Arc<Contexts>,
    env: &Env,
    task: &Task,
) -> Result<Request> {
    let at = std::mem::take(&mut request.sources.dockerfile);
    let (file, ignore) = match at {
        DockerfileAt::Given => return Ok(request),
        DockerfileAt::Url(url) => {
            let download = contexts.file(&url, None, "the Dockerfile".to_owned(), task).await?;
            let name = crate::redact::without_credentials(&url);
            let store = env.store.clone();
            let read = move || read_blob(&store, &download, name);
            (bridge::blocking(read).await?, None)
        }
        DockerfileAt::Context(name) => {
            let child = Arc::new(task.child("reading the Dockerfile"));
            let (own, from) = (Arc::clone(&child), Arc::clone(contexts));
            let found = bridge::blocking(move || from.dockerfile(name.as_deref(), &own)).await?;
            if let Ok(child) = Arc::try_unwrap(child) {
                child.done();
            }
            found
        }
    };
    request.dockerfile = file;
    if request.ignore.is_none() {
        request.ignore = ignore;
        lock(&contexts.ignore).clone_from(&request.ignore);
    }
    Ok(request)
}

fn read_blob(store: &Store, download: &http::Download, name: String) -> Result<SourceFile> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = store.open_blob(download.digest).during(format!("reading {name}"))?;
    file.take(dockerfile::LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::file("reading", &name))?;
    dockerfile::as_text(&bytes, name)
}
