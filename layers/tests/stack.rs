//! Stacks, and what `diff` makes of the changes in one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "helpers of tests may panic, say what was skipped, and tables are long"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{is_root, path, tree};
use layers::copy::{CopyOptions, copy};
use layers::{ApplyOptions, DiffOptions, Root, Stack, Top, Whiteouts, apply, archive, diff};
use rustix::fs::{FileType, Mode, XattrFlags, mknodat};
use task::Task;
use tempfile::TempDir;

fn write(path: impl AsRef<Path>, contents: &str) {
    fs::write(path, contents).unwrap();
}

fn make(dir: &Path, names: &[&str]) -> Vec<PathBuf> {
    let make = |name: &&str| {
        let path = dir.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    names.iter().map(make).collect()
}

/// A tree with a bit of everything.
fn base(dir: &Path, devices: bool) {
    make(dir, &["etc", "usr/lib/deep/deeper", "gone/below", "opaque", "same", "var", "file2dir"]);
    for name in ["etc/passwd", "etc/mode", "usr/lib/a", "usr/lib/deep/b", "gone/below/c", "dir2"] {
        write(dir.join(name), name);
    }
    for name in ["opaque/old", "opaque/both", "same/x", "same/y", "file2dir/inner", "touched"] {
        write(dir.join(name), name);
    }
    write(dir.join("var/one"), "linked");
    fs::hard_link(dir.join("var/one"), dir.join("var/two")).unwrap();
    symlink("usr/lib", dir.join("lib")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    if devices {
        chown(dir.join("etc/passwd"), Some(12), Some(34)).unwrap();
        mknodat(
            rustix::fs::CWD,
            dir.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
    }
    fs::set_permissions(dir.join("etc/mode"), Permissions::from_mode(0o4751)).unwrap();
    let name = "user.note";
    rustix::fs::setxattr(dir.join("usr/lib/a"), name, b"v\n=\0", XattrFlags::empty()).unwrap();
}

/// All sorts of changes.
fn change(dir: &Path) {
    write(dir.join("etc/new"), "new");
    write(dir.join("etc/passwd"), "changed");
    fs::set_permissions(dir.join("etc/mode"), Permissions::from_mode(0o2710)).unwrap();
    fs::remove_dir_all(dir.join("gone")).unwrap();
    fs::remove_file(dir.join("usr/lib/deep/b")).unwrap();
    fs::remove_dir_all(dir.join("opaque")).unwrap();
    fs::create_dir(dir.join("opaque")).unwrap();
    write(dir.join("opaque/both"), "other");
    fs::remove_file(dir.join("dir2")).unwrap();
    make(dir, &["dir2/now/a", "brand/new"]);
    write(dir.join("dir2/now/a/dir"), "");
    fs::remove_dir_all(dir.join("file2dir")).unwrap();
    write(dir.join("file2dir"), "now a file");
    fs::remove_file(dir.join("dangling")).unwrap();
    symlink("/etc/new", dir.join("dangling")).unwrap();
    write(dir.join("brand/new/l1"), "links");
    fs::hard_link(dir.join("brand/new/l1"), dir.join("brand/l2")).unwrap();
    write(dir.join("lib/through"), "a link");
    // Copied up, but the same afterwards.
    let mode = fs::metadata(dir.join("touched")).unwrap().permissions();
    fs::set_permissions(dir.join("touched"), mode).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 2 << 20).unwrap();
}

/// Changes a stack, and brings the changes to a copy of what is below in both ways.
fn round_trip(user_xattr: bool) {
    let temp = TempDir::new().unwrap();
    let dirs = make(temp.path(), &["low", "mid", "upper", "work", "copy", "layer"]);
    let [low, mid, upper, work, copied, layer] = &dirs[..] else { panic!() };
    base(low, !user_xattr);
    write(mid.join("touched"), "by the middle layer");
    let below = Stack { lower: vec![mid.clone(), low.clone()], top: None, user_xattr, ids: None };
    let top = Top { upper: upper.clone(), work: work.clone() };
    let stack = Stack { top: Some(top), ..below.clone() };
    let task = Task::silent();

    let merged = stack.mount().unwrap();
    change(&path(&merged));
    let expected = tree(&path(&merged));
    drop(merged);
    // The same upper directory can be mounted again, as a container that is started again is.
    for _ in 0..2 {
        let again = stack.mount_volatile().unwrap();
        assert_eq!(tree(&path(&again)), expected);
    }
    let lower = below.mount().unwrap();
    assert!(fs::write(path(&lower).join("x"), "").is_err(), "a stack without top is read-only");

    let options = DiffOptions { user_xattr, ..Default::default() };
    let (upper_root, mut tar) = (Root::open(upper).unwrap(), Vec::new());
    let stats = diff(&upper_root, Some(&lower), &mut tar, &options, &task).unwrap();
    assert!(stats.whiteouts >= 2, "{stats:?}");
    let mut again = Vec::new();
    diff(&upper_root, Some(&lower), &mut again, &options, &task).unwrap();
    assert!(tar == again, "the same tree gives the same bytes");
    let names = names(&tar);
    for absent in ["touched", "same/", "same/x", "etc/group", "var/"] {
        assert!(!names.iter().any(|name| name == absent), "{absent} in {names:?}");
    }
    for present in [".wh.gone", "usr/lib/deep/.wh.b", "opaque/.wh..wh..opq", "usr/", "brand/l2"] {
        assert!(names.iter().any(|name| name == present), "{present} not in {names:?}");
    }

    // Deleting from a copy.
    let copied = Root::open(copied).unwrap();
    copy(&lower, Path::new(""), &copied, Path::new(""), &CopyOptions::default(), &task).unwrap();
    let delete = ApplyOptions { whiteouts: Whiteouts::Delete, user_xattr, ..Default::default() };
    apply(&tar[..], &copied, &delete).unwrap();
    let (mut found, mut wanted) = (tree(&path(&copied)), expected.clone());
    // The root's own time is not part of the layer.
    found.remove(Path::new(""));
    wanted.remove(Path::new(""));
    assert_eq!(found, wanted);

    // Stacking what was unpacked.
    let layer_root = Root::open(layer).unwrap();
    let applied = ApplyOptions { user_xattr, ..Default::default() };
    let applied = apply(&tar[..], &layer_root, &applied).unwrap();
    assert_eq!(applied.skipped, Vec::<String>::new());
    layers::inherit(&layer_root, &applied.implied, &lower).unwrap();
    let lower = [vec![layer.clone()], below.lower.clone()].concat();
    let stacked = Stack { lower, top: None, user_xattr, ids: None }.mount().unwrap();
    let mut found = tree(&path(&stacked));
    found.remove(Path::new(""));
    assert_eq!(found, wanted);
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap()).collect()
}

#[test]
fn changes_survive_as_a_layer() {
    if is_root() {
        round_trip(false);
    }
}

#[test]
fn changes_survive_in_a_user_namespace() {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    if map.split_whitespace().eq(["0", "0", "4294967295"]) || !rustix::process::geteuid().is_root()
    {
        let this = std::env::current_exe().unwrap();
        let test = "changes_survive_in_a_user_namespace";
        let mut run = Command::new("unshare");
        run.args(["-Ur", "-m"]).arg(this).args(["--exact", test]);
        match run.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) if output.status.code() == Some(1) => requires::cannot("no user namespaces"),
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(_) => drop(requires::program("unshare")),
        }
        return;
    }
    round_trip(true);
}

