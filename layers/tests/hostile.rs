//! Archives that want out, want too much, or mean two things. Each case has one exact outcome, and
//! what lies beside the root stays as it is.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "helpers of tests may panic, say what was skipped, and tables are long"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use Outcome::{Holds, Refused};
use common::{Entry, Tar, device, dir, entry, file, hardlink, is_root, pax, record, symlink, tree};
use layers::{ApplyOptions, Limits, Root, Whiteouts, apply};
use task::{Task, chain};

enum Outcome {
    /// The error says this.
    Refused(&'static str),
    /// The root holds exactly this: names and what they are.
    Holds(&'static [(&'static str, &'static str)]),
}

struct Case {
    name: &'static str,
    archive: Vec<u8>,
    options: ApplyOptions,
    outcome: Outcome,
}

fn case(name: &'static str, entries: &[Entry], outcome: Outcome) -> Case {
    raw(name, Tar::of(entries).ended(), outcome)
}

fn raw(name: &'static str, archive: Vec<u8>, outcome: Outcome) -> Case {
    Case { name, archive, options: ApplyOptions::default(), outcome }
}

impl Case {
    fn with(mut self, whiteouts: Whiteouts) -> Case {
        self.options.whiteouts = whiteouts;
        self
    }

    fn limited(mut self, limits: Limits) -> Case {
        self.options.limits = limits;
        self
    }
}

/// What a root holds, in few words.
fn holds(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in tree(dir).into_keys().filter(|path| !path.as_os_str().is_empty()) {
        let full = dir.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            let mut mark = [0; 8];
            let mark = rustix::fs::lgetxattr(&full, "trusted.overlay.opaque", &mut mark[..]);
            if mark.is_ok() { "opaque".to_owned() } else { "dir".to_owned() }
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&full).unwrap().display())
        } else if kind.is_fifo() {
            "pipe".to_owned()
        } else if kind.is_char_device() && meta.rdev() == 0 {
            "whiteout".to_owned()
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {}", meta.rdev())
        } else if meta.len() > 1000 {
            format!("{} bytes", meta.len())
        } else {
            String::from_utf8_lossy(&fs::read(&full).unwrap()).into_owned()
        };
        found.insert(path.to_string_lossy().into_owned(), what);
    }
    found
}

/// Unpacks every case beside a directory that must not change.
fn check(cases: impl FnOnce(&str) -> Vec<Case>) {
    if !is_root() {
        return;
    }
    let temp = tempfile::TempDir::new().unwrap();
    let (canary, root) = (temp.path().join("canary"), temp.path().join("root"));
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "safe").unwrap();
    fs::set_permissions(canary.join("file"), Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&canary, Permissions::from_mode(0o751)).unwrap();
    let before = tree(&canary);
    for case in cases(canary.to_str().unwrap()) {
        fs::create_dir(&root).unwrap();
        let opened = Root::open(&root).unwrap();
        let result = apply(&case.archive[..], &opened, &case.options, &Task::silent());

        assert_eq!(tree(&canary), before, "{}: the canary changed", case.name);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2, "{}", case.name);
        match (case.outcome, result) {
            (Refused(reason), Err(error)) => {
                let said = chain(&error).join(": ");
                assert!(said.contains(reason), "{}: {said}", case.name);
            }
            (Holds(expected), Ok(_)) => {
                let expected: BTreeMap<String, String> = expected
                    .iter()
                    .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
                    .collect();
                assert_eq!(holds(&root), expected, "{}", case.name);
            }
            (Refused(reason), Ok(applied)) => {
                panic!("{}: not refused as {reason}: {applied:?} {:?}", case.name, holds(&root))
            }
            (Holds(_), Err(error)) => panic!("{}: {}", case.name, chain(&error).join(": ")),
        }
        fs::remove_dir_all(&root).unwrap();
    }
}

const DOTS: Outcome = Refused("its name has a `..` in it");

