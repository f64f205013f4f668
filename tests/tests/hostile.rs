//! Images and contexts that want out of the root, want too much, or mean two things, through the
//! real programs. What lies outside stays as it is, nothing panics, and each ends in a right result
//! or in one clear error.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use e2e::image::{Layer, busybox_layer, layout};
use e2e::watch::{guarded, measured};
use e2e::{Bench, Ran, root};
use image::{Descriptor, Document, Index, Manifest, MediaType};
use tar::EntryType;

struct Scene {
    bench: Bench,
    before: BTreeMap<PathBuf, (u32, i64, Vec<u8>)>,
}

impl Scene {
    /// A bench beside a canary.
    fn new() -> Scene {
        let mut scene = Scene { bench: Bench::new(), before: BTreeMap::new() };
        for (name, mode) in [("file", 0o640), ("inner/file", 0o600), ("inner/secret", 0o604)] {
            let path = scene.bench.write(&format!("canary/{name}"), "the canary lives\n");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        scene.before = scene.canary();
        scene
    }

    fn outside(&self) -> String {
        self.bench.path().join("canary").display().to_string()
    }

    fn canary(&self) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        let all = walkdir::WalkDir::new(self.outside()).into_iter().map(Result::unwrap);
        all.map(|entry| {
            let meta = entry.path().symlink_metadata().unwrap();
            let content = std::fs::read(entry.path()).unwrap_or_default();
            (entry.path().to_owned(), (meta.mode(), meta.mtime_nsec() + meta.mtime(), content))
        })
        .collect()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.bench.command(program);
        let (ran, memory) = measured(command.current_dir(self.bench.path()).args(arguments));
        assert!(memory < 400 << 10, "{memory} KiB: {}", ran.told());
        assert_eq!(self.canary(), self.before, "the canary: {}", ran.told());
        assert!(!ran.stdout.contains("the canary lives"), "{}", ran.told());
        let errors = ran.errors();
        assert!(errors == usize::from(ran.code != 0), "{errors} errors: {}", ran.told());
        ran
    }

    /// Takes a layout in by every way there is; they must agree.
    fn take(&self, name: &str, refused: Option<&str>) {
        let from = format!("oci:{name}:{name}");
        self.bench
            .write(&format!("{name}-context/Dockerfile"), format!("FROM x/{name}\nLABEL a=b\n"));
        let ways: [Vec<String>; 3] = [
            vec!["rcopy".into(), "copy".into(), from.clone(), format!("store:x/{name}:latest")],
            vec!["rbuild".into(), "pull".into(), from],
            vec!["rbuild".into(), "load".into(), "-i".into(), name.into()],
        ];
        for way in ways {
            let line: Vec<&str> = way[1..].iter().map(String::as_str).collect();
            let ran = self.run(&way[0], &line);
            match refused {
                Some(reason) => {
                    let codes: &[i32] = if way[0] == "rbuild" { &[125] } else { &[1, 2] };
                    assert!(codes.contains(&ran.code), "{name}: {}", ran.told());
                    assert!(ran.stderr.contains(reason), "{name}, {reason:?}: {}", ran.told());
                }
                None => assert_eq!(ran.code, 0, "{name}: {}", ran.told()),
            }
        }
        let names = self.run("rbuild", &["images", "--format", "{{.Repository}}"]);
        assert_eq!(names.stdout.contains(name), refused.is_none(), "{name}: {}", names.told());
        if refused.is_none() {
            let context = format!("{name}-context");
            self.run("rbuild", &["bud", "--pull=never", "-t", &format!("built-{name}"), &context])
                .ok();
        }
        assert_eq!(self.run("rbuild", &["check"]).code, 0);
    }
}

