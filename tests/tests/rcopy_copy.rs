//! The options of `rcopy copy`: compression, what is attached, tags, signing, and skopeo's flags.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use e2e::registry::DockerRegistry;
use e2e::scene::Scene;
use e2e::watch::guarded;
use e2e::{peer, root};
use registry_server::{Options, Registry};
use serde_json::Value;

fn manifest(scene: &Scene, place: &str) -> Value {
    let raw = scene.rcopy(&["inspect", "--raw", place]).ok();
    serde_json::from_str(&raw.stdout).unwrap()
}

fn layer_types(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap();
    let kind = |layer: &Value| layer["mediaType"].as_str().unwrap().to_owned();
    layers.iter().map(kind).collect()
}

#[test]
fn layers_in_another_compression() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let place = |name: &str| format!("docker://{}/team/{name}:1", registry.address());
    let original = scene.digest("oci:image:app");
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    scene.rcopy(&["copy", "--dest-compress", "oci:image:app", &place("gzip")]).ok();
    assert_eq!(layer_types(&manifest(&scene, &place("gzip"))), [gzip, gzip]);
    // The same bytes each time, and again uncompressed the very image that it was.
    scene.rcopy(&["copy", "--dest-compress-format=gzip", "oci:image:app", "oci:gzip:app"]).ok();
    assert_eq!(scene.digest("oci:gzip:app"), scene.digest(&place("gzip")));
    scene.rcopy(&["copy", "--dest-compress-format=zstd", &place("gzip"), &place("zstd")]).ok();
    assert_eq!(layer_types(&manifest(&scene, &place("zstd"))), [zstd, zstd]);
    scene.rcopy(&["copy", "--dest-decompress", &place("zstd"), "oci:plain:app"]).ok();
    assert_eq!(scene.digest("oci:plain:app"), original);
    // What is in the format stays as it is unless forced.
    let keep = ["copy", "--dest-compress-format=gzip", "--dest-compress-level=1"];
    scene.rcopy(&[&keep[..], &[&place("gzip"), &place("kept")]].concat()).ok();
    assert_eq!(scene.digest(&place("kept")), scene.digest(&place("gzip")));
    let force = ["--dest-force-compress-format", &place("gzip"), &place("forced")];
    scene.rcopy(&[&keep[..], &force].concat()).ok();
    assert_ne!(scene.digest(&place("forced")), scene.digest(&place("gzip")));
    // A whole index; Docker's documents become OCI's because they know no zstd.
    let all = ["copy", "--all", "--dest-compress-format=zstd"];
    scene.rcopy(&[&all[..], &["oci:index:app", &place("index")]].concat()).ok();
    let index = manifest(&scene, &place("index"));
    let arm = index["manifests"][1]["digest"].as_str().unwrap();
    let arm = format!("docker://{}/team/index@{arm}", registry.address());
    assert_eq!(layer_types(&manifest(&scene, &arm)), [zstd]);
    assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
    scene.rcopy(&["copy", "--format=v2s2", "oci:image:app", &place("docker")]).ok();
    scene.rcopy(&[&all[..], &[&place("docker"), &place("from-docker")]].concat()).ok();
    assert_eq!(layer_types(&manifest(&scene, &place("from-docker"))), [zstd, zstd]);
    if peer("skopeo").is_some() {
        for name in ["gzip", "zstd", "forced", "from-docker"] {
            let to = format!("dir:theirs-{name}");
            scene.skopeo(&["copy", "--src-tls-verify=false", &place(name), &to]).ok();
        }
    }
    // zstd:chunked: a table of files behind the layer, plain zstd to everybody else.
    let chunked = ["copy", "--dest-compress-format=zstd:chunked"];
    scene.rcopy(&[&chunked[..], &[&place("zstd"), &place("chunked")]].concat()).ok();
    let made = manifest(&scene, &place("chunked"));
    assert_eq!(layer_types(&made), [zstd, zstd]);
    for layer in made["layers"].as_array().unwrap() {
        let key = "io.github.containers.zstd-chunked.manifest-position";
        assert!(layer["annotations"][key].is_string(), "{layer:#}");
    }
    scene.rcopy(&[&chunked[..], &[&place("chunked"), &place("same")]].concat()).ok();
    assert_eq!(scene.digest(&place("same")), scene.digest(&place("chunked")));
    scene.rcopy(&["copy", "--dest-decompress", &place("chunked"), "oci:unchunked:app"]).ok();
    assert_eq!(scene.digest("oci:unchunked:app"), original);
    if peer("podman").is_some() && root() {
        let archive = "oci-archive:chunked.tar:localhost/chunked:1";
        scene.rcopy(&[&chunked[..], &["oci:image:app", archive]].concat()).ok();
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(scene.bench.path().join("podman"));
            command.arg("--runroot").arg(scene.bench.path().join("podman-run"));
            command.args(["--storage-driver=vfs"]).current_dir(scene.bench.path());
            guarded(command.args(arguments))
        };
        podman(&["load", "-i", "chunked.tar"]).ok();
        podman(&["image", "inspect", "localhost/chunked:1"]).ok();
    }
    // What cannot be is refused by name, and nothing is written.
    let bad = place("bad");
    for (flags, word) in [
        (&["--dest-compress-level=3"][..], "--dest-compress-level"),
        (&["--dest-force-compress-format"], "--dest-force-compress-format"),
        (&["--dest-compress", "--dest-compress-level=10"], "0 to 9"),
        (&["--dest-compress-format=zstd", "--dest-compress-level=23"], "1 to 22"),
        (&["--dest-compress-format=lz4"], "lz4"),
        (&["--dest-compress", "--preserve-digests"], "compression"),
        (&["--dest-compress-format=zstd", "--format=v2s2"], "zstd"),
    ] {
        scene.rcopy(&[&["copy"], flags, &["oci:image:app", &bad]].concat()).fails(&[word]);
    }
    // A layer that is not what its config says.
    let layer = e2e::image::Layer::new().file("x", 0o644, b"x").finish();
    e2e::image::layout(&scene.bench.path().join("lying"), "app", &[layer], |config| {
        config.rootfs.diff_ids[0] = image::Digest::of(b"something else");
    });
    let lying = ["copy", "--dest-compress", "oci:lying:app", &bad];
    scene.rcopy(&lying).code(1).fails(&["reading layer", "does not match"]);
    assert!(registry.tag("team/bad", "1").is_none());
}