#[test]
fn names_stay_below_the_root() {
    check(|canary| {
        let absolute = format!("{canary}/file");
        let nested = absolute.trim_start_matches('/').to_owned();
        let long = format!("{}../canary/file", "./".repeat(60));
        vec![
            case("dots first", &[file("../canary/file", "x")], DOTS),
            case("dots in the middle", &[dir("a"), file("a/../../canary/file", "x")], DOTS),
            case("dots that stay inside", &[dir("a"), file("a/../b", "x")], DOTS),
            case("dots last", &[dir("a/..")], DOTS),
            case("only dots", &[dir("..")], DOTS),
            case("dots after a slash", &[file("/../canary/file", "x")], DOTS),
            case("dots after a dot", &[file("./../canary/file", "x")], DOTS),
            case("dots in a directory's name", &[dir("../canary/").mode(0o777)], DOTS),
            case("dots in a link's name", &[symlink("../canary/link", "x")], DOTS),
            case("dots in a whiteout's name", &[file("../canary/.wh.file", "")], DOTS),
            case("dots in an opaque mark's", &[file("../canary/.wh..wh..opq", "")], DOTS),
            case(
                "dots in a PAX name",
                &[pax(&[("path", b"../canary/file")]), file("a", "x")],
                DOTS,
            ),
            case(
                "dots in a long PAX name",
                &[pax(&[("path", long.as_bytes())]), file("a", "")],
                DOTS,
            ),
            case(
                "dots in a GNU long name",
                &[
                    Entry { contents: b"../canary/file\0".to_vec(), ..entry(b'L', "x") },
                    file("a", ""),
                ],
                DOTS,
            ),
            case("dots in the prefix", &[file("file", "x").patch(345, b"../canary")], DOTS),
            case(
                "dots in a sparse file's name",
                &[
                    pax(&[("GNU.sparse.map", b""), ("GNU.sparse.name", b"../canary/file")]),
                    file("a", ""),
                ],
                Refused("malformed value"),
            ),
            case(
                "dots in a sparse file's second name",
                &[
                    pax(&[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.name", b"../canary/file"),
                        ("GNU.sparse.realsize", b"0"),
                    ]),
                    Entry { contents: [b"0\n".to_vec(), vec![0; 510]].concat(), ..file("a", "") },
                ],
                DOTS,
            ),
            case(
                "three dots are a name",
                &[file(".../a", "x")],
                Holds(&[("...", "dir"), (".../a", "x")]),
            ),
            case("slashes first", &[file("//a", "x")], Holds(&[("a", "x")])),
            case("empty name", &[file("", "x")], Refused("only be a directory")),
            case("a file for the root", &[file(".", "x")], Refused("only be a directory")),
            case("a file for the root, by a slash", &[file("/", "x")], Refused("a slash")),
            case("a link for the root", &[symlink(".", canary)], Refused("only be a directory")),
            case(
                "a link for the root, by name",
                &[symlink("./.", canary)],
                Refused("only be a dir"),
            ),
            case("the root's mode", &[dir("./").mode(0o700)], Holds(&[])),
            case(
                "a name too long",
                &[pax(&[("path", &[b'a'; 256])]), file("a", "")],
                Refused("name too long"),
            ),
            case(
                "a path too long",
                &[
                    pax(&[("path", "d/".repeat(2500).trim_end_matches('/').as_bytes())]),
                    file("a", ""),
                ],
                Refused("4095 bytes in a name"),
            ),
            Case {
                archive: Tar::of(&[pax(&[("path", nested.as_bytes())]), file("a", "")]).ended(),
                ..case("deep names", &[], Refused("name too long"))
            }
            .limited(Limits { path: 10, ..Limits::default() })
            .outcome(Refused("10 bytes in a name")),
            case(
                "a file as a directory",
                &[file("a", "x"), file("a/b", "y")],
                Refused("opening directory a"),
            ),
        ]
    });
}

impl Case {
    fn outcome(mut self, outcome: Outcome) -> Case {
        self.outcome = outcome;
        self
    }
}