#[test]
fn layers_stay_below_their_root() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let out = scene.outside();
    let file = format!("{out}/file");
    let raw =
        |kind, name: &str, link: &str, content: &[u8]| Layer::new().raw(kind, name, link, content);
    let dots = Some("`..`");
    let cases: Vec<(&str, Vec<Layer>, Option<&str>)> = vec![
        ("absolute", vec![raw(EntryType::Regular, &file, "", b"x")], None),
        ("dots", vec![raw(EntryType::Regular, "../../canary/file", "", b"x")], dots),
        ("dots-inside", vec![raw(EntryType::Regular, "a/../../canary/file", "", b"x")], dots),
        ("dots-dir", vec![raw(EntryType::Directory, "../canary/", "", b"")], dots),
        ("dots-whiteout", vec![raw(EntryType::Regular, "../canary/.wh.file", "", b"")], dots),
        (
            "through-link",
            vec![Layer::new().symlink("out", &out).file("out/file", 0o777, b"x")],
            None,
        ),
        (
            "through-link-below",
            vec![Layer::new().symlink("out", &out), Layer::new().file("out/file", 0o777, b"x")],
            None,
        ),
        (
            "link-to-dots",
            vec![Layer::new().symlink("out", "../../../..").file("out/etc/x", 0o777, b"x")],
            None,
        ),
        (
            "over-link",
            vec![Layer::new().symlink("f", &file), Layer::new().file("f", 0o777, b"x")],
            None,
        ),
        (
            "whiteout-through-link",
            vec![Layer::new().symlink("out", &out), Layer::new().file("out/.wh.file", 0o600, b"")],
            None,
        ),
        (
            "opaque-through-link",
            vec![
                Layer::new().symlink("out", &out),
                Layer::new().file("out/.wh..wh..opq", 0o600, b""),
            ],
            None,
        ),
        ("whiteout-of-root", vec![Layer::new().file(".wh..", 0o600, b"")], Some("whiteout")),
        ("hardlink-out", vec![raw(EntryType::Link, "f", &file, b"")], Some("link")),
        ("hardlink-dots", vec![raw(EntryType::Link, "f", "../../canary/file", b"")], Some("`..`")),
        (
            "hardlink-through-link",
            vec![Layer::new().symlink("out", &out).raw(EntryType::Link, "f", "out/file", b"")],
            Some("link"),
        ),
        ("fifo", vec![raw(EntryType::Fifo, "pipe", "", b"")], None),
        ("device", vec![raw(EntryType::Block, "disk", "", b"")], None),
    ];
    for (name, layers, refused) in cases {
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Layer::finish).collect();
        layout(&scene.bench.path().join(name), name, &layers, |_| {});
        scene.take(name, refused);
    }
}

#[test]
fn a_container_on_a_hostile_image_stays_inside() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let out = scene.outside();
    let trap = Layer::new().symlink("out", &out).symlink("up", "../../../../../..").finish();
    layout(&scene.bench.path().join("trap"), "trap", &[busybox_layer(), trap], |config| {
        config.config.working_dir = "/out".to_owned();
    });
    scene.run("rcopy", &["copy", "oci:trap:trap", "store:trap"]).ok();
    for script in [
        "echo x > file",
        "echo x > /out/file",
        &format!("echo x > /up{out}/file"),
        "rm -rf /out/* /out",
    ] {
        scene.run("rbuild", &["run", "--rm", "trap", "sh", "-c", script]);
    }
    scene.run("rbuild", &["run", "--rm", "--tmpfs=/out/tmp", "trap", "true"]);
}

/// Writes a layout of these bytes as one gzip layer.
fn bomb(scene: &Scene, name: &str, diff: &str, packed: &[u8]) {
    let directory = scene.bench.path().join(name);
    layout(&directory, name, &[Vec::new()], |_| {});
    let blobs = directory.join("blobs/sha256");
    let put = |media_type, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    };
    let layer = put(MediaType::OCI_LAYER_GZIP, packed);
    let config = serde_json::json!({
        "architecture": image::Platform::host().architecture, "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let config = put(MediaType::OCI_CONFIG, config.to_string().as_bytes());
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, vec![layer]);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    let mut root = put(MediaType::OCI_MANIFEST, manifest.bytes());
    root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
    let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![root]));
    std::fs::write(directory.join("index.json"), index.bytes()).unwrap();
}

