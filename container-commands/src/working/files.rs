//! `rbuild copy` and `rbuild add`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use app::values::agent as agent_of;
use app::{App, Runnable, observed};
use builder::plan::Chmod;
use builder::working::{self, Files, GitAccess, Source, WorkingContainer};
use builder::{Agent, GitUrl, SourceFile};
use clap::{ArgAction, Args};
use dockerfile::glob::is_pattern;
use options::buildah::{HistoryFlag, wants_history};
use options::ends::RetryFlags;
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::{Dialect, Failure, environment};

use super::from::PullFlags;
use super::locked;

/// Copy files into a working container
#[derive(Debug, Args)]
pub struct Copy {
    #[command(flatten)]
    flags: FileFlags,
}

/// Copy files into a working container, and unpack archives
#[derive(Debug, Args)]
pub struct Add {
    #[command(flatten)]
    flags: FileFlags,
    /// Keep the .git directory of a repository
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    keep_git_dir: Option<bool>,
    /// Use this agent for repositories over ssh: default ($SSH_AUTH_SOCK), or a socket
    #[arg(long, value_name = "default|SOCKET")]
    ssh: Option<String>,
}

impl Runnable for Copy {
    fn run(self, app: &App) -> Result<u8, Failure> {
        self.flags.run(app, None)
    }
}

impl Runnable for Add {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let agent = self.ssh.as_deref().map(|text| match text.contains('=') || text == "default" {
            true => agent_of(text),
            false => agent_of(&format!("default={text}")),
        });
        let agent = match agent.transpose()? {
            None => None,
            Some((_, Agent::Socket(socket))) => Some(socket),
            Some((_, Agent::Keys(_))) => {
                return Err(Failure::usage("--ssh: key files are not supported here")
                    .hint("give the socket of an agent that has the keys"));
            }
        };
        let git = GitAccess {
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            agent,
            proxies: environment::proxies(),
        };
        self.flags.run(app, Some(git))
    }
}

#[derive(Debug, Args)]
struct FileFlags {
    /// Set the owner of the files
    #[arg(long, value_name = "USER[:GROUP]")]
    chown: Option<String>,
    /// Set the permission bits
    #[arg(long, value_name = "MODE")]
    chmod: Option<String>,
    /// Copy from this working container or image
    #[arg(long, value_name = "CONTAINER|IMAGE")]
    from: Option<String>,
    /// Read paths relative to this directory, and obey its ignore file
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    contextdir: Option<PathBuf>,
    /// Use this ignore file instead of the directory's
    #[arg(long, value_name = "FILE", requires = "contextdir")]
    ignorefile: Option<PathBuf>,
    /// Omit matching paths
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Expand patterns such as *.txt; false refuses them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    allow_wildcard: bool,
    /// Accept patterns that match nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    allow_empty_wildcard: bool,
    /// Keep parent directories below the destination
    #[arg(long)]
    parents: bool,
    /// Require this digest of a download, or commit of a repository
    #[arg(long, value_name = "ALGORITHM:DIGEST|COMMIT")]
    checksum: Option<String>,
    /// Put the files into a layer of their own, above everything else in the image; the container
    /// does not have them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    link: Option<bool>,
    /// Set the time of all files, in seconds since 1970
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    /// Print neither progress nor the digest of the copied files
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    history: HistoryFlag,
    #[command(flatten)]
    pull: PullFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    retry: RetryFlags,
    /// The container, the sources (paths, patterns, URLs), and the destination (default: the
    /// working directory)
    #[arg(required = true, num_args = 2.., value_names = ["CONTAINER", "SOURCE", "DESTINATION"])]
    arguments: Vec<String>,
}