#[test]
fn links_are_not_followed_out() {
    check(|canary| {
        vec![
            case(
                "write through an absolute link",
                &[symlink("l", "/out"), file("l/file", "x")],
                Holds(&[("l", "-> /out"), ("out", "dir"), ("out/file", "x")]),
            ),
            case(
                "write through a link of dots",
                &[symlink("l", "../../out"), file("l/file", "x")],
                Holds(&[("l", "-> ../../out"), ("out", "dir"), ("out/file", "x")]),
            ),
            case(
                "write through a chain of links",
                &[
                    dir("d"),
                    symlink("a", "b"),
                    symlink("b", "c/../.."),
                    symlink("c", "d"),
                    file("a/e/f", "x"),
                ],
                Holds(&[
                    ("a", "-> b"),
                    ("b", "-> c/../.."),
                    ("c", "-> d"),
                    ("d", "dir"),
                    ("e", "dir"),
                    ("e/f", "x"),
                ]),
            ),
            case(
                "a link to itself",
                &[symlink("a", "a"), file("a/b", "x")],
                Refused("opening directory a"),
            ),
            case(
                "overwrite a link's target",
                &[file("t", "safe"), symlink("l", "t"), file("l", "x")],
                Holds(&[("t", "safe"), ("l", "x")]),
            ),
            case(
                "a directory in place of a link",
                &[symlink("l", canary), dir("l").mode(0o777), file("l/file", "x")],
                Holds(&[("l", "dir"), ("l/file", "x")]),
            ),
            case(
                "a directory in place of a relative link",
                &[symlink("l", "../canary"), dir("l/").mode(0o777)],
                Holds(&[("l", "dir")]),
            ),
            case(
                "a held directory becomes a link",
                &[dir("d"), file("d/a", "1"), symlink("d", canary), dir("d"), file("d/file", "x")],
                Holds(&[("d", "dir"), ("d/file", "x")]),
            ),
            case(
                "a link changes its target",
                &[
                    dir("a"),
                    dir("b"),
                    symlink("l", "a"),
                    file("l/1", ""),
                    symlink("l", "b"),
                    file("l/2", ""),
                ],
                Holds(&[("a", "dir"), ("a/1", ""), ("b", "dir"), ("b/2", ""), ("l", "-> b")]),
            ),
            case(
                "attributes of a link",
                &[pax(&[("SCHILY.xattr.user.x", b"1"), ("mtime", b"5")]), symlink("l", canary)],
                Holds(&[("l", "-> ")]),
            )
            .outcome_link(canary),
            case("a link without target", &[symlink("l", "")], Refused("a link has no target")),
            case(
                "a link with a size",
                &[Entry { contents: vec![0; 512], ..symlink("l", "x") }],
                Refused("has a size"),
            ),
            case(
                "/proc is only a name",
                &[symlink("l", "/proc/self/cwd"), file("l/file", "x")],
                Holds(&[
                    ("l", "-> /proc/self/cwd"),
                    ("proc", "dir"),
                    ("proc/self", "dir"),
                    ("proc/self/cwd", "dir"),
                    ("proc/self/cwd/file", "x"),
                ]),
            ),
        ]
    });
}

impl Case {
    /// A link whose target is only known now.
    fn outcome_link(mut self, target: &str) -> Case {
        let what: &'static str = format!("-> {target}").leak();
        self.outcome = Holds(vec![("l", what)].leak());
        self
    }
}

#[test]
fn hard_links_stay_inside() {
    check(|canary| {
        let outside = format!("{canary}/file");
        vec![
            case(
                "dots",
                &[hardlink("l", "../canary/file")],
                Refused("the target of a hard link has a `..`"),
            ),
            case(
                "dots inside",
                &[dir("a"), file("b", ""), hardlink("l", "a/../b")],
                Refused("`..`"),
            ),
            case("absolute", &[hardlink("l", &outside)], Refused("not in this layer")),
            case(
                "dots in PAX",
                &[pax(&[("linkpath", b"../canary/file")]), hardlink("l", "x")],
                Refused("`..`"),
            ),
            case(
                "through a link of dots",
                &[symlink("d", "../canary"), hardlink("l", "d/file")],
                Refused("linking l to d/file, which is not in this layer"),
            ),
            case(
                "through an absolute link",
                &[symlink("d", canary), hardlink("l", "d/file")],
                Refused("not in this layer"),
            ),
            case(
                "to a link, then written",
                &[symlink("s", &outside), hardlink("l", "s"), file("l", "x")],
                Holds(&[]),
            )
            .outcome_two(&outside),
            case(
                "then written",
                &[file("a", "safe"), hardlink("b", "a"), file("b", "x")],
                Holds(&[("a", "safe"), ("b", "x")]),
            ),
            case(
                "twice",
                &[file("a", "1"), hardlink("b", "a"), hardlink("b", "a")],
                Holds(&[("a", "1"), ("b", "1")]),
            ),
            case("to itself", &[file("a", "1"), hardlink("a", "a")], Holds(&[("a", "1")])),
            case("to nothing", &[hardlink("a", "a")], Refused("not in this layer")),
            case(
                "to a directory",
                &[dir("d"), hardlink("a", "d")],
                Refused("a hard link to a directory"),
            ),
            case("to the root", &[hardlink("a", "/")], Refused("linking a to")),
            case(
                "to a whiteout",
                &[file(".wh.a", ""), hardlink("b", "a")],
                Refused("not in this layer"),
            ),
            case(
                "to a whiteout's name",
                &[file(".wh.a", ""), hardlink("b", ".wh.a")],
                Refused("a hard link to a whiteout"),
            ),
            case(
                "over the directory it is in",
                &[dir("d"), file("d/f", "1"), hardlink("d", "d/f")],
                Refused("not in this layer"),
            ),
            case(
                "with a size",
                &[
                    file("a", "1"),
                    Entry { size: Some(b"00000000001".to_vec()), ..hardlink("b", "a") },
                ],
                Holds(&[("a", "1"), ("b", "1")]),
            ),
        ]
    });
}