#[test]
fn bombs_are_bounded() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // A header that never ends: 300 MB of a long name.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(300_000_000);
    header.set_cksum();
    packed.write_all(header.as_bytes()).unwrap();
    for _ in 0..300 {
        packed.write_all(&vec![b'a'; 1_000_000]).unwrap();
    }
    let zeroes = format!("sha256:{}", "0".repeat(64));
    bomb(&scene, "long-name", &zeroes, &packed.finish().unwrap());
    scene.take("long-name", Some("in an extended header"));
    bomb(&scene, "no-gzip", &zeroes, b"this is not gzip");
    scene.take("no-gzip", Some("sha256:"));
}

#[test]
fn documents_that_contradict_each_other_are_refused() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let layer = || Layer::new().file("f", 0o644, b"f").finish();
    let at = |name: &str| scene.bench.path().join(name);
    layout(&at("more-ids"), "more-ids", &[layer()], |config| {
        let id = config.rootfs.diff_ids[0];
        config.rootfs.diff_ids.push(id);
    });
    scene.take("more-ids", Some("layers"));
    layout(&at("fewer-ids"), "fewer-ids", &[layer()], |config| config.rootfs.diff_ids.clear());
    scene.take("fewer-ids", Some("layers"));
    layout(&at("wrong-id"), "wrong-id", &[layer()], |config| {
        config.rootfs.diff_ids[0] = image::Digest::of(b"something else");
    });
    scene.take("wrong-id", Some("sha256:"));
    let of = |name: &str| Layer::new().file(name, 0o644, b"f").finish();
    // A blob that is not what its name says, one that is too long, one that is missing.
    for (name, content) in [
        ("changed", Some("x".repeat(2048))),
        ("longer", Some("x".repeat(99_999))),
        ("missing", None),
    ] {
        layout(&at(name), name, &[of(name)], |_| {});
        let blob = at(name).join("blobs/sha256").join(image::Digest::of(&of(name)).hex());
        match content {
            Some(content) => std::fs::write(&blob, content).unwrap(),
            None => std::fs::remove_file(&blob).unwrap(),
        }
        scene.take(name, Some("sha256:"));
    }
    // A blob that is a link out of the layout is not what its name says either.
    let name = "linked";
    layout(&at(name), name, &[of(name)], |_| {});
    let blob = at(name).join("blobs/sha256").join(image::Digest::of(&of(name)).hex());
    std::fs::remove_file(&blob).unwrap();
    symlink(format!("{}/file", scene.outside()), &blob).unwrap();
    scene.take("linked", Some("sha256:"));
    // A manifest that calls itself an index, and is both.
    layout(&at("both"), "both", &[layer()], |_| {});
    let index = std::fs::read_to_string(at("both").join("index.json")).unwrap();
    let index = index.replace("image.manifest.v1", "image.index.v1");
    std::fs::write(at("both").join("index.json"), index).unwrap();
    scene.take("both", Some("sha256:"));
}