#[test]
fn what_is_attached_travels() {
    let scene = Scene::new();
    let ours = Registry::start(Options::default()).unwrap();
    let debians = DockerRegistry::start();
    scene.bench.write("pass", "");
    scene.rcopy(&["generate-sigstore-key", "--passphrase-file=pass", "--output-prefix=k"]).ok();
    // Debian's registry has no referrers API: the fallback tag is used there.
    let hosts = [Some(ours.address()), debians.as_ref().map(|r| r.address.clone())];
    let hosts: Vec<String> = hosts.into_iter().flatten().collect();
    for (at, host) in hosts.iter().enumerate() {
        let other = &hosts[(at + 1) % hosts.len()];
        let place = |name: &str| format!("docker://{host}/team/{name}:1");
        let there = |name: &str| format!("docker://{other}/there-{at}/{name}:1");
        scene.copy("oci:image:app", &place("app")).ok();
        let key = ["--key=k.key", "--passphrase-file=pass"];
        let sign = |more: &[&str]| scene.rcopy(&[&["sign"], &key[..], more].concat()).ok();
        sign(&["--form=bundle", "--form=tag", &place("app")]);
        let verify = |place: &str, forms: usize| {
            let seen = scene.rcopy(&["verify", "--key=k.pub", "--format=json", place]).ok();
            let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
            assert_eq!(seen.as_array().unwrap().len(), forms, "{place}: {seen:#}");
        };
        let unsigned = |place: &str| scene.rcopy(&["verify", "--key=k.pub", place]).code(10);
        scene.copy(&place("app"), &there("app")).ok();
        verify(&there("app"), 2);
        let layout = format!("oci:kept-{at}:app");
        scene.copy(&there("app"), &layout).ok();
        verify(&layout, 2);
        scene.copy(&layout, &there("again")).ok();
        verify(&there("again"), 2);
        // A second copy finds the image there and brings what was attached since.
        sign(&["--form=bundle", "-a=a=b", &place("app")]);
        scene.copy(&place("app"), &there("app")).ok();
        verify(&there("app"), 3);
        scene.rcopy(&["copy", "--remove-signatures", &place("app"), &there("bare")]).ok();
        unsigned(&there("bare"));
        let without = ["copy", "--referrers=false", &place("app"), &there("without")];
        scene.rcopy(&without).ok();
        unsigned(&there("without"));
        let tags = ["copy", "--referrers=false", "--digest-tags", &place("app"), &there("tags")];
        scene.rcopy(&tags).ok();
        verify(&there("tags"), 1);
        let other = "--artifact-type=application/x.none";
        scene.rcopy(&["copy", other, &place("app"), &there("typed")]).ok();
        unsigned(&there("typed"));
        // Signatures are of digests: another digest has none, and that is said.
        let format = ["copy", "--format=v2s2", &place("app"), &there("docker")];
        let said = scene.rcopy(&format).ok();
        assert!(said.stderr.contains("stays behind"), "{}", said.told());
        unsigned(&there("docker"));
    }
}