impl Case {
    fn outcome_two(mut self, target: &str) -> Case {
        let what: &'static str = format!("-> {target}").leak();
        self.outcome = Holds(vec![("s", what), ("l", "x")].leak());
        self
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let nothing = || Refused("a whiteout of nothing");
    let no_file = || Refused("it has a whiteout's name but is not a plain file");
    check(|canary| {
        vec![
            case("of dot dot", &[file(".wh...", "")], nothing()),
            case("of dot", &[file(".wh..", "")], nothing()),
            case("of no name", &[file("d/.wh.", "")], nothing()),
            case("plain", &[file("d/.wh.a", "")], Holds(&[("d", "dir"), ("d/a", "whiteout")])),
            case("with contents", &[file(".wh.a", "text")], Holds(&[("a", "whiteout")])),
            case("opaque", &[dir("d"), file("d/.wh..wh..opq", "")], Holds(&[("d", "opaque")])),
            case("opaque, not mentioned", &[file("d/.wh..wh..opq", "")], Holds(&[("d", "opaque")])),
            case("opaque root", &[file(".wh..wh..opq", "")], Holds(&[])),
            case(
                "opaque below a whiteout",
                &[file(".wh.d/.wh..wh..opq", "")],
                Refused("whiteout's name"),
            ),
            case("as a directory", &[dir(".wh.a")], no_file()),
            case("as a link", &[symlink(".wh.a", canary)], no_file()),
            case("as a device", &[device(b'3', ".wh.a", 1, 3)], no_file()),
            case("opaque as a directory", &[dir("d/.wh..wh..opq")], no_file()),
            case("as a directory's name", &[file(".wh.d/file", "x")], Refused("whiteout's name")),
            case("of AUFS", &[file(".wh..wh.plnk", "")], Holds(&[])),
            case("hides its own file", &[file("a", "1"), file(".wh.a", "")], Holds(&[("a", "1")])),
            case("before its own file", &[file(".wh.a", ""), file("a", "1")], Holds(&[("a", "1")])),
            case(
                "hides its own directory",
                &[dir("a"), file("a/b", "1"), file(".wh.a", "")],
                Holds(&[("a", "opaque"), ("a/b", "1")]),
            ),
            case(
                "before its own directory",
                &[file(".wh.a", ""), dir("a")],
                Holds(&[("a", "opaque")]),
            ),
            case(
                "before an implied directory",
                &[file(".wh.a", ""), file("a/b", "1")],
                Holds(&[("a", "opaque"), ("a/b", "1")]),
            ),
            case("twice", &[file(".wh.a", ""), file(".wh.a", "")], Holds(&[("a", "whiteout")])),
            case("through a link", &[symlink("l", canary), file("l/.wh.file", "")], Holds(&[]))
                .with(Whiteouts::Delete)
                .outcome_link(canary),
            case(
                "through a link of dots",
                &[symlink("l", "../../.."), file("l/.wh.l", "")],
                Holds(&[("l", "-> ../../..")]),
            )
            .with(Whiteouts::Delete),
            case(
                "opaque through a link",
                &[symlink("l", "../canary"), file("l/.wh..wh..opq", "")],
                Holds(&[("l", "-> ../canary")]),
            )
            .with(Whiteouts::Delete),
            case(
                "deletes nothing it brought",
                &[dir("d"), file("d/a", "1"), file("d/.wh..wh..opq", ""), file(".wh.d", "")],
                Holds(&[("d", "dir"), ("d/a", "1")]),
            )
            .with(Whiteouts::Delete),
            case("of dot dot, deleting", &[dir("d"), file("d/.wh...", "")], nothing())
                .with(Whiteouts::Delete),
            case(
                "taken literally",
                &[file(".wh.a", "x"), file("d/.wh..wh..opq", "")],
                Holds(&[(".wh.a", "x"), ("d", "dir"), ("d/.wh..wh..opq", "")]),
            )
            .with(Whiteouts::Literal),
        ]
    });
}

#[test]
fn attributes_and_devices() {
    let overlay = |name: &str| [pax(&[(&format!("SCHILY.xattr.{name}"), b"y")]), dir("d")];
    let belongs = || Refused("belongs to the overlay");
    check(|_| {
        vec![
            case("opaque attribute", &overlay("trusted.overlay.opaque"), belongs()),
            case("user's opaque attribute", &overlay("user.overlay.opaque"), belongs()),
            case("redirect", &overlay("trusted.overlay.redirect"), belongs()),
            case("metacopy", &overlay("trusted.overlay.metacopy"), belongs()),
            case("whiteout attribute", &overlay("user.overlay.whiteout"), belongs()),
            case("escaped", &overlay("trusted.overlay.overlay.opaque"), belongs()),
            case("literally", &overlay("trusted.overlay.opaque"), belongs())
                .with(Whiteouts::Literal),
            case(
                "on the root",
                &[pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]), dir("./")],
                belongs(),
            ),
            case(
                "no such name space",
                &[pax(&[("SCHILY.xattr.nonsense", b"y")]), file("a", "")],
                Holds(&[("a", "")]),
            ),
            case(
                "no name",
                &[pax(&[("SCHILY.xattr.", b"y")]), file("a", "")],
                Refused("names no attribute"),
            ),
            case(
                "too many",
                &[pax(&[("SCHILY.xattr.user.a", &[1; 2000])]), file("a", "")],
                Refused("extended attributes"),
            )
            .limited(Limits { xattrs: 1000, ..Limits::default() }),
            case(
                "the whiteout device",
                &[device(b'3', "a", 0, 0)],
                Refused("the overlay's own whiteout"),
            ),
            case(
                "the whiteout device, literally",
                &[device(b'3', "a", 0, 0)],
                Refused("own whiteout"),
            )
            .with(Whiteouts::Literal),
            case(
                "devices",
                &[device(b'3', "c", 1, 3), device(b'4', "b", 7, 0)],
                Holds(&[("c", "device 259"), ("b", "device 1792")]),
            ),
            case(
                "write to a device",
                &[device(b'3', "c", 1, 3), file("c", "x")],
                Holds(&[("c", "x")]),
            ),
            case("write to a pipe", &[entry(b'6', "p"), file("p", "x")], Holds(&[("p", "x")])),
            case(
                "link to a pipe",
                &[entry(b'6', "p"), hardlink("q", "p")],
                Holds(&[("p", "pipe"), ("q", "pipe")]),
            ),
            case(
                "a pipe as a directory",
                &[entry(b'6', "p"), file("p/a", "x")],
                Refused("opening directory p"),
            ),
            case(
                "a device number out of range",
                &[device(b'3', "c", 1, 3).patch(329, b"\xff\xff\xff\xff\xff\xff\xff\xff")],
                Refused("device number"),
            ),
            case("an unknown kind", &[entry(b'Z', "a")], Refused("unknown kind")),
            case("a volume", &[entry(b'V', "a")], Refused("unknown kind")),
            case(
                "the user that is none",
                &[pax(&[("uid", b"4294967295")]), file("a", "")],
                Refused("the user is out of range"),
            ),
            case(
                "a user beyond 32 bits",
                &[pax(&[("uid", b"4294967296")]), file("a", "")],
                Refused("the user is out of range"),
            ),
            case(
                "a negative user",
                &[file("a", "").patch(108, &[0xff; 8])],
                Refused("the user is out of range"),
            ),
            case(
                "a negative group",
                &[pax(&[("gid", b"-1")]), file("a", "")],
                Refused("gid has a malformed value"),
            ),
        ]
    });
}

