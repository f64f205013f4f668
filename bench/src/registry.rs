//! Debian's `docker-registry` on a free loopback port over a directory, gone when dropped.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, Result, context};
use crate::pack::PackedImage;
use crate::relay::Relay;

/// A registry that serves a directory.
pub(crate) struct Registry {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Registry {
    /// Serves a directory, whatever is in it.
    pub(crate) fn start(directory: &Path) -> Result<Registry> {
        context("making the registry's directory", std::fs::create_dir_all(directory))?;
        let free = context("looking for a free port", TcpListener::bind("127.0.0.1:0"))?;
        let port = context("looking for a free port", free.local_addr())?.port();
        drop(free);
        let settings = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  \
             cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {}}}\n  \
             maintenance: {{uploadpurging: {{enabled: false}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            directory.display()
        );
        let file = directory.with_extension("yml");
        context("writing the registry's settings", std::fs::write(&file, settings))?;
        // It must not outlive this program, however this program ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = context("starting docker-registry", child)?;
        let registry = Registry { child, directory: directory.to_owned(), port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::new("docker-registry does not listen"))
    }

    /// An empty registry, whatever the directory held before.
    pub(crate) fn empty(directory: &Path) -> Result<Registry> {
        if directory.exists() {
            context("emptying the registry", std::fs::remove_dir_all(directory))?;
        }
        Registry::start(directory)
    }

    /// The name of an image here.
    pub(crate) fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}:latest", self.port)
    }

    /// The same registry, 20 ms away.
    pub(crate) fn far(&self) -> Result<Relay> {
        Relay::start(self.port)
    }

    /// Whether the image is here under its tag, with every blob at its full size.
    pub(crate) fn holds(&self, repository: &str, image: &PackedImage) -> Result<()> {
        let root = self.directory.join("docker/registry/v2");
        let link =
            root.join(format!("repositories/{repository}/_manifests/tags/latest/current/link"));
        let tagged = context("reading the registry's tag", std::fs::read_to_string(link))?;
        if tagged.trim() != format!("sha256:{}", image.manifest) {
            return Err(Failure::new(format!("the registry's tag is {tagged}")));
        }
        for (digest, size) in &image.blobs {
            let file = root.join(format!("blobs/sha256/{}/{digest}/data", &digest[..2]));
            crate::pack::expect_size(&file, *size)?;
        }
        Ok(())
    }

    /// How many tags a repository has.
    pub(crate) fn tags(&self, repository: &str) -> Result<usize> {
        let tags = format!("docker/registry/v2/repositories/{repository}/_manifests/tags");
        let listed = std::fs::read_dir(self.directory.join(tags));
        Ok(context("listing the registry's tags", listed)?.count())
    }

    /// Gives an image that is here many more tags, by writing them where the registry keeps them.
    pub(crate) fn tag_many(
        &self,
        repository: &str,
        image: &PackedImage,
        count: usize,
    ) -> Result<()> {
        let tags = self
            .directory
            .join(format!("docker/registry/v2/repositories/{repository}/_manifests/tags"));
        let link = format!("sha256:{}", image.manifest);
        for number in 1..count {
            let tag = tags.join(format!("t{number:05}"));
            let index = tag.join("index/sha256").join(&image.manifest);
            for place in [tag.join("current"), index] {
                if !place.exists() {
                    context("making a tag", std::fs::create_dir_all(&place))?;
                    context("writing a tag", std::fs::write(place.join("link"), &link))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
