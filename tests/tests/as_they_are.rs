//! Copies on real command lines: what stays behind, what is refused, what other tools wrote.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are journeys")]

use std::process::{Command, Stdio};

use e2e::Bench;
use e2e::scene::Scene;
use image::{Config, Descriptor, Manifest, MediaType};
use registry_server::{Auth, Options, Registry};

const NAME: &str = "team/app";

fn start() -> Registry {
    Registry::start(Options::default()).unwrap()
}

/// An image with a tag beside it that holds its signature; both digests.
fn signed(registry: &Registry) -> (Descriptor, String) {
    let layer = e2e::image::Layer::new().file("a", 0o644, b"a").finish();
    let image = registry.put_image(NAME, "1", &[&layer]).unwrap();
    let tag = format!("{}.sig", image.digest.to_string().replace(':', "-"));
    registry.put_image(NAME, &tag, &[b"signature"]).unwrap();
    (image, tag)
}

#[test]
fn a_converted_copy_leaves_the_tags_of_the_old_digest_behind() {
    let (scene, from, to) = (Scene::new(), start(), start());
    let (_, tag) = signed(&from);
    let source = format!("docker://{}/{NAME}:1", from.address());
    let place = |tag: &str| format!("docker://{}/{NAME}:{tag}", to.address());
    let ran = scene.rcopy(&["copy", "--format=v2s2", &source, &place("1")]).ok();
    assert!(ran.stderr.contains(&format!("{tag} stays behind")), "{}", ran.told());
    scene.rcopy(&["digest", &place(&tag)]).code(2);
    // What keeps its digest keeps them.
    scene.copy(&source, &place("2")).ok();
    scene.rcopy(&["digest", &place(&tag)]).ok();
}

#[test]
fn what_is_attached_and_cannot_come_along_is_warned_of() {
    let (scene, from) = (Scene::new(), start());
    signed(&from);
    let source = format!("docker://{}/{NAME}:1", from.address());
    for to in ["dir:there", "docker-archive:there.tar:x:1"] {
        let ran = scene.copy(&source, to).ok();
        assert!(ran.stderr.contains("left behind"), "{}", ran.told());
        // No warning for users who chose it.
        let said = scene.rcopy(&["copy", "--referrers=false", &source, &format!("{to}2")]).ok();
        assert!(!said.stderr.contains("left behind"), "{}", said.told());
    }
    // One image of an index that is signed as a whole.
    let index = format!("docker://{}/{NAME}:index", from.address());
    scene.rcopy(&["copy", "--all", "oci:index:app", &index]).ok();
    let digest = scene.digest(&index);
    let tag = format!("{}.sig", digest.replace(':', "-"));
    from.put_image(NAME, &tag, &[b"signature"]).unwrap();
    let one = ["copy", "--platform=linux/arm64", &index, "oci:one:app"];
    let ran = scene.rcopy(&one).ok();
    assert!(ran.stderr.contains("left behind"), "{}", ran.told());
    let ran = scene.rcopy(&["copy", "--all", &index, "oci:all:app"]).ok();
    assert!(!ran.stderr.contains("left behind"), "{}", ran.told());
}

#[test]
fn an_image_for_another_platform_is_not_copied() {
    let scene = Scene::new();
    let other = match image::Platform::host().architecture.as_str() {
        "s390x" => "linux/ppc64le",
        _ => "linux/s390x",
    };
    let ran = scene.rcopy(&["copy", "--platform", other, "oci:image:app", "oci:x:app"]).code(1);
    ran.fails(&[other, "is for linux/"]);
    let host = image::Platform::host().to_string();
    scene.rcopy(&["copy", "--platform", &host, "oci:image:app", "oci:x:app"]).ok();
    // Without the flag a single image is what it is.
    scene.copy("oci:image:app", "oci:y:app").ok();
}

#[test]
fn a_copy_into_a_layout_removes_what_killed_ones_left() {
    let scene = Scene::new();
    scene.copy("oci:image:app", "oci:there:app").ok();
    let there = scene.bench.path().join("there");
    let (dead, live) = (there.join("blobs/.tmp-dead"), there.join("blobs/.tmp-live"));
    std::fs::write(&dead, [7; 1000]).unwrap();
    std::fs::write(there.join(".tmp-dead"), "x").unwrap();
    let held = std::fs::File::create(&live).unwrap();
    held.lock_shared().unwrap();
    scene.rcopy(&["copy", "--all", "oci:index:app", "oci:there:index"]).ok();
    assert!(!dead.exists() && !there.join(".tmp-dead").exists());
    assert!(live.exists(), "somebody writes it");
}