#[test]
fn there_is_one_reading() {
    let a = || Holds(&[("a", "x")]);
    check(|_| {
        let hidden = Tar::of(&[file("hidden", "!")]).0;
        let inside = Entry { contents: hidden.clone(), ..file("a", "") };
        let both =
            [Tar::of(&[file("a", "x")]).ended(), Tar::of(&[file("b", "y")]).ended()].concat();
        let lone = [Tar::of(&[file("a", "x")]).0, vec![0; 512], hidden.clone()].concat();
        let short = Tar::of(&[file("a", "x")]).0;
        let x = |records: Vec<u8>| Entry { contents: records, ..entry(b'x', "p") };
        let l = |name: &[u8]| Entry { contents: name.to_vec(), ..entry(b'L', "long") };
        vec![
            case(
                "an archive in a file",
                std::slice::from_ref(&inside),
                Holds(&[("a", "1024 bytes")]),
            ),
            case(
                "PAX size hides an entry",
                &[pax(&[("size", b"0")]), inside.clone()],
                Holds(&[("a", ""), ("hidden", "!")]),
            ),
            case(
                "PAX size swallows an entry",
                &[pax(&[("size", b"1536")]), file("a", "x"), file("b", "y"), file("c", "z")],
                Holds(&[("a", "1536 bytes"), ("c", "z")]),
            ),
            case(
                "a size on a directory",
                &[Entry { size: Some(b"00000002000".to_vec()), ..dir("d") }, file("a", "x")],
                Holds(&[("d", "dir"), ("a", "x")]),
            ),
            case(
                "a size on a link",
                &[
                    Entry { size: Some(b"00000001000".to_vec()), ..symlink("l", "x") },
                    file("a", "x"),
                ],
                Refused("has a size"),
            ),
            case(
                "a size on a pipe",
                &[pax(&[("size", b"512")]), entry(b'6', "p"), file("a", "x")],
                Refused("has a size"),
            ),
            case(
                "a newline in a record",
                &[
                    pax(&[("SCHILY.xattr.user.n", b"1\n30 path=other\n"), ("path", b"a")]),
                    file("z", "x"),
                ],
                a(),
            ),
            case(
                "a record in a record",
                &[
                    x([record("comment", b"\n12 path=b\n"), record("path", b"a")].concat()),
                    file("z", "x"),
                ],
                a(),
            ),
            case(
                "the last record counts",
                &[pax(&[("path", b"b"), ("path", b"a")]), file("z", "x")],
                a(),
            ),
            case("no newline", &[x(b"7 path=b".to_vec()), file("a", "x")], Refused("PAX record")),
            case(
                "a record that is too long",
                &[x(b"99 path=b\n".to_vec()), file("a", "x")],
                Refused("wrong length"),
            ),
            case(
                "a record that is too short",
                &[x(b"5 path=b\n".to_vec()), file("a", "x")],
                Refused("PAX record"),
            ),
            case(
                "a signed length",
                &[x(b"+10 path=b\n".to_vec()), file("a", "x")],
                Refused("no length"),
            ),
            case(
                "NULs behind the records",
                &[x([record("path", b"b"), vec![0; 10]].concat()), file("a", "x")],
                Refused("no length"),
            ),
            case(
                "a NUL in a PAX name",
                &[pax(&[("path", b"a\0b")]), file("a", "x")],
                Refused("path has a malformed value"),
            ),
            case(
                "a NUL in a PAX link",
                &[pax(&[("linkpath", b"a\0b")]), symlink("l", "x")],
                Refused("linkpath has a malformed value"),
            ),
            case(
                "an empty PAX name",
                &[pax(&[("path", b"")]), file("a", "x")],
                Refused("path has a malformed value"),
            ),
            case("a NUL in a long name", &[l(b"a\0b\0"), file("a", "x")], Refused("a NUL in it")),
            case(
                "two long names",
                &[l(b"b\0"), l(b"a\0"), file("z", "x")],
                Refused("two extended headers"),
            ),
            case(
                "two PAX headers",
                &[pax(&[("path", b"b")]), pax(&[("path", b"a")]), file("z", "x")],
                Refused("two extended headers"),
            ),
            case(
                "PAX and GNU names differ",
                &[pax(&[("path", b"b")]), l(b"a\0"), file("z", "x")],
                Refused("two different long names"),
            ),
            case(
                "PAX and GNU names agree",
                &[pax(&[("path", b"a")]), l(b"a\0"), file("z", "x")],
                a(),
            ),
            case(
                "an extended header for nothing",
                &[file("a", "x"), pax(&[("path", b"b")])],
                Refused("not followed by an entry"),
            ),
            case(
                "a global name",
                &[Entry { flag: b'g', ..pax(&[("path", b"b")]) }, file("a", "x")],
                Refused("a global header sets path"),
            ),
            case(
                "a global size",
                &[Entry { flag: b'g', ..pax(&[("size", b"0")]) }, file("a", "x")],
                Refused("a global header sets size"),
            ),
            case(
                "a global remark",
                &[Entry { flag: b'g', ..pax(&[("comment", b"c")]) }, file("a", "x")],
                a(),
            ),
            case(
                "a global header in between",
                &[pax(&[("path", b"b")]), Entry { flag: b'g', ..pax(&[]) }, file("a", "x")],
                Refused("a global header stands between"),
            ),
            case(
                "a negative size",
                &[Entry { size: Some(vec![0xff; 12]), ..file("a", "x") }],
                Refused("the size is negative"),
            ),
            case(
                "a negative PAX size",
                &[pax(&[("size", b"-1")]), file("a", "x")],
                Refused("size has a malformed value"),
            ),
            case(
                "a size that is not a number",
                &[Entry { size: Some(b"1x".to_vec()), ..file("a", "x") }],
                Refused("the size is malformed"),
            ),
            case(
                "a size of 8 EiB",
                &[pax(&[("size", b"9223372036854775807")]), file("a", "x")],
                Refused("bytes in one file"),
            ),
            case(
                "a size beyond 64 bits",
                &[pax(&[("size", b"99999999999999999999")]), file("a", "x")],
                Refused("malformed value"),
            ),
            case(
                "a size beyond 63 bits",
                &[pax(&[("size", b"18446744073709551615")]), file("a", "x")],
                Refused("the size is too large"),
            ),
            case(
                "a time that is not a number",
                &[pax(&[("mtime", b"1e3")]), file("a", "x")],
                Refused("mtime has a malformed value"),
            ),
            case("a wrong checksum", &[], Refused("checksum"))
                .bytes([vec![b'a'], vec![0; 511]].concat()),
            case("no archive", &[], Refused("checksum")).bytes(vec![b'x'; 10240]),
            case("a header cut short", &[], Refused("ends within a block"))
                .bytes(short[..300].to_vec()),
            case("contents cut short", &[], Refused("ends within an entry"))
                .bytes(short[..512].to_vec()),
            case("padding cut short", &[], Refused("ends within an entry"))
                .bytes(short[..600].to_vec()),
            case("no end", &[], a()).bytes(short.clone()),
            case("nothing", &[], Holds(&[])).bytes(Vec::new()),
            case("two archives", &[], a()).bytes(both),
            case("a lone block of zeros", &[], Refused("one block of zeros")).bytes(lone),
            case("the same name twice", &[file("a", "1"), file("a", "x")], a()),
            case(
                "a file, then a directory",
                &[file("d", "1"), dir("d"), file("a", "x")],
                Holds(&[("d", "dir"), ("a", "x")]),
            ),
            case("a directory, then a file", &[dir("a"), file("a/b", "1"), file("a", "x")], a()),
            case("a slash behind a file's name", &[file("a/", "x")], Refused("ends in a slash")),
            case("a directory of old", &[Entry { flag: 0, ..dir("d/") }], Holds(&[("d", "dir")])),
            case(
                "a prefix without magic",
                &[Entry { magic: [0; 8], ..file("a", "x") }.patch(345, b"p")],
                Refused("without magic"),
            ),
            case(
                "a name of any bytes",
                &[file(b"\xff\n\x01", "x")],
                Holds(&[("\u{fffd}\n\u{1}", "x")]),
            ),
            case("junk behind a name's end", &[file("a", "x").patch(1, b"\0junk")], a()),
        ]
    });
}

