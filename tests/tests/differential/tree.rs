//! A directory tree as lines one can compare.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

/// Mount points and files that a runtime leaves, and that are not of the image; and the root, whose
/// mode no layer states.
const TRACES: &[&str] = &[
    "/",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/run",
    "/run/.containerenv",
    "/run/secrets",
];

/// Every path with its kind, mode, owner, content or target, hard link, attributes and, for what
/// is older than the test, time.
pub(crate) fn scan(root: &Path, start: SystemTime) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links: HashMap<(u64, u64), Vec<String>> = HashMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.expect("a readable tree");
        let path = entry.path().strip_prefix(root).expect("below the root");
        let name = format!("/{}", path.as_os_str().as_encoded_bytes().escape_ascii());
        if TRACES.contains(&name.as_str()) {
            continue;
        }
        let stat = entry.metadata().expect("metadata");
        let kind = stat.file_type();
        let mode = stat.mode() & 0o7777;
        let mut line = match () {
            () if kind.is_dir() => "dir".to_owned(),
            () if kind.is_symlink() => "link".to_owned(),
            () if kind.is_fifo() => "fifo".to_owned(),
            () if kind.is_file() => "file".to_owned(),
            () => format!("device {}", stat.rdev()),
        };
        line += &format!(" {mode:04o} {}:{}", stat.uid(), stat.gid());
        if kind.is_symlink() {
            line += &format!(" {:?}", std::fs::read_link(entry.path()).expect("a link"));
        }
        if kind.is_file() {
            let bytes = std::fs::read(entry.path()).expect("a file");
            let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= 200);
            line += &text.map_or_else(|| sum(entry.path()), |text| format!(" {text:?}"));
        }
        if stat.nlink() > 1 && !kind.is_dir() {
            links.entry((stat.dev(), stat.ino())).or_default().push(name.clone());
        }
        line += &attributes(entry.path());
        let old = stat.modified().expect("a time") < start;
        if old && !kind.is_dir() {
            line += &format!(" @{}", stat.mtime());
        }
        found.insert(name, line);
    }
    // A count of links may speak of what another layer holds: only what is seen here counts.
    for names in links.values().filter(|names| names.len() > 1) {
        for name in names {
            found.entry(name.clone()).and_modify(|line| *line += &format!(" ={}", names[0]));
        }
    }
    found
}

fn sum(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("a file");
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    format!(" {} bytes {:x}", bytes.len(), hasher.finish())
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut told = String::new();
    let mut list: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).collect();
    list.sort_unstable();
    for name in list {
        let text = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || text.starts_with("trusted.") || text == "security.selinux" {
            continue;
        }
        let mut value = vec![0u8; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        told += &format!(" {text}={}", value[..length].escape_ascii());
    }
    told
}
