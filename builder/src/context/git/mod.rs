//! Repositories: which commit an address means, and its files.

pub(crate) mod command;
mod recording;
pub(crate) mod url;

use std::path::Path;

use image::Digest;
use layers::{FileType, Root};
use serde::{Deserialize, Serialize};
use store::{SnapshotId, Store};
use task::{Kind, Task};

use command::Git;
pub(crate) use command::Surroundings;
pub use url::GitUrl;
pub(crate) use url::{GitRef, is_commit};

use super::context_files::ContextFiles;
use crate::error::ErrorContext;
use crate::inputs::InputDecision;
use crate::plan::key::KeyBuilder;
use crate::{Error, Result};

/// Where the store remembers the times of commits.
const SPACE: &str = "git-1";

/// One commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) url: GitUrl,
    /// Its whole name.
    pub(crate) name: String,
    /// A name by which the server gives it.
    reference: Option<String>,
    /// Whether the files of git stay.
    pub(crate) keep_git_dir: bool,
    /// The archive in a recording that its files come from, if they do not come from the server.
    recorded: Option<Digest>,
}

/// The record beside a checkout.
#[derive(Debug, Serialize, Deserialize)]
struct CheckoutRecord {
    /// When it was committed, seconds since 1970.
    time: i64,
}

/// The address to use instead of `url`, and the commit it must be.
///
/// # Errors
/// [`Error::Denied`].
pub(crate) fn admitted(url: &GitUrl, decision: &InputDecision) -> Result<(GitUrl, Option<String>)> {
    let deny = |reason: String| Error::Denied { identifier: decision.identifier.clone(), reason };
    let mut url = url.clone();
    if decision.converted {
        let to = &decision.identifier;
        // An identifier does not say how the server is spoken to: attributes do, or it is https.
        let full = decision.attrs.get("git.fullurl").cloned();
        let text = full.or_else(|| to.strip_prefix("git://").map(|rest| format!("https://{rest}")));
        let text = text.unwrap_or_else(|| to.clone());
        let fragment = to.split_once('#').map(|(_, fragment)| fragment);
        let text = match fragment.filter(|_| !text.contains('#')) {
            Some(fragment) => format!("{text}#{fragment}"),
            None => text,
        };
        if !GitUrl::is_git(&text) {
            return Err(deny("the source policy substitutes it for a repository".to_owned()));
        }
        let new = GitUrl::parse(&text).map_err(deny)?;
        url = GitUrl { keep_git_dir: url.keep_git_dir, submodules: url.submodules, ..new };
    }
    let mut wanted = url.checksum.clone();
    let policy = decision.attrs.get("git.checksum");
    for (who, commit) in [("the source policy", policy), ("the lock", decision.pin.as_ref())] {
        let Some(commit) = commit else { continue };
        if wanted.as_ref().is_some_and(|wanted| !commit.starts_with(wanted)) {
            return Err(deny(format!("{who} requires commit {commit}")));
        }
        wanted = Some(commit.clone());
        url.by_commit = true;
    }
    Ok((url, wanted))
}

/// Finds the commit that an address means. Reads from the network unless the address says it.
pub(crate) fn resolve(
    url: &GitUrl,
    wanted: Option<&str>,
    keep_git_dir: bool,
    with: &Surroundings,
    store: &Store,
    task: &Task,
) -> Result<Commit> {
    let git = Git { url, with, task };
    let (name, reference) = match (&url.reference, wanted) {
        // A commit that is named must be the one that is wanted; a branch or tag may have moved.
        (GitRef::Any(text), _) if is_commit(text) => (text.to_ascii_lowercase(), None),
        (_, Some(wanted)) if url.by_commit && is_commit(wanted) => {
            let named = url.reference.text();
            let reference = (!named.is_empty()).then(|| named.to_owned());
            (wanted.to_owned(), reference)
        }
        _ => ask(&git, store)?,
    };
    if let Some(wanted) = wanted.filter(|wanted| !name.starts_with(wanted)) {
        let reason = format!("it is commit {name} now, not {wanted}");
        return Err(git.failed(Kind::Invalid, reason));
    }
    Ok(Commit { url: url.clone(), name, reference, keep_git_dir, recorded: None })
}

