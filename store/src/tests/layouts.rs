use std::fs;

use image::{Descriptor, Document, Index, MediaType};
use task::{Fault, Kind};
use tempfile::TempDir;

use super::{Sample, digest, fresh};
use crate::{Error, Layout};

fn layout() -> (TempDir, Layout) {
    let directory = super::directory();
    let layout = Layout::create(&directory.path().join("new/layout")).unwrap();
    (directory, layout)
}

fn put(layout: &Layout, sample: &Sample) {
    for (descriptor, bytes) in sample.blobs() {
        assert_eq!(layout.insert(&bytes).unwrap(), descriptor.digest);
    }
}

#[test]
fn names_are_given_replaced_and_taken() {
    let (_directory, layout) = layout();
    let (a, b) = (Sample::text("a"), Sample::text("b"));
    for sample in [&a, &b] {
        let error = layout.publish(Some("x"), sample.root()).unwrap_err();
        assert!(matches!(error, Error::MissingChild { .. }), "{error}");
        put(&layout, sample);
    }
    assert!(layout.names().unwrap().is_empty());
    assert!(matches!(layout.single(), Err(Error::NoName { .. })));
    layout.publish(Some("x"), a.root()).unwrap();
    layout.publish(Some("y"), a.root()).unwrap();
    assert_eq!(layout.single().unwrap().digest, a.root().digest);
    layout.publish(Some("x"), b.root()).unwrap();
    assert_eq!(layout.names().unwrap(), ["x", "y"]);
    assert_eq!(layout.resolve("x").unwrap().unwrap().digest, b.root().digest);
    assert_eq!(layout.resolve("y").unwrap().unwrap().digest, a.root().digest);
    assert_eq!(layout.resolve("z").unwrap(), None);
    assert!(
        matches!(layout.single(), Err(Error::Ambiguous { candidates, .. }) if candidates == ["x", "y"])
    );
    assert!(layout.unname("x").unwrap());
    assert!(!layout.unname("x").unwrap());
    assert_eq!(layout.names().unwrap(), ["y"]);
    let again = Layout::open(layout.path()).unwrap();
    assert_eq!(
        again.image(&again.single().unwrap(), &"linux/amd64".parse().unwrap()).unwrap().id(),
        a.config.digest()
    );
}

#[test]
fn blobs_may_lie_in_a_directory_that_layouts_share() {
    let directory = super::directory();
    let at = |name: &str| directory.path().join(name);
    let (first, second) = (Layout::create(&at("a")).unwrap(), Layout::create(&at("b")).unwrap());
    let shared = at("below/shared");
    let (first, second) = (first.with_blobs(&shared), second.with_blobs(&shared));
    let sample = Sample::text("a");
    put(&first, &sample);
    second.publish(Some("x"), sample.root()).unwrap();
    assert!(second.contains(sample.root().digest).unwrap());
    assert!(shared.join("sha256").join(sample.root().digest.hex()).is_file());
    assert_eq!(fs::read_dir(at("a/blobs")).unwrap().count(), 0);
    // Without the directory the name is there and its content is not.
    let alone = Layout::open(&at("b")).unwrap();
    assert!(alone.read(&alone.resolve("x").unwrap().unwrap()).is_err());
}

#[test]
fn what_a_loss_of_power_leaves_empty_is_made_again() {
    let (_directory, layout) = layout();
    fs::write(layout.path().join("index.json"), "").unwrap();
    assert!(Layout::open(layout.path()).unwrap().names().unwrap().is_empty());
    fs::write(layout.path().join("oci-layout"), "").unwrap();
    assert!(matches!(Layout::open(layout.path()), Err(Error::Layout { .. })));
    let layout = Layout::create(layout.path()).unwrap();
    let sample = Sample::text("a");
    put(&layout, &sample);
    layout.publish(Some("x"), sample.root()).unwrap();
    assert_eq!(Layout::open(layout.path()).unwrap().names().unwrap(), ["x"]);
}

#[test]
fn a_nameless_entry_is_listed_once_and_then_named() {
    let (_directory, layout) = layout();
    let a = Sample::text("a");
    put(&layout, &a);
    layout.publish(None, a.root()).unwrap();
    layout.publish(None, a.root()).unwrap();
    assert_eq!(layout.entries().unwrap().len(), 1);
    layout.publish(Some("x"), a.root()).unwrap();
    layout.publish(None, a.root()).unwrap();
    assert_eq!((layout.entries().unwrap().len(), layout.names().unwrap().len()), (1, 1));
    // Leftovers of writing are not left.
    let left = crate::file::list(&layout.path().join("blobs")).unwrap();
    assert_eq!(left, ["sha256"]);
    let mut left = crate::file::list(layout.path()).unwrap();
    left.sort();
    assert_eq!(left, ["blobs", "index.json", "oci-layout"]);
}

