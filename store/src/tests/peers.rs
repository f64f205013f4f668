//! Layouts that other tools write and read, where they are installed.

use std::process::Command;

use task::Task;

use super::{Sample, digest};
use crate::Layout;

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

#[test]
fn skopeo_reads_our_layouts_and_we_read_its() {
    let Some(_) = requires::program("skopeo") else { return };
    let directory = super::directory();
    let layout = Layout::create(&directory.path().join("ours")).unwrap();
    let sample = Sample::new("peer", &[super::layers::archive(&[("etc/", ""), ("etc/x", "1")])]);
    for (_, bytes) in sample.blobs() {
        layout.insert(&bytes).unwrap();
    }
    layout.publish(Some("app:1"), sample.root()).unwrap();
    let ours = format!("oci:{}:app:1", layout.path().display());
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &ours]));
    assert_eq!(raw, &sample.manifest.bytes()[..]);
    let theirs = directory.path().join("theirs");
    let target = format!("oci:{}:copied", theirs.display());
    let policy = ["--insecure-policy", "copy"];
    run(Command::new("skopeo").args(policy).args([&ours, &target]));
    let theirs = Layout::open(&theirs).unwrap();
    assert_eq!(theirs.names().unwrap(), ["copied"]);
    let root = theirs.resolve("copied").unwrap().unwrap();
    let image = theirs.image(&root, &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!(image.layers().next().unwrap().diff_id, sample.layers[0].0.digest);
    // It goes on in the layout that skopeo made, and skopeo in ours.
    for (descriptor, _) in sample.blobs() {
        theirs.adopt(&layout.blob_path(descriptor.digest), &descriptor).unwrap();
    }
    theirs.publish(Some("mine"), sample.root()).unwrap();
    let target = format!("oci:{}:back", layout.path().display());
    let source = format!("oci:{}:mine", theirs.path().display());
    run(Command::new("skopeo").args(policy).args([&source, &target]));
    assert_eq!(layout.names().unwrap(), ["app:1", "back"]);
    assert!(layout.contains(digest("nothing")).is_ok_and(|there| !there));

    // All of it goes into a store and is whole there.
    let (_keep, store) = super::fresh();
    let mut todo: Vec<_> = image.manifest().layers.clone();
    todo.extend([image.manifest().config.clone(), root.clone()]);
    for descriptor in todo {
        assert!(store.adopt(&theirs.blob_path(descriptor.digest), &descriptor).unwrap());
    }
    store.publish("localhost/theirs:1", &root).unwrap();
    assert!(store.check(&Task::silent()).unwrap().is_empty());
}

#[test]
fn what_buildah_writes_is_unpacked() {
    let (true, Some(_)) = (super::is_root(), requires::program("buildah")) else { return };
    let directory = super::directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let buildah = |args: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--root", &path("root"), "--runroot", &path("run")]);
        command.args(["--storage-driver", "vfs"]).args(args);
        String::from_utf8(run(&mut command)).unwrap().trim().to_owned()
    };
    std::fs::write(path("file"), "made by buildah").unwrap();
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, &path("file"), "/etc/file"]);
    let target = format!("oci:{}:app:1", path("layout"));
    buildah(&["commit", "--rm", &container, &target]);

    let layout = Layout::open(&directory.path().join("layout")).unwrap();
    let root = layout.resolve("app:1").unwrap().unwrap();
    let platform = image::Platform::host();
    let image = layout.image(&root, &platform).unwrap();
    let (_keep, store) = super::fresh();
    for descriptor in [root.clone(), image.manifest().config.clone()] {
        assert!(store.adopt(&layout.blob_path(descriptor.digest), &descriptor).unwrap());
    }
    let task = Task::silent();
    let put = |descriptor: &image::Descriptor| {
        let blob = layout.open_blob(descriptor.digest).unwrap();
        store.put_layer(descriptor, blob, &task).unwrap()
    };
    let pending = image.manifest().layers.iter().map(put).collect();
    let top = store.commit_image(&image, pending, &task).unwrap().unwrap();
    store.publish("localhost/app:1", &root).unwrap();
    let tree = store.stack(top).unwrap().mount().unwrap();
    let content = tree.read(std::path::Path::new("etc/file"), 100).unwrap();
    assert_eq!(content, b"made by buildah");
    assert!(store.check(&task).unwrap().is_empty());
}