fn ask(git: &Git<'_>, store: &Store) -> Result<(String, Option<String>)> {
    let text = git.url.reference.text();
    let all = match &git.url.reference {
        GitRef::Head => vec!["HEAD".to_owned()],
        GitRef::Branch(name) => vec![format!("refs/heads/{name}")],
        GitRef::Tag(name) => vec![format!("refs/tags/{name}")],
        GitRef::Any(name) if name.starts_with("refs/") => vec![name.clone()],
        // As git checkout: a branch before a tag.
        GitRef::Any(name) => {
            ["refs/heads/", "refs/tags/", "refs/"].map(|prefix| format!("{prefix}{name}")).to_vec()
        }
    };
    let mut arguments = vec!["ls-remote".to_owned(), "--".to_owned(), git.url.remote.clone()];
    for name in &all {
        arguments.extend([name.clone(), format!("{name}^{{}}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let active = store.begin().during("asking a repository")?;
    let answer = git.run(active.dir(), &arguments)?;
    let find = |name: &str| {
        let lines = answer.lines().filter_map(|line| line.split_once('\t'));
        lines.filter(|(commit, _)| is_commit(commit)).find(|(_, n)| *n == name).map(|(c, _)| c)
    };
    for name in &all {
        // What an annotated tag is about, before the tag itself.
        if let Some(commit) = find(&format!("{name}^{{}}")).or_else(|| find(name)) {
            return Ok((commit.to_owned(), Some(name.clone())));
        }
    }
    let digits = text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits {
        let reason = match text {
            "" => "it has no commit yet".to_owned(),
            text => format!("it has no branch or tag {text:?}"),
        };
        return Err(git.failed(Kind::NotFound, reason));
    }
    // The beginning of a commit's name: only who has them all can tell.
    let directory = active.dir().join("fs");
    everything(git, &directory)?;
    let text = format!("{text}^{{commit}}");
    let found =
        git.run(&directory, &["rev-parse", "--verify", "--quiet", "--end-of-options", &text]);
    match found {
        Ok(commit) => Ok((commit.trim().to_owned(), None)),
        Err(Error::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(_) => {
            let text = git.url.reference.text();
            Err(git.failed(Kind::NotFound, format!("it has no branch, tag or commit {text:?}")))
        }
    }
}

fn init(git: &Git<'_>, directory: &Path) -> Result<()> {
    git.run(directory, &["init", "--quiet", "--template="])?;
    git.run(directory, &["config", "remote.origin.url", &git.url.remote]).map(drop)
}

/// Fetches all branches and tags into a new repository.
fn everything(git: &Git<'_>, directory: &Path) -> Result<()> {
    if !directory.join(".git").exists() {
        init(git, directory)?;
    }
    let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    let fetch = ["fetch", "--quiet", "--no-recurse-submodules", "origin", all[0], all[1]];
    git.run(directory, &fetch).map(drop)
}

impl Commit {
    /// The name of its files in the store.
    fn snapshot(&self) -> SnapshotId {
        let mut key = KeyBuilder::new("git");
        self.identify(&mut key);
        SnapshotId(key.finish().0)
    }

    /// Adds what decides the files to a key.
    pub(crate) fn identify(&self, key: &mut KeyBuilder) {
        key.part(self.url.place.as_bytes());
        key.part(self.name.as_bytes());
        key.part(&[u8::from(self.keep_git_dir), u8::from(self.url.submodules)]);
        // Only the lock file vouches for a recording: what is made of it stays apart.
        if let Some(archive) = self.recorded {
            key.part(archive.as_bytes());
        }
    }

    /// Its files, fetched unless the store has them.
    pub(crate) fn fetch(
        &self,
        with: &Surroundings,
        store: &Store,
        task: &Task,
    ) -> Result<ContextFiles> {
        let (root, time) = self.files(with, store, task)?;
        let root = match self.url.subdir.as_str() {
            "" => root,
            subdir => self.below(&root, subdir)?,
        };
        let modified = (!self.url.checkout_times).then_some(time);
        Ok(ContextFiles { git: true, modified, published: Some(time), ..ContextFiles::new(root) })
    }

    /// All its files, fetched unless the store has them, and its time.
    fn files(&self, with: &Surroundings, store: &Store, task: &Task) -> Result<(Root, i64)> {
        let action = || format!("fetching {}", self.url);
        let id = self.snapshot();
        let known = store.memo(SPACE, id.0.as_bytes()).during(action())?;
        let known: Option<CheckoutRecord> =
            known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let time = match known {
            Some(known) if store.has_snapshot(id).during(action())? => known.time,
            _ if self.recorded.is_some() => {
                let source = "the store removed its files meanwhile".into();
                let url = self.url.to_string();
                return Err(Error::Download { url, kind: Kind::NotFound, source });
            }
            _ => {
                let child = task.child(action());
                child.note(self.name.clone());
                let active = store.begin().during(action())?;
                let directory = active.dir().join("fs");
                let git = Git { url: &self.url, with, task: &child };
                let time = self.check_out(&git, &directory)?;
                let root = active.root().during(action())?;
                if !self.keep_git_dir {
                    forget(&root, Path::new("")).during(action())?;
                }
                active.commit(id, None).during(action())?;
                let bytes = serde_json::to_vec(&CheckoutRecord { time }).unwrap_or_default();
                store.set_memo(SPACE, id.0.as_bytes(), &bytes).during(action())?;
                child.done();
                time
            }
        };
        let root = store.stack(id).during(action())?.mount().during(action())?;
        Ok((root, time))
    }

    /// A directory of the checkout; links in its path lead nowhere else.
    fn below(&self, root: &Root, subdir: &str) -> Result<Root> {
        let directory = root
            .metadata(Path::new(subdir))
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !directory {
            return Err(Error::Download {
                url: self.url.to_string(),
                kind: Kind::NotFound,
                source: format!("there is no directory {subdir:?} in commit {}", self.name).into(),
            });
        }
        root.sub(Path::new(subdir)).during(format!("opening {}", self.url))
    }

    /// Gets the commit and writes its files; when it was made.
    fn check_out(&self, git: &Git<'_>, directory: &Path) -> Result<i64> {
        init(git, directory)?;
        self.get(git, directory)?;
        git.run(directory, &["checkout", "--quiet", "--detach", &self.name])?;
        if self.url.submodules && directory.join(".gitmodules").is_file() {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
            let shallow: Vec<&str> = update.iter().copied().chain(["--depth=1"]).collect();
            match git.run(directory, &shallow) {
                Ok(_) => {}
                Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
                // A server may not give single commits.
                Err(_) => drop(git.run(directory, &update)?),
            }
        }
        let time = git.run(directory, &["show", "--no-patch", "--format=%ct", &self.name])?;
        Ok(time.trim().parse().unwrap_or(0))
    }

    /// Fetches the commit alone, or as much as the server makes us.
    fn get(&self, git: &Git<'_>, directory: &Path) -> Result<()> {
        let one =
            ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "origin"];
        for what in [Some(&self.name), self.reference.as_ref()].into_iter().flatten() {
            let line: Vec<&str> = one.iter().copied().chain([what.as_str()]).collect();
            match git.run(directory, &line) {
                Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
                Ok(_) if self.is_here(git, directory)? => return Ok(()),
                _ => {}
            }
        }
        everything(git, directory)?;
        if self.is_here(git, directory)? {
            return Ok(());
        }
        Err(git.failed(Kind::NotFound, format!("it has no commit {}", self.name)))
    }

    fn is_here(&self, git: &Git<'_>, directory: &Path) -> Result<bool> {
        let object = format!("{}^{{commit}}", self.name);
        match git.run(directory, &["cat-file", "-e", &object]) {
            Ok(_) => Ok(true),
            Err(Error::Cancelled(cancelled)) => Err(cancelled.into()),
            Err(_) => Ok(false),
        }
    }
}

/// Removes what git keeps for itself, in submodules too.
fn forget(root: &Root, directory: &Path) -> Result<(), layers::Error> {
    for entry in root.entries(directory)? {
        let path = directory.join(&entry.name);
        if entry.name == ".git" {
            root.remove_all(&path)?;
        } else if entry.kind == FileType::Directory {
            forget(root, &path)?;
        }
    }
    Ok(())
}