#[test]
fn stacks_of_every_height() {
    if !is_root() {
        return;
    }
    let temp = TempDir::new().unwrap();
    let long = "long".repeat(60);
    let dirs = make(temp.path(), &["upper", "work", &long, "a:b,c\\d"]);
    let [upper, work, long, odd] = &dirs[..] else { panic!() };
    write(long.join("f"), "long");
    write(odd.join("g"), "odd");
    let top = Some(Top { upper: upper.clone(), work: work.clone() });

    let nothing = Stack::default().mount().unwrap();
    assert_eq!(nothing.entries(Path::new("")).unwrap(), []);
    assert!(fs::write(path(&nothing).join("x"), "").is_err());

    let one = Stack { lower: vec![long.clone()], ..Stack::default() }.mount().unwrap();
    assert_eq!(one.read(Path::new("f"), 10).unwrap(), b"long");
    assert!(fs::write(path(&one).join("x"), "").is_err());

    let alone = Stack { top: top.clone(), ..Stack::default() }.mount().unwrap();
    write(path(&alone).join("kept"), "in upper");
    assert_eq!(fs::read_to_string(upper.join("kept")).unwrap(), "in upper");

    // An opaque root hides all that is below it.
    let opaque = XattrFlags::empty();
    rustix::fs::setxattr(odd, "trusted.overlay.opaque", b"y", opaque).unwrap();
    let both = Stack { lower: vec![odd.clone(), long.clone()], top, user_xattr: false, ids: None };
    let both = both.mount().unwrap();
    assert!(both.read(Path::new("g"), 10).is_ok());
    assert!(both.metadata(Path::new("f")).is_err());

    let missing = temp.path().join("missing");
    let error = Stack { lower: vec![missing], ..Stack::default() }.mount().unwrap_err();
    assert_eq!(task::Fault::kind(&error), task::Kind::NotFound);
    let many: Vec<_> = (0..501).map(|n| temp.path().join(format!("layer{n}"))).collect();
    for path in &many {
        fs::create_dir(path).unwrap();
    }
    write(many[499].join("deepest"), "");
    let stack = Stack { lower: many[..500].to_vec(), ..Stack::default() }.mount().unwrap();
    assert!(stack.metadata(Path::new("deepest")).is_ok());
    let error = Stack { lower: many, ..Stack::default() }.mount().unwrap_err();
    assert!(matches!(error, layers::Error::TooManyLayers { layers: 501, limit: 500 }), "{error}");
}

#[test]
fn nothing_is_mounted_where_others_see_it() {
    if !is_root() {
        return;
    }
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let temp = TempDir::new().unwrap();
    let dirs = make(temp.path(), &["a", "b"]);
    let root = Stack { lower: dirs, ..Stack::default() }.mount().unwrap();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    drop(root);
}

#[test]
fn an_archive_clamps_times_and_takes_an_owner() {
    let temp = TempDir::new().unwrap();
    write(temp.path().join("a"), "now");
    let (root, mut tar) = (Root::open(temp.path()).unwrap(), Vec::new());
    let (clamp, owner) = (Some(1_000_000), Some((5, 3_000_000_000)));
    let options = DiffOptions { clamp, owner, ..Default::default() };
    archive(&root, Path::new(""), &mut tar, &options, &Task::silent()).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.header().mtime().unwrap(), 1_000_000);
    assert_eq!(entry.header().uid().unwrap(), 5);
}
