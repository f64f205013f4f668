//! Trees become archives and trees again, and other programs read the archives the same way.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "helpers of tests may panic, say what was skipped, and tables are long"
)]

mod common;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{entry, file, is_root, pax, symlink as link, tree};
use image::Encoding;
use layers::copy::{CopyOptions, Keep, copy};
use layers::{
    ApplyOptions, Compression, DiffOptions, LayerWriter, Root, Whiteouts, apply, archive,
    decompress,
};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat};
use task::Task;
use tempfile::TempDir;

/// One file of a random tree.
#[derive(Debug, Clone)]
enum Node {
    Dir,
    File(usize),
    Link(String),
    Hard,
    Pipe,
    Device(u32, u32),
}

#[derive(Debug, Clone)]
struct Random {
    path: Vec<Vec<u8>>,
    node: Node,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattr: Option<Vec<u8>>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        4 => "[a-c]",
        2 => "[a-z ._-]{1,120}",
        1 => "[äöü☃]{1,40}",
        1 => "\\.wh\\.?[a-c]?",
    ];
    let bytes = prop::collection::vec(1u8..=255, 1..20);
    prop_oneof![9 => text.prop_map(String::into_bytes), 1 => bytes].prop_map(|mut name| {
        name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." { b"dots".to_vec() } else { name }
    })
}

fn random() -> impl Strategy<Value = Random> {
    let node = prop_oneof![
        3 => Just(Node::Dir),
        6 => prop_oneof![0usize..2000, Just(0), Just(512), Just(70_000)].prop_map(Node::File),
        2 => "[a-z/.]{1,150}".prop_map(Node::Link),
        2 => Just(Node::Hard),
        1 => Just(Node::Pipe),
        1 => (1u32..300, 0u32..70_000).prop_map(|(major, minor)| Node::Device(major, minor)),
    ];
    let id = prop_oneof![Just(0u32), 0u32..70_000, Just(3_000_000), Just(4_000_000_000)];
    let time = prop_oneof![Just(0i64), -5_000i64..5_000, 1_000_000_000i64..20_000_000_000];
    let nanos = prop_oneof![Just(0i64), Just(500_000_000), 0i64..1_000_000_000];
    (
        prop::collection::vec(name(), 1..4),
        node,
        0u32..0o10000,
        (id.clone(), id),
        (time, nanos),
        prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..300)),
    )
        .prop_map(|(path, node, mode, owner, mtime, xattr)| Random {
            path,
            node,
            mode,
            owner,
            mtime,
            xattr,
        })
}

