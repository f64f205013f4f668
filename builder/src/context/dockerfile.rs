//! Finding Dockerfiles and the ignore files that belong to them.

use std::fs::File;
use std::path::Path;

use layers::{FileType, Root};
use task::{Fault, Kind};

use crate::error::ErrorContext;
use crate::{Error, Result, SourceFile};

/// No Dockerfile and no ignore file larger than this is read.
pub(crate) const LIMIT: u64 = 4 << 20;

/// The ignore file of a context.
pub(crate) fn ignore_file(root: &Root) -> Result<Option<SourceFile>> {
    for name in [".containerignore", ".dockerignore"] {
        if let Some(file) = read_from(root, name)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// A text of a context; `None` if there is none of this name.
pub(crate) fn read_from(root: &Root, name: &str) -> Result<Option<SourceFile>> {
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
    find_in(&root, None, &context.display().to_string())
}

/// The Dockerfile of this name, or the one that is there, and the ignore file that belongs to it
/// alone. `place` is what messages call where it was looked for.
pub(crate) fn find_in(
    root: &Root,
    name: Option<&str>,
    place: &str,
) -> Result<(SourceFile, Option<SourceFile>)> {
    let usual = ["Containerfile", "Dockerfile", "dockerfile"];
    let names = name.as_ref().map_or(&usual[..], std::slice::from_ref);
    for name in names {
        // A directory may happen to be called so.
        let stat = root.metadata(Path::new(name)).ok().filter(|_| names.len() > 1);
        if stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            continue;
        }
        if let Some(file) = read_from(root, name)? {
            return Ok((file, ignore_of(root, name)?));
        }
    }
    Err(Error::Missing {
        path: name.unwrap_or("Dockerfile").to_owned(),
        place: place.to_owned(),
        ignored: None,
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
    let file = as_text(&text, path.display().to_string())?;
    let ignore = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) if path.is_file() => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            ignore_of(&Root::open(parent).during("reading the ignore file")?, name)?
        }
        _ => None,
    };
    Ok((file, ignore))
}

/// Bytes as a Dockerfile.
pub(crate) fn as_text(bytes: &[u8], name: String) -> Result<SourceFile> {
    if bytes.len() as u64 > LIMIT {
        return Err(Error::Exceeds { what: name, limit: "4 MiB" });
    }
    Ok(SourceFile { name, text: String::from_utf8_lossy(bytes).into_owned() })
}

fn ignore_of(root: &Root, name: &str) -> Result<Option<SourceFile>> {
    for suffix in ["containerignore", "dockerignore"] {
        if let Some(file) = read_from(root, &format!("{name}.{suffix}"))? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
