//! `rcopy` between all places, with peers that read what it writes and write what it reads.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use e2e::registry::DockerRegistry;
use e2e::scene::Scene;
use e2e::watch::guarded;
use e2e::{peer, root};
use image::Index;
use registry_server::{Auth, Options, Registry};

fn bearer() -> Auth {
    Auth::Bearer {
        username: "me".to_owned(),
        password: "secret".to_owned(),
        refresh_token: "refresh".to_owned(),
        anonymous_pull: false,
        lifetime: std::time::Duration::from_secs(60),
    }
}

#[test]
fn through_all_places_the_digest_stays() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let debians = DockerRegistry::start();
    for (name, all) in [("image", false), ("index", true)] {
        let mut places = vec![
            format!("docker://{}/team/{name}:1", registry.address()),
            format!("oci:layout-{name}:team/{name}:1"),
            format!("dir:directory-{name}"),
            format!("oci-archive:{name}.tar:{name}"),
        ];
        if let Some(debians) = &debians {
            places.push(format!("docker://{}", debians.name(&format!("team/{name}:1"))));
        }
        if root() {
            places.push(format!("store:registry.example/team/{name}:1"));
        }
        let mut from = format!("oci:{name}:app");
        let digest = scene.digest(&from);
        let all: &[&str] = if all { &["--all"] } else { &[] };
        places.push(places[0].replace(":1", ":2").replace("/team", "/again"));
        places.push("oci:end:x".to_owned());
        for to in &places {
            let line = [&["copy", "--preserve-digests"], all, &[&from, to]].concat();
            let ran = scene.rcopy(&line).ok();
            assert!(ran.stderr.contains(&digest), "{}", ran.told());
            assert_eq!(scene.digest(to), digest, "{from} to {to}");
            from.clone_from(to);
        }
    }
    if root() {
        scene.bench.rbuild(["check"]).ok();
    }
}

#[test]
fn a_docker_archive_keeps_the_image_id() {
    let scene = Scene::new();
    let id = |place: &str| {
        let config = scene.rcopy(&["inspect", "--config", "--raw", place]).ok();
        let config: serde_json::Value = serde_json::from_str(&config.stdout).unwrap();
        (config["rootfs"].clone(), config["config"]["Env"].clone())
    };
    scene.copy("oci:image:app", "docker-archive:docker.tar:team/app:1").ok();
    scene.copy("docker-archive:docker.tar:team/app:1", "oci:back:app").ok();
    assert_eq!(id("oci:back:app"), id("oci:image:app"));
    let names = scene.rcopy(&["list-tags", "docker-archive:docker.tar"]).ok();
    assert!(names.stdout.contains("team/app:1"), "{}", names.told());
    if peer("skopeo").is_some() {
        scene.skopeo(&["copy", "docker-archive:docker.tar", "oci:by-skopeo:x"]).ok();
        assert_eq!(id("oci:by-skopeo:x"), id("oci:image:app"));
    }
}

#[test]
fn indexes_whole_in_part_and_one_of_them() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let to = |name: &str| format!("docker://{}/team/{name}:1", registry.address());
    scene.rcopy(&["copy", "--all", "oci:index:app", &to("all")]).ok();
    assert_eq!(scene.digest(&to("all")), scene.digest("oci:index:app"));
    let two = "--platform=linux/arm64,linux/riscv64";
    scene.rcopy(&["copy", two, "oci:index:app", &to("two")]).ok();
    let index = scene.rcopy(&["inspect", "--raw", &to("two")]).ok();
    let index: Index = serde_json::from_str(&index.stdout).unwrap();
    let platforms: Vec<_> =
        index.manifests.iter().map(|one| one.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/riscv64"]);
    let one = "--platform=linux/riscv64";
    let config = scene.rcopy(&["inspect", "--config", one, &to("two")]).ok();
    assert!(config.stdout.contains("riscv64"), "{}", config.told());
    scene.rcopy(&["copy", one, "oci:index:app", &to("one")]).ok();
    let single = scene.rcopy(&["digest", one, "oci:index:app"]).ok();
    assert_eq!(scene.digest(&to("one")), single.text());
    let none = scene.rcopy(&["copy", "--platform=linux/s390x", "oci:index:app", &to("none")]);
    none.code(1).fails(&["linux/s390x", "linux/arm64"]);
    // A smaller index is another index.
    let strict = scene.rcopy(&["copy", "--preserve-digests", two, "oci:index:app", &to("strict")]);
    strict.code(1).fails(&["digest"]);
    let strict = ["copy", "--preserve-digests", "--format=v2s2", "oci:image:app", "dir:strict"];
    scene.rcopy(&strict).code(1).fails(&["digest"]);
    assert!(registry.tag("team/none", "1").is_none() && registry.tag("team/strict", "1").is_none());
}

