//! Verbs of `rcopy` that scripts of skopeo, crane and regctl use.

use registry_server::{Options, Registry};

use e2e::image::Layer;
use e2e::scene::Scene;

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
        scene.rcopy(&["inspect", place]).code(1).fails(&["nowhere", "No such file or directory"]);
    }
    scene.rcopy(&["inspect", "oci:image:other"]).code(2);
    scene.copy("oci:image:app", "oci-archive:a.tar:app").ok();
    scene.rcopy(&["inspect", "oci-archive:a.tar:other"]).code(2);
}

#[test]
fn transports_that_there_are_not_are_no_names_of_images() {
    let scene = Scene::new();
    for place in ["tarball:a.tar", "sif:a.sif", "ostree:a", "atomic:a"] {
        scene.rcopy(&["inspect", place]).code(1).fails(&["is not supported", "docker://"]);
        scene.copy("oci:image:app", place).code(1).fails(&["is not supported"]);
    }
}
