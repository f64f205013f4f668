//! Archives that want out, want too much, or mean two things. Each case has one exact outcome, and
//! what lies beside the root stays as it is.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "helpers of tests may panic, say what was skipped, and tables are long"
)]

#[path = "../common/mod.rs"]
mod common;
mod links;
mod reading;
mod sparse;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use Outcome::{Holds, Refused};
use common::{Entry, Tar, device, dir, entry, file, hardlink, is_root, pax, record, symlink, tree};
use layers::{ApplyOptions, Limits, Root, Whiteouts, apply};
use task::chain;

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

    fn outcome(mut self, outcome: Outcome) -> Case {
        self.outcome = outcome;
        self
    }

    /// A link whose target is only known now.
    fn outcome_link(mut self, target: &str) -> Case {
        let what: &'static str = format!("-> {target}").leak();
        self.outcome = Holds(vec![("l", what)].leak());
        self
    }

    fn outcome_two(mut self, target: &str) -> Case {
        let what: &'static str = format!("-> {target}").leak();
        self.outcome = Holds(vec![("s", what), ("l", "x")].leak());
        self
    }

    fn bytes(mut self, archive: Vec<u8>) -> Case {
        self.archive = archive;
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
        let result = apply(&case.archive[..], &opened, &case.options);

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
