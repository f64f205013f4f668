//! Images made by hand, without the code under test where that matters.

use std::path::{Path, PathBuf};

use ::image::{
    Config, Descriptor, Document, History, Index, Manifest, MediaType, Platform, RootFs,
};

/// An uncompressed tar of one layer in the making.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Layer::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Adds a directory.
    pub fn dir(mut self, path: &str, mode: u32) -> Layer {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, std::io::empty()).expect("memory");
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Layer {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len() as u64);
        self.0.append_data(&mut header, path, content).expect("memory");
        self
    }

    /// Adds a file with an owner.
    pub fn owned(mut self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Layer {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len() as u64);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        self.0.append_data(&mut header, path, content).expect("memory");
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, path: &str, target: &str) -> Layer {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).expect("memory");
        self
    }

    /// Adds an entry whose name and link name are written as they are, however hostile.
    pub fn raw(mut self, kind: tar::EntryType, name: &str, link: &str, content: &[u8]) -> Layer {
        let mut header = Self::header(kind, 0o644, content.len() as u64);
        let fields = header.as_gnu_mut().expect("a GNU header");
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("memory");
        self
    }

    /// The tar.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}

/// Writes an image of plain tar layers as an OCI layout under a name, and gives back the layout.
pub fn layout(
    directory: &Path,
    name: &str,
    layers: &[Vec<u8>],
    edit: impl FnOnce(&mut Config),
) -> PathBuf {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    let put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(descriptor.digest.hex()), bytes).expect("a blob");
        descriptor
    };
    let layers: Vec<Descriptor> =
        layers.iter().map(|layer| put(MediaType::OCI_LAYER, layer)).collect();
    let platform = Platform::host();
    let mut config = Config {
        created: Some("2024-01-01T00:00:00Z".to_owned()),
        architecture: platform.architecture,
        os: platform.os,
        rootfs: RootFs {
            diff_ids: layers.iter().map(|layer| layer.digest).collect(),
            ..RootFs::default()
        },
        history: layers.iter().map(|_| History::default()).collect(),
        ..Config::default()
    };
    edit(&mut config);
    let config = Document::write(MediaType::OCI_CONFIG, config);
    let config = put(MediaType::OCI_CONFIG, config.bytes());
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    let mut root = put(MediaType::OCI_MANIFEST, manifest.bytes());
    root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
    let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![root]));
    std::fs::write(directory.join("index.json"), index.bytes()).expect("an index");
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("a file");
    directory.to_owned()
}

/// A root file system of busybox with the users root, daemon and user (1000).
pub fn busybox_layer() -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::new();
    for directory in ["bin", "etc", "home", "home/user", "proc", "sys", "dev", "root", "usr", "var"]
    {
        layer = layer.dir(directory, 0o755);
    }
    layer = layer.dir("tmp", 0o1777).file("bin/busybox", 0o755, &program);
    let applets = "sh ls cat echo true false id env sleep stat mkdir rm ln chmod chown touch cp mv grep sed head tail \
        wc sort test printf hostname mount umount df ps kill seq dd sha256sum find readlink pwd whoami uname tr \
        cut tee yes nproc ulimit tty stty date wget nc ip mknod base64 awk xargs basename dirname od";
    for applet in applets.split_whitespace() {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home/user:/bin/sh\n";
    let group = "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nextra:x:2000:user\n";
    layer
        .file("etc/passwd", 0o644, passwd.as_bytes())
        .file("etc/group", 0o644, group.as_bytes())
        .finish()
}

/// A layout that holds `busybox`, an image of one layer.
pub fn busybox(directory: &Path) -> PathBuf {
    layout(directory, "busybox", &[busybox_layer()], |config| {
        config.config.cmd = Some(vec!["sh".to_owned()]);
        config.config.env =
            vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    })
}