impl Case {
    fn bytes(mut self, archive: Vec<u8>) -> Case {
        self.archive = archive;
        self
    }
}

fn sparse(records: &[(&str, &[u8])], contents: &str) -> [Entry; 2] {
    let records: Vec<(String, &[u8])> =
        records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value)).collect();
    let records: Vec<(&str, &[u8])> =
        records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    [pax(&records), file("a", contents)]
}

#[test]
fn sparse_files() {
    check(|_| {
        let gnu = |name: &str, map: &[&str], size: &str, contents: &str| {
            let mut old = Entry { flag: b'S', magic: *b"ustar  \0", ..file(name, contents) };
            for (index, number) in map.iter().enumerate() {
                old = old.patch(386 + 12 * index, format!("{number:0>11}\0").as_bytes());
            }
            old.patch(483, format!("{size:0>11}\0").as_bytes())
        };
        let leading = |map: &str, real: &str| {
            let mut contents = map.as_bytes().to_vec();
            contents.resize(512, 0);
            contents.extend_from_slice(b"abc");
            let head = [
                ("GNU.sparse.major", &b"1"[..]),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", real.as_bytes()),
            ];
            [pax(&head), Entry { contents, ..file("a", "") }]
        };
        let hole = || Holds(&[("a", "\0\0abc\0")]);
        vec![
            case("0.1", &sparse(&[("map", b"2,3"), ("size", b"6")], "abc"), hole()),
            case(
                "0.0",
                &sparse(
                    &[("size", b"6"), ("numblocks", b"1"), ("offset", b"2"), ("numbytes", b"3")],
                    "abc",
                ),
                hole(),
            ),
            case("1.0", &leading("1\n2\n3\n", "6"), hole()),
            case("old", &[gnu("a", &["2", "3"], "6", "abc")], hole()),
            case(
                "old, without GNU's magic",
                &[Entry { magic: *b"ustar\x0000", ..gnu("a", &["2", "3"], "6", "abc") }],
                Refused("no GNU header"),
            ),
            case(
                "out of order",
                &sparse(&[("map", b"4,1,0,2"), ("size", b"6")], "abc"),
                Refused("out of order"),
            ),
            case(
                "overlapping",
                &sparse(&[("map", b"0,2,1,1"), ("size", b"6")], "abc"),
                Refused("out of order"),
            ),
            case(
                "overflowing",
                &sparse(&[("map", b"18446744073709551615,2"), ("size", b"6")], "abc"),
                Refused("overflows"),
            ),
            case(
                "beyond the size",
                &sparse(&[("map", b"5,3"), ("size", b"6")], "abc"),
                Refused("longer than the file"),
            ),
            case(
                "less than is stored",
                &sparse(&[("map", b"2,1"), ("size", b"6")], "abc"),
                Refused("does not cover"),
            ),
            case(
                "more than is stored",
                &sparse(&[("map", b"1,4"), ("size", b"6")], "abc"),
                Refused("does not cover"),
            ),
            case(
                "half a piece",
                &sparse(&[("map", b"2,3,4"), ("size", b"6")], "abc"),
                Refused("malformed value"),
            ),
            case("no size", &sparse(&[("map", b"2,3")], "abc"), Refused("no size")),
            case(
                "two sizes",
                &sparse(&[("map", b"2,3"), ("size", b"6"), ("realsize", b"7")], "abc"),
                Refused("two sizes"),
            ),
            case(
                "unknown version",
                &sparse(&[("major", b"2"), ("minor", b"0"), ("size", b"6")], "abc"),
                Refused("unknown format"),
            ),
            case(
                "a map that is not a list",
                &sparse(&[("map", b"2;3"), ("size", b"6")], "abc"),
                Refused("malformed value"),
            ),
            case(
                "9 EB",
                &sparse(&[("map", b"2,3"), ("size", b"9223372036854775807")], "abc"),
                Refused("bytes in one file"),
            ),
            case(
                "a leading map without end",
                &leading("1\n2\n3", "6"),
                Refused("map is cut short"),
            ),
            case(
                "a leading map of too many",
                &leading("99999999\n", "6"),
                Refused("pieces in a sparse file"),
            ),
            case(
                "a leading map of a bad number",
                &leading("1\n-2\n3\n", "6"),
                Refused("map is malformed"),
            ),
            case(
                "a leading map cut short",
                &[
                    pax(&[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.size", b"6"),
                    ]),
                    file("a", "1\n"),
                ],
                Refused("map is cut short"),
            ),
            case(
                "a sparse directory",
                &[pax(&[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"0")]), dir("d")],
                Refused("not a plain file is sparse"),
            ),
        ]
    });
}