#[test]
fn signed_on_the_way_and_tagged_twice() {
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let to = format!("docker://{}/team/app:1", registry.address());
    scene.bench.write("pass", "secret\n");
    scene.rcopy(&["generate-sigstore-key", "--passphrase-file=pass", "--output-prefix=k"]).ok();
    let key = ["--sign-by-sigstore-private-key=k.key", "--sign-passphrase-file=pass"];
    let identity = "--sign-identity=registry.example/team/app:1";
    let copy = |more: &[&str]| scene.rcopy(&[&["copy"], &key[..], more].concat());
    copy(&[identity, "--all", "oci:index:app", &to]).ok();
    let verify = ["verify", "--key=k.pub", "--identity=registry.example/team/app:1"];
    scene.rcopy(&[&verify[..], &[&to]].concat()).ok();
    // Every image of the index is signed, too.
    let index = manifest(&scene, &to);
    let one = index["manifests"][0]["digest"].as_str().unwrap();
    let one = format!("docker://{}/team/app@{one}", registry.address());
    scene.rcopy(&[&verify[..], &[&one]].concat()).ok();
    // The same, said in a file as skopeo reads it.
    scene.bench.write("params", "privateKeyFile: k.key\nprivateKeyPassphraseFile: pass\n");
    let other = format!("docker://{}/team/other:1", registry.address());
    let named = "--sign-identity=registry.example/team/other:1";
    scene.rcopy(&["copy", "--sign-by-sigstore=params", named, "oci:image:app", &other]).ok();
    let identity = "--identity=registry.example/team/other:1";
    scene.rcopy(&["verify", "--key=k.pub", identity, &other]).ok();
    for (text, word) in [
        ("privateKeyFile: k.key\nrekorURL: https://rekor.example\n", "rekorURL"),
        ("fulcio:\n  fulcioURL: https://fulcio.example\n  oidcMode: staticToken\n", "fulcio"),
        ("privateKeyPassphraseFile: pass\n", "privateKeyFile"),
        ("colour: x\n", "colour"),
    ] {
        scene.bench.write("params", text);
        let bad = ["copy", "--sign-by-sigstore=params", "oci:image:app", "dir:unnamed"];
        scene.rcopy(&bad).fails(&["params", word]);
    }
    copy(&["oci:image:app", "dir:unnamed"]).code(1).fails(&["--sign-identity"]);
    assert!(!scene.bench.path().join("unnamed").exists());

    let tags = ["copy", "--additional-tag=2", "--additional-tag=3", "oci:image:app", &to];
    scene.rcopy(&tags).ok();
    let digest = scene.digest("oci:image:app");
    for tag in ["1", "2", "3"] {
        let place = format!("docker://{}/team/app:{tag}", registry.address());
        assert_eq!(scene.digest(&place), digest);
    }
    let archive = "docker-archive:twice.tar:localhost/app:1";
    scene.rcopy(&["copy", "--additional-tag=localhost/app:2", "oci:image:app", archive]).ok();
    let names = scene.rcopy(&["list-tags", "docker-archive:twice.tar"]).ok();
    for name in ["localhost/app:1", "localhost/app:2"] {
        assert!(names.stdout.contains(name), "{}", names.told());
    }
    let bad = ["copy", "--additional-tag=a b", "oci:image:app", &to];
    scene.rcopy(&bad).code(1).fails(&["--additional-tag"]);
    scene.rcopy(&["copy", "--additional-tag=2", "oci:image:app", "dir:x"]).code(1);

    let arm = ["copy", "--override-arch=arm64", "oci:index:app", "oci:arm:app"];
    scene.rcopy(&arm).ok();
    let seen = scene.rcopy(&["inspect", "--format={{.Architecture}}", "oci:arm:app"]).ok();
    assert_eq!(seen.text(), "arm64");
    let late = ["--command-timeout=1ns", "copy", "oci:image:app", "oci:late:app"];
    scene.rcopy(&late).code(1).fails(&["--command-timeout"]);
}

