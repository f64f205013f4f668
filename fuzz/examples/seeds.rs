//! Writes the seeds of `layer`, `unpack` and `packages`: archives by hand, byte for byte, with every
//! kind of entry and every way to say a name, a size or a time. `cargo run --release --example seeds`
//! in `fuzz/`.

use std::path::Path;

/// An archive in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

/// What an entry's header says beyond its name.
#[derive(Clone, Copy)]
struct Head<'a> {
    kind: u8,
    mode: u32,
    link: &'a str,
    magic: &'a [u8; 8],
    device: (u32, u32),
}

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";
const FILE: Head<'_> = Head { kind: b'0', mode: 0o644, link: "", magic: USTAR, device: (0, 0) };

impl Tar {
    fn raw(mut self, head: Head<'_>, name: &[u8], size: u64, edit: impl Fn(&mut [u8])) -> Tar {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        let mut put =
            |at: usize, text: String| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(100, format!("{:07o}", head.mode));
        put(108, format!("{:07o}", 1000));
        put(116, format!("{:07o}", 1000));
        put(124, format!("{size:011o}"));
        put(136, format!("{:011o}", 1_700_000_000));
        put(157, head.link.to_owned());
        put(265, "user".to_owned());
        put(297, "group".to_owned());
        put(329, format!("{:07o}", head.device.0));
        put(337, format!("{:07o}", head.device.1));
        block[156] = head.kind;
        block[257..265].copy_from_slice(head.magic);
        edit(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self
    }

    fn data(mut self, content: &[u8]) -> Tar {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(self, head: Head<'_>, name: &str, content: &[u8]) -> Tar {
        self.raw(head, name.as_bytes(), content.len() as u64, |_| {}).data(content)
    }

    fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(FILE, name, content)
    }

    fn dir(self, name: &str) -> Tar {
        self.entry(Head { kind: b'5', mode: 0o755, ..FILE }, name, b"")
    }

    fn link(self, kind: u8, name: &str, link: &str) -> Tar {
        self.entry(Head { kind, link, ..FILE }, name, b"")
    }

    /// Records of POSIX in front of the next entry (`x`) or of all (`g`).
    fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Tar {
        let mut all = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            length = rest + length.to_string().len();
            all.extend(format!("{length} {key}=").into_bytes());
            all.extend(*value);
            all.push(b'\n');
        }
        self.entry(Head { kind, ..FILE }, "PaxHeaders/x", &all)
    }

    fn end(self) -> Vec<u8> {
        Tar([self.0, vec![0; 1024]].concat()).0
    }
}