#[test]
fn documents_of_the_other_family() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let to = format!("docker://{}/team/app:1", registry.address());
    scene.rcopy(&["copy", "--format=v2s2", "oci:image:app", &to]).ok();
    let manifest = scene.rcopy(&["inspect", "--raw", &to]).ok();
    assert!(
        manifest.stdout.contains("application/vnd.docker.distribution.manifest.v2+json")
            && manifest.stdout.contains("application/vnd.docker.container.image.v1+json")
            && !manifest.stdout.contains("vnd.oci"),
        "{}",
        manifest.told()
    );
    scene.rcopy(&["copy", "--format=oci", &to, "oci:back:app"]).ok();
    let manifest = scene.rcopy(&["inspect", "--raw", "oci:back:app"]).ok();
    assert!(!manifest.stdout.contains("vnd.docker"), "{}", manifest.told());
    if peer("skopeo").is_some() {
        scene.skopeo(&["inspect", "--tls-verify=false", &to]).ok();
    }
}

#[test]
fn what_is_there_is_not_sent_again() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |name: &str| format!("docker://{}/{name}:1", registry.address());
    scene.copy("oci:image:app", &place("team/app")).ok();
    let sent = || {
        let requests = registry.requests();
        registry.forget();
        let of = |method: &str, part: &str| {
            requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
        };
        (of("GET", "/blobs/"), of("PATCH", "/blobs/") + of("PUT", "/blobs/"), of("POST", "mount="))
    };
    sent();
    scene.copy("oci:image:app", &place("team/app")).ok();
    assert_eq!(sent(), (0, 0, 0), "a copy of what is there");
    scene.copy(&place("team/app"), &place("team/app")).ok();
    assert_eq!(sent(), (0, 0, 0), "a copy onto itself");
    scene.copy(&place("team/app"), &place("team/other")).ok();
    let (_, uploads, mounts) = sent();
    assert_eq!((uploads, mounts), (0, 3), "blobs of the same registry are mounted");
    scene.copy(&place("team/app"), "oci:layout:app").ok();
    assert_eq!(sent().0, 3);
    scene.copy(&place("team/app"), "oci:layout:again").ok();
    assert_eq!(sent().0, 0, "the layout has the blobs");
}