/// A `gpg` that waits for a passphrase that never comes ends with the command.
#[test]
fn a_gpg_that_waits_ends_at_the_command_timeout() {
    let scene = Scene::new();
    let pid = scene.bench.path().join("gpg.pid");
    let script = format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", pid.display());
    scene.bench.write("bin/gpg", script);
    let gpg = scene.bench.path().join("bin/gpg");
    std::fs::set_permissions(&gpg, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", scene.bench.path().join("bin").display());
    let mut command = scene.bench.command("rcopy");
    command.current_dir(scene.bench.path()).env("PATH", path).arg("--command-timeout=2s");
    command.args(["copy", "--sign-by=ABCD", "--sign-identity=registry.example/app:1"]);
    command.args(["oci:image:app", "dir:signed"]);
    guarded(&mut command).code(1).fails(&["--command-timeout"]);
    let pid = std::fs::read_to_string(&pid).unwrap();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        state.map_or(true, |stat| !stat.contains("(sleep)") || stat.contains(") Z "))
    };
    assert!((0..500).any(|_| gone() || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        false
    }));
}

#[test]
fn a_token_is_as_good_as_a_password() {
    let scene = Scene::new();
    let auth = registry_server::Auth::Bearer {
        username: "me".to_owned(),
        password: "secret".to_owned(),
        refresh_token: "refresh".to_owned(),
        anonymous_pull: false,
        lifetime: std::time::Duration::from_secs(600),
    };
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let place = format!("docker://{}/team/app:1", registry.address());
    scene.rcopy(&["copy", "--dest-creds=me:secret", "oci:image:app", &place]).ok();
    let token = |more: &[&str]| {
        scene.rcopy(&[&["auth", "token", "--creds=me:secret", &place], more].concat()).ok()
    };
    let told: Value = serde_json::from_str(&token(&[]).stdout).unwrap();
    let flag = format!("--src-registry-token={}", told["token"].as_str().unwrap());
    scene.rcopy(&["copy", &flag, &place, "dir:by-token"]).ok();
    scene.rcopy(&["copy", "--src-registry-token=x", &place, "dir:none"]).code(1);
    let header = token(&["--header"]);
    assert!(header.stdout.starts_with("Authorization: Bearer "), "{}", header.told());
    let user = ["--src-username=me", "--src-password=secret", &place, "dir:by-user"];
    scene.rcopy(&[&["copy"][..], &user].concat()).ok();
    scene.rcopy(&["auth", "token", "--no-creds", &place]).code(1).fails(&["denied"]);
    scene.rcopy(&["copy", "--src-username=me", &place, "dir:x"]).code(1);
}

/// The calls of a copy that wait for the disk.
fn waits(scene: &Scene, line: &[&str]) -> Vec<String> {
    let trace = scene.bench.path().join("trace");
    let own = scene.bench.command("rcopy");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qqq", "-e", "trace=syncfs,fsync,fdatasync", "-o"]).arg(&trace);
    command.arg(e2e::binary("rcopy")).args(line);
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(scene.bench.path());
    e2e::run(&mut command).ok();
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls = trace.lines().filter(|line| line.contains("sync") && !line.contains(" resumed>"));
    calls.map(str::to_owned).collect()
}

