//! `rbuild cp`, `diff` and `export`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use app::{App, Runnable, observed};
use clap::Args;
use containers::{ChangeKind, CopyOptions};
use options::progress::Progress;
use options::{Failure, environment};

use super::choice::one;
use super::require;

/// Copy files between a container and this machine
///
/// A source that ends in `/.` means the content of that directory. `-` in place of a local path
/// reads a tar stream from standard input or writes one to standard output. Owners are kept.
#[derive(Debug, Args)]
pub struct Cp {
    /// Accepted: owners are always kept
    #[arg(short, long)]
    archive: bool,
    /// Accepted: cp prints nothing
    #[arg(short, long)]
    quiet: bool,
    /// Copy what a symbolic link points to instead of the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Let a directory replace a file, and a file a directory
    #[arg(long)]
    overwrite: bool,
    /// The source: CONTAINER:PATH, a local path, or -
    source: String,
    /// The destination: CONTAINER:PATH, a local path, or -
    destination: String,
}

/// One end of a copy.
enum End<'a> {
    Container(&'a str, &'a str),
    Machine(&'a str),
    Stream,
}

impl End<'_> {
    fn read(text: &str) -> End<'_> {
        match text.split_once(':') {
            _ if text == "-" => End::Stream,
            Some((name, path)) if !name.is_empty() && !name.starts_with(['/', '.']) => {
                End::Container(name, path)
            }
            _ => End::Machine(text),
        }
    }
}

/// The path, and whether it means only the content of the directory.
fn contents(path: &str) -> (PathBuf, bool) {
    match path.strip_suffix("/.") {
        Some(directory) => {
            (PathBuf::from(if directory.is_empty() { "/" } else { directory }), true)
        }
        None if path == "." => (PathBuf::from("."), true),
        None => (PathBuf::from(path), false),
    }
}

impl Runnable for Cp {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let (follow, replace) = (self.follow_link, self.overwrite);
        let within = || format!("copying {} to {}", self.source, self.destination);
        let copied = observed("cp", Progress::Quiet, |task| {
            match (End::read(&self.source), End::read(&self.destination)) {
                (End::Machine(from), End::Container(name, to)) => {
                    let (from, contents) = contents(from);
                    let from = environment::absolute(&from)?;
                    let container = require(app, name)?;
                    Ok(container.copy_in(
                        &from,
                        Path::new(to),
                        CopyOptions { contents, follow, replace },
                        task,
                    )?)
                }
                (End::Container(name, from), End::Machine(to)) => {
                    let (from, contents) = contents(from);
                    let to = environment::absolute(Path::new(to))?;
                    let options = CopyOptions { contents, follow, replace };
                    Ok(require(app, name)?.copy_out(&from, &to, options, task)?)
                }
                (End::Stream, End::Container(name, to)) => {
                    let container = require(app, name)?;
                    Ok(container.unpack(std::io::stdin(), Path::new(to), task)?)
                }
                (End::Container(name, from), End::Stream) => {
                    let mut out = out_of()?;
                    let (from, contents) = contents(from);
                    require(app, name)?.pack(&from, contents, follow, &mut out, task)?;
                    out.flush().map_err(|error| Failure::io("writing the archive", &error))
                }
                (End::Container(one, from), End::Container(other, to)) => {
                    let (from, contents) = contents(from);
                    let (one, other) = (require(app, one)?, require(app, other)?);
                    let options = CopyOptions { contents, follow, replace };
                    Ok(one.copy_across(&from, &other, Path::new(to), options, task)?)
                }
                _ => Err(Failure::usage("no end is in a container: expected CONTAINER:PATH")),
            }
        });
        copied.map_err(|failure| failure.context(within()))?;
        Ok(0)
    }
}

/// Standard output, which must not be a terminal.
///
/// # Errors
/// It is one.
pub(crate) fn out_of() -> Result<std::io::StdoutLock<'static>, Failure> {
    let out = std::io::stdout();
    match out.is_terminal() {
        true => Err(Failure::usage("an archive is not written to a terminal")
            .hint("redirect it: `> FILE.tar`")),
        false => Ok(out.lock()),
    }
}

/// Show which files of a container differ from its image
#[derive(Debug, Args)]
pub struct Diff {
    /// Print the changes as JSON: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// Show the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container
    container: Option<String>,
}

impl Runnable for Diff {
    /// Lists: A for added, C for changed, D for deleted.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = one(app, self.container.as_deref(), self.latest)?;
        let changes = observed("diff", Progress::Quiet, |task| Ok(container.changes(task)?))?;
        if self.format.is_some() {
            let of = |kind: ChangeKind| {
                let some = changes.iter().filter(|change| change.kind == kind);
                some.map(|change| change.path.display().to_string()).collect::<Vec<_>>()
            };
            let (added, changed) = (of(ChangeKind::Added), of(ChangeKind::Changed));
            let value = serde_json::json!({
                "added": added, "changed": changed, "deleted": of(ChangeKind::Deleted),
            });
            outln!("{value:#}");
            return Ok(0);
        }
        for change in changes {
            outln!("{} {}", change.kind.letter(), change.path.display());
        }
        Ok(0)
    }
}

/// Write the files of a container as a tar archive
#[derive(Debug, Args)]
pub struct Export {
    /// Write the archive to this file (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    container: String,
}

impl Runnable for Export {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = require(app, &self.container)?;
        observed("export", Progress::Quiet, |task| {
            let Some(path) = &self.output else {
                let mut out = out_of()?;
                container.export(&mut out, task)?;
                return out.flush().map_err(|error| Failure::io("writing the archive", &error));
            };
            let failed = |error| Failure::io(format!("writing {}", path.display()), &error);
            let mut out = std::io::BufWriter::new(File::create(path).map_err(failed)?);
            container.export(&mut out, task)?;
            out.flush().map_err(failed)
        })?;
        Ok(0)
    }
}
