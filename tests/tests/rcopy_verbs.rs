//! Verbs of `rcopy` that scripts of skopeo, crane and regctl use.

mod asked;

use registry_server::{Options, Registry};

use e2e::image::Layer;
use e2e::kill::Chance;
use e2e::scene::Scene;

use asked::fetched;

fn start() -> Registry {
    Registry::start(Options::default()).expect("a registry")
}

/// Writes an image of these layers to a registry; gives its name without a transport.
fn write(scene: &Scene, registry: &Registry, name: &str, layers: &[Vec<u8>]) -> String {
    let directory = scene.bench.path().join(format!("made-{name}"));
    e2e::image::layout(&directory, "app", layers, |_| {});
    let name_there = format!("{}/team/{name}:1", registry.address());
    scene.copy(&format!("oci:made-{name}:app"), &format!("docker://{name_there}")).ok();
    name_there
}

fn file(text: &str) -> Vec<u8> {
    Layer::new().file("a", 0o644, text.as_bytes()).finish()
}

#[test]
fn a_base_that_has_changed_is_found() {
    let (scene, registry) = (Scene::new(), start());
    let base = write(&scene, &registry, "base", &[file("base")]);
    let app = write(&scene, &registry, "app", &[file("base"), file("own")]);
    let same = scene.rcopy(&["check-base", "--base", &base, &app]).ok();
    assert!(same.stdout.contains("is unchanged"), "{}", same.told());
    scene.rcopy(&["check-base", &app]).code(1).fails(&["does not say", "--base"]);
    let digest = scene.rcopy(&["digest", &base]).ok().text().to_owned();
    // What the annotations say of the base is enough.
    let said = format!("{app}-said");
    let (name, of) = (
        format!("org.opencontainers.image.base.name={base}"),
        format!("org.opencontainers.image.base.digest={digest}"),
    );
    scene.rcopy(&["mutate", "--annotation", &name, "--annotation", &of, "-t", &said, &app]).ok();
    scene.rcopy(&["check-base", &said]).ok();
    write(&scene, &registry, "base", &[file("newer")]);
    let ran = scene.rcopy(&["check-base", "--base", &base, &app]).code(1);
    assert!(ran.stdout.contains("has changed"), "{}", ran.told());
    let quiet = scene.rcopy(&["check-base", "-q", "--base", &base, "--digest", &digest, &app]);
    assert_eq!(quiet.code(1).stdout, "");
    scene.rcopy(&["check-base", "-q", &said]).code(1);
}

#[test]
fn one_file_of_an_image_is_printed() {
    let (scene, registry) = (Scene::new(), start());
    let below = Layer::new()
        .dir("etc", 0o755)
        .file("etc/low", 0o644, b"low")
        .file("etc/changed", 0o644, b"old")
        .file("etc/gone", 0o644, b"gone")
        .file("deep/x", 0o644, b"x")
        .symlink("link", "etc")
        .finish();
    let above = Layer::new()
        .file("etc/changed", 0o644, b"new")
        .file("etc/.wh.gone", 0o644, b"")
        .file("deep/.wh..wh..opq", 0o644, b"")
        .symlink("etc/two", "../link/changed")
        .finish();
    let name = write(&scene, &registry, "files", &[below, above]);
    let get = |path: &str| scene.rcopy(&["get-file", &name, path]);
    for (path, text) in [
        ("/etc/low", "low"),
        ("etc/changed", "new"),
        ("/link/low", "low"),
        ("/etc/two", "new"),
        ("/etc/../etc/./low", "low"),
    ] {
        assert_eq!(get(path).ok().stdout, text, "{path}");
    }
    for path in ["/etc/gone", "/nothing", "/deep/x", "/etc"] {
        get(path).code(1).fails(&[path]);
    }
    scene.rcopy(&["get-file", &name, "/etc/low", "out"]).ok();
    assert_eq!(std::fs::read_to_string(scene.bench.path().join("out")).unwrap(), "low");
    // The layer on top has it: the others are not fetched.
    registry.forget();
    get("/etc/changed").ok();
    let blobs = registry
        .requests()
        .into_iter()
        .filter(|request| request.method == "GET" && request.path.contains("/blobs/"));
    assert_eq!(blobs.count(), 2, "the config and one layer");
    scene.rcopy(&["get-file", &format!("{name}-none"), "/x"]).code(2);
}

/// An image on the registry whose layers have tables of contents.
fn write_chunked(scene: &Scene, registry: &Registry, name: &str) -> String {
    let noise = Chance::new(7).bytes(3_000_000);
    let below = Layer::new()
        .dir("etc", 0o755)
        .file("etc/large", 0o644, &noise)
        .owned("etc/small", 0o640, (7, 8), b"small")
        .symlink("link", "etc")
        .symlink("etc/other", "small")
        .finish();
    let above = Layer::new().file("top", 0o755, &noise[..2_000_000]).finish();
    e2e::image::layout(&scene.bench.path().join("chunked"), "app", &[below, above], |_| {});
    let there = format!("{}/team/{name}:1", registry.address());
    let to = format!("docker://{there}");
    let chunked = ["copy", "--dest-compress-format", "zstd:chunked", "oci:chunked:app", &to];
    scene.rcopy(&chunked).ok();
    registry.forget();
    there
}

