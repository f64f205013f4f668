//! Images to copy, made by hand.

use std::process::Command;

use ::image::{Descriptor, Document, Index, MediaType};

use crate::kill::Chance;
use crate::watch::guarded;
use crate::{Bench, Ran};

/// A bench with images to copy.
pub struct Scene {
    /// The directory and the store.
    pub bench: Bench,
}

impl Default for Scene {
    fn default() -> Self {
        Scene::new()
    }
}

impl Scene {
    /// A bench with a layout `image` of one image, and `index` of one for amd64, arm64 and riscv64.
    pub fn new() -> Scene {
        let scene = Scene { bench: Bench::new() };
        let layer = crate::image::Layer::new()
            .dir("etc", 0o755)
            .file("etc/noise", 0o644, &Chance::new(3).bytes(100_000))
            .symlink("link", "etc/noise")
            .finish();
        let small = crate::image::Layer::new().file("small", 0o600, b"small").finish();
        crate::image::layout(&scene.bench.path().join("image"), "app", &[layer, small], |config| {
            config.config.env = vec!["A=1".to_owned()];
            config.config.cmd = Some(vec!["/etc/noise".to_owned()]);
        });
        scene.index();
        scene
    }

    fn index(&self) {
        let directory = self.bench.path().join("index");
        let mut all = Vec::new();
        for architecture in ["amd64", "arm64", "riscv64"] {
            let layer =
                crate::image::Layer::new().file("a", 0o644, architecture.as_bytes()).finish();
            crate::image::layout(&directory, "x", &[layer], |config| {
                config.architecture = architecture.into();
            });
            let index = std::fs::read(directory.join("index.json")).expect("memory and files");
            let index: Index = serde_json::from_slice(&index).expect("memory and files");
            let mut one = index.manifests[0].clone();
            one.annotations.clear();
            one.platform = Some(format!("linux/{architecture}").parse().expect("memory and files"));
            all.push(one);
        }
        let inner = Document::write(MediaType::OCI_INDEX, Index::new(all));
        let mut root = Descriptor::of(MediaType::OCI_INDEX, inner.bytes());
        std::fs::write(directory.join("blobs/sha256").join(root.digest.hex()), inner.bytes())
            .expect("memory and files");
        root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), "app".to_owned());
        let outer = Document::write(MediaType::OCI_INDEX, Index::new(vec![root]));
        std::fs::write(directory.join("index.json"), outer.bytes()).expect("memory and files");
    }

    /// Runs `rcopy` in the directory.
    #[track_caller]
    pub fn rcopy(&self, arguments: &[&str]) -> Ran {
        let mut command = self.bench.command("rcopy");
        guarded(command.current_dir(self.bench.path()).args(arguments))
    }

    /// `rcopy copy`.
    #[track_caller]
    pub fn copy(&self, from: &str, to: &str) -> Ran {
        self.rcopy(&["copy", from, to])
    }

    /// `rcopy digest`.
    #[track_caller]
    pub fn digest(&self, place: &str) -> String {
        self.rcopy(&["digest", place]).ok().text().to_owned()
    }

    /// Runs Debian's skopeo in the directory.
    #[track_caller]
    pub fn skopeo(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("skopeo");
        command.current_dir(self.bench.path()).arg("--insecure-policy");
        let tmp = self.bench.path().display().to_string();
        guarded(command.arg("--tmpdir").arg(tmp).args(arguments))
    }
}
