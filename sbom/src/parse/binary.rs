//! What compilers leave in executables: Go's build information, and the list of crates that
//! `cargo auditable` embeds.

use std::io::Read;

use serde::Deserialize;

use super::elf;
use crate::{Ecosystem, Package};

/// Larger executables are only searched for what can be found while they pass by.
const KEPT: usize = 128 << 20;
/// The most build information that is read.
const LARGEST_INFO: usize = 8 << 20;
/// Starts Go's build information, at a multiple of 16.
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";

/// So often something may look like build information and be none.
const TRIES: usize = 64;

/// An executable that passes by in pieces.
#[derive(Debug, Default)]
pub(crate) struct Binary {
    kept: Vec<u8>,
    length: usize,
    /// The last bytes of the stream, from a multiple of 16 on: where the magic may start, or from
    /// the magic on.
    tail: Vec<u8>,
    at_magic: bool,
    tries: usize,
    go: Vec<Package>,
}

impl Binary {
    /// Whether a file that starts so may be an executable.
    pub(crate) fn is_one(head: &[u8]) -> bool {
        elf::is_elf(head)
    }

    /// The next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        if self.length + piece.len() <= KEPT {
            self.kept.extend_from_slice(piece);
        } else {
            self.kept = Vec::new();
        }
        self.length += piece.len();
        if self.go.is_empty() && self.tries < TRIES {
            self.search(piece);
        }
    }

    fn search(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        while self.tries < TRIES {
            if !self.at_magic {
                let places = (0..self.tail.len().saturating_sub(15)).step_by(16);
                let found = places.clone().find(|at| self.tail[*at..].starts_with(GO_MAGIC));
                self.tail.drain(..found.unwrap_or(places.len() * 16));
                if found.is_none() {
                    return;
                }
                self.at_magic = true;
            }
            match go_info(&self.tail) {
                Info::Whole(packages) => {
                    self.go = packages;
                    break;
                }
                Info::More if self.tail.len() < LARGEST_INFO => return,
                // It only looked like it: go on behind it.
                Info::More | Info::Nothing => {
                    self.tries += 1;
                    self.at_magic = false;
                    self.tail.drain(..16);
                }
            }
        }
        self.tail = Vec::new();
    }

    /// The packages that the executable declares.
    pub(crate) fn finish(self) -> Vec<Package> {
        let mut packages = self.go;
        if let Some(section) = elf::section(&self.kept, b".dep-v0") {
            packages.extend(audit_list(section));
        }
        packages
    }
}

enum Info {
    Whole(Vec<Package>),
    More,
    Nothing,
}

/// Reads build information in the form that Go has written since 1.18: two strings, each after
/// its length, 32 bytes behind the magic.
fn go_info(bytes: &[u8]) -> Info {
    let Some(flags) = bytes.get(15) else { return Info::More };
    if flags & 2 == 0 {
        return Info::Nothing;
    }
    let mut at = 32;
    let mut strings = [&bytes[..0]; 2];
    for (index, string) in strings.iter_mut().enumerate() {
        let Some(rest) = bytes.get(at..) else { return Info::More };
        let (length, used) = match varint(rest) {
            Ok(Some(found)) => found,
            Ok(None) => return Info::More,
            Err(()) => return Info::Nothing,
        };
        let limit = if index == 0 { 256 } else { LARGEST_INFO as u64 };
        let Some(length) = usize::try_from(length).ok().filter(|n| *n as u64 <= limit) else {
            return Info::Nothing;
        };
        let Some(text) = bytes.get(at + used..at + used + length) else { return Info::More };
        if index == 0 && !(text.starts_with(b"go") || text.starts_with(b"devel")) {
            return Info::Nothing;
        }
        *string = text;
        at += used + length;
    }
    let [version, modules] = strings.map(String::from_utf8_lossy);
    Info::Whole(go_modules(&version, &modules))
}

fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, ()> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 9 { Ok(None) } else { Err(()) }
}

/// The lines `mod`, `dep` and `=>` (replaces the one before) of Go's module information.
fn go_modules(version: &str, modules: &str) -> Vec<Package> {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go"));
    let mut packages = Vec::new();
    packages.extend(Package::new(Ecosystem::Golang, "stdlib", number.unwrap_or(version)));
    for line in modules.lines().take(100_000) {
        let mut columns = line.split('\t');
        let kind = columns.next().unwrap_or_default();
        // There are 16 bytes of marks on either side of the text.
        let kind = kind.rsplit(|c: char| !c.is_ascii_graphic()).next().unwrap_or_default();
        let (name, version) = (columns.next(), columns.next().unwrap_or_default());
        let version = if version == "(devel)" { "" } else { version };
        let package = name.and_then(|name| Package::new(Ecosystem::Golang, name, version));
        match kind {
            "dep" => packages.extend(package),
            "=>" => {
                packages.pop();
                packages.extend(package);
            }
            kind if kind.ends_with("mod") => packages.extend(package),
            _ => {}
        }
    }
    packages
}

