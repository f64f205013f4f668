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
            layer.annotations.insert(TITLE.to_owned(), title);
            made.add_file(layer.digest, Arc::new(file));
            layers.push(layer);
        }
        if layers.is_empty() {
            layers.push(empty.clone());
        }
        let config = match &self.config {
            None => empty,
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
