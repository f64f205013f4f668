//! The files of images, through the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use image::Descriptor;
use layers::{LayerTable, TablePlace};
use lazy::{Fetch, LazyImage, LazyMount};
use task::Task;

/// A place that holds layers, and counts the bytes that it gave.
struct Place {
    layers: Vec<(Descriptor, Vec<u8>)>,
    given: AtomicU64,
}

impl Fetch for Place {
    fn fetch(&self, layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>> {
        self.given.fetch_add(part.end - part.start, Ordering::Relaxed);
        let (_, bytes) = self.layers.iter().find(|(one, _)| one.digest == layer.digest).unwrap();
        Ok(Box::new(&bytes[part.start as usize..part.end as usize]))
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(next).collect()
}

struct Given<'a> {
    path: &'a str,
    kind: tar::EntryType,
    mode: u32,
    content: &'a [u8],
    link: &'a str,
}

fn file<'a>(path: &'a str, content: &'a [u8]) -> Given<'a> {
    Given { path, kind: tar::EntryType::Regular, mode: 0o640, content, link: "" }
}

fn layer(files: &[Given<'_>]) -> (Descriptor, Vec<u8>) {
    let mut archive = tar::Builder::new(Vec::new());
    for given in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(given.kind);
        header.set_mode(given.mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(given.content.len() as u64);
        match given.link {
            "" => archive.append_data(&mut header, given.path, given.content).unwrap(),
            link => archive.append_link(&mut header, given.path, link).unwrap(),
        }
    }
    let archive = archive.into_inner().unwrap();
    let (bytes, info) = layers::write_chunked(&archive[..], Vec::new(), None).unwrap();
    (info.descriptor, bytes)
}

fn table(descriptor: &Descriptor, bytes: &[u8]) -> LayerTable {
    let place = TablePlace::of(descriptor).unwrap();
    let packed = place.packed();
    place.read(&bytes[packed.start as usize..packed.end as usize]).unwrap()
}

struct Shown {
    image: Arc<LazyImage>,
    mounted: LazyMount,
    place: Arc<Place>,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// The image of these layers, mounted; `None` where this machine cannot.
fn shown(layers: Vec<(Descriptor, Vec<u8>)>) -> Option<Shown> {
    if !requires::root() {
        return None;
    }
    let tables = layers.iter().map(|(one, bytes)| (one.clone(), table(one, bytes))).collect();
    let place = Arc::new(Place { layers, given: AtomicU64::new(0) });
    let fetch = Arc::clone(&place) as Arc<dyn Fetch>;
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&complaints);
    let complain = Box::new(move |reason| told.lock().unwrap().push(reason));
    let image = LazyImage::new(tables, &fetch, &std::env::temp_dir(), complain).unwrap();
    let image = Arc::new(image);
    let mounted = match image.mount() {
        Ok(mounted) => mounted,
        Err(lazy::Error::Mount { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound
                || source.raw_os_error() == Some(libc::ENODEV) =>
        {
            requires::cannot("the kernel has no FUSE");
            return None;
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    Some(Shown { image, mounted, place, complaints })
}

fn names(path: &Path) -> Vec<String> {
    let all = std::fs::read_dir(path).unwrap();
    let mut all: Vec<_> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn files_are_fetched_when_they_are_read() {
    let (large, small, unread) = (noise(1, 6 << 20), noise(2, 3000), noise(5, 3 << 20));
    let lower = layer(&[
        file("large", &large),
        file("d/small", &small),
        file("unread", &unread),
        file("d/gone", b"gone"),
        Given { path: "bin", kind: tar::EntryType::Symlink, mode: 0o777, content: b"", link: "d" },
    ]);
    let upper = layer(&[
        file("d/.wh.gone", b""),
        Given {
            path: "d/e",
            kind: tar::EntryType::Directory,
            mode: 0o1775,
            content: b"",
            link: "",
        },
        Given { mode: 0o4755, ..file("d/e/setuid", b"program") },
        Given {
            path: "same",
            kind: tar::EntryType::Link,
            mode: 0,
            content: b"",
            link: "d/e/setuid",
        },
    ]);
    let Some(shown) = shown(vec![lower, upper]) else { return };
    let root = shown.mounted.path();
    assert_eq!(names(&root), ["bin", "d", "large", "same", "unread"]);
    assert_eq!(names(&root.join("d")), ["e", "small"]);
    assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("d"));
    assert!(!root.join("d/gone").exists() && !root.join("d/none").exists());
    let about = std::fs::metadata(root.join("same")).unwrap();
    assert_eq!((about.uid(), about.gid(), about.nlink()), (7, 8, 2));
    assert_eq!((about.mode() & 0o7777, about.mtime()), (0o4755, 1_000_000_000));
    let directory = std::fs::metadata(root.join("d/e")).unwrap();
    assert_eq!(directory.permissions().mode() & 0o7777, 0o1775);
    // Nothing was fetched so far.
    assert_eq!(shown.place.given.load(Ordering::Relaxed), 0);
    assert_eq!(std::fs::read(root.join("bin/small")).unwrap(), small);
    assert_eq!(std::fs::read(root.join("same")).unwrap(), b"program");
    let few = shown.place.given.load(Ordering::Relaxed);
    assert!(few < 2 << 20, "{few} bytes were fetched for two small files");
    // A piece of a large file, from several threads at once.
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (path, large) = (root.join("large"), &large);
            scope.spawn(move || {
                let at = number * 1_500_000 + 7;
                let mut piece = vec![0; 300_000];
                let file = std::fs::File::open(path).unwrap();
                file.read_exact_at(&mut piece, at as u64).unwrap();
                assert!(piece == large[at..at + piece.len()]);
            });
        }
    });
    assert_eq!(std::fs::read(root.join("large")).unwrap(), large);
    assert!(std::fs::write(root.join("new"), "x").is_err());
    assert!(!shown.image.is_whole());
    shown.image.fill(&Task::silent()).unwrap();
    let given = shown.place.given.load(Ordering::Relaxed);
    let stored: u64 = shown.place.layers.iter().map(|(one, _)| one.size).sum();
    assert_eq!(given, stored, "every byte was fetched once");
    for (descriptor, bytes) in &shown.place.layers {
        let mut whole = Vec::new();
        let file = shown.image.layer(&descriptor.digest).unwrap();
        file.unwrap().read_to_end(&mut whole).unwrap();
        assert!(whole == *bytes);
    }
    assert!(shown.complaints.lock().unwrap().is_empty());
}

#[test]
fn content_that_the_table_does_not_promise_is_not_shown() {
    let (descriptor, mut bytes) = layer(&[file("good", b"good"), file("bad", &noise(3, 5000))]);
    let other = layer(&[file("good", b"good"), file("bad", &noise(4, 5000))]).1;
    let table = table(&descriptor, &bytes);
    let entry = table.entries.iter().find(|one| one.entry.path == b"bad").unwrap();
    let range = entry.parts[0].range.start as usize..entry.parts[0].range.end as usize;
    bytes[range.clone()].copy_from_slice(&other[range]);
    let Some(shown) = shown(vec![(descriptor, bytes)]) else { return };
    let root = shown.mounted.path();
    assert_eq!(std::fs::read(root.join("good")).unwrap(), b"good");
    let refused = std::fs::read(root.join("bad")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    let complaints = shown.complaints.lock().unwrap().join("\n");
    assert!(complaints.contains("digest"), "{complaints}");
}