fn sparse(tar: Tar, more: bool) -> Tar {
    let head = Head { kind: b'S', magic: GNU, ..FILE };
    let number = |block: &mut [u8], at: usize, value: u64| {
        block[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    };
    let stored = if more { 5 * 512 } else { 512 };
    let tar = tar.raw(head, b"sparse", stored, |block| {
        let pieces = if more { 4 } else { 1 };
        for piece in 0..pieces {
            number(block, 386 + piece * 24, 4096 * (piece as u64 + 1));
            number(block, 398 + piece * 24, 512);
        }
        block[482] = u8::from(more);
        number(block, 483, 1 << 20);
    });
    if !more {
        return tar.data(&[7; 512]);
    }
    let mut extended = [0; 512];
    number(&mut extended, 0, 1 << 19);
    number(&mut extended, 12, 512);
    tar.data(&extended).data(&[7; 5 * 512])
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let tar = Tar::default;
    let long = "directory/".repeat(14) + "file";
    let long = long.as_str();
    let gnu = |kind, content: &str| {
        let head = Head { kind, magic: GNU, ..FILE };
        tar().entry(head, "././@LongLink", &[content.as_bytes(), b"\0"].concat())
    };
    let device = |kind, minor| Head { kind, device: (1, minor), ..FILE };
    vec![
        ("plain", tar().dir("d/").file("d/f", b"content").file("empty", b"").end()),
        (
            "kinds",
            tar()
                .link(b'2', "symlink", "d/f")
                .file("d/f", b"x")
                .link(b'1', "hardlink", "d/f")
                .entry(device(b'3', 3), "null", b"")
                .entry(device(b'4', 0), "block", b"")
                .entry(Head { kind: b'6', ..FILE }, "fifo", b"")
                .entry(Head { kind: b'7', ..FILE }, "contiguous", b"c")
                .entry(Head { kind: b'V', ..FILE }, "volume", b"")
                .entry(Head { kind: b'?', ..FILE }, "unknown", b"u")
                .entry(Head { kind: 0, magic: &[0; 8], ..FILE }, "old", b"v7")
                .end(),
        ),
        (
            "pax",
            tar()
                .pax(b'g', &[("comment", b"all"), ("mtime", b"1.5")])
                .pax(
                    b'x',
                    &[
                        ("path", long.as_bytes()),
                        ("size", b"3"),
                        ("uid", b"3000000"),
                        ("gid", b"3000000"),
                        ("uname", "\u{fc}".as_bytes()),
                        ("mtime", b"-1.999999999"),
                        ("atime", b"1700000000.000000001"),
                    ],
                )
                .file("short", b"abc")
                .pax(b'x', &[("linkpath", long.as_bytes())])
                .link(b'2', "link", "short")
                .end(),
        ),
        (
            "xattrs",
            tar()
                .pax(
                    b'x',
                    &[
                        ("SCHILY.xattr.user.a", b"\0binary\n"),
                        ("SCHILY.xattr.security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0]),
                        ("LIBARCHIVE.xattr.user.b", b"YmFzZTY0"),
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ],
                )
                .file("f", b"x")
                .pax(b'x', &[("SCHILY.acl.access", b"user::rw-")])
                .dir("d/")
                .end(),
        ),
        (
            "gnu-long",
            Tar([gnu(b'L', long).file("cut", b"x").0, gnu(b'K', long).link(b'2', "l", "cut").0]
                .concat())
            .end(),
        ),
        (
            "prefix",
            tar()
                .raw(FILE, b"name", 1, |block| block[345..351].copy_from_slice(b"prefix"))
                .data(b"x")
                .end(),
        ),
        (
            "base256",
            tar()
                .raw(Head { magic: GNU, ..FILE }, b"far", 0, |block| {
                    block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
                    block[136..148].fill(0xff);
                    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
                })
                .data(b"ab")
                .end(),
        ),
        ("sparse-gnu", sparse(tar(), false).file("after", b"x").end()),
        ("sparse-gnu-more", sparse(tar(), true).file("after", b"x").end()),
        (
            "sparse-pax-0.1",
            tar()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", b"0"),
                        ("GNU.sparse.minor", b"1"),
                        ("GNU.sparse.name", b"sparse"),
                        ("GNU.sparse.size", b"10000"),
                        ("GNU.sparse.numblocks", b"2"),
                        ("GNU.sparse.map", b"0,4,8192,4"),
                    ],
                )
                .file("GNUSparseFile.0/sparse", b"headtail")
                .end(),
        ),
        (
            "sparse-pax-0.0",
            tar()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.size", b"10000"),
                        ("GNU.sparse.numblocks", b"2"),
                        ("GNU.sparse.offset", b"0"),
                        ("GNU.sparse.numbytes", b"4"),
                        ("GNU.sparse.offset", b"8192"),
                        ("GNU.sparse.numbytes", b"4"),
                    ],
                )
                .file("sparse", b"headtail")
                .end(),
        ),
        ("sparse-pax-1.0", {
            let mut map = b"2\n0\n4\n8192\n4\n".to_vec();
            map.resize(512, 0);
            tar()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.name", b"sparse"),
                        ("GNU.sparse.realsize", b"10000"),
                    ],
                )
                .file("GNUSparseFile.0/sparse", &[&map[..], b"headtail"].concat())
                .end()
        }),
        (
            "whiteouts",
            tar()
                .dir("d/")
                .file("d/f", b"x")
                .file("d/.wh.f", b"")
                .file("e/.wh..wh..opq", b"")
                .file(".wh..wh.aufs", b"")
                .file(".wh.", b"")
                .file(".wh...", b"")
                .entry(device(b'3', 0), "char-whiteout", b"")
                .end(),
        ),
        (
            "escapes",
            tar()
                .link(b'2', "out", "..")
                .file("out/evil", b"x")
                .link(b'2', "abs", "/tmp")
                .file("abs/evil", b"x")
                .file("../evil", b"x")
                .file("/evil", b"x")
                .file("a/../../evil", b"x")
                .link(b'1', "hard", "../../etc/passwd")
                .link(b'1', "hard2", "out/evil")
                .dir("out/")
                .link(b'2', "loop", "loop")
                .file("loop/x", b"x")
                .file(".", b"x")
                .file("", b"x")
                .end(),
        ),
        (
            "again",
            tar()
                .file("x", b"1")
                .dir("x/")
                .file("x/y", b"2")
                .link(b'2', "x", "y")
                .link(b'1', "x", "x")
                .file("x", b"3")
                .end(),
        ),
        ("short", tar().file("f", b"0123456789").0[..515].to_vec()),
    ]
}

