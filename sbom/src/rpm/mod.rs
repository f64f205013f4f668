//! RPM's database, in the three forms it has had: SQLite, `ndb`, and Berkeley DB. All of them hold
//! one header blob per package.

mod bdb;
mod header;
mod ndb;
mod sqlite;

use crate::Package;

/// The packages in a database file, whatever its form; `None` if it is none of them, or broken.
pub(crate) fn packages(file: &[u8]) -> Option<Vec<Package>> {
    let mut packages = Vec::new();
    // What is read of a file may be no more than a few times the file: blobs do not overlap.
    let mut budget = file.len().saturating_mul(2);
    let mut take = |blob: &[u8]| {
        packages.extend(header::package(blob));
    };
    if file.starts_with(sqlite::MAGIC) {
        sqlite::blobs(file, "Packages", &mut budget, &mut take)?;
    } else if file.starts_with(ndb::MAGIC) {
        ndb::blobs(file, &mut budget, &mut take)?;
    } else {
        bdb::blobs(file, &mut budget, &mut take)?;
    }
    Some(packages)
}

/// Takes from what may still be read.
fn spend(budget: &mut usize, length: usize) -> Option<()> {
    *budget = budget.checked_sub(length)?;
    Some(())
}

fn le16(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
}

fn le32(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)))
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// A header blob as RPM keeps it: an index of tags, then their data.
    fn blob(name: &str, version: &str, pad: usize) -> Vec<u8> {
        let mut index = Vec::new();
        let mut data = Vec::new();
        let padding = "x".repeat(pad);
        let fields = [
            (1000, name),
            (1001, version),
            (1002, "3.fc40"),
            (1014, "MIT"),
            (1022, "x86_64"),
            (1044, "src-1-3.fc40.src.rpm"),
            (1005, padding.as_str()),
        ];
        for (tag, text) in fields {
            let offset = data.len() as u32;
            for number in [tag, 6, offset, 1] {
                index.extend_from_slice(&number.to_be_bytes());
            }
            data.extend_from_slice(text.as_bytes());
            data.push(0);
        }
        data.resize(data.len().next_multiple_of(4), 0);
        for number in [1003, 4, data.len() as u32, 1] {
            index.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(&7u32.to_be_bytes());
        let mut blob = (index.len() as u32 / 16).to_be_bytes().to_vec();
        blob.extend_from_slice(&(data.len() as u32).to_be_bytes());
        blob.extend(index);
        blob.extend(data);
        blob
    }

    fn blobs() -> Vec<Vec<u8>> {
        let mut blobs: Vec<_> =
            (0..300).map(|n| blob(&format!("package-{n}"), "1.0", n * 40)).collect();
        blobs.push(blob("large", "2.0", 200_000));
        blobs.push(blob("gpg-pubkey", "3", 0));
        blobs
    }

    fn sqlite() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rpmdb.sqlite");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "CREATE TABLE Other(a);
             CREATE TABLE Packages(hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);",
        )
        .unwrap();
        db.execute_batch("BEGIN").unwrap();
        for blob in blobs() {
            db.execute("INSERT INTO Packages(blob) VALUES(?)", [blob]).unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        drop(db);
        std::fs::read(path).unwrap()
    }

    fn ndb() -> Vec<u8> {
        let mut file = b"RpmP".to_vec();
        for number in [0u32, 1, 2, 0, 0, 0, 0] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.resize(2 * 4096, 0);
        for (index, blob) in blobs().into_iter().enumerate() {
            let slot = 32 + 16 * index;
            let number = |number: usize| (number as u32).to_le_bytes();
            let (block, blocks) = (file.len() / 16, (blob.len() + 28).div_ceil(16));
            file[slot..slot + 4].copy_from_slice(b"Slot");
            file[slot + 4..slot + 8].copy_from_slice(&number(index + 1));
            file[slot + 8..slot + 12].copy_from_slice(&number(block));
            file[slot + 12..slot + 16].copy_from_slice(&number(blocks));
            let start = file.len();
            file.extend_from_slice(b"BlbS");
            for field in [index + 1, 1, blob.len()] {
                file.extend_from_slice(&number(field));
            }
            file.extend_from_slice(&blob);
            file.resize(start + blocks * 16, 0);
        }
        file
    }

    fn bdb() -> Vec<u8> {
        const PAGE: usize = 4096;
        let blobs = blobs();
        let number = |number: usize| (number as u32).to_le_bytes();
        let mut pages = vec![vec![0u8; PAGE]];
        let mut places = Vec::new();
        for blob in &blobs {
            places.push((pages.len(), blob.len()));
            let pieces: Vec<_> = blob.chunks(PAGE - 26).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let mut page = vec![0u8; PAGE];
                let next = if index + 1 < pieces.len() { pages.len() + 1 } else { 0 };
                page[16..20].copy_from_slice(&number(next));
                page[22..24].copy_from_slice(&(piece.len() as u16).to_le_bytes());
                page[25] = 7;
                page[26..26 + piece.len()].copy_from_slice(piece);
                pages.push(page);
            }
        }
        for places in places.chunks(100) {
            let mut page = vec![0u8; PAGE];
            page[20..22].copy_from_slice(&((places.len() * 2) as u16).to_le_bytes());
            page[25] = 13;
            let mut end = PAGE;
            for (index, (first, length)) in places.iter().enumerate() {
                end -= 5;
                page[end] = 1;
                page[26 + index * 4..28 + index * 4].copy_from_slice(&(end as u16).to_le_bytes());
                end -= 12;
                page[end] = 3;
                page[end + 4..end + 8].copy_from_slice(&number(*first));
                page[end + 8..end + 12].copy_from_slice(&number(*length));
                page[28 + index * 4..30 + index * 4].copy_from_slice(&(end as u16).to_le_bytes());
            }
            pages.push(page);
        }
        pages[0][12..16].copy_from_slice(&number(0x0006_1561));
        pages[0][20..24].copy_from_slice(&number(PAGE));
        pages[0][25] = 8;
        pages.concat()
    }

    #[test]
    fn all_three_forms_of_the_database_are_read() {
        for (form, file) in [("sqlite", sqlite()), ("ndb", ndb()), ("bdb", bdb())] {
            let mut packages = packages(&file).expect(form);
            packages.sort();
            assert_eq!(packages.len(), 301, "{form}");
            let large = packages.iter().find(|package| package.name == "large").expect(form);
            assert_eq!(large.version, "2.0-3.fc40");
            assert_eq!(large.epoch, Some(7));
            assert_eq!(large.license.as_deref(), Some("MIT"));
            assert_eq!(large.source.as_deref(), Some("src-1-3.fc40.src.rpm"));
        }
    }

    /// Made by RPM 4.18 itself: `rpmbuild -ba` of three spec files with hardly more in them than
    /// what is compared here (`--define "dist .fc40"`, `--target aarch64` for the third), then
    /// `rpm --root DIR --dbpath /var/lib/rpm -i --nodeps --ignorearch *.rpm`, `gzip -9n`.
    #[test]
    fn a_database_that_rpm_wrote_is_read() {
        use std::io::Read;
        let mut file = Vec::new();
        let compressed = &include_bytes!("rpmdb.sqlite.gz")[..];
        flate2::read::GzDecoder::new(compressed).read_to_end(&mut file).unwrap();
        let mut found = packages(&file).unwrap();
        found.sort();
        let package =
            |name: &str, version: &str, architecture: &str, source: &str, license: &str| {
                let mut package = Package::new(crate::Ecosystem::Rpm, name, version).unwrap();
                package.architecture = Some(architecture.to_owned());
                package.source = Some(source.to_owned());
                package.license = Some(license.to_owned());
                package
            };
        let mut ember = package(
            "ember",
            "1.4.0-3.fc40",
            "x86_64",
            "ember-1.4.0-3.fc40.src.rpm",
            "MIT AND Apache-2.0",
        );
        ember.epoch = Some(2);
        ember.supplier = Some("Example Works".to_owned());
        ember.homepage = Some("https://example.org/ember".to_owned());
        let data = "ember-data-20240131-1.el9.src.rpm";
        let data = package("ember-data", "20240131-1.el9", "noarch", data, "CC0-1.0");
        let license = "GPL-2.0-or-later WITH Classpath-exception-2.0";
        let source = "kindling-0.9~rc1-0.1.src.rpm";
        let kindling = package("kindling", "0.9~rc1-0.1", "aarch64", source, license);
        assert_eq!(found, [ember, data, kindling]);
    }

    #[test]
    fn other_files_are_none() {
        for file in [&b""[..], b"x", b"SQLite format 3\0", b"RpmP", &[0; 5000]] {
            assert!(packages(file).is_none_or(|packages| packages.is_empty()));
        }
    }

    static FORMS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| [sqlite(), ndb(), bdb()]);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn broken_databases_are_survived(
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..40),
            cut: usize, near_start: bool,
        ) {
            for file in FORMS.iter() {
                let mut file = file.clone();
                let within = if near_start { 200 } else { file.len() };
                for (at, byte) in &changes {
                    file[at % within] = *byte;
                }
                packages(&file);
                file.truncate(cut % file.len());
                packages(&file);
            }
        }
    }
}
