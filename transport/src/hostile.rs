//! Layouts, archives and directories that mean harm.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{Config, Descriptor, Digest, Document, MediaType};
use task::Task;

use crate::at::{Archive, ArchiveSource, Directory, Form, LayoutImage, Memory};
use crate::samples::{all, layer, read_all, samples};
use crate::*;

/// A whole layout of the sample image, to be broken.
async fn layout(path: &Path) -> (LayoutImage, Descriptor) {
    let image = LayoutImage::new(path, ImageSelector::Only);
    let root = copy(&samples().image("one"), &image, &Open, &all(), &Task::silent()).await;
    (image, root.unwrap())
}

async fn is_refused(source: &dyn Source, what: &str) {
    let memory = Memory::new();
    let copied = copy(source, &memory.image("x"), &Open, &all(), &Task::silent()).await;
    assert!(copied.is_err(), "{what}");
    assert_eq!(memory.named("x"), None, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts() {
    let dir = tempfile::tempdir().unwrap();
    let (_, root) = layout(&dir.path().join("good")).await;
    let digest = root.digest.to_string();
    let size = root.size.to_string();
    let index = |digest: &str, size: &str| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size}}}]}}"#
        )
    };
    let outside = dir.path().join("secret");
    fs::write(&outside, b"secret").unwrap();
    let cases = [
        ("negative size", index(&digest, "-1")),
        ("fractional size", index(&digest, "1.5")),
        ("wrong size", index(&digest, "7")),
        ("giant size", index(&digest, "18446744073709551615")),
        ("traversal", index("sha256:../../../secret", &size)),
        ("short digest", index("sha256:abcd", &size)),
        ("upper case", index(&digest.to_uppercase().replace("SHA256", "sha256"), &size)),
        ("unknown algorithm", index(&digest.replace("sha256", "md5"), &size)),
        ("missing content", index(&Digest::of(b"?").to_string(), &size)),
        ("no json", "{".to_owned()),
        ("deep json", "[".repeat(100_000)),
        ("giant index", format!("{}{}", " ".repeat(5 << 20), index(&digest, &size))),
        ("no images", r#"{"schemaVersion":2,"manifests":[]}"#.to_owned()),
    ];
    for (what, index) in cases {
        let path = dir.path().join(what);
        let (image, _) = layout(&path).await;
        fs::write(path.join("index.json"), index).unwrap();
        is_refused(&image, what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_other_things() {
    let dir = tempfile::tempdir().unwrap();
    let memory = samples();
    let root = memory.named("one").unwrap();
    let digests = read_all(&memory.image("one"), &root).await;
    for (at, digest) in digests.iter().enumerate() {
        for kind in ["changed", "short", "pipe", "directory", "dangling link"] {
            let path = dir.path().join(format!("{at}-{kind}"));
            let (image, _) = layout(&path).await;
            let blob = path.join("blobs/sha256").join(digest.hex());
            let content = fs::read(&blob).unwrap();
            fs::remove_file(&blob).unwrap();
            match kind {
                "changed" => {
                    let mut content = content;
                    content[0] ^= 1;
                    fs::write(&blob, content).unwrap();
                }
                "short" => fs::write(&blob, &content[1..]).unwrap(),
                "pipe" => assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success()),
                "directory" => fs::create_dir(&blob).unwrap(),
                _ => std::os::unix::fs::symlink("/nonexistent", &blob).unwrap(),
            }
            is_refused(&image, kind).await;
            // Nor does a neighbour that would link it take it.
            let target =
                LayoutImage::new(&dir.path().join(format!("{at}-{kind}-to")), ImageSelector::Only);
            let copied = copy(&image, &target, &Open, &all(), &Task::silent()).await;
            assert!(copied.is_err(), "{kind}");
            assert!(Source::resolve(&target).await.is_err(), "{kind}");
        }
    }
}

/// A Docker archive as old versions write it, from its parts.
fn docker_archive(path: &Path, manifest: &str, files: &[(&str, &[u8])]) -> ArchiveSource {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    for (name, content) in files {
        add(name, content);
    }
    add("manifest.json", manifest.as_bytes());
    tar.finish().unwrap();
    ArchiveSource::new(path, Form::Docker, ImageSelector::Only)
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let (a, b) = (layer("a", b"alpha"), layer("b", b"beta"));
    let mut config =
        Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
    config.rootfs.diff_ids = vec![Digest::of(&a), Digest::of(&b)];
    let config = Document::write(MediaType::DOCKER_CONFIG, config);
    let (config, files): (&[u8], _) = (config.bytes(), ["c.json", "1/layer.tar", "2/layer.tar"]);
    let whole = [(files[0], config), (files[1], &a[..]), (files[2], &b[..])];
    let item = |config: &str, layers: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["app:1"],"Layers":[{layers}]}}]"#)
    };
    let good = item("c.json", r#""1/layer.tar","2/layer.tar""#);

    // The control: it can be read, by name too, twice to the same digest.
    let source = docker_archive(&path, &good, &whole);
    let root = source.resolve().await.unwrap();
    let named =
        |name: &str| ArchiveSource::new(&path, Form::Docker, ImageSelector::Name(name.to_owned()));
    assert_eq!(named("docker.io/library/app:1").resolve().await.unwrap(), root);
    assert!(named("app:2").resolve().await.is_err());
    let memory = Memory::new();
    copy(&source, &memory.image("x"), &Open, &all(), &Task::silent()).await.unwrap();
    assert_eq!(memory.digests().len(), 4);
    open(&source, &image::Platform::host()).await.unwrap();

    let two = format!("{},{}", good.trim_end_matches(']'), good.trim_start_matches('['));
    let cases = [
        ("swapped layers", item("c.json", r#""2/layer.tar","1/layer.tar""#)),
        ("the same layer twice", item("c.json", r#""1/layer.tar","1/layer.tar""#)),
        ("a layer less", item("c.json", r#""1/layer.tar""#)),
        ("no layers", item("c.json", "")),
        ("a layer more", item("c.json", r#""1/layer.tar","2/layer.tar","2/layer.tar""#)),
        ("a missing layer", item("c.json", r#""1/layer.tar","3/layer.tar""#)),
        ("a layer outside", item("c.json", r#""1/layer.tar","../../etc/passwd""#)),
        ("a config outside", item("../../etc/passwd", "")),
        ("no config", item("d.json", "")),
        ("a layer as config", item("1/layer.tar", "")),
        ("no image", "[]".to_owned()),
        ("two images", two),
        ("no list", "{}".to_owned()),
    ];
    for (what, manifest) in cases {
        is_refused(&docker_archive(&path, &manifest, &whole), what).await;
    }
    fs::write(&path, vec![b'x'; 2048]).unwrap();
    is_refused(&ArchiveSource::new(&path, Form::Docker, ImageSelector::Only), "no tar").await;
    is_refused(&ArchiveSource::new(dir.path(), Form::Docker, ImageSelector::Only), "a directory")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let image = Directory::new(&path);
    let memory = samples();
    let root = copy(&memory.image("one"), &image, &Open, &all(), &Task::silent()).await.unwrap();
    let manifest = fs::read(path.join("manifest.json")).unwrap();
    let mut changed = manifest.clone();
    changed.retain(|byte| *byte != b' ');
    changed.push(b' ');
    // Other bytes are another image, of the same parts.
    fs::write(path.join("manifest.json"), &changed).unwrap();
    assert_ne!(image.resolve().await.unwrap().digest, root.digest);
    for (what, content) in
        [("no json", &b"{"[..]), ("a list", b"[]"), ("schema 1", br#"{"schemaVersion":1}"#)]
    {
        fs::write(path.join("manifest.json"), content).unwrap();
        is_refused(&image, what).await;
    }
    fs::write(path.join("manifest.json"), &manifest).unwrap();
    let blob = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let blob = blob.into_iter().find(|path| path.file_name().unwrap().len() == 64).unwrap();
    fs::remove_file(&blob).unwrap();
    assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success());
    is_refused(&image, "a pipe").await;
    // Nor is a foreign directory written to.
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("file"), b"mine").unwrap();
    let target = Directory::new(&own);
    let copied = copy(&memory.image("one"), &target, &Open, &all(), &Task::silent()).await;
    assert!(copied.is_err());
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let memory = samples();
    let path = dir.path().join("x.tar");
    let whole = Archive::create(&path, Form::Oci).unwrap().only_image(ImageSelector::Only);
    copy(&memory.image("one"), &whole, &Open, &all(), &Task::silent()).await.unwrap();
    let precious = fs::read(&path).unwrap();
    let lost = *memory.digests().iter().find(|d| memory.get(**d).unwrap().len() > 500_000).unwrap();
    memory.remove(lost);
    for form in [Form::Oci, Form::Docker] {
        let sink = Archive::create(&path, form).unwrap().only_image(ImageSelector::Only);
        let copied = copy(&memory.image("one"), &sink, &Open, &all(), &Task::silent()).await;
        assert!(copied.is_err());
        drop(sink);
        assert!(fs::read(&path).unwrap() == precious);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_have_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let memory = samples();
    let mut digests = Vec::new();
    for at in 0..3 {
        let path = dir.path().join(at.to_string());
        let sink = Archive::create(&path, Form::Oci).unwrap().only_image(ImageSelector::Only);
        copy(&memory.image("many"), &sink, &Open, &all(), &Task::silent()).await.unwrap();
        digests.push(Digest::of(&fs::read(&path).unwrap()));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}