#[test]
fn a_copy_waits_for_the_disk_unless_told_not_to() {
    if requires::program("strace").is_none() {
        return;
    }
    let scene = Scene::new();
    for (to, most) in [("oci", 1), ("dir", 2)] {
        let synced = waits(&scene, &["copy", "oci:image:app", &format!("{to}:{to}-synced")]);
        assert!((1..=most).contains(&synced.len()), "{to}: {synced:?}");
        let there = format!("{to}:{to}-unsynced");
        let unsynced = waits(&scene, &["copy", "--no-sync", "oci:image:app", &there]);
        assert!(unsynced.is_empty(), "{to}: {unsynced:?}");
        scene.rcopy(&["inspect", "--raw", &there]).ok();
    }
    let refused = scene.rcopy(&["copy", "--no-sync", "oci:image:app", "oci-archive:file"]);
    refused.fails(&["--no-sync works for oci: and dir: only, not for oci-archive:"]);
}

/// What skopeo 1.9 takes: the command, the flag with a value, and the word of ours that refuses it.
const FLAGS: &[(&str, &str, Option<&str>)] = &[
    ("copy", "--additional-tag=other", None),
    ("copy", "--all", None),
    ("copy", "--authfile=auth.json", None),
    ("copy", "--decryption-key=k", Some("--decryption-key")),
    ("copy", "--dest-authfile=auth.json", None),
    ("copy", "--dest-cert-dir=.", None),
    ("copy", "--dest-compress", None),
    ("copy", "--dest-compress-format=zstd", None),
    ("copy", "--dest-compress-format=gzip --dest-compress-level=9", None),
    ("copy", "--dest-creds=a:b", None),
    ("copy", "--dest-daemon-host=x", Some("--dest-daemon-host")),
    ("copy", "--dest-decompress", None),
    ("copy", "--dest-no-creds", None),
    ("copy", "--dest-oci-accept-uncompressed-layers", None),
    ("copy", "--dest-username=a --dest-password=b", None),
    ("copy", "--dest-precompute-digests", None),
    ("copy", "--dest-registry-token=t", None),
    ("copy", "--dest-shared-blob-dir=blobs", None),
    ("copy", "--dest-tls-verify=false", None),
    ("copy", "--digestfile=file", None),
    ("copy", "--encrypt-layer=-1", Some("--encrypt-layer")),
    ("copy", "--encryption-key=jwe:x", Some("--encryption-key")),
    ("copy", "--format=oci", None),
    ("copy", "--format=v2s2", None),
    ("copy", "--format=v2s1", Some("v2s1")),
    ("copy", "--multi-arch=system", None),
    ("copy", "--preserve-digests", None),
    ("copy", "--quiet", None),
    ("copy", "--remove-signatures", None),
    ("copy", "--retry-times=1", None),
    ("copy", "--sign-by=ABCD", Some("--sign-identity")),
    ("copy", "--sign-by-sigstore-private-key=missing", Some("--sign-identity")),
    ("copy", "--sign-identity=a/b:c", Some("--sign-identity")),
    ("copy", "--sign-passphrase-file=x", Some("--sign-passphrase-file")),
    ("copy", "--src-authfile=auth.json", None),
    ("copy", "--src-cert-dir=.", None),
    ("copy", "--src-creds=a:b", None),
    ("copy", "--src-daemon-host=x", Some("--src-daemon-host")),
    ("copy", "--src-no-creds", None),
    ("copy", "--src-username=a --src-password=b", None),
    ("copy", "--src-registry-token=t", None),
    ("copy", "--src-shared-blob-dir=image/blobs", None),
    ("copy", "--src-tls-verify=false", None),
    ("copy", "--command-timeout=5m", None),
    ("copy", "--debug", None),
    ("copy", "--insecure-policy", None),
    ("copy", "--override-arch=amd64 --override-os=linux", None),
    ("copy", "--override-variant=v9 --all", None),
    ("copy", "--policy=policy.json", None),
    ("copy", "--registries.d=.", None),
    ("copy", "--tmpdir=.", None),
    ("inspect", "--authfile=auth.json", None),
    ("inspect", "--cert-dir=.", None),
    ("inspect", "--config", None),
    ("inspect", "--creds=a:b", None),
    ("inspect", "--daemon-host=x", Some("--daemon-host")),
    ("inspect", "--format={{.Os}}", None),
    ("inspect", "--no-creds", None),
    ("inspect", "--no-tags", None),
    ("inspect", "-n", None),
    ("inspect", "--raw", None),
    ("inspect", "--registry-token=t", None),
    ("inspect", "--retry-times=1", None),
    ("inspect", "--shared-blob-dir=image/blobs", None),
    ("inspect", "--tls-verify=false", None),
    ("inspect", "--username=a --password=b", None),
    ("delete", "--authfile=auth.json", None),
    ("delete", "--cert-dir=.", None),
    ("delete", "--creds=a:b", None),
    ("delete", "--daemon-host=x", Some("--daemon-host")),
    ("delete", "--no-creds", None),
    ("delete", "--registry-token=t", None),
    ("delete", "--retry-times=1", None),
    ("delete", "--shared-blob-dir=x", None),
    ("delete", "--tls-verify=false", None),
    ("delete", "--username=a --password=b", None),
    ("list-tags", "--authfile=auth.json", None),
    ("list-tags", "--cert-dir=.", None),
    ("list-tags", "--creds=a:b", None),
    ("list-tags", "--no-creds", None),
    ("list-tags", "--registry-token=t", None),
    ("list-tags", "--retry-times=1", None),
    ("list-tags", "--tls-verify=false", None),
    ("list-tags", "--username=a --password=b", None),
    ("login", "--username=a --password=b", None),
    ("login", "-u a -p b", None),
    ("login", "--get-login", None),
    ("login", "--tls-verify=false --username=a --password=b", None),
    ("login", "--cert-dir=. --username=a --password=b", None),
    ("login", "--verbose --username=a --password=b", None),
    ("login", "--authfile=auth.json --username=a --password=b", None),
    ("login", "--password-stdin", Some("--password-stdin")),
    ("logout", "--authfile=auth.json", None),
    ("logout", "--tls-verify=false", None),
    ("logout", "--all", None),
];