#[test]
fn builds_stay_in_their_context_and_their_root() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    scene.bench.busybox();
    let out = scene.outside();
    let context = scene.bench.path().join("context");
    scene.bench.write("context/file", "inside\n");
    symlink(&out, context.join("out")).unwrap();
    symlink(format!("{out}/file"), context.join("link")).unwrap();
    symlink("../canary", context.join("relative")).unwrap();
    let evil = Layer::new().symlink("e", &out).file("e/file", 0o777, b"x").finish();
    scene.bench.write("context/evil.tar", evil);
    let dots = Layer::new().raw(EntryType::Regular, "../../../canary/file", "", b"x").finish();
    scene.bench.write("context/dots.tar", dots);
    let bud = |dockerfile: &str| {
        scene.bench.write("context/Dockerfile", dockerfile);
        scene.run("rbuild", &["bud", "--progress=plain", "-t", "built", "context"])
    };
    let fails = |dockerfile: &str, word: &str| {
        let ran = bud(dockerfile).code(125);
        assert!(ran.stderr.contains(word), "{dockerfile}: {}", ran.told());
        assert!(!ran.stderr.contains("the canary lives"), "{}", ran.told());
    };
    // Links are followed inside the context only, where their targets are not.
    for source in ["out/file", "link", "relative/file", "out/../file/../../canary/file"] {
        fails(&format!("FROM scratch\nCOPY {source} /f\n"), "is not in the build context");
        fails(&format!("FROM scratch\nADD {source} /f\n"), "is not in the build context");
    }
    fails("FROM scratch\nADD dots.tar /\n", "`..`");
    bud("FROM localhost/busybox\nADD evil.tar /\n").ok();
    for dockerfile in [
        format!("RUN ln -s {out} /o\nCOPY file /o/file\n"),
        format!("RUN ln -s {out} /o\nWORKDIR /o/made\nRUN pwd\n"),
        format!("RUN ln -s {out} /o\nVOLUME /o/volume\nRUN true\n"),
        format!("RUN ln -s {out} /o\nADD evil.tar /o/\n"),
        format!("RUN ln -s {out}/file /o\nCOPY file /o\n"),
        format!(
            "RUN ln -s {out} /o\nRUN --mount=type=cache,target=/o/cache echo x > /o/cache/file\n"
        ),
        format!("RUN ln -s {out} /o\nRUN --mount=type=tmpfs,target=/o/tmp echo x > /o/tmp/file\n"),
        "RUN --mount=type=cache,id=../../../../canary,target=/c echo x > /c/file\n".to_owned(),
        format!("RUN --mount=type=cache,id={out},target=/c echo x > /c/file\n"),
        "RUN --mount=type=cache,source=../../../../canary,target=/c echo x > /c/file\n".to_owned(),
        "RUN --mount=type=bind,source=out,target=/b,rw echo x > /b/file\n".to_owned(),
        "RUN --mount=type=bind,source=relative,target=/b cat /b/file\n".to_owned(),
        "RUN --mount=type=bind,source=link,target=/b cat /b\n".to_owned(),
        "RUN --mount=type=bind,target=/b,rw ln -sf /x /b/x; echo x > /b/out/file; cat /b/link\n"
            .to_owned(),
    ] {
        let ran = bud(&format!("FROM localhost/busybox\n{dockerfile}"));
        assert!(!ran.stderr.contains("the canary lives"), "{dockerfile}: {}", ran.told());
    }
    for source in ["/", "/o", "/up"] {
        let dockerfile = format!(
            "FROM localhost/busybox AS evil\nRUN ln -s / /o; ln -s ../../../../.. /up\n\
             FROM localhost/busybox\n\
             RUN --mount=type=bind,from=evil,source={source},target=/b,rw cat /b{out}/file; echo x > /b{out}/file\n"
        );
        let ran = bud(&dockerfile);
        assert!(!ran.stderr.contains("the canary lives"), "{dockerfile}: {}", ran.told());
        let copied = format!(
            "FROM localhost/busybox AS evil\nRUN ln -s {out} /o\nFROM scratch\nCOPY --from=evil /o/file /f\n"
        );
        fails(&copied, "is not in");
    }
    // What is exported to a directory stays in it.
    std::fs::create_dir(scene.bench.path().join("exported")).unwrap();
    symlink(&out, scene.bench.path().join("exported/d")).unwrap();
    scene.bench.write("context/Dockerfile", "FROM scratch\nCOPY file /d/file\n");
    scene.run("rbuild", &["bud", "-o", "type=local,dest=exported", "context"]);
    assert_eq!(scene.run("rbuild", &["check"]).code, 0);
}

#[test]
fn links_to_dockerfiles_and_ignore_files_lead_nowhere_outside() {
    let scene = Scene::new();
    let context = scene.bench.path().join("context");
    scene.bench.write("context/file", "inside\n");
    let secret = format!("{}/file", scene.outside());
    symlink(&secret, context.join("Dockerfile")).unwrap();
    let ran = guarded(scene.bench.command("rbuild").args(["bud".as_ref(), context.as_os_str()]));
    assert_eq!(ran.code, 125, "{}", ran.told());
    assert!(!ran.stderr.contains("the canary lives"), "{}", ran.told());
    std::fs::remove_file(context.join("Dockerfile")).unwrap();
    scene.bench.write("context/real", "FROM scratch\nCOPY file /\n");
    symlink("real", context.join("Dockerfile")).unwrap();
    symlink(&secret, context.join(".dockerignore")).unwrap();
    let ran = scene.run("rbuild", &["bud", "-t", "built", "context"]);
    assert!(!ran.stderr.contains("the canary lives"), "{}", ran.told());
}