fn packages() -> Vec<(&'static str, Vec<u8>)> {
    let file = |name: &str, content: &str| Tar::default().file(name, content.as_bytes());
    let dpkg = "Package: a\nStatus: install ok installed\nMaintainer: M <m@example.org>\n\
                Architecture: amd64\nSource: src (1.0)\nVersion: 1:1.0-1+b1\nDescription: short\n long\n .\n\n\
                Package: b\nStatus: deinstall ok config-files\nVersion: 2\n";
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                     Files: *\nCopyright: 2020 A\nLicense: GPL-2+ or MIT\n text\n";
    let apk = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:M <m@example.org>\n\
               U:https://example.org\nF:lib\nR:x\n\n";
    let release = "ID=debian\nVERSION_ID=\"12\"\nNAME='Debian GNU/Linux'\nID_LIKE=\"a b\"\n";
    let python = "Metadata-Version: 2.1\nName: Sample_Pkg\nVersion: 1.0\nLicense: MIT\n\
                  Classifier: License :: OSI Approved :: MIT License\nHome-page: https://example.org\n\nBody\n";
    let node = r#"{"name":"@scope/name","version":"1.0.0","license":{"type":"MIT"},"author":"A <a@example.org>"}"#;
    let cargo = "version = 3\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n\
                 source = \"registry+https://index.example/rust/the-index-of-them\"\n";
    let mut rpm = b"RpmP".to_vec();
    for number in [0u32, 1, 2, 0, 0, 0, 0] {
        rpm.extend(number.to_le_bytes());
    }
    rpm.extend(b"Slot");
    for number in [1u32, 4, 6] {
        rpm.extend(number.to_le_bytes());
    }
    rpm.resize(64, 0);
    rpm.extend(b"BlbS");
    for number in [1u32, 1, 60] {
        rpm.extend(number.to_le_bytes());
    }
    for number in [2u32, 20, 1000, 6, 0, 1, 1001, 6, 5, 1] {
        rpm.extend(number.to_be_bytes());
    }
    rpm.extend(b"name\x001.0\0");
    rpm.resize(4096, 0);
    vec![
        (
            "dpkg",
            file("var/lib/dpkg/status", dpkg)
                .file("usr/share/doc/a/copyright", copyright.as_bytes())
                .end(),
        ),
        ("distroless", file("var/lib/dpkg/status.d/a", dpkg).end()),
        ("apk", file("lib/apk/db/installed", apk).file("etc/os-release", release.as_bytes()).end()),
        ("python", file("usr/lib/python3/site-packages/s-1.0.dist-info/METADATA", python).end()),
        ("egg", file("usr/lib/python3/s.egg-info/PKG-INFO", python).end()),
        ("node", file("app/node_modules/@scope/name/package.json", node).end()),
        ("cargo", file("app/Cargo.lock", cargo).end()),
        ("rpm-ndb", Tar::default().file("var/lib/rpm/Packages.db", &rpm).end()),
        ("whiteout", file("var/lib/dpkg/.wh.status", "").file("lib/apk/.wh..wh..opq", b"").end()),
    ]
}

fn main() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (target, all) in [("layer", kinds()), ("unpack", kinds()), ("packages", packages())] {
        let place = seeds.join(target);
        std::fs::create_dir_all(&place).expect("a directory");
        for (name, bytes) in all {
            std::fs::write(place.join(format!("{name}.tar")), bytes).expect("a file");
        }
    }
}