#[test]
fn everything_is_bounded() {
    let limited = |limits: Limits| move |case: Case| case.limited(limits);
    check(|_| {
        let many: Vec<Entry> = (0..1000).map(|n| dir(format!("d{n}"))).collect();
        let globals = vec![Entry { flag: b'g', ..pax(&[("comment", b"c")]) }; 1000];
        let zeros = Entry { contents: vec![0; 1 << 18], ..file("a", "") };
        let bomb = Tar::of(&vec![zeros; 8]).ended();
        let long = Entry { contents: vec![b'a'; (1 << 20) + 1], ..entry(b'L', "x") };
        let header = Entry { size: Some(b"77777777777".to_vec()), ..entry(b'x', "x") };
        let entries = limited(Limits { entries: 999, ..Limits::default() });
        let total = limited(Limits { total: Some(1 << 20), ..Limits::default() });
        vec![
            entries(case("entries", &many, Refused("more than 999 entries"))),
            entries(case("global headers", &globals, Refused("more than 999 entries"))),
            total(
                case("a gzip bomb", &[], Refused("1048576 uncompressed bytes")).bytes(gzip(&bomb)),
            ),
            total(
                case("zeros behind the end", &[], Refused("uncompressed bytes"))
                    .bytes(gzip(&[0; 2 << 20])),
            ),
            case(
                "a long name",
                &[long, file("a", "")],
                Refused("1048576 bytes in an extended header"),
            ),
            case(
                "a PAX header of 8 GiB",
                &[header],
                Refused("1048576 bytes in an extended header"),
            ),
        ]
    });
}