/// Makes the files of a random tree; times and modes last.
fn plant(dir: &Path, nodes: &[Random]) {
    let mut made: Vec<(PathBuf, &Random)> = Vec::new();
    for node in nodes {
        let parts = node.path.iter().map(|part| OsString::from_vec(part.clone()));
        let path = dir.join(parts.collect::<PathBuf>());
        if fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        let done = match &node.node {
            Node::Dir => fs::create_dir(&path),
            Node::File(length) => {
                fs::File::create_new(&path).and_then(|mut file| file.write_all(&vec![7; *length]))
            }
            Node::Link(target) => symlink(target, &path),
            Node::Hard => {
                let first = made.iter().find(|(_, node)| !matches!(node.node, Node::Dir));
                first.map_or(Ok(()), |(first, _)| fs::hard_link(first, &path))
            }
            Node::Pipe => mknodat(CWD, &path, FileType::Fifo, Mode::empty(), 0).map_err(Into::into),
            Node::Device(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                let kind = FileType::BlockDevice;
                mknodat(CWD, &path, kind, Mode::empty(), device).map_err(Into::into)
            }
        };
        if done.is_ok() && fs::symlink_metadata(&path).is_ok() {
            made.push((path, node));
        }
    }
    for (path, node) in made.iter().rev() {
        std::os::unix::fs::lchown(path, Some(node.owner.0), Some(node.owner.1)).unwrap();
        let kind = fs::symlink_metadata(path).unwrap().file_type();
        if !kind.is_symlink() {
            fs::set_permissions(path, Permissions::from_mode(node.mode)).unwrap();
        }
        if let Some(value) = node.xattr.as_ref().filter(|_| kind.is_dir() || kind.is_file()) {
            rustix::fs::lsetxattr(path, "user.random", value, XattrFlags::empty()).unwrap();
        }
        let time = Timespec { tv_sec: node.mtime.0, tv_nsec: node.mtime.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn options() -> DiffOptions {
    DiffOptions { root_entry: true, ..DiffOptions::default() }
}

fn pack(dir: &Path) -> Vec<u8> {
    let (root, mut tar) = (Root::open(dir).unwrap(), Vec::new());
    archive(&root, Path::new(""), &mut tar, &options(), &Task::silent()).unwrap();
    tar
}

fn unpack(tar: &[u8], whiteouts: Whiteouts) -> TempDir {
    let temp = TempDir::new().unwrap();
    let options = ApplyOptions { whiteouts, ..ApplyOptions::default() };
    let root = Root::open(temp.path()).unwrap();
    let applied = apply(tar, &root, &options).unwrap();
    assert_eq!(applied.diff_id, image::Digest::of(tar));
    assert_eq!((applied.uncompressed, applied.skipped), (tar.len() as u64, Vec::new()));
    temp
}

/// Takes what is written, and removes files as soon as something is.
struct Removing<'a>(&'a Path);

impl std::io::Write for Removing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for name in ["b", "c", "d"] {
            let path = self.0.join(name);
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_vanishes_from_a_living_tree_is_left_out() {
    for live in [true, false] {
        let temp = TempDir::new().unwrap();
        fs::write(temp.path().join("a"), vec![7; 4 << 20]).unwrap();
        fs::write(temp.path().join("b"), "b").unwrap();
        fs::create_dir(temp.path().join("c")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("d")).unwrap();
        let root = Root::open(temp.path()).unwrap();
        let options = DiffOptions { live, ..DiffOptions::default() };
        let mut out = Removing(temp.path());
        let made = archive(&root, Path::new(""), &mut out, &options, &Task::silent());
        match live {
            true => assert_eq!(made.unwrap().entries, 1),
            false => assert!(made.unwrap_err().to_string().contains("reading b")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_trees_come_back(nodes in prop::collection::vec(random(), 0..30)) {
        if rustix::process::geteuid().is_root() {
            let temp = TempDir::new().unwrap();
            plant(temp.path(), &nodes);
            let tar = pack(temp.path());
            let back = unpack(&tar, Whiteouts::Literal);
            let (mut wanted, mut found) = (tree(temp.path()), tree(back.path()));
            // Unpacked literally, the root keeps its own attributes.
            wanted.remove(Path::new(""));
            found.remove(Path::new(""));
            prop_assert_eq!(&wanted, &found);
            rustix::fs::chmod(back.path(), Mode::from_raw_mode(0o700)).unwrap();
            // Without the entry of the root, which comes first.
            let again = pack(back.path());
            prop_assert!(without_root(&tar) == without_root(&again));

            let (from, here, task) =
                (Root::open(temp.path()).unwrap(), Path::new(""), Task::silent());
            let mut counts = Vec::new();
            for threads in [1, 3] {
                let copied = TempDir::new().unwrap();
                let to = Root::open(copied.path()).unwrap();
                let options = CopyOptions { threads, ..CopyOptions::default() };
                counts.push(copy(&from, here, &to, here, &options, &task).unwrap());
                let mut found = tree(copied.path());
                found.remove(Path::new(""));
                prop_assert_eq!(&wanted, &found);
            }
            prop_assert_eq!(&counts[0], &counts[1]);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        at in 0usize..2048,
        patch in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let temp = TempDir::new().unwrap();
        let root = Root::open(temp.path()).unwrap();
        let _ = apply(&bytes[..], &root, &ApplyOptions::default());
        // Something nearly right.
        let mut tar = common::Tar::of(&[pax(&[("mtime", b"1.5"), ("size", b"3")]), file("a", "abc"), link("b", "c")]).ended();
        let end = (at + patch.len()).min(tar.len());
        tar[at..end].copy_from_slice(&patch[..end - at]);
        let _ = apply(&tar[..], &root, &ApplyOptions::default());
    }
}

fn without_root(tar: &[u8]) -> Vec<u8> {
    let mut archive = tar::Archive::new(tar);
    let second = archive.entries().unwrap().raw(true).map(|entry| entry.unwrap());
    // The first entry of the root may have an extended header.
    let first = second
        .map(|entry| (entry.raw_header_position(), entry.path_bytes().into_owned()))
        .find(|(_, path)| path != b"./" && path != b"PaxHeaders/0");
    let from = first.map_or(tar.len() - 1024, |(at, _)| usize::try_from(at).unwrap());
    // From the next entry's own header on: what its extended header says is in the tree as well.
    tar[from..].to_vec()
}

/// A tree with everything that readers may stumble over.
fn odd(dir: &Path) {
    let nested = dir.join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&nested).unwrap();
    fs::write(nested.join("f"), "deep").unwrap();
    fs::write(dir.join(OsString::from_vec(b"\xff\xfe\n".to_vec())), "bytes").unwrap();
    fs::write(dir.join("ünï"), "text").unwrap();
    fs::write(dir.join("one"), "linked").unwrap();
    fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
    symlink("t".repeat(300), dir.join("long")).unwrap();
    fs::write(dir.join("suid"), "").unwrap();
    chown(dir.join("suid"), Some(3_000_000), Some(7)).unwrap();
    fs::set_permissions(dir.join("suid"), Permissions::from_mode(0o6755)).unwrap();
    mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for (index, path) in ["one", "ünï", "pipe"].iter().enumerate() {
        let time = Timespec { tv_sec: 1_500_000_000 - 1_600_000_000 * index as i64, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, dir.join(path), &times, AtFlags::empty()).unwrap();
    }
    let xattr = "user.newline";
    rustix::fs::setxattr(dir.join("one"), xattr, b"a\n9 b=c\n", XattrFlags::empty()).unwrap();
}

/// Whether `tar` is GNU's.
fn gnu_tar() -> bool {
    let Some(tar) = requires::program("tar") else { return false };
    let version = Command::new(tar).arg("--version").output().unwrap();
    let gnu = String::from_utf8_lossy(&version.stdout).contains("GNU");
    if !gnu {
        requires::cannot("needs GNU tar");
    }
    gnu
}

#[test]
fn gnu_tar_reads_what_we_write_and_we_read_what_it_writes() {
    if !is_root() || !gnu_tar() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (source, theirs) = (temp.path().join("source"), temp.path().join("theirs"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&theirs).unwrap();
    odd(&source);
    let wanted = tree(&source);
    let ours = temp.path().join("ours.tar");
    fs::write(&ours, pack(&source)).unwrap();
    let run = |args: &[&str], dir: &Path| {
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--xattrs", "--xattrs-include=*"])
            .args(args)
            .arg("-C")
            .arg(dir);
        let out = tar.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out
    };
    run(&["-xpf", ours.to_str().unwrap()], &theirs);
    assert_eq!(tree(&theirs), wanted);
    for format in ["pax", "gnu"] {
        let file = temp.path().join(format);
        let path = file.to_str().unwrap().to_owned();
        let mut args = vec!["-cf", &path, "--format", format, "--sort=name"];
        let sparse = source.join("sparse");
        fs::File::create(&sparse).unwrap().set_len(1 << 20).unwrap();
        args.extend(["--sparse", "."]);
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner"]);
        if format == "pax" {
            tar.args(["--xattrs", "--xattrs-include=*"]);
        }
        assert!(tar.arg("-C").arg(&source).args(&args).status().unwrap().success());
        let back = unpack(&fs::read(&file).unwrap(), Whiteouts::Overlay);
        let (found, wanted) = (tree(back.path()), tree(&source));
        for (path, line) in &wanted {
            // GNU's own format has neither nanoseconds nor attributes.
            let near = |line: &str| {
                let cut = |line: &str| line.split('.').next().unwrap().to_owned();
                if format == "gnu" { cut(line) } else { line.to_owned() }
            };
            assert_eq!(near(&found[path]), near(line), "{format}: {}", path.display());
        }
        assert_eq!(found.len(), wanted.len());
        fs::remove_file(sparse).unwrap();
    }
}

#[test]
fn sparse_archives_of_gnu_tar_are_read() {
    if !gnu_tar() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let sparse = fs::File::create(temp.path().join("sparse")).unwrap();
    for piece in 0..200u64 {
        let at = piece * 40_960;
        std::os::unix::fs::FileExt::write_at(&sparse, b"data", at).unwrap();
    }
    sparse.set_len(9_000_000).unwrap();
    let wanted = image::Digest::of(&fs::read(temp.path().join("sparse")).unwrap());
    for version in ["0.0", "0.1", "1.0", "gnu"] {
        let tar = temp.path().join("out.tar");
        let mut make = Command::new("tar");
        make.arg("-C").arg(temp.path()).args(["--hole-detection=raw", "-S", "-cf"]).arg(&tar);
        match version {
            "gnu" => make.args(["--format=gnu"]),
            version => make.args(["--format=pax", "--sparse-version", version]),
        };
        if !make.arg("sparse").status().unwrap().success() {
            requires::cannot("this tar makes no sparse archives");
            return;
        }
        let bytes = fs::read(&tar).unwrap();
        assert!(bytes.len() < 2_000_000, "{version}: not sparse");
        let back = unpack(&bytes, Whiteouts::Literal);
        let found = fs::read(back.path().join("sparse")).unwrap();
        assert_eq!(image::Digest::of(&found), wanted, "{version}");
    }
}

#[test]
fn the_tar_crate_reads_the_same() {
    if !is_root() {
        return;
    }
    let temp = TempDir::new().unwrap();
    odd(temp.path());
    let tar = pack(temp.path());
    let mut archive = tar::Archive::new(&tar[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        let real = temp.path().join(&name);
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        if entry.header().entry_type().is_file() {
            assert_eq!(contents, fs::read(&real).unwrap(), "{}", name.display());
        }
        if let Some(link) = entry.link_name_bytes().filter(|_| real.is_symlink()) {
            assert_eq!(link.len(), 300);
        }
        names.push(name);
    }
    let wanted: Vec<PathBuf> =
        tree(temp.path()).into_keys().filter(|path| !path.as_os_str().is_empty()).collect();
    let mut found: Vec<PathBuf> = names.iter().map(|name| name.components().collect()).collect();
    found.retain(|name: &PathBuf| !name.as_os_str().is_empty() && name != Path::new("."));
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn compressed_layers_say_what_they_are() {
    let mut tar: Vec<u8> = (0..600_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    tar.extend_from_slice(&vec![0; 1 << 20]);
    for length in [0, 1, 1 << 20, (1 << 20) + 1, tar.len()] {
        let tar = &tar[..length];
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
            for level in [None, Some(1)] {
                let mut seen: Option<Vec<u8>> = None;
                for (threads, piece) in [(1, 1 << 30), (4, 77_777)] {
                    let compression = Compression { encoding, level };
                    let mut writer = LayerWriter::new(Vec::new(), compression, threads);
                    for piece in tar.chunks(piece) {
                        writer.write_all(piece).unwrap();
                    }
                    let (bytes, info) = writer.finish().unwrap();
                    assert_eq!(info.diff_id, image::Digest::of(tar));
                    assert_eq!(info.uncompressed, length as u64);
                    assert_eq!(info.descriptor.digest, image::Digest::of(&bytes));
                    assert_eq!(info.descriptor.size, bytes.len() as u64);
                    assert_eq!(info.descriptor.media_type.layer_encoding(), Some(encoding));
                    let mut back = Vec::new();
                    decompress(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
                    assert!(back == tar, "{encoding:?} {length}");
                    if encoding == Encoding::Gzip {
                        // One member only.
                        let mut one = flate2::bufread::GzDecoder::new(&bytes[..]);
                        let mut back = Vec::new();
                        one.read_to_end(&mut back).unwrap();
                        assert!(back == tar && one.into_inner().is_empty(), "{length}");
                    }
                    assert!(seen.is_none_or(|seen| seen == bytes), "threads change {encoding:?}");
                    seen = Some(bytes);
                }
            }
        }
    }
}

#[test]
fn writers_that_fail_are_heard() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
        let mut writer = LayerWriter::new(Full, Compression { encoding, level: None }, 2);
        let written = writer.write_all(&vec![1; 5 << 20]);
        assert!(written.is_err() || writer.finish().is_err(), "{encoding:?}");
    }
}

#[test]
fn copies_keep_what_they_are_asked_to() {
    if !is_root() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (source, target) = (temp.path().join("source"), temp.path().join("target"));
    for dir in ["source/keep/deep", "source/drop", "source/empty", "target/real", "target/dir"] {
        fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    fs::write(source.join("keep/deep/yes"), "1").unwrap();
    fs::write(source.join("keep/no"), "2").unwrap();
    fs::write(source.join("drop/yes"), "3").unwrap();
    fs::write(temp.path().join("outside"), "safe").unwrap();
    symlink("/real", target.join("link")).unwrap();
    symlink("../outside", source.join("out")).unwrap();
    let (from, to) = (Root::open(&source).unwrap(), Root::open(&target).unwrap());
    let task = Task::silent();
    let keep = |path: &Path, is_dir: bool| match path.file_name().and_then(|name| name.to_str()) {
        Some("drop" | "no") => Keep::No,
        _ if is_dir => Keep::Descend,
        _ => Keep::Yes,
    };
    let options = CopyOptions {
        owner: Some((5, 6)),
        mode: &|mode| if mode & 0o170_000 == 0o040_000 { 0o711 } else { 0o604 },
        mtime: Some((77, 88)),
        keep: &keep,
        ..CopyOptions::default()
    };
    // The parents are made, the link leads to the directory within the root.
    let copied = copy(&from, Path::new(""), &to, Path::new("/link/a/b"), &options, &task).unwrap();
    assert_eq!((copied.files, copied.bytes), (5, 1));
    let found = tree(&target);
    let lines = [
        ("real/a", "40755 0:0 77.000000088"),
        ("real/a/b", "40711 5:6 77.000000088"),
        ("real/a/b/keep", "40711 5:6 77.000000088"),
        ("real/a/b/keep/deep", "40711 5:6 77.000000088"),
        ("real/a/b/keep/deep/yes", "100604 5:6 77.000000088 6b86b273ff34"),
        ("real/a/b/out", "120777 5:6 77.000000088 -> ../outside"),
    ];
    for (path, line) in lines {
        assert!(found[Path::new(path)].starts_with(line), "{path}: {}", found[Path::new(path)]);
    }
    assert!(!found.contains_key(Path::new("real/a/b/empty")));

    // Links are copied as links, or followed within their own root when asked.
    let plain = CopyOptions::default();
    copy(&from, Path::new("out"), &to, Path::new("out"), &plain, &task).unwrap();
    assert!(target.join("out").is_symlink());
    let follow = CopyOptions { follow: true, ..plain };
    let error = copy(&from, Path::new("out"), &to, Path::new("x"), &follow, &task).unwrap_err();
    assert_eq!(task::Fault::kind(&error), task::Kind::NotFound);
    // What is written replaces a link, never its target.
    let one = Path::new("keep/no");
    copy(&from, one, &to, Path::new("out"), &plain, &task).unwrap();
    assert_eq!(fs::read_to_string(target.join("out")).unwrap(), "2");
    assert_eq!(fs::read_to_string(temp.path().join("outside")).unwrap(), "safe");

    let error = copy(&from, one, &to, Path::new("dir"), &plain, &task).unwrap_err();
    assert!(matches!(error, layers::Error::Conflict { .. }), "{error}");
    let error = copy(&from, Path::new("keep"), &to, Path::new("out"), &plain, &task).unwrap_err();
    assert!(matches!(error, layers::Error::Conflict { .. }), "{error}");
    let replace = CopyOptions { replace: true, ..plain };
    copy(&from, one, &to, Path::new("dir"), &replace, &task).unwrap();
    copy(&from, Path::new("keep"), &to, Path::new("out"), &replace, &task).unwrap();
    assert_eq!(fs::read_to_string(target.join("dir")).unwrap(), "2");
    assert_eq!(fs::read_to_string(target.join("out/deep/yes")).unwrap(), "1");
}

#[test]
fn implied_directories_take_after_those_below() {
    if !is_root() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let (below, layer) = (temp.path().join("below"), temp.path().join("layer"));
    fs::create_dir_all(below.join("a/b")).unwrap();
    fs::create_dir(&layer).unwrap();
    fs::set_permissions(below.join("a/b"), Permissions::from_mode(0o2751)).unwrap();
    chown(below.join("a"), Some(1), Some(2)).unwrap();
    let tar = common::Tar::of(&[file("a/b/c/d", "x"), entry(b'5', "a/b/c")]).ended();
    let (root, below_root) = (Root::open(&layer).unwrap(), Root::open(&below).unwrap());
    let applied = apply(&tar[..], &root, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.implied, ["", "a", "a/b"].map(PathBuf::from));
    layers::inherit(&root, &applied.implied, &below_root).unwrap();
    let (found, wanted) = (tree(&layer), tree(&below));
    for path in ["", "a", "a/b"].map(Path::new) {
        assert_eq!(found[path], wanted[path], "{}", path.display());
    }
}

#[test]
fn a_cancelled_task_stops_the_work() {
    let temp = TempDir::new().unwrap();
    let (task, root) = (Task::silent(), Root::open(temp.path()).unwrap());
    task.canceller().cancel();
    let error = apply(task.reading(&[0u8; 1024][..]), &root, &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, layers::Error::Cancelled(_)), "{error}");
    let here = Path::new("");
    let error = archive(&root, here, &mut Vec::new(), &options(), &task).unwrap_err();
    assert!(matches!(error, layers::Error::Cancelled(_)), "{error}");
}

#[test]
fn a_file_that_cannot_be_copied_stops_all_threads() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for number in 0..300 {
        fs::create_dir_all(from.path().join(format!("d{}", number % 7))).unwrap();
        fs::write(from.path().join(format!("d{}/f{number}", number % 7)), [7; 100]).unwrap();
    }
    // In the way: a directory that a file may not replace.
    fs::create_dir_all(to.path().join("d3/f150")).unwrap();
    let (source, target) = (Root::open(from.path()).unwrap(), Root::open(to.path()).unwrap());
    let options = CopyOptions { threads: 4, ..CopyOptions::default() };
    let here = Path::new("");
    let error = copy(&source, here, &target, here, &options, &Task::silent()).unwrap_err();
    assert!(error.to_string().contains("d3/f150"), "{error}");
}
