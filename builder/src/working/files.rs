//! `copy` and `add`: files into a working container, by the rules of `COPY` and `ADD`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Ignore;
use image::{Digest, Platform};
use layers::Root;
use task::Task;
use transport::bridge;

use super::{WorkingContainer, base};
use crate::context::dockerfile::ignore_file;
use crate::context::git::{self, Commit, GitUrl, Surroundings};
use crate::context::{Tree, http};
use crate::error::ErrorContext;
use crate::images;
use crate::plan::key::KeyBuilder;
use crate::plan::path::clean;
use crate::plan::{Chmod, CopyOp, CopySource, From};
use crate::sources::DOWNLOAD_LIMIT;
use crate::step::copy::{CopySettings, Remote, prepare};
use crate::{Env, Error, Pull, Result, SourceFile, users};

/// Where the files of [`copy`] are.
#[derive(Debug, Clone)]
pub enum Source {
    /// On this machine: paths are absolute.
    Host,
    /// In a directory, which no link leads out of; its ignore file applies unless another is given.
    Directory(PathBuf, Option<SourceFile>),
    /// In another working container, by name or id.
    Container(String),
    /// In an image.
    Image(String, Pull),
}

/// What to copy.
#[derive(Debug, Clone)]
pub struct Files {
    /// Whether archives are unpacked.
    pub add: bool,
    /// Where the files are.
    pub source: Source,
    /// Paths, patterns, and URLs of files to be downloaded; for `add` of repositories as well.
    pub paths: Vec<String>,
    /// Where to; relative to the working directory. A slash at the end makes it a directory.
    pub destination: String,
    /// `user[:group]`.
    pub chown: Option<String>,
    /// Permission bits.
    pub chmod: Option<Chmod>,
    /// Patterns of excluded paths.
    pub exclude: Vec<String>,
    /// Whether the paths are kept below the destination.
    pub parents: bool,
    /// The digest a download must have, or the commit to fetch.
    pub checksum: Option<String>,
    /// How repositories are fetched.
    pub git: GitAccess,
    /// Whether the files become a layer of their own, above everything else, when the container
    /// is committed; until then the container does not have them.
    pub link: bool,
    /// The time of all files, seconds since 1970.
    pub timestamp: Option<i64>,
    /// Whether a pattern may match nothing.
    pub empty_patterns: bool,
    /// Whether the history tells of it.
    pub history: bool,
}

/// How repositories are fetched.
#[derive(Debug, Clone, Default)]
pub struct GitAccess {
    /// Whether the files of git stay.
    pub keep_git_dir: bool,
    /// Where the programs `git` and `ssh` are looked for.
    pub search_path: OsString,
    /// The socket of an ssh agent.
    pub agent: Option<PathBuf>,
    /// Proxy variables.
    pub proxies: Vec<(String, String)>,
}

impl GitAccess {
    fn surroundings(&self) -> Surroundings {
        Surroundings {
            search_path: self.search_path.clone(),
            agent: self.agent.clone(),
            keys_alone: false,
            proxies: self.proxies.clone(),
            authorization: Vec::new(),
        }
    }

    /// The commit that an address means.
    async fn commit(
        &self,
        text: &str,
        checksum: Option<&str>,
        env: &Env,
        task: &Arc<Task>,
    ) -> Result<Commit> {
        let mut url = GitUrl::parse(text)
            .map_err(|why| Error::malformed(format!("the address {text:?}"), why.to_string()))?;
        if checksum.is_some() {
            url.checksum = checksum.map(str::to_owned);
        }
        let keep = self.keep_git_dir || url.keep_git_dir == Some(true);
        let (with, store, task) = (self.surroundings(), env.store.clone(), Arc::clone(task));
        bridge::blocking(move || {
            let wanted = url.checksum.clone();
            git::resolve(&url, wanted.as_deref(), keep, &with, &store, &task)
        })
        .await
    }
}

/// Copies files into a container that is locked; gives a digest of what was copied.
///
/// # Errors
/// There is no such file; it cannot be downloaded; the container cannot be written.
pub async fn copy(
    working: &mut WorkingContainer,
    files: &Files,
    env: &Env,
    task: &Arc<Task>,
) -> Result<Digest> {
    // A mount that shows other ids takes none of root's files.
    let shown = working.maps() && working.detach()?;
    let copied = place(working, files, env, task).await;
    if shown {
        working.attach()?;
    }
    copied
}

