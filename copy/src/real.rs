//! The real name of a path: what a policy compares and what is opened.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::{Location, StorageAt};

/// A path without links, `.`, `..` and doubled slashes. What does not exist yet is named by the
/// directory above it that does.
///
/// Who replaces a part of the result later may write to a directory of that name, and so to
/// everything the policy allows for that directory.
pub fn real_path(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut rest = path;
    loop {
        if let Ok(real) = fs::canonicalize(rest) {
            return missing.into_iter().rev().fold(real, step);
        }
        let (Some(parent), Some(last)) = (rest.parent(), rest.components().next_back()) else {
            return missing.into_iter().rev().fold(PathBuf::from("/"), step);
        };
        missing.push(last);
        rest = parent;
    }
}

fn step(mut path: PathBuf, component: Component<'_>) -> PathBuf {
    match component {
        Component::Normal(name) => path.push(name),
        Component::ParentDir => {
            path.pop();
        }
        Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
    }
    path
}

impl Location {
    /// The same place by its real path: what is to be opened, and what a policy decides by.
    #[must_use]
    pub fn real(&self) -> Location {
        match self.clone() {
            Location::Layout(path, named) => Location::Layout(real_path(&path), named),
            Location::OciArchive(path, named) => Location::OciArchive(real_path(&path), named),
            Location::DockerArchive(path, named) => {
                Location::DockerArchive(real_path(&path), named)
            }
            Location::Directory(path) => Location::Directory(real_path(&path)),
            // Standard input has no other name.
            Location::Tarball(paths) => {
                let stays = |path: &PathBuf| path == Path::new("/dev/stdin");
                let real = |path: PathBuf| if stays(&path) { path } else { real_path(&path) };
                Location::Tarball(paths.into_iter().map(real).collect())
            }
            Location::Containers(Some(at), name) => {
                let graph_root = real_path(&at.graph_root);
                Location::Containers(Some(StorageAt { graph_root, ..at }), name)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_a_place_has_one_name() {
        let here = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(here.path()).unwrap();
        fs::create_dir_all(base.join("trusted")).unwrap();
        fs::create_dir_all(base.join("bad/image")).unwrap();
        std::os::unix::fs::symlink("../bad/image", base.join("trusted/link")).unwrap();
        std::os::unix::fs::symlink(&base, base.join("bad/up")).unwrap();
        for way in [
            "bad/image",
            "bad//image",
            "bad/./image/",
            "trusted/../bad/image",
            "trusted/link",
            "bad/up/trusted/link/.",
            "bad/up/bad/up/bad/image",
        ] {
            assert_eq!(real_path(&base.join(way)), base.join("bad/image"), "{way}");
        }
        // What is not there yet: the existing part counts, the rest cannot climb out of it unseen.
        assert_eq!(real_path(&base.join("trusted/link/new")), base.join("bad/image/new"));
        assert_eq!(real_path(&base.join("trusted/new/../../bad/x")), base.join("bad/x"));
        assert_eq!(real_path(Path::new("/no-such/../x")), Path::new("/x"));
        let of_process = format!("/proc/self/cwd/{}", "../".repeat(40));
        assert_eq!(real_path(Path::new(&of_process)), Path::new("/"));
    }
}