#[test]
fn inspect_list_and_delete() {
    let scene = Scene::new();
    let ours = Registry::start(Options::default()).unwrap();
    let debians = DockerRegistry::start();
    let hosts = [Some(ours.address()), debians.as_ref().map(|r| r.address.clone())];
    for host in hosts.into_iter().flatten() {
        let place = |tag: &str| format!("docker://{host}/team/app:{tag}");
        for tag in ["1", "2"] {
            scene.copy("oci:image:app", &place(tag)).ok();
        }
        scene.rcopy(&["copy", "--format=v2s2", "oci:image:app", &place("other")]).ok();
        let seen = scene.rcopy(&["inspect", &place("1")]).ok();
        let seen: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
        let digest = scene.digest("oci:image:app");
        assert_eq!(seen["Digest"], *digest, "{seen:#}");
        let mut tags: Vec<_> = seen["RepoTags"].as_array().unwrap().clone();
        tags.sort_by_key(ToString::to_string);
        assert_eq!(tags, ["1", "2", "other"], "{seen:#}");
        assert_eq!(seen["Env"], serde_json::json!(["A=1"]));
        let template =
            scene.rcopy(&["inspect", "--format", "{{.Os}} {{.Digest}}", &place("1")]).ok();
        assert_eq!(template.text(), format!("linux {digest}"));
        let raw = scene.rcopy(&["inspect", "--raw", &place("1")]).ok();
        assert_eq!(image::Digest::of(raw.stdout.as_bytes()).to_string(), digest);
        let pinned = format!("docker://{host}/team/app@{digest}");
        assert_eq!(scene.digest(&pinned), digest);
        if peer("skopeo").is_some() {
            let theirs = scene.skopeo(&["inspect", "--tls-verify=false", &place("1")]).ok();
            let theirs: serde_json::Value = serde_json::from_str(&theirs.stdout).unwrap();
            // Every field that this version of skopeo has, null among the values.
            for (key, value) in theirs.as_object().unwrap() {
                assert_eq!(&seen[key], value, "{key}");
            }
        }
        scene.rcopy(&["delete", &place("1")]).ok();
        scene.rcopy(&["inspect", &place("1")]).code(2).fails(&["404"]);
        let tags = scene.rcopy(&["list-tags", &format!("docker://{host}/team/app")]).ok();
        let tags: serde_json::Value = serde_json::from_str(&tags.stdout).unwrap();
        let left = tags["Tags"].as_array().unwrap();
        assert!(left.contains(&"other".into()) && !left.contains(&"1".into()), "{tags:#}");
        scene.rcopy(&["delete", &place("1")]).code(2).fails(&["404"]);
        scene.rcopy(&["inspect", &format!("docker://{host}/no/such:1")]).code(2).fails(&["404"]);
    }
    scene.copy("oci:image:app", "oci:many:one").ok();
    scene.copy("oci:index:app", "oci:many:two").ok();
    let tags = scene.rcopy(&["list-tags", "oci:many"]).ok();
    assert!(tags.stdout.contains("one") && tags.stdout.contains("two"), "{}", tags.told());
    scene.rcopy(&["inspect", "oci:many"]).code(1).fails(&["one", "two"]);
    scene.rcopy(&["delete", "oci:many:one"]).ok();
    scene.rcopy(&["inspect", "oci:many:one"]).code(2).fails(&["one"]);
    scene.rcopy(&["inspect", "oci:many:two"]).ok();
    scene.rcopy(&["inspect", "--format", "{{.Nope", "oci:many:two"]).code(1).fails(&["--format"]);
}

/// Copies in and out of a registry that wants a password, with credentials from everywhere.
fn credentials(scene: &Scene, host: &str) {
    let place = format!("docker://{host}/team/app:1");
    let copy =
        |more: &[&str], from: &str, to: &str| scene.rcopy(&[&["copy"], more, &[from, to]].concat());
    copy(&[], "oci:image:app", &place).code(1).fails(&["login"]);
    copy(&["--dest-creds=me:wrong"], "oci:image:app", &place).code(1).fails(&[host]);
    copy(&["--dest-creds=me:secret"], "oci:image:app", &place).ok();
    copy(&["--src-creds=me:secret"], &place, "dir:by-flag").ok();
    copy(&["--src-no-creds"], &place, "dir:no").code(1).fails(&["denied access"]);
    let auth = "bWU6c2VjcmV0";
    let file = serde_json::json!({ "auths": { host: { "auth": auth } } }).to_string();
    scene.bench.write("auth.json", &file);
    copy(&["--src-authfile=auth.json"], &place, "dir:by-src-authfile").ok();
    copy(&["--authfile=auth.json"], &place, "dir:by-authfile").ok();
    let with = |name: &str, value: &str| {
        let mut command = scene.bench.command("rcopy");
        command.current_dir(scene.bench.path()).env(name, value);
        guarded(command.args(["digest", &place]))
    };
    with("NOTHING", "").code(1).fails(&["login"]);
    with("REGISTRY_AUTH_FILE", "auth.json").ok();
    scene.bench.write("docker/config.json", &file);
    with("DOCKER_CONFIG", "docker").ok();
    scene.bench.write("home/.docker/config.json", &file);
    with("NOTHING", "").ok();
    let helped = serde_json::json!({ "credHelpers": { host: "ours" } }).to_string();
    scene.bench.write("home/.docker/config.json", helped);
    let script = "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread host\n\
        echo '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    let helper = scene.bench.write("bin/docker-credential-ours", script);
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", scene.bench.path().join("bin").display());
    with("PATH", &path).ok();
    let failing = "#!/bin/sh\necho 'the vault is closed'\nexit 1\n";
    std::fs::write(&helper, failing).unwrap();
    with("PATH", &path).code(1).fails(&["docker-credential-ours", "the vault is closed"]);
    let config = scene.bench.path().join("home/.docker/config.json");
    std::fs::remove_file(config).unwrap();
    let mut login = scene.bench.command("rbuild");
    guarded(login.args(["login", "-u", "me", "-p", "secret", host])).ok();
    with("NOTHING", "").ok();
    guarded(scene.bench.command("rbuild").args(["logout", host])).ok();
    with("NOTHING", "").code(1);
}