/// An image with one layer that is kept out of registries.
fn with_foreign_layer(registry: &Registry) -> String {
    let here = e2e::image::Layer::new().file("a", 0o644, b"a").finish();
    let mut foreign = Descriptor::of(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
        b"not in any registry",
    );
    foreign.urls = vec!["https://base.example/layer".to_owned()];
    let config = Config {
        architecture: image::Platform::host().architecture,
        os: "linux".to_owned(),
        rootfs: image::RootFs {
            diff_ids: vec![foreign.digest, image::Digest::of(&here)],
            ..image::RootFs::default()
        },
        ..Config::default()
    };
    let config = serde_json::to_vec(&config).unwrap();
    let config = registry.put_blob(NAME, MediaType::DOCKER_CONFIG, config).unwrap();
    let layer = registry.put_blob(NAME, MediaType::DOCKER_LAYER, here).unwrap();
    let mut manifest = Manifest::new(MediaType::DOCKER_MANIFEST, config, vec![foreign, layer]);
    manifest.media_type = Some(MediaType::DOCKER_MANIFEST);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    registry.put_manifest(NAME, Some("foreign"), MediaType::DOCKER_MANIFEST, manifest).unwrap();
    format!("docker://{}/{NAME}:foreign", registry.address())
}

#[test]
fn images_with_layers_kept_elsewhere_go_into_layouts_and_oci_archives() {
    let (scene, registry) = (Scene::new(), start());
    let source = with_foreign_layer(&registry);
    let digest = scene.digest(&source);
    for to in ["oci:layout:app", "oci-archive:app.tar:app", "dir:directory"] {
        let ran = scene.copy(&source, to).ok();
        assert!(ran.stderr.contains("it is omitted"), "{}", ran.told());
        assert_eq!(scene.digest(to), digest, "{to}");
    }
    // A layout that is there already does not hold the layer either.
    let ran = scene.copy(&source, "oci:layout:other").ok();
    assert!(ran.stderr.contains("it is omitted"), "{}", ran.told());
    scene.copy("oci:layout:app", "oci:again:app").ok();
    let ran = scene.copy(&source, "docker-archive:docker.tar:x:1").code(1);
    ran.fails(&["which is kept elsewhere"]);
    assert!(!scene.bench.path().join("docker.tar").exists());
}

#[test]
fn archives_come_from_pipes() {
    let scene = Scene::new();
    let digest = scene.digest("oci:image:app");
    for (form, archive) in [("oci-archive", "a.tar:app"), ("docker-archive", "b.tar:app:1")] {
        scene.copy("oci:image:app", &format!("{form}:{archive}")).ok();
        let file = archive.split(':').next().unwrap();
        let mut cat = Command::new("cat");
        cat.current_dir(scene.bench.path()).arg(file).stdout(Stdio::piped());
        let mut cat = cat.spawn().unwrap();
        let mut command = scene.bench.command("rcopy");
        command.current_dir(scene.bench.path());
        command.args(["copy", &format!("{form}:/dev/stdin"), &format!("oci:{form}:app")]);
        let output = command.stdin(cat.stdout.take().unwrap()).output().unwrap();
        cat.wait().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(scene.digest(&format!("oci:{form}:app")), digest, "{form}");
    }
}

#[test]
fn an_archive_of_the_other_kind_and_images_without_names_are_named() {
    let scene = Scene::new();
    scene.copy("oci:image:app", "oci-archive:oci.tar:app").ok();
    scene.rcopy(&["digest", "docker-archive:oci.tar"]).code(1).fails(&["oci-archive:"]);
    // As older versions of `docker save` wrote them.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "manifest.json", &b"[]"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    std::fs::write(scene.bench.path().join("docker.tar"), bytes).unwrap();
    scene.rcopy(&["digest", "oci-archive:docker.tar"]).code(1).fails(&["docker-archive:"]);
    scene.copy("oci:image:app", "oci:nameless").ok();
    // As `crane manifest` prints it.
    let line = ["manifest", "--platform=linux/arm64", "oci:index:app"];
    let manifest = scene.rcopy(&line).ok().stdout;
    let digest = scene.rcopy(&["digest", "--platform=linux/arm64", "oci:index:app"]).ok();
    assert_eq!(digest.text(), image::Digest::of(manifest.as_bytes()).to_string());
    scene.rcopy(&["copy", "--platform=linux/arm64", "oci:index:app", "oci:nameless"]).ok();
    scene.rcopy(&["digest", "oci:nameless"]).code(1).fails(&["@0", "@1"]);
    scene.rcopy(&["digest", "oci:nameless:@1"]).ok();
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    let scene = Scene::new();
    let registry = start();
    let (host, place) = (registry.address(), format!("docker://{}/{NAME}:1", registry.address()));
    scene.copy("oci:image:app", &place).ok();
    let repository = format!("{host}/{NAME}");
    let cases: &[&[&str]] = &[
        &["catalog", "--daemon-host=unix:///x", &host],
        &["catalog", "--shared-blob-dir=x", &host],
        &["copy", "--dry-run", "--digestfile=d", &place, "oci:x:app"],
        &["sync", "--src=docker", "--dest=docker", "--sign-identity=r/x:1", &repository, &host],
        &["login", "--creds=a:b", "--username=c", &host],
    ];
    for line in cases {
        let ran = scene.rcopy(line).code(1);
        assert!(ran.stderr.contains("--"), "{}", ran.told());
    }
    assert!(!scene.bench.path().join("d").exists());
    let ran = scene.rcopy(&["copy", "--progress=quiet", &place, "oci:q:app"]).ok();
    assert_eq!(ran.stderr, "", "{}", ran.told());
}