#[test]
fn what_is_no_layout_is_refused() {
    let directory = super::directory();
    let path = directory.path();
    assert!(matches!(Layout::open(&path.join("nothing")), Err(Error::Layout { .. })));
    fs::write(path.join("precious"), "x").unwrap();
    assert!(matches!(Layout::create(path), Err(Error::Layout { .. })));
    assert_eq!(crate::file::list(path).unwrap(), ["precious"]);
    for (marker, fits) in [
        (r#"{"imageLayoutVersion":"1.0.0"}"#, true),
        (r#"{"imageLayoutVersion":"1.1.0","x":1}"#, true),
        (r#"{"imageLayoutVersion":"2.0.0"}"#, false),
        ("{}", false),
        ("x", false),
    ] {
        fs::write(path.join("oci-layout"), marker).unwrap();
        assert_eq!(Layout::open(path).is_ok(), fits, "{marker}");
    }
}

#[test]
fn broken_indexes_are_named_and_not_read_for_ever() {
    let (_directory, layout) = layout();
    let path = layout.path().join("index.json");
    for text in
        ["{", r#"{"schemaVersion":1,"manifests":[]}"#, r#"{"schemaVersion":2,"manifests":[{}]}"#]
    {
        fs::write(&path, text).unwrap();
        assert_eq!(layout.entries().unwrap_err().kind(), Kind::Invalid, "{text}");
    }
    fs::write(&path, vec![b' '; 5 << 20]).unwrap();
    assert!(layout.entries().unwrap_err().to_string().contains("reading"));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(layout.entries().is_err());
    fs::remove_file(&path).unwrap();
    assert!(layout.entries().is_err());
}

#[test]
fn names_of_other_tools_are_understood() {
    let (_directory, layout) = layout();
    let (a, b) = (Sample::text("a"), Sample::text("b"));
    put(&layout, &a);
    put(&layout, &b);
    let entry = |sample: &Sample, key: &str, value: &str| {
        let mut entry = sample.root().clone();
        entry.annotations.insert(key.to_owned(), value.to_owned());
        entry
    };
    let short = "org.opencontainers.image.ref.name";
    let full = "io.containerd.image.name";
    let mut docker = entry(&a, short, "1.0");
    docker.annotations.insert(full.to_owned(), "docker.io/library/a:1.0".to_owned());
    let write = |entries: Vec<Descriptor>| {
        let index = Document::write(MediaType::OCI_INDEX, Index::new(entries));
        fs::write(layout.path().join("index.json"), index.bytes()).unwrap();
    };
    write(vec![docker.clone(), entry(&b, short, "docker.io/library/b:1")]);
    let resolve = |name: &str| layout.resolve(name).unwrap().map(|found| found.digest);
    assert_eq!(resolve("1.0"), Some(a.root().digest));
    assert_eq!(resolve("docker.io/library/a:1.0"), Some(a.root().digest));
    assert_eq!(resolve("docker.io/library/b:1"), Some(b.root().digest));
    // Two images of one name: the name is ambiguous.
    write(vec![docker.clone(), entry(&b, short, "1.0")]);
    assert!(matches!(layout.resolve("1.0"), Err(Error::Ambiguous { .. })));
    write(vec![docker.clone(), docker]);
    assert_eq!(resolve("1.0"), Some(a.root().digest));
}

#[test]
fn an_index_inside_is_followed() {
    let (_directory, layout) = layout();
    let a = Sample::text("a");
    put(&layout, &a);
    let platform = Some("linux/amd64".parse().unwrap());
    let inner = Index::new(vec![Descriptor { platform, ..a.root().clone() }]);
    let inner = Document::write(MediaType::OCI_INDEX, inner);
    layout.insert(inner.bytes()).unwrap();
    layout.publish(Some("multi"), inner.descriptor()).unwrap();
    let root = layout.resolve("multi").unwrap().unwrap();
    let image = layout.image(&root, &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!(image.descriptor().digest, a.root().digest);
    assert!(layout.image(&root, &"linux/arm64".parse().unwrap()).is_err());
}

#[test]
fn blobs_pass_between_store_and_layout_checked() {
    let (_keep, layout) = layout();
    let (_directory, store) = fresh();
    let a = Sample::text("a");
    a.publish(&store, "a");
    for (descriptor, _) in a.blobs() {
        assert!(layout.adopt_from(&store, &descriptor).unwrap());
        assert!(layout.adopt_from(&store, &descriptor).unwrap());
    }
    let nothing = Descriptor::new(MediaType::OCI_LAYER, digest("nothing"), 1);
    assert!(!layout.adopt_from(&store, &nothing).unwrap());
    layout.publish(Some("a"), a.root()).unwrap();

    let (_directory, other) = fresh();
    let (layer, _) = &a.layers[0];
    fs::write(layout.blob_path(layer.digest), vec![b'x'; usize::try_from(layer.size).unwrap()])
        .unwrap();
    assert!(matches!(
        other.adopt(&layout.blob_path(layer.digest), layer),
        Err(Error::Digest { .. })
    ));
    assert!(!other.contains(layer.digest).unwrap());
    // The store's own copy is another file.
    assert!(super::problems(&store).is_empty());
}

#[test]
fn many_writers_of_one_layout_lose_no_name() {
    let (_directory, layout) = layout();
    let samples: Vec<Sample> = (0..8).map(|n| Sample::text(&format!("s{n}"))).collect();
    std::thread::scope(|scope| {
        for (n, sample) in samples.iter().enumerate() {
            let layout = &layout;
            scope.spawn(move || {
                put(layout, sample);
                layout.publish(Some(&format!("n{n}")), sample.root()).unwrap();
                layout.publish(Some(&format!("m{n}")), sample.root()).unwrap();
                layout.unname(&format!("m{n}")).unwrap();
            });
        }
    });
    let mut names = layout.names().unwrap();
    names.sort();
    assert_eq!(names, ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"]);
}