#[test]
fn credentials_for_another_registry() {
    let Some(registry) = DockerRegistry::with_password("me", "secret") else { return };
    credentials(&Scene::new(), &registry.address);
}

#[test]
fn credentials_for_tokens() {
    let registry = Registry::start(Options { auth: bearer(), ..Options::default() }).unwrap();
    credentials(&Scene::new(), &registry.address());
}

#[test]
fn skopeo_reads_what_we_write_and_writes_what_we_read() {
    if peer("skopeo").is_none() {
        return;
    }
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let docker = |name: &str| format!("docker://{}/{name}:1", registry.address());
    let ours = [
        docker("ours"),
        "oci:ours-layout:app".to_owned(),
        "oci-archive:ours.tar:app".to_owned(),
        "dir:ours-directory".to_owned(),
    ];
    for name in ["image", "index"] {
        let from = format!("oci:{name}:app");
        let digest = scene.digest(&from);
        for to in &ours {
            scene.rcopy(&["copy", "--all", &from, to]).ok();
            let theirs = format!("dir:theirs-{name}");
            let _ = std::fs::remove_dir_all(scene.bench.path().join(format!("theirs-{name}")));
            scene
                .skopeo(&[
                    "copy",
                    "--all",
                    "--preserve-digests",
                    "--src-tls-verify=false",
                    to,
                    &theirs,
                ])
                .ok();
            assert_eq!(scene.digest(&theirs), digest, "skopeo reads {to}");
            for path in ["ours-layout", "ours-directory"] {
                let _ = std::fs::remove_dir_all(scene.bench.path().join(path));
            }
            let _ = std::fs::remove_file(scene.bench.path().join("ours.tar"));
        }
        for to in [
            docker("theirs"),
            format!("oci:their-layout-{name}:app"),
            format!("oci-archive:their-{name}.tar:app"),
            format!("dir:their-directory-{name}"),
        ] {
            let line =
                ["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to];
            scene.skopeo(&line).ok();
            let back = format!("oci:back-{name}:app");
            scene.rcopy(&["copy", "--all", "--preserve-digests", &to, &back]).ok();
            assert_eq!(scene.digest(&back), digest, "we read skopeo's {to}");
        }
    }
    scene.skopeo(&["copy", "oci:image:app", "docker-archive:theirs-docker.tar:team/app:1"]).ok();
    scene.copy("docker-archive:theirs-docker.tar:team/app:1", "oci:from-docker:app").ok();
    scene.skopeo(&["inspect", "oci:from-docker:app"]).ok();
}

#[test]
fn podman_loads_our_archives() {
    if peer("podman").is_none() || !root() {
        return;
    }
    let scene = Scene::new();
    scene.copy("oci:image:app", "docker-archive:docker.tar:localhost/team/docker:1").ok();
    scene.copy("oci:image:app", "oci-archive:oci.tar:localhost/team/oci:1").ok();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(scene.bench.path().join("podman"));
        command.arg("--runroot").arg(scene.bench.path().join("podman-run"));
        command.args(["--storage-driver=vfs"]).current_dir(scene.bench.path());
        guarded(command.args(arguments))
    };
    for (archive, name) in
        [("docker.tar", "localhost/team/docker:1"), ("oci.tar", "localhost/team/oci:1")]
    {
        podman(&["load", "-i", archive]).ok();
        let seen =
            podman(&["inspect", "--format", "{{.Config.Env}} {{len .RootFS.Layers}}", name]).ok();
        assert_eq!(seen.text(), "[A=1] 2");
    }
}

#[test]
fn a_dry_run_and_a_digest_file() {
    let scene = Scene::new();
    let planned = scene.rcopy(&["copy", "--dry-run", "oci:image:app", "oci:planned:app"]).ok();
    let digest = scene.digest("oci:image:app");
    assert!(planned.stdout.contains(&digest), "{}", planned.told());
    assert!(!scene.bench.path().join("planned/index.json").exists());
    scene.rcopy(&["copy", "--quiet", "--digestfile=digest", "oci:image:app", "dir:quiet"]).ok();
    assert_eq!(std::fs::read_to_string(scene.bench.path().join("digest")).unwrap(), digest);
}