#[test]
fn of_layers_with_a_table_only_the_file_is_fetched() {
    let scene = Scene::new();
    let registry = start();
    let name = write_chunked(&scene, &registry, "chunked");
    for path in ["/etc/small", "/link/small", "/etc/other"] {
        registry.forget();
        assert_eq!(scene.rcopy(&["get-file", &name, path]).ok().stdout, "small", "{path}");
        let bytes = fetched(&registry, &scene, &name);
        assert!(bytes.is_some_and(|bytes| (5..5000).contains(&bytes)), "{path}: {bytes:?}");
    }
    registry.forget();
    scene.rcopy(&["export", "--path", "/etc/small", "--path", "link/other", &name, "x.tar"]).ok();
    let bytes = fetched(&registry, &scene, &name);
    assert!(bytes.is_some_and(|bytes| (5..9000).contains(&bytes)), "{bytes:?}");
    let archive = std::fs::File::open(scene.bench.path().join("x.tar")).expect("an archive");
    let mut archive = tar::Archive::new(archive);
    let told = archive.entries().expect("an archive").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).expect("text");
        let header = entry.header();
        let owner = (header.uid().expect("a number"), header.gid().expect("a number"));
        let mode = header.mode().expect("a number");
        (entry.path().expect("a path").display().to_string(), mode, owner, text)
    });
    let small = |path: &str| (path.to_owned(), 0o640, (7, 8), "small".to_owned());
    assert_eq!(told.collect::<Vec<_>>(), [small("etc/small"), small("link/other")]);
    scene.rcopy(&["export", "--path", "/etc", &name, "y.tar"]).fails(&["it is a directory"]);
    assert!(!scene.bench.path().join("y.tar").exists());
    scene.rcopy(&["get-file", &name, "/none"]).code(1).fails(&["there is no such file"]);
}

#[test]
fn copy_from_an_image_fetches_only_the_file() {
    let scene = Scene::new();
    let registry = start();
    let name = write_chunked(&scene, &registry, "chunked");
    let build = |tag: &str, sources: &str| {
        registry.forget();
        let dockerfile = format!("FROM scratch\nCOPY --from={name} {sources} /to/\n");
        scene.bench.build(tag, &dockerfile, &[]).ok();
        let bytes = fetched(&registry, &scene, &name);
        let from = format!("store:localhost/{tag}");
        let text = scene.rcopy(&["get-file", &from, "/to/small"]).ok().stdout;
        let layers = scene.rcopy(&["inspect", &from, "--format", "{{.Layers}}"]).ok().stdout;
        (bytes, text, layers)
    };
    let (bytes, text, layers) = build("one", "/etc/small");
    assert!(bytes.is_some_and(|bytes| (5..5000).contains(&bytes)), "{bytes:?}");
    assert_eq!(text, "small");
    // A directory needs the whole image; its files make the same layer.
    let (bytes, _, _) = build("two", "/etc/");
    assert_eq!(bytes, None, "the layers are fetched whole");
    let (_, _, again) = build("three", "/link/../etc/small");
    assert_eq!(layers, again);
}

#[test]
fn images_without_checked_signatures_are_refused_if_asked() {
    let (scene, registry) = (Scene::new(), start());
    registry.put_image("team/app", "1", &[]).unwrap();
    let place = format!("docker://{}/team/app:1", registry.address());
    let policy = |kind: &str| {
        let text = format!("{{\"default\":[{{\"type\":\"{kind}\"}}]}}");
        scene.bench.write("policy.json", text).display().to_string()
    };
    let anything = policy("insecureAcceptAnything");
    let copy = ["copy", &place, "oci:x:app"];
    let strict = [&["--require-signed", "--policy", &anything][..], &copy].concat();
    scene.rcopy(&strict).code(1).fails(&["does not check its signatures"]);
    assert!(!scene.bench.path().join("x/index.json").exists());
    scene.rcopy(&[&["--policy", &anything][..], &copy].concat()).ok();
    let both = [&["--require-signed", "--insecure-policy"][..], &copy].concat();
    scene.rcopy(&both).code(1).fails(&["--insecure-policy"]);
}

#[test]
fn registries_are_told_who_asks() {
    let (scene, registry) = (Scene::new(), start());
    registry.put_image("team/app", "1", &[]).unwrap();
    registry.forget();
    let name = format!("{}/team/app:1", registry.address());
    scene.rcopy(&["--user-agent-prefix=ci/1", "digest", &name]).ok();
    let agent = registry.requests()[0].header("user-agent").unwrap().to_owned();
    assert!(agent.starts_with("ci/1 rbuild/"), "{agent}");
}

