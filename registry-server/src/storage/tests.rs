use super::*;
use crate::keys;

async fn text(storage: &dyn Storage, key: &str) -> Option<String> {
    let bytes = whole(storage, key, 1 << 20).await.unwrap()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

/// What every place must do; the bucket is taken through it by the end-to-end tests.
async fn keeps_its_promises(storage: &dyn Storage) {
    let put = |key: &'static str, text: &'static str, when| {
        storage.put(key, Bytes::from_static(text.as_bytes()), when)
    };
    assert_eq!(text(storage, "a/b").await, None);
    assert!(storage.stat("a/b").await.unwrap().is_none());
    assert!(put("a/b", "one", WriteCondition::Always).await.unwrap());
    assert!(!put("a/b", "two", WriteCondition::Absent).await.unwrap());
    assert_eq!(text(storage, "a/b").await.as_deref(), Some("one"));
    let version = storage.stat("a/b").await.unwrap().unwrap().version.unwrap();
    assert!(put("a/b", "three", WriteCondition::Is(version.clone())).await.unwrap());
    assert!(!put("a/b", "four", WriteCondition::Is(version.clone())).await.unwrap());
    assert!(!put("a/none", "four", WriteCondition::Is(version)).await.unwrap());
    assert!(put("a/c", "five", WriteCondition::Absent).await.unwrap());
    let part = storage.read("a/b", Some(1..4)).await.unwrap().unwrap();
    let part: Vec<_> = part.map(|bytes| bytes.unwrap()).collect().await;
    assert_eq!(part.concat(), b"hre");

    let mut writer = storage.writer("up/x").await.unwrap();
    writer.write(Bytes::from_static(b"ab")).await.unwrap();
    writer.write(Bytes::from_static(b"cd")).await.unwrap();
    assert_eq!(text(storage, "up/x").await, None);
    writer.finish().await.unwrap();
    assert_eq!(text(storage, "up/x").await.as_deref(), Some("abcd"));
    storage.promote("up/x", "a/d").await.unwrap();
    assert_eq!(text(storage, "a/d").await.as_deref(), Some("abcd"));
    let dropped = storage.writer("a/e").await.unwrap();
    drop(dropped);
    assert!(storage.promote("a/e", "a/f").await.is_err());

    put("a/deep/g", "", WriteCondition::Always).await.unwrap();
    assert_eq!(storage.names("a/", None, 9).await.unwrap(), ["b", "c", "d"]);
    assert_eq!(storage.names("a/", Some("b"), 1).await.unwrap(), ["c"]);
    assert_eq!(storage.names("a/", Some("bb"), 9).await.unwrap(), ["c", "d"]);
    assert!(storage.names("none/", None, 9).await.unwrap().is_empty());
    let mut keys: Vec<_> =
        listed(storage, "a/").await.unwrap().into_iter().map(|s| (s.key, s.size)).collect();
    keys.sort();
    let expected = [("a/b", 5), ("a/c", 4), ("a/d", 4), ("a/deep/g", 0)];
    assert_eq!(keys, expected.map(|(key, size)| (key.to_owned(), size)));

    let before = storage.now().await.unwrap();
    put("a/h", "", WriteCondition::Always).await.unwrap();
    assert!(storage.stat("a/h").await.unwrap().unwrap().modified >= before);
    storage.delete("a/deep/g").await.unwrap();
    storage.delete("a/deep/g").await.unwrap();
    put("a/deep/g", "again", WriteCondition::Absent).await.unwrap();
    assert_eq!(text(storage, "a/deep/g").await.as_deref(), Some("again"));
    assert!(whole(storage, "a/deep/g", 4).await.is_err());
}

#[tokio::test]
async fn memory_keeps_its_promises() {
    keeps_its_promises(&Memory::default()).await;
}

#[tokio::test]
async fn a_directory_keeps_its_promises() {
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    keeps_its_promises(&directory).await;
    for key in ["../x", "a//b", "a/./b"] {
        assert!(directory.stat(key).await.is_err(), "{key}");
    }
    // Nothing is left of what was not finished.
    let left = std::fs::read_dir(home.path().join("tmp")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn directories_of_earlier_versions_are_read_and_their_blobs_are_a_layouts() {
    use image::{Descriptor, MediaType};

    let home = tempfile::tempdir().unwrap();
    let old = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
    let root = home.path();
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    std::fs::create_dir_all(root.join("repositories/a/_tags")).unwrap();
    std::fs::write(root.join("blobs/sha256").join(old.digest.hex()), "{}").unwrap();
    std::fs::write(root.join("repositories/a/_tags/1"), "tag").unwrap();
    // The power was lost while that version made the directory.
    std::fs::write(root.join("oci-layout"), "").unwrap();

    let directory = Directory::open(root).unwrap();
    assert_eq!(text(&directory, "repositories/a/_tags/1").await.as_deref(), Some("tag"));
    assert_eq!(text(&directory, &keys::blob(old.digest)).await.as_deref(), Some("{}"));
    let new = Descriptor::of(MediaType::OCI_MANIFEST, b"{ }");
    let large = "sha512:".to_owned() + &"0".repeat(128);
    let large = keys::blob(large.parse().unwrap());
    for key in [&keys::blob(new.digest), &large] {
        assert!(
            directory.put(key, Bytes::from_static(b"{ }"), WriteCondition::Absent).await.unwrap()
        );
    }
    let mut keys: Vec<_> = listed(&directory, keys::BLOBS).await.unwrap();
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    let mut expected = [keys::blob(old.digest), keys::blob(new.digest), large];
    expected.sort();
    assert_eq!(keys.into_iter().map(|stat| stat.key).collect::<Vec<_>>(), expected);

    let layout = store::Layout::open(root).unwrap();
    assert_eq!(&layout.read(&old).unwrap()[..], b"{}");
    assert_eq!(&layout.read(&new).unwrap()[..], b"{ }");
    // Another server on the same directory.
    assert!(Directory::open(root).is_ok());
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Directory::open(root).is_err(), "of a version to come");
}