impl FileFlags {
    fn run(self, app: &App, git: Option<GitAccess>) -> Result<u8, Failure> {
        let add = git.is_some();
        let (name, paths, destination) = match self.arguments.as_slice() {
            [name, only] => (name, std::slice::from_ref(only), ""),
            [name, paths @ .., destination] => (name, paths, destination.as_str()),
            [_] | [] => return Err(Failure::usage("there is nothing to copy")),
        };
        let chmod = self.chmod.as_deref().map(Chmod::parse).transpose();
        let is_url = |path: &String| {
            path.starts_with("http://")
                || path.starts_with("https://")
                || add && GitUrl::is_git(path)
        };
        if self.checksum.is_some() && !matches!(paths, [one] if is_url(one)) {
            return Err(Failure::usage(
                "the --checksum flag is not supported for local sources, nor for several",
            ));
        }
        if !self.allow_wildcard
            && let Some(pattern) = paths.iter().find(|path| !is_url(path) && is_pattern(path))
        {
            return Err(Failure::usage(format!(
                "{pattern:?} is a pattern: wildcards are not allowed"
            ))
            .hint("leave out --allow-wildcard=false"));
        }
        let source = self.source(app)?;
        let found = paths.iter().map(|path| match &source {
            Source::Host if !is_url(path) => absolute(path),
            // A path of the machine that is below the directory is meant so.
            Source::Directory(directory, _) => {
                let below = Path::new(path).strip_prefix(directory).ok();
                Ok(below.map_or_else(|| path.clone(), |path| path.display().to_string()))
            }
            _ => Ok(path.clone()),
        });
        let found = found.collect::<Result<_, Failure>>()?;
        let files = Files {
            add,
            source,
            paths: found,
            destination: destination.to_owned(),
            chown: self.chown.clone(),
            chmod: chmod.map_err(|why| Failure::usage(format!("--chmod: {why}")))?,
            exclude: self.exclude.clone(),
            parents: self.parents,
            checksum: self.checksum.clone(),
            git: git.unwrap_or_default(),
            link: self.link.unwrap_or(false),
            timestamp: self.timestamp,
            empty_patterns: self.allow_empty_wildcard,
            history: wants_history(self.history.add_history),
        };
        let verb = if add { "add" } else { "copy" };
        let local = self.from.is_none() && !paths.iter().any(is_url);
        let silent = local && Dialect::spoken().copies_silently();
        let progress = if self.quiet || silent { Progress::Quiet } else { Progress::Auto };
        let digest = observed(verb, progress, |task| {
            let mut working = locked(app.store()?, name, task)?;
            let env = app.env(&self.retry.reach(self.registry.reach()?))?;
            let task = Arc::new(task.child(format!("{verb} to {}", working.name())));
            let copied = app.wait(working::copy(&mut working, &files, &env, &task))?;
            if copied.is_ok()
                && let Some(task) = Arc::into_inner(task)
            {
                task.done();
            }
            Ok(copied?)
        })?;
        if !self.quiet {
            outln!("{}", digest.hex());
        }
        Ok(0)
    }

    fn source(&self, app: &App) -> Result<Source, Failure> {
        if let Some(from) = &self.from {
            let container = WorkingContainer::find(app.store()?, from)?.is_some();
            return Ok(match container {
                true => Source::Container(from.clone()),
                false => Source::Image(from.clone(), self.pull.pull()?),
            });
        }
        let Some(directory) = &self.contextdir else { return Ok(Source::Host) };
        let given = self.ignorefile.as_deref().map(|file| {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file);
            text.map(|text| SourceFile { name: name.clone(), text })
                .map_err(|error| Failure::io(format!("reading {name}"), &error))
        });
        Ok(Source::Directory(environment::absolute(directory)?, given.transpose()?))
    }
}

/// A path made absolute; a slash at its end stays.
fn absolute(path: &str) -> Result<String, Failure> {
    let mut whole = environment::absolute(Path::new(path))?.to_string_lossy().into_owned();
    if path.ends_with('/') && !whole.ends_with('/') {
        whole.push('/');
    }
    Ok(whole)
}