#[derive(Deserialize)]
struct Audit {
    packages: Vec<AuditablePackage>,
}

#[derive(Deserialize)]
struct AuditablePackage {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
}

/// The section `.dep-v0`: JSON, compressed by zlib.
fn audit_list(section: &[u8]) -> Vec<Package> {
    let mut json = Vec::new();
    let decoder = flate2::bufread::ZlibDecoder::new(section);
    if decoder.take(LARGEST_INFO as u64).read_to_end(&mut json).is_err() {
        return Vec::new();
    }
    let audit: Audit = serde_json::from_slice(&json).unwrap_or(Audit { packages: Vec::new() });
    let runtime = audit.packages.iter().filter(|package| package.kind.as_deref() != Some("build"));
    runtime.filter_map(|p| Package::new(Ecosystem::Cargo, &p.name, &p.version)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    pub(super) fn go_binary(pad: usize) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64 + pad * 16, 7);
        // One that only looks like it.
        file.extend_from_slice(GO_MAGIC);
        file.extend_from_slice(&[8, 2, 0, 0]);
        file.resize(file.len().next_multiple_of(16) + 16, 0xee);
        file.extend_from_slice(GO_MAGIC);
        file.extend_from_slice(&[8, 2]);
        file.resize(file.len() + 16, 0);
        let marks = [0x30, 0x77, 0xaf, 0x0c, 0x92, 0x74, 0x08, 0x02, 0x41, 0xe1, 0xc1, 0x07];
        let mut modules = marks.to_vec();
        modules.extend_from_slice(&[0xe6, 0xd6, 0x18, 0xe6]);
        modules.extend_from_slice(
            b"path\tx.org/app/cmd\nmod\tx.org/app\t(devel)\t\ndep\tx.org/lib\tv1.2.3\th1:x=\n\
              dep\tx.org/old\tv0.1.0\n=>\tx.org/fork\tv0.2.0\th1:y=\nbuild\t-compiler=gc\n",
        );
        modules.extend_from_slice(&[0xf9; 16]);
        file.push(8);
        file.extend_from_slice(b"go1.22.1");
        assert!(modules.len() > 127 && modules.len() < 16384);
        file.push(0x80 | (modules.len() & 0x7f) as u8);
        file.push((modules.len() >> 7) as u8);
        file.extend_from_slice(&modules);
        file.resize(file.len() + 1000, 0);
        file
    }

    fn list(file: &[u8], piece: usize) -> Vec<(String, String)> {
        let mut binary = Binary::default();
        file.chunks(piece).for_each(|piece| binary.feed(piece));
        binary.finish().into_iter().map(|package| (package.name, package.version)).collect()
    }

    #[test]
    fn go_modules_are_found_however_the_file_is_cut() {
        let file = go_binary(3);
        let expected = [
            ("stdlib", "1.22.1"),
            ("x.org/app", ""),
            ("x.org/lib", "v1.2.3"),
            ("x.org/fork", "v0.2.0"),
        ]
        .map(|(name, version)| (name.to_owned(), version.to_owned()));
        for piece in [1, 7, 16, 100, file.len()] {
            assert_eq!(list(&file, piece), expected, "in pieces of {piece}");
        }
        assert!(list(&file[..200], 64).is_empty());
    }

    /// A 64-bit file of two sections: their names, and one more.
    pub(super) fn with_section(name: &str, content: &[u8]) -> Vec<u8> {
        let mut names = b"\0.shstrtab\0".to_vec();
        let at = names.len() as u32;
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        let mut file = vec![0u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let names_at = file.len() as u64;
        file.extend_from_slice(&names);
        let content_at = file.len() as u64;
        file.extend_from_slice(content);
        let table = file.len() as u64;
        let header = |name: u32, offset: u64, size: u64| {
            let mut header = vec![0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&offset.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&size.to_le_bytes());
            header
        };
        file.extend(header(0, 0, 0));
        file.extend(header(1, names_at, names.len() as u64));
        file.extend(header(at, content_at, content.len() as u64));
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 1, 0]);
        file
    }

    #[test]
    fn the_list_of_crates_is_found_in_its_section() {
        let json = br#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(json).unwrap();
        let file = with_section(".dep-v0", &encoder.finish().unwrap());
        assert_eq!(list(&file, 50), [("serde".to_owned(), "1.0.1".to_owned())]);
        assert!(list(&with_section(".dep-v0", b"garbage"), 50).is_empty());
        assert!(list(&with_section(".text", b""), 50).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0usize..3000, byte: u8,
        ) {
            let mut elf = b"\x7fELF\x02\x01".to_vec();
            elf.extend_from_slice(&bytes);
            list(&elf, 33);
            for mut file in [go_binary(0), with_section(".dep-v0", b"x")] {
                let at = at % file.len();
                file[at] = byte;
                list(&file, 100);
                list(&file[..at], 100);
            }
        }
    }
}