#[test]
fn all_tags_of_a_repository_are_copied_and_those_that_exist_are_left_alone() {
    let (scene, from, to) = (Scene::new(), start(), start());
    let sig = format!("sha256-{}.sig", "0".repeat(64));
    for (tag, text) in [("1", "one"), ("2", "two"), (&*sig, "signature")] {
        from.put_image("team/app", tag, &[text.as_bytes()]).unwrap();
    }
    let place =
        |registry: &Registry, tag: &str| format!("docker://{}/team/app{tag}", registry.address());
    let (source, target) = (place(&from, ""), place(&to, ""));
    scene.rcopy(&["copy", "-q", "--all-tags", &source, &target]).ok();
    let names = |registry: &Registry| {
        let name = format!("{}/team/app", registry.address());
        scene.rcopy(&["ls", &name]).ok().text().replace('\n', " ")
    };
    assert_eq!(names(&to), "1 2");
    // Another image gets the name at the source, and a new one appears.
    from.put_image("team/app", "1", &[b"other"]).unwrap();
    from.put_image("team/app", "3", &[b"three"]).unwrap();
    let before = scene.digest(&place(&to, ":1"));
    scene.rcopy(&["copy", "-q", "--all-tags", "--no-clobber", "-j", "2", &source, &target]).ok();
    assert_eq!(names(&to), "1 2 3");
    assert_eq!(scene.digest(&place(&to, ":1")), before);
    let one = scene.rcopy(&["copy", "-n", &place(&from, ":1"), &place(&to, ":1")]).ok();
    assert!(one.stderr.contains("left alone"), "{}", one.told());
    assert_eq!(scene.digest(&place(&to, ":1")), before);
    scene.rcopy(&["copy", "-q", "--all-tags", &source, &target]).ok();
    assert_ne!(scene.digest(&place(&to, ":1")), before);
    scene.rcopy(&["copy", "--all-tags", &place(&from, ":1"), &target]).code(1);
    scene.rcopy(&["copy", "--all-tags", &place(&from, "no"), &target]).code(2);
}

#[test]
fn a_place_that_is_not_there_is_no_missing_image() {
    let scene = Scene::new();
    for place in ["oci:nowhere:x", "oci-archive:nowhere:x", "docker-archive:nowhere", "dir:nowhere"]
    {
        scene.rcopy(&["inspect", place]).code(1).fails(&["nowhere", "no such file or directory"]);
    }
    scene.rcopy(&["inspect", "oci:image:other"]).code(2);
    scene.copy("oci:image:app", "oci-archive:a.tar:app").ok();
    scene.rcopy(&["inspect", "oci-archive:a.tar:other"]).code(2);
}

#[test]
fn transports_that_there_are_not_are_no_names_of_images() {
    let scene = Scene::new();
    for (place, instead) in [
        ("sif:a.sif", "`rbuild import`"),
        ("ostree:a", "`rbuild import`"),
        ("atomic:a", "docker://"),
    ] {
        scene.rcopy(&["inspect", place]).code(1).fails(&["is not supported", instead]);
        scene.copy("oci:image:app", place).code(1).fails(&["is not supported"]);
    }
}

#[test]
fn a_mirror_to_archives_and_a_file_of_regsync_are_refused_with_the_reason() {
    let scene = Scene::new();
    for archive in ["oci-archive", "docker-archive"] {
        let line = ["sync", "--src=dir", "--dest", archive, "image", "out"];
        scene.rcopy(&line).code(1).fails(&["written as a whole", "`rcopy copy`"]);
    }
    let text = "version: 1\ncreds:\n  - registry: r.example\nsync:\n  - source: r.example/app\n\
                \u{20}   target: m.example/app\n    type: repository\n    hooks: {}\n";
    scene.bench.write("regsync.yaml", text);
    let line = ["sync", "--src=yaml", "--dest=dir", "regsync.yaml", "out"];
    scene.rcopy(&line).code(1).fails(&["regsync.yaml", "a file of regsync", "skopeo"]);
}

#[test]
fn a_directory_that_holds_no_image_is_named_as_such() {
    let scene = Scene::new();
    let empty = scene.bench.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let load = scene.bench.rbuild(["load".as_ref(), "-i".as_ref(), empty.as_os_str()]);
    load.code(125).fails(&["a directory without manifest.json or oci-layout"]);
    scene.bench.write("file", "");
    for to in ["dir:file", "oci:file:a"] {
        scene.rcopy(&["copy", "oci:image:app", to]).code(1).fails(&["file", "not a directory"]);
    }
}

#[test]
fn peers_without_an_upstream_are_refused() {
    let line = ["registry", "serve", "--directory=x", "--peers=127.0.0.1:5000"];
    Scene::new().bench.rbuild(line).code(125).fails(&["[[upstream]]"]);
}