#[test]
fn login_takes_creds() {
    let scene = Scene::new();
    let auth = Auth::Basic { username: "me".to_owned(), password: "secret".to_owned() };
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let host = registry.address();
    let login = |creds: &str| scene.rcopy(&["login", "--authfile=a.json", creds, &host]);
    login("--creds=me:wrong").code(1).fails(&["denied"]);
    assert_eq!(login("--creds=me:secret").ok().text(), "Login Succeeded!");
    let who = scene.rcopy(&["whoami", "--authfile=a.json", &host]).ok();
    assert_eq!(who.text(), "me");
}

#[test]
fn credentials_of_the_line_do_not_reach_mirrors() {
    let bench = Bench::new();
    let auth = || Auth::Basic { username: "me".to_owned(), password: "secret".to_owned() };
    let start = || Registry::start(Options { auth: auth(), ..Options::default() }).unwrap();
    let (mirror, main) = (start(), start());
    let image = main.put_image(NAME, "1", &[]).unwrap();
    let at = mirror.address().replace("127.0.0.1", "localhost");
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{at}\"\ninsecure = true\n",
        main.address()
    );
    bench.write("home/.config/containers/registries.conf", conf);
    let place = format!("docker://{}/{NAME}:1", main.address());
    let line = ["copy", "--src-creds=me:secret", &place, "oci:there:app"];
    e2e::run(bench.command("rcopy").current_dir(bench.path()).args(line)).ok();
    let digest = e2e::run(
        bench.command("rcopy").current_dir(bench.path()).args(["digest", "oci:there:app"]),
    );
    assert_eq!(digest.ok().text(), image.digest.to_string());
    assert!(!mirror.requests().is_empty());
    for request in mirror.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[test]
fn everyday_commands_of_crane() {
    let (scene, registry) = (Scene::new(), start());
    let repository = format!("{}/{NAME}", registry.address());
    let name = format!("{repository}:1");
    scene.copy("oci:image:app", "docker-archive:app.tar:app:1").ok();
    let pushed = scene.rcopy(&["push", "app.tar", &name]).ok();
    let digest = scene.rcopy(&["digest", &name]).ok().text().to_owned();
    assert_eq!(pushed.text(), format!("{repository}@{digest}"));
    let full = scene.rcopy(&["digest", "--full-ref", &name]).ok();
    assert_eq!(full.text(), pushed.text());
    assert_eq!(scene.rcopy(&["ls", &repository]).ok().text(), "1");
    assert_eq!(scene.rcopy(&["ls", "--full-ref", &repository]).ok().text(), name);
    let get = scene.rcopy(&["manifest", "get", &name]).ok();
    assert_eq!(scene.rcopy(&["manifest", &name]).ok().stdout, get.stdout);
    let config = scene.rcopy(&["inspect", "--raw", "--config", &format!("docker://{name}")]).ok();
    assert_eq!(scene.rcopy(&["config", &name]).ok().stdout, config.stdout);
    scene.rcopy(&["pull", &name, "pulled.tar"]).ok();
    assert_eq!(scene.digest("docker-archive:pulled.tar"), digest);
    scene.rcopy(&["pull", "--format=oci", &name, "pulled"]).ok();
    assert_eq!(scene.digest("oci:pulled"), digest);
    scene.rcopy(&["push", "pulled", &format!("{repository}:2")]).ok();
    assert_eq!(scene.rcopy(&["digest", &format!("{repository}:2")]).ok().text(), digest);
}

#[test]
fn the_limit_of_a_registry_is_shown() {
    use registry_server::{Effect, Fault};
    let (scene, registry) = (Scene::new(), start());
    registry.put_image(NAME, "1", &[]).unwrap();
    let name = format!("{}/{NAME}:1", registry.address());
    scene.rcopy(&["ratelimit", &name]).code(1).fails(&["reports no limit"]);
    let headers = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "7;w=21600")];
    registry.fault(Fault::always("HEAD", "*", Effect::with(200, &headers)));
    let ran = scene.rcopy(&["ratelimit", &name]).ok();
    let limit: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = serde_json::json!({"limit": 100, "remaining": 7, "windowSeconds": 21_600});
    assert_eq!(limit, expected);
}