#[test]
fn every_flag_of_skopeo_works_or_is_refused_by_name() {
    let scene = Scene::new();
    scene.bench.write("auth.json", "{}");
    scene.bench.write("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let registry = Registry::start(Options::default()).unwrap();
    let address = registry.address();
    for (at, (command, flags, refused)) in FLAGS.iter().enumerate() {
        let place = format!("oci:layout-{at}:app");
        let mut line = vec![*command];
        line.extend(flags.split(' '));
        match *command {
            "copy" => line.extend(["oci:image:app", place.as_str()]),
            "list-tags" => line.push("oci:image"),
            "login" => line.push(&address),
            "logout" => line.extend((*flags != "--all").then_some(address.as_str())),
            "delete" => {
                scene.copy("oci:image:app", &place).ok();
                line.push(place.as_str());
            }
            _ => line.push("oci:image:app"),
        }
        match refused {
            None => drop(scene.rcopy(&line).ok()),
            Some(word) => drop(scene.rcopy(&line).fails(&[word])),
        }
    }
    if peer("skopeo").is_none() {
        return;
    }
    // Layouts that share their blobs, each program's read by the other.
    for (write, read) in [(true, false), (false, true)] {
        let run = |ours: bool, line: &[&str]| match ours {
            true => scene.rcopy(line).ok(),
            false => scene.skopeo(line).ok(),
        };
        for name in ["one", "two"] {
            let to = format!("oci:{name}-{write}:app");
            run(write, &["copy", "--dest-shared-blob-dir=below/shared", "oci:image:app", &to]);
        }
        let from = format!("oci:two-{write}:app");
        let to = format!("dir:from-shared-{write}");
        run(read, &["copy", "--src-shared-blob-dir=below/shared", &from, &to]);
        let blobs = scene.bench.path().join(format!("two-{write}/blobs"));
        let inside = walkdir::WalkDir::new(blobs).into_iter().flatten();
        assert_eq!(inside.filter(|entry| entry.file_type().is_file()).count(), 0);
    }
    // The table has all there are.
    for command in ["copy", "inspect", "delete", "list-tags", "login", "logout"] {
        let help = scene.skopeo(&[command, "--help"]).ok();
        let (_, flags) = help.stdout.split_once("Flags:").unwrap();
        let words = flags.split([' ', '\n']).filter(|word| word.starts_with("--"));
        for flag in words.filter(|flag| *flag != "--help") {
            let named = |(of, text, _): &&(&str, &str, Option<&str>)| {
                *of == command && text.split([' ', '=']).any(|word| word == flag)
            };
            assert!(FLAGS.iter().find(named).is_some(), "{command} {flag} is not in the table");
        }
    }
}
