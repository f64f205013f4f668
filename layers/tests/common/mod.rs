//! What the tests share: trees described as text, and archives made by hand.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use layers::Root;

/// Everything a layer records about a tree: a line for each path.
pub type Tree = BTreeMap<PathBuf, String>;

/// Describes a tree. The first name of a file with several names describes it.
pub fn tree(dir: &Path) -> Tree {
    let (mut tree, mut links) = (Tree::new(), HashMap::new());
    walk(dir, Path::new(""), &mut tree, &mut links);
    tree
}

fn walk(dir: &Path, at: &Path, tree: &mut Tree, links: &mut HashMap<u64, PathBuf>) {
    let path = dir.join(at);
    let meta = fs::symlink_metadata(&path).unwrap();
    let kind = meta.file_type();
    let mut line = format!(
        "{:o} {}:{} {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if kind.is_symlink() {
        line += &format!(" -> {}", fs::read_link(&path).unwrap().display());
    } else if kind.is_file() {
        line += &format!(" {}", image::Digest::of(&fs::read(&path).unwrap()).short());
    } else if kind.is_char_device() || kind.is_block_device() {
        line += &format!(" device {}", meta.rdev());
    }
    for (name, value) in xattrs(&path) {
        line += &format!(" {name}={value:?}");
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = links.entry(meta.ino()).or_insert_with(|| at.to_owned());
        line += &format!(" = {}", first.display());
    }
    tree.insert(at.to_owned(), line);
    if kind.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(dir, &at.join(name), tree, links);
        }
    }
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 65536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut list[..]) else { return Vec::new() };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut xattrs = Vec::new();
    for name in names {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        let name = String::from_utf8_lossy(name).into_owned();
        if !name.contains(".overlay.") && name != "security.selinux" {
            xattrs.push((name, value[..length].to_vec()));
        }
    }
    xattrs.sort();
    xattrs
}

/// Where a root can be reached by ordinary paths.
pub fn path(root: &Root) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()))
}

pub fn is_root() -> bool {
    requires::root()
}

/// An archive made by hand.
#[derive(Debug, Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// One header; every field can be wrong.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub flag: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// What the header says; the contents' length if not given.
    pub size: Option<Vec<u8>>,
    pub mtime: u64,
    pub device: (u32, u32),
    pub magic: [u8; 8],
    pub contents: Vec<u8>,
    /// Bytes put into the header last, before the checksum.
    pub patches: Vec<(usize, Vec<u8>)>,
}

pub fn entry(flag: u8, name: impl AsRef<[u8]>) -> Entry {
    Entry {
        name: name.as_ref().to_vec(),
        flag,
        link: Vec::new(),
        mode: if flag == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size: None,
        mtime: 1000,
        device: (0, 0),
        magic: *b"ustar\x0000",
        contents: Vec::new(),
        patches: Vec::new(),
    }
}

pub fn file(name: impl AsRef<[u8]>, contents: &str) -> Entry {
    Entry { contents: contents.into(), ..entry(b'0', name) }
}

pub fn dir(name: impl AsRef<[u8]>) -> Entry {
    entry(b'5', name)
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'2', name) }
}

pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'1', name) }
}

pub fn device(flag: u8, name: impl AsRef<[u8]>, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..entry(flag, name) }
}

/// A PAX header with these records.
pub fn pax(records: &[(&str, &[u8])]) -> Entry {
    let mut contents = Vec::new();
    for (key, value) in records {
        contents.extend_from_slice(&record(key, value));
    }
    Entry { contents, ..entry(b'x', "PaxHeaders/x") }
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (1..).map(|n| body + n).find(|n| n.to_string().len() + body == *n).unwrap();
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

impl Entry {
    pub fn bytes(&self) -> Vec<u8> {
        let mut block = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| {
            let end = (at + bytes.len()).min(512);
            block[at..end].copy_from_slice(&bytes[..end - at]);
        };
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.gid).as_bytes());
        let size = format!("{:011o}", self.contents.len()).into_bytes();
        put(124, self.size.as_ref().unwrap_or(&size));
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, &self.magic);
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        for (at, bytes) in &self.patches {
            put(*at, bytes);
        }
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(&self.contents);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Entry {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }
}

impl Tar {
    pub fn of(entries: &[Entry]) -> Tar {
        Tar(entries.iter().map(Entry::bytes).collect::<Vec<_>>().concat())
    }

    /// With the two blocks of zeros at the end.
    pub fn ended(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
