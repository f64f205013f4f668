use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use image::{Descriptor, Digester, Document, Manifest, MediaType};

use crate::{Error, Overlay, Result, Source};

/// Names a file of an artifact (image-spec, annotations.md).
pub const TITLE: &str = "org.opencontainers.image.title";

/// An artifact made of files of this machine (image-spec, manifest.md, "Guidelines for Artifact
/// Usage").
#[derive(Debug, Clone, Default)]
pub struct ArtifactFiles {
    /// What it is; the media type of the config says it where this is `None`.
    pub artifact_type: Option<String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The config; the empty one where this is `None`.
    pub config: Option<(PathBuf, MediaType)>,
    /// The media type of the empty config, if it is not the usual one.
    pub empty_config: Option<MediaType>,
    /// Whether the layers go without the names of their files.
    pub untitled: bool,
    /// The layers, each titled with the name of its file.
    pub files: Vec<(PathBuf, MediaType)>,
}

impl ArtifactFiles {
    /// The artifact as a source on top of `below`, about `subject` if it is about anything. Each
    /// file is read once for its digest, and again when it is copied.
    ///
    /// # Errors
    /// [`Error::File`]: a file cannot be read, or is not a plain one.
    pub fn overlay<'a>(
        &self,
        below: &'a dyn Source,
        subject: Option<&Descriptor>,
    ) -> Result<Overlay<'a>> {
        let empty = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
        let mut made = Overlay::new(below, empty.clone());
        made.add_bytes(empty.digest, Bytes::from_static(b"{}"));
        let mut layers = Vec::with_capacity(self.files.len());
        for (path, kind) in &self.files {
            let (mut layer, file) = describe(path, kind)?;
            let title = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !self.untitled {
                layer.annotations.insert(TITLE.to_owned(), title);
            }
            made.add_file(layer.digest, Arc::new(file));
            layers.push(layer);
        }
        if layers.is_empty() {
            layers.push(empty.clone());
        }
        let config = match &self.config {
            None => match &self.empty_config {
                Some(kind) => Descriptor::of(kind.clone(), b"{}"),
                None => empty,
            },
            Some((path, kind)) => {
                let (config, file) = describe(path, kind)?;
                made.add_file(config.digest, Arc::new(file));
                config
            }
        };
        made.put(&self.manifest(config, layers, subject));
        Ok(made)
    }

    fn manifest(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
        subject: Option<&Descriptor>,
    ) -> Document<Manifest> {
        let mut manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers);
        manifest.artifact_type.clone_from(&self.artifact_type);
        manifest.annotations.clone_from(&self.annotations);
        manifest.subject = subject.map(Descriptor::bare);
        Document::write(MediaType::OCI_MANIFEST, manifest)
    }
}

/// The layers of an artifact that are files, with their names. The maker of the artifact chose
/// these: each is one component, and no two are the same.
///
/// # Errors
/// [`Error::FileName`], [`Error::SameName`].
pub fn titled(manifest: &Manifest) -> Result<Vec<(&Descriptor, &str)>> {
    let titles = manifest
        .layers
        .iter()
        .filter_map(|layer| Some((layer, layer.annotations.get(TITLE)?.as_str())));
    let files: Vec<_> = titles.collect();
    let mut names = std::collections::BTreeSet::new();
    for (_, title) in &files {
        if !is_plain(title) {
            return Err(Error::FileName { name: (*title).to_owned() });
        }
        if !names.insert(*title) {
            return Err(Error::SameName { name: (*title).to_owned() });
        }
    }
    Ok(files)
}

/// Whether a name is one component of a path that a file may have.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "." | "..")
        && name.len() <= 200
        && !name.contains(['/', '\0', '\\'])
        && !name.chars().any(char::is_control)
}

impl Overlay<'_> {
    /// Makes this manifest the root.
    fn put(&mut self, document: &Document<Manifest>) {
        self.add_bytes(document.digest(), document.bytes().clone());
        let mut root = document.descriptor().clone();
        root.artifact_type.clone_from(&document.artifact_type);
        root.annotations.clone_from(&document.annotations);
        self.set_root(root);
    }
}

/// A file and its descriptor.
fn describe(path: &Path, kind: &MediaType) -> Result<(Descriptor, File)> {
    let read = || -> std::io::Result<(Descriptor, File)> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a plain file"));
        }
        let (mut digester, mut size) = (Digester::default(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    digester.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
        file.rewind()?;
        Ok((Descriptor::new(kind.clone(), digester.finish(), size), file))
    };
    read().map_err(|source| Error::File { action: "reading", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_and_names_that_are_the_same_are_refused() {
        let named = |titles: &[&str]| {
            let layers = titles.iter().map(|title| {
                let mut layer = Descriptor::of(MediaType::OCI_EMPTY, title.as_bytes());
                layer.annotations.insert(TITLE.to_owned(), (*title).to_owned());
                layer
            });
            let config = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
            let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers.collect());
            titled(&manifest).map(|files| files.len())
        };
        assert_eq!(named(&["a.json", "b"]).unwrap(), 2);
        for name in ["", ".", "..", "../a", "/a", "a/b", "a\\b", "a\nb", &"a".repeat(201)] {
            assert!(matches!(named(&[name]), Err(Error::FileName { .. })), "{name:?}");
        }
        assert!(matches!(named(&["a", "a"]), Err(Error::SameName { .. })));
    }
}
