use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use image::{Descriptor, MediaType};
use task::{Fault, Kind};

use super::{digest, fresh, listing, open, options, problems};
use crate::{Error, Options, Store};

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER, bytes)
}

#[test]
fn what_is_stored_is_read_again_and_read_only() {
    let (_directory, store) = fresh();
    let stored = store.insert(b"content").unwrap();
    assert_eq!(stored, digest("content"));
    assert_eq!(store.insert(b"content").unwrap(), stored);
    assert!(store.contains(stored).unwrap());
    assert_eq!(store.blob_size(stored).unwrap(), Some(7));
    assert_eq!(&store.read(&descriptor(b"content")).unwrap()[..], b"content");
    let mut text = String::new();
    store.open_blob(stored).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(fs::metadata(store.blob_path(stored)).unwrap().mode() & 0o7777, 0o444);
    assert!(listing(&store, "ingest").is_empty());

    assert!(!store.contains(digest("other")).unwrap());
    assert_eq!(store.blob_size(digest("other")).unwrap(), None);
    assert_eq!(store.open_blob(digest("other")).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn every_directory_is_closed_to_others() {
    let (_directory, store) = fresh();
    store.insert(b"x").unwrap();
    let _active = store.begin().unwrap();
    let mut todo = vec![store.path().to_owned()];
    while let Some(path) = todo.pop() {
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        // Below `fs` are the modes of the image, reachable only through the closed ones.
        if path.ends_with("fs") {
            continue;
        }
        if !path.is_dir() {
            assert_eq!(mode & 0o077, if mode == 0o444 { 0o044 } else { 0 }, "{}", path.display());
        } else {
            assert_eq!(mode, 0o700, "{}", path.display());
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn other_bytes_than_expected_leave_nothing() {
    let (_directory, store) = fresh();
    let cases: [(&[u8], Descriptor); 3] = [
        (b"too short", descriptor(b"too short!")),
        (b"too long", descriptor(b"too lon")),
        (b"differs", descriptor(b"differz")),
    ];
    for (bytes, expected) in cases {
        let mut writer = store.writer().unwrap();
        writer.write_all(bytes).unwrap();
        let error = writer.commit(Some(&expected)).unwrap_err();
        assert!(matches!(error, Error::Size { .. } | Error::Digest { .. }), "{error}");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(!store.contains(expected.digest).unwrap());
    }
    let mut forgotten = store.writer().unwrap();
    forgotten.write_all(b"forgotten").unwrap();
    drop(forgotten);
    assert!(listing(&store, "ingest").is_empty());
    assert!(listing(&store, "blobs").is_empty());
    assert!(problems(&store).is_empty());
}

#[test]
fn sha512_content_is_stored_under_sha512() {
    let (_directory, store) = fresh();
    let named: image::Digest = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f".parse().unwrap();
    let expected = Descriptor::new(MediaType::OCI_LAYER, named, 3);
    // A writer that was not told computes it when it hears what is expected.
    let mut writer = store.writer().unwrap();
    writer.write_all(b"abc").unwrap();
    assert_eq!(writer.commit(Some(&expected)).unwrap(), named);
    assert!(store.contains(named).unwrap());
    assert_eq!(&store.read(&expected).unwrap()[..], b"abc");
    assert!(store.blob_path(named).starts_with(store.path().join("blobs/sha512")));
    assert!(problems(&store).is_empty());
}

#[test]
fn documents_are_checked_when_they_are_read() {
    let (_directory, store) = fresh();
    let digest = store.insert(b"document").unwrap();
    let wrong_size = Descriptor::new(MediaType::OCI_CONFIG, digest, 7);
    assert!(matches!(store.read(&wrong_size), Err(Error::Size { .. })));
    let huge = Descriptor::new(MediaType::OCI_CONFIG, digest, image::MAX_DOCUMENT + 1);
    assert_eq!(store.read(&huge).unwrap_err().kind(), Kind::Invalid);
    let path = store.blob_path(digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"tampered").unwrap();
    assert!(matches!(store.read(&descriptor(b"document")), Err(Error::Digest { .. })));
}

#[test]
fn blobs_of_others_are_adopted_only_when_they_are_right() {
    let (directory, store) = fresh();
    let source = directory.path().join("source");
    fs::write(&source, b"layer bytes").unwrap();
    let right = descriptor(b"layer bytes");
    assert!(!store.adopt(&directory.path().join("nothing"), &right).unwrap());
    for wrong in [descriptor(b"other bytes"), descriptor(b"shorter"), descriptor(b"longer bytes!")]
    {
        let error = store.adopt(&source, &wrong).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(!store.contains(wrong.digest).unwrap());
    }
    assert!(listing(&store, "ingest").is_empty());
    assert!(store.adopt(&source, &right).unwrap());
    assert!(store.contains(right.digest).unwrap());
    // The owner of the source can change it at any time.
    fs::write(&source, b"changed now").unwrap();
    assert!(problems(&store).is_empty());

    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    assert!(store.adopt(&link, &descriptor(b"changed now")).is_err());
}

#[test]
fn a_store_opens_again_and_something_else_is_not_made_one() {
    let (directory, store) = fresh();
    let digest = store.insert(b"kept").unwrap();
    let path = store.path().to_owned();
    drop(store);
    assert!(open(&path).contains(digest).unwrap());
    let error = Store::open(directory.path(), options("boot")).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(!directory.path().join("catalog.db").exists());
    let other = Options { user_xattr: !options("boot").user_xattr, ..options("boot") };
    assert_eq!(Store::open(&path, other).unwrap_err().kind(), Kind::Refused);
}