#[test]
fn compressed_streams_are_whole() {
    let whole = || Tar::of(&[file("a", "x")]).ended();
    check(|_| {
        let zipped = gzip(&whole());
        let mut trailer = zipped.clone();
        let last = trailer.len() - 6;
        trailer[last] ^= 1;
        let mut length = zipped.clone();
        *length.last_mut().unwrap() ^= 1;
        let garbage = [&zipped[..], b"garbage"].concat();
        let (head, tail) = (whole()[..700].to_vec(), whole()[700..].to_vec());
        let members = [gzip(&head), gzip(&tail)].concat();
        let second = [zipped.clone(), gzip(&Tar::of(&[file("b", "y")]).0)].concat();
        vec![
            case("whole", &[], Holds(&[("a", "x")])).bytes(zipped.clone()),
            case("members", &[], Holds(&[("a", "x")])).bytes(members),
            case("a member behind the end", &[], Holds(&[("a", "x")])).bytes(second),
            case("a wrong checksum", &[], Refused("gzip stream is broken")).bytes(trailer),
            case("a wrong length", &[], Refused("gzip stream is broken")).bytes(length),
            case("cut short", &[], Refused("gzip stream is broken"))
                .bytes(zipped[..zipped.len() - 1].to_vec()),
            case("cut in half", &[], Refused("gzip stream is broken"))
                .bytes(zipped[..zipped.len() / 2].to_vec()),
            case("garbage behind it", &[], Refused("gzip stream is broken")).bytes(garbage),
            case("only a head", &[], Refused("gzip stream is broken")).bytes(vec![0x1f, 0x8b]),
        ]
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}
