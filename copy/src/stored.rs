//! What images are called where they go.

use std::path::{Path, PathBuf};

use image::{Digest, Reference};

use crate::{Error, ImageSelector, Location, Result};

impl Location {
    /// The full name an image gets in a store when it comes from there. A registry's image keeps
    /// its name, by its tag where it has one; a file without a name gives `localhost/STEM:latest`.
    ///
    /// # Errors
    /// [`Error::Location`] where a file's name cannot name an image, [`Error::Content`] for a name
    /// that is none.
    pub fn store_name(&self) -> Result<String> {
        let whole = |name: &str, registry: &str| -> Result<String> {
            Ok(Reference::parse_with(name, registry)?.or_latest().to_string())
        };
        match self {
            Location::Registry(reference) => {
                let mut name = reference.clone();
                if name.tag.is_some() {
                    name.digest = None;
                }
                Ok(name.or_latest().to_string())
            }
            Location::Store(name) => Ok(name.clone()),
            Location::Layout(_, ImageSelector::Name(name))
            | Location::OciArchive(_, ImageSelector::Name(name))
            | Location::DockerArchive(_, ImageSelector::Name(name)) => whole(name, "localhost"),
            Location::Layout(path, _)
            | Location::OciArchive(path, _)
            | Location::DockerArchive(path, _)
            | Location::Directory(path) => file_name(path),
            // `app.tar.gz` is app.
            Location::Tarball(paths) => {
                let path = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
                let stem = path.file_stem().map(Path::new).unwrap_or(path);
                file_name(if stem.extension().is_some_and(|end| end == "tar") {
                    stem
                } else {
                    path
                })
            }
            Location::Daemon(name) | Location::Containers(_, name) => whole(name, "docker.io"),
        }
    }

    /// The same place for content that is named by its digest alone; `None` for a place that holds
    /// one image, or that does not name images so.
    pub fn pinned(&self, digest: Digest) -> Option<Location> {
        match self {
            Location::Registry(reference) => {
                Some(Location::Registry(reference.repository.pinned(digest)))
            }
            Location::Layout(path, _) => {
                Some(Location::Layout(path.clone(), ImageSelector::Digest(digest)))
            }
            _ => None,
        }
    }
}

/// `localhost/STEM:latest` of a file or directory.
fn file_name(path: &Path) -> Result<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let reference = Reference::parse_with(&stem, "localhost").map_err(|_| Error::Location {
        text: path.display().to_string(),
        reason: "the file name is no name for an image".to_owned(),
        hint: Some("name the image in the location: oci:PATH:NAME".to_owned()),
    })?;
    Ok(reference.or_latest().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_keep_their_names_in_a_store_and_files_give_theirs() {
        let pin = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (location, name) in [
            ("docker://r.example/app", "r.example/app:latest".to_owned()),
            (&format!("docker://r.example/app@{pin}"), format!("r.example/app@{pin}")),
            (&format!("docker://r.example/app:1@{pin}"), "r.example/app:1".to_owned()),
            ("oci:/x/Base.v1", "localhost/base:latest".to_owned()),
            ("oci:/x/base:app:2", "localhost/app:2".to_owned()),
            ("dir:/x/app", "localhost/app:latest".to_owned()),
            ("tarball:/x/app.tar.gz:/x/b", "localhost/app:latest".to_owned()),
            ("docker-daemon:app:1", "docker.io/library/app:1".to_owned()),
        ] {
            assert_eq!(location.parse::<Location>().unwrap().store_name().unwrap(), name);
        }
        assert!("dir:/x/---".parse::<Location>().unwrap().store_name().is_err());
    }

    #[test]
    fn places_of_many_images_name_one_by_its_digest() {
        let digest = Digest::of(b"x");
        let pinned = |text: &str| text.parse::<Location>().unwrap().pinned(digest);
        assert_eq!(pinned("oci:/x:app").unwrap().to_string(), format!("oci:/x@{digest}"));
        assert_eq!(
            pinned("docker://r.example/app:1").unwrap().to_string(),
            format!("docker://r.example/app@{digest}")
        );
        assert!(pinned("dir:/x").is_none() && pinned("store:app").is_none());
    }
}
