//! Images in directories, as a mirror wrote them.

use std::path::{Path, PathBuf};

use image::Tag;

use super::Name;
use crate::{Error, Result};

/// Directories nested deeper hold no images.
const DEEPEST: usize = 32;

/// An image that a mirror wrote into a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredDirectory {
    /// The directory.
    pub path: PathBuf,
    /// The repository, as the path below the mirror says it.
    pub repository: String,
    /// What the image is called in it.
    pub name: Name,
}

/// The images in directories below `base`, in the order of their names; links are not followed. An
/// image is a directory with a `manifest.json`, called `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
///
/// # Errors
/// [`Error::File`] for a directory that cannot be read, [`Error::Content`] for a name that is none.
pub fn directories(base: &Path) -> Result<Vec<MirroredDirectory>> {
    let mut found = Vec::new();
    images_below(base, 0, &mut found)?;
    found.into_iter().map(|path| named(base, path)).collect()
}

fn named(base: &Path, path: PathBuf) -> Result<MirroredDirectory> {
    let inner = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
    let (repository, name) = match (inner.split_once('@'), inner.rsplit_once(':')) {
        (Some((repository, digest)), _) => (repository, Name::Digest(digest.parse()?)),
        (None, Some((repository, tag))) if !tag.contains('/') => {
            (repository, Name::Tag(tag.parse()?))
        }
        _ => (inner.as_str(), Name::Tag(Tag::latest())),
    };
    Ok(MirroredDirectory { repository: repository.to_owned(), name, path })
}

fn images_below(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let reading = || Error::file("reading", path);
    let mut inner = Vec::new();
    for entry in std::fs::read_dir(path).map_err(reading())? {
        let entry = entry.map_err(reading())?;
        let kind = entry.file_type().map_err(reading())?;
        if kind.is_dir() {
            inner.push(entry.path());
        } else if kind.is_file() && entry.file_name() == "manifest.json" {
            found.push(path.to_owned());
            return Ok(());
        }
    }
    if depth < DEEPEST {
        inner.sort();
        for path in inner {
            images_below(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_a_mirror_say_what_they_hold() {
        let home = tempfile::tempdir().unwrap();
        for name in ["team/app:1", "team/app:2/no", "plain", "empty"] {
            std::fs::create_dir_all(home.path().join(name)).unwrap();
        }
        for name in ["team/app:1", "plain"] {
            std::fs::write(home.path().join(name).join("manifest.json"), "{}").unwrap();
        }
        std::os::unix::fs::symlink("plain", home.path().join("link")).unwrap();
        let found = directories(home.path()).unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.repository.as_str(), &one.name)).collect();
        let tag = |text: &str| Name::Tag(text.parse().unwrap());
        assert_eq!(told, [("plain", &tag("latest")), ("team/app", &tag("1"))]);
        assert!(directories(&home.path().join("nowhere")).is_err());
    }
}
