//! Packs images into an OCI layout with `tar` and `gzip`, as any registry's content was made.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result, context};

/// An image in a layout: what must be at a place the image was copied to.
#[derive(Debug, Clone)]
pub(crate) struct PackedImage {
    /// Hex digest of the manifest.
    pub(crate) manifest: String,
    /// Hex digest and size in bytes of the config and of each layer.
    pub(crate) blobs: Vec<(String, u64)>,
}

/// Where a layer's tar comes from.
pub(crate) enum Content {
    /// A tar file as it is.
    Tar(PathBuf),
    /// Files below `/`, by paths relative to it.
    Files(Vec<PathBuf>),
}

/// An OCI layout that is being filled.
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn open(directory: &Path) -> Result<Layout> {
        let blobs = directory.join("blobs/sha256");
        context("making a layout", std::fs::create_dir_all(blobs))?;
        let marker = directory.join("oci-layout");
        context("making a layout", std::fs::write(marker, r#"{"imageLayoutVersion":"1.0.0"}"#))?;
        Ok(Layout(directory.to_owned()))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs/sha256").join(digest)
    }

    fn put(&self, bytes: &[u8]) -> Result<(String, u64)> {
        let digest = hex(Sha256::digest(bytes).as_slice());
        context("writing a document", std::fs::write(self.blob(&digest), bytes))?;
        Ok((digest, bytes.len() as u64))
    }

    /// An image that was packed before.
    pub(crate) fn find(&self, name: &str) -> Option<PackedImage> {
        let manifest = std::fs::read_to_string(self.0.join(format!("{name}.digest"))).ok()?;
        let bytes = std::fs::read(self.blob(&manifest)).ok()?;
        let document: Value = serde_json::from_slice(&bytes).ok()?;
        let mut blobs = vec![blob_of(&document["config"])?];
        for layer in document["layers"].as_array()? {
            blobs.push(blob_of(layer)?);
        }
        blobs.iter().all(|(digest, _)| self.blob(digest).exists()).then_some(())?;
        Some(PackedImage { manifest, blobs })
    }

    /// Packs an image of one layer per content, and makes it the only one in the index.
    pub(crate) fn pack(&self, name: &str, layers: &[Content]) -> Result<PackedImage> {
        let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
        for content in layers {
            let (diff_id, digest, size) = self.layer(content)?;
            diff_ids.push(format!("sha256:{diff_id}"));
            descriptors.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": format!("sha256:{digest}"), "size": size,
            }));
        }
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                       "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": name})).collect::<Vec<_>>(),
        });
        let (digest, size) = self.put(config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": format!("sha256:{digest}"), "size": size},
            "layers": descriptors,
        });
        let (digest, _) = self.put(manifest.to_string().as_bytes())?;
        let mark = self.0.join(format!("{name}.digest"));
        context("writing the image's digest", std::fs::write(mark, &digest))?;
        self.find(name).ok_or_else(|| Failure::new(format!("packing {name} left nothing")))
    }

    /// Names the only image of the index; copies from a layout read the index.
    pub(crate) fn select(&self, image: &PackedImage) -> Result<()> {
        let size = context(
            "finding the manifest",
            std::fs::metadata(self.blob(&image.manifest)).map(|data| data.len()),
        )?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", image.manifest), "size": size,
        }]});
        context("writing the index", std::fs::write(self.0.join("index.json"), index.to_string()))
    }

    /// Diff id, digest and size of a layer that is now in the layout.
    fn layer(&self, content: &Content) -> Result<(String, String, u64)> {
        let temporary = self.0.join("layer.new");
        let out = context("making a layer", File::create(&temporary))?;
        let mut gzip = Command::new("gzip");
        gzip.args(["-n", "-6"]).stdin(Stdio::piped()).stdout(out);
        let mut gzip = context("starting gzip", gzip.spawn())?;
        let mut to = gzip.stdin.take().ok_or_else(|| Failure::new("gzip has no input"))?;
        let diff_id = match content {
            Content::Tar(file) => {
                let mut from = context("opening a tar", File::open(file))?;
                hash(&mut from, &mut to)?
            }
            Content::Files(paths) => {
                let mut from = tar(paths, &self.0.join("layer.list"))?;
                hash(&mut from, &mut to)?
            }
        };
        drop(to);
        context("waiting for gzip", gzip.wait())?;
        let mut made = context("opening a layer", File::open(&temporary))?;
        let digest = hash(&mut made, &mut std::io::sink())?;
        let size = context("reading a layer", made.metadata())?.len();
        context("naming a layer", std::fs::rename(&temporary, self.blob(&digest)))?;
        Ok((diff_id, digest, size))
    }
}

/// Starts `tar` over files below `/`; its output is the same on every run.
fn tar(paths: &[PathBuf], list: &Path) -> Result<ChildStdout> {
    let lines: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    context("writing a list of files", std::fs::write(list, lines.join("\n") + "\n"))?;
    let mut tar = Command::new("tar");
    tar.args(["-C", "/", "--mtime=@1767225600", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--no-recursion", "--ignore-failed-read", "--hard-dereference", "-cf", "-", "-T"]);
    tar.arg(list).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = context("starting tar", tar.spawn())?;
    child.stdout.ok_or_else(|| Failure::new("tar has no output"))
}

fn hash(from: &mut dyn Read, to: &mut dyn Write) -> Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let count = context("reading", from.read(&mut buffer))?;
        if count == 0 {
            return Ok(hex(hasher.finalize().as_slice()));
        }
        hasher.update(&buffer[..count]);
        context("writing", to.write_all(&buffer[..count]))?;
    }
}

fn blob_of(descriptor: &Value) -> Option<(String, u64)> {
    let digest = descriptor["digest"].as_str()?.strip_prefix("sha256:")?;
    Some((digest.to_owned(), descriptor["size"].as_u64()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Checks that a file is there and as long as it must be.
pub(crate) fn expect_size(file: &Path, size: u64) -> Result<()> {
    let found = context(&format!("finding {}", file.display()), std::fs::metadata(file))?.len();
    match found == size {
        true => Ok(()),
        false => Err(Failure::new(format!("{} has {found} bytes, not {size}", file.display()))),
    }
}

/// Checks that a layout holds the image and every blob at its full size.
pub(crate) fn expect_layout(directory: &Path, image: &PackedImage) -> Result<()> {
    let index =
        context("reading the index", std::fs::read_to_string(directory.join("index.json")))?;
    if !index.contains(&image.manifest) {
        return Err(Failure::new("the layout's index does not name the image"));
    }
    let blobs = directory.join("blobs/sha256");
    image.blobs.iter().try_for_each(|(digest, size)| expect_size(&blobs.join(digest), *size))
}