async fn place(
    working: &mut WorkingContainer,
    files: &Files,
    env: &Env,
    task: &Arc<Task>,
) -> Result<Digest> {
    let tree = Arc::new(tree(working, &files.source, env, task).await?);
    let mut sources = Vec::new();
    let mut downloads = Vec::new();
    for path in &files.paths {
        if files.add && GitUrl::is_git(path) {
            let commit = files.git.commit(path, files.checksum.as_deref(), env, task).await?;
            downloads.push(Remote::Commit(Box::new(commit)));
            sources.push(CopySource::Git { url: path.clone() });
        } else if path.starts_with("http://") || path.starts_with("https://") {
            let checksum = files.checksum.as_ref().map(|text| text.parse::<Digest>());
            let checksum = checksum.transpose().during("reading the checksum")?;
            let file =
                http::download(&env.store, path, checksum.as_slice(), None, DOWNLOAD_LIMIT, task)
                    .await?;
            downloads.push(Remote::File(file));
            sources.push(CopySource::Http { url: path.clone() });
        } else {
            sources.push(CopySource::Path(path.trim_start_matches('/').to_owned()));
        }
    }
    let op = CopyOp {
        add: files.add,
        from: From::Context(String::new()),
        sources,
        destination: destination(working, files),
        chown: files.chown.clone(),
        chmod: files.chmod.clone(),
        exclude: files.exclude.clone(),
        parents: files.parents,
        link: files.link,
        unpack: None,
        checksum: None,
        keep_git_dir: None,
        strict: !files.empty_patterns,
    };
    let (store, threads, owned) = (env.store.clone(), env.threads, Arc::clone(task));
    let root = working.root()?;
    let apart = if files.link { Some(working.apart()?) } else { None };
    let to = apart.as_deref().map(Root::open).transpose().during("opening a layer")?;
    let timestamp = files.timestamp;
    let git = files.git.surroundings();
    let (digest, directories) = bridge::blocking(move || {
        let mut selection = prepare(&op, &tree, &downloads, &store)?;
        let mut key = KeyBuilder::new("working-copy");
        selection.digest(threads, &mut key, &owned)?;
        selection.fetch(&git, &store, &owned)?;
        let owner = op.chown.as_deref().map(|text| users::owner(&root, text)).transpose()?;
        let placing = CopySettings { owner, epoch: timestamp, dated: true, threads, made: 0 };
        let to = to.as_ref().unwrap_or(&root);
        selection.work(&op, to, Path::new(&op.destination), placing, &owned)?;
        Ok::<_, crate::Error>((key.finish().0, selection.is_directories()))
    })
    .await?;
    if let Some(directory) = apart {
        let verb = if files.add { "ADD" } else { "COPY" };
        let text = format!("{verb} --link {} {}", files.paths.join(" "), files.destination);
        working.link(&directory, text.trim_end())?;
    }
    if files.history {
        let verb = if files.add { "ADD" } else { "COPY" };
        let kind = match (files.paths.as_slice(), directories) {
            ([_], true) => "dir",
            ([_], false) => "file",
            _ => "multi",
        };
        let text = format!("/bin/sh -c #(nop) {verb} {kind}:{}", digest.hex());
        working.note(text, env);
        working.save()?;
    }
    Ok(digest)
}

/// Where to, from the root; a slash at the end makes it a directory.
fn destination(working: &WorkingContainer, files: &Files) -> String {
    let text = files.destination.as_str();
    let mut destination = clean(&working.state.config.config.working_dir, text);
    let several = files.paths.len() > 1;
    let directory =
        several || text.is_empty() || text == "." || text.ends_with('/') || text.ends_with("/.");
    if directory && !destination.ends_with('/') {
        destination.push('/');
    }
    destination
}

/// Where the paths are looked up.
pub(super) async fn tree(
    working: &WorkingContainer,
    source: &Source,
    env: &Env,
    task: &Arc<Task>,
) -> Result<Tree> {
    // Files of this machine become root's; those of an image or a container keep their owners.
    let kept = Tree::of_step;
    let foreign = |root: Root, name: String| Tree { foreign: true, ..kept(root, name) };
    match source {
        Source::Host => {
            let root = Root::open(Path::new("/")).during("opening the root directory")?;
            Ok(foreign(root, "this machine".to_owned()))
        }
        Source::Directory(path, given) => {
            let root = Root::open(path).during("opening the context directory")?;
            let file = match given {
                Some(file) => Some(file.clone()),
                None => ignore_file(&root)?,
            };
            let ignore = file.map(|file| {
                let (ignore, problems) = Ignore::parse(&file.text);
                for problem in problems {
                    task.warn(format!("{}: {problem}", file.name));
                }
                ignore.entering_literally()
            });
            Ok(Tree { ignore, ..foreign(root, path.display().to_string()) })
        }
        Source::Container(name) => {
            let other = WorkingContainer::find(&env.store, name)?;
            let other = other
                .ok_or_else(|| Error::NotThere { what: "working container", name: name.clone() })?;
            let root = match other.id() == working.id() {
                true => working.root()?,
                false => other.root()?,
            };
            Ok(kept(root, format!("container {name}")))
        }
        Source::Image(name, pull) => {
            let base = base(name, &Platform::host(), *pull, env, task).await?;
            let Some(snapshot) = images::unpack(env, &base, task).await? else {
                let active = env.store.begin().during("opening an empty image")?;
                let root = active.root().during("opening an empty image")?;
                return Ok(Tree::own(root, active));
            };
            let stack = env.store.stack(snapshot).during("opening an image")?;
            let root = stack.mount().during("mounting an image")?;
            Ok(Tree { snapshot: Some(snapshot), ..kept(root, format!("image {name}")) })
        }
    }
}
