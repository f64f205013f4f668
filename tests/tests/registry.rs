//! `rbuild registry`: other people's clients push and pull; passwords, TLS, immutable tags; the
//! commands that look after it.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::served::ServedRegistry;
use e2e::{Bench, peer, run, wire};

/// A certificate for 127.0.0.1 that signs itself, or that another signs, and its key.
fn certificate(bench: &Bench, name: &str, by: Option<&str>) -> Option<()> {
    let path = |name: &str, end: &str| {
        bench.path().join(format!("{name}.{end}")).to_str().unwrap().to_owned()
    };
    let mut command = Command::new(peer("openssl")?);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-keyout", &path(name, "key"), "-out", &path(name, "crt")]);
    if let Some(by) = by {
        command.args(["-CA", &path(by, "crt"), "-CAkey", &path(by, "key")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    run(&mut command).ok();
    Some(())
}

/// Asks until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "it did not come to be so");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn rules_change_while_it_serves_and_clients_show_certificates() {
    let bench = Bench::new();
    let (Some(()), Some(htpasswd)) = (certificate(&bench, "tls", None), peer("htpasswd")) else {
        return;
    };
    certificate(&bench, "people", None);
    certificate(&bench, "client", Some("people"));
    let person = |name: &str| {
        let made = run(Command::new(&htpasswd).args(["-nbB", "-C", "5", name, "geheim"])).ok();
        made.stdout.trim().to_owned()
    };
    bench.write("htpasswd", person("anna"));
    let configure = |bytes: u64| {
        let text = format!(
            r#"
            [storage]
            directory = "images"
            [tls]
            certificate = "tls.crt"
            key = "tls.key"
            client-ca = "people.crt"
            [auth]
            htpasswd = "htpasswd"
            [[quota]]
            prefix = "small"
            bytes = {bytes}
            "#
        );
        bench.write("registry.toml", text)
    };
    let config = configure(2000);
    let served =
        ServedRegistry::start(bench.command("rbuild"), &["--config", config.to_str().unwrap()]);
    let layout = e2e::image::busybox(&bench.path().join("busybox"));
    let from = format!("oci:{}:busybox", layout.display());
    let name = |rest: &str| format!("docker://{}", served.name(rest));
    let file = |from: &str, to: &str| {
        std::fs::create_dir_all(bench.path().join(to).parent().unwrap()).unwrap();
        std::fs::copy(bench.path().join(from), bench.path().join(to)).unwrap();
    };
    for directory in ["nobody", "certs"] {
        file("tls.crt", &format!("{directory}/ca.crt"));
    }
    file("client.crt", "certs/client.cert");
    file("client.key", "certs/client.key");
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    let copy = |certs: &str, to: &str| {
        let options = ["--dest-cert-dir", &path(certs), "--dest-creds", "anna:geheim"];
        bench.rcopy([&["copy"][..], &options, &[&from, &name(to)]].concat())
    };
    copy("nobody", "team/app:1").fails(&["team/app"]);
    copy("certs", "team/app:1").ok();
    if let Some(skopeo) = peer("skopeo") {
        let theirs = |certs: &str| {
            let mut command = Command::new(&skopeo);
            command.args(["inspect", "--creds", "anna:geheim", "--cert-dir", &path(certs)]);
            run(command.arg(name("team/app:1")))
        };
        theirs("certs").ok();
        theirs("nobody").fails(&["certificate"]);
    }

    // A quota: nothing of what has no room stays; then there is room.
    copy("certs", "small/app:1").fails(&["the quota of small has no room for this"]);
    configure(100 << 20);
    until(|| copy("certs", "small/app:1").code == 0);
    // People come and go.
    let known = |name_: &str| {
        let creds = format!("{name_}:geheim");
        let options = ["digest", "--cert-dir", &path("certs"), "--creds", &creds];
        bench.rcopy([&options[..], &[&name("team/app:1")]].concat()).code == 0
    };
    assert!(known("anna") && !known("bert"));
    bench.write("htpasswd", person("bert"));
    until(|| known("bert"));
    assert!(!known("anna"));
    // A new certificate, which the old authority does not know.
    certificate(&bench, "tls", None);
    file("tls.crt", "certs/ca.crt");
    until(|| known("bert"));
}

#[test]
fn clients_of_others_over_tls_with_passwords_and_rules() {
    let bench = Bench::new();
    let (Some(()), Some(htpasswd)) = (certificate(&bench, "tls", None), peer("htpasswd")) else {
        return;
    };
    let people = run(Command::new(htpasswd).args(["-nbB", "anna", "geheim"])).ok();
    bench.write("htpasswd", people.stdout.trim());
    let config = bench.write(
        "registry.toml",
        r#"
        access-log = true
        [storage]
        directory = "images"
        [tls]
        certificate = "tls.crt"
        key = "tls.key"
        [auth]
        htpasswd = "htpasswd"
        [[access]]
        repositories = ["**"]
        users = ["anna"]
        allow = ["pull", "push", "delete", "catalog"]
        [[access]]
        repositories = ["public/**"]
        users = ["anonymous"]
        allow = ["pull"]
        [[immutable]]
        repositories = ["**"]
        tags = ["v*"]
        "#,
    );
    let config = config.to_str().unwrap();
    assert!(bench.rbuild(["registry", "check-config", config]).ok().text().ends_with("is good"));
    let mut served = ServedRegistry::start(bench.command("rbuild"), &["--config", config]);
    let layout = e2e::image::busybox(&bench.path().join("busybox"));
    let from = format!("oci:{}:busybox", layout.display());
    let certs = bench.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    std::fs::copy(bench.path().join("tls.crt"), certs.join("ca.crt")).unwrap();
    let certs = certs.to_str().unwrap();
    let name = |rest: &str| format!("docker://{}", served.name(rest));

    // Ours, with the certificate checked.
    let ours = ["--dest-cert-dir", certs, "--dest-creds", "anna:geheim"];
    bench.rcopy([&["copy"][..], &ours, &[&from, &name("public/ours:v1")]].concat()).ok();
    let wrong = ["--dest-cert-dir", certs, "--dest-creds", "anna:falsch"];
    bench
        .rcopy([&["copy"][..], &wrong, &[&from, &name("public/no:v1")]].concat())
        .fails(&["public/no"]);
    let back = ["copy", "--src-cert-dir", certs];
    bench.rcopy([&back[..], &[&name("public/ours:v1"), "oci:back:1"]].concat()).ok();

    // Theirs.
    if let Some(skopeo) = peer("skopeo") {
        let copy = |from: &str, to: &str| {
            run(Command::new(&skopeo).args([
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                "--src-cert-dir",
                certs,
                "--dest-cert-dir",
                certs,
                "--dest-creds",
                "anna:geheim",
                from,
                to,
            ]))
        };
        copy(&name("public/ours:v1"), &name("team/skopeo:v1")).ok();
        copy(&name("public/ours:v1"), &name("team/skopeo:v1")).ok();
        let anonymous = run(Command::new(&skopeo).args([
            "inspect",
            "--cert-dir",
            certs,
            &name("team/skopeo:v1"),
        ]));
        assert_ne!(anonymous.code, 0);
        let other = e2e::image::Layer::new().file("other", 0o644, b"other").finish();
        e2e::image::layout(&bench.path().join("other"), "o", &[other], |_| {});
        let other = format!("oci:{}:o", bench.path().join("other").display());
        copy(&other, &name("team/skopeo:v1")).fails(&["immutable"]);
    }
    for program in ["buildah", "podman"] {
        let Some(path) = peer(program) else { continue };
        if !e2e::root() {
            continue;
        }
        let home = bench.path().join(program);
        let theirs = |arguments: &[&str]| {
            let root = home.join("root");
            let state = home.join("run");
            let mut command = Command::new(&path);
            command.args(["--root", root.to_str().unwrap(), "--runroot", state.to_str().unwrap()]);
            command.args(["--storage-driver", "vfs"]).args(arguments);
            run(&mut command).ok()
        };
        let (pulled, pushed) =
            (served.name("public/ours:v1"), served.name(&format!("team/{program}:v1")));
        theirs(&["pull", "--cert-dir", certs, &pulled]);
        let push = ["push", "--cert-dir", certs, "--creds", "anna:geheim", &pulled];
        theirs(&[&push[..], &[&format!("docker://{pushed}")]].concat());
        let creds = ["--cert-dir", certs, "--creds", "anna:geheim"];
        bench
            .rcopy([&["digest"][..], &creds, &[&name(&format!("team/{program}:v1"))]].concat())
            .ok();
    }
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0));
    let pushed = log.iter().any(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["user"] == "anna" && line["method"] == "PUT" && line["status"] == 201
    });
    assert!(pushed, "{log:?}");
}

fn aged(path: &Path, days: u64) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
    file.set_modified(then).unwrap();
}

#[test]
fn retention_collection_and_scrub_beside_a_server() {
    let bench = Bench::new();
    let config = bench.write(
        "registry.toml",
        "storage = { directory = \"images\" }\n[[retention]]\nrepositories = [\"ci/**\"]\n\
         tags = [\"build-*\"]\nkeep-last = 1\nkeep-within = \"30d\"\ndelete-untagged = true\n",
    );
    let config = config.to_str().unwrap();
    let served = ServedRegistry::start(bench.command("rbuild"), &["--config", config]);
    for number in 1..=4 {
        let tag = format!("build-{number}");
        let layer = e2e::image::Layer::new().file("tag", 0o644, tag.as_bytes()).finish();
        let layout = bench.path().join(&tag);
        e2e::image::layout(&layout, "x", &[layer], |_| {});
        let to = format!("docker://{}", served.name(&format!("ci/app:{tag}")));
        bench.rcopy(["copy", &format!("oci:{}:x", layout.display()), &to]).ok();
    }
    let tags = bench.path().join("images/repositories/ci/app/_tags");
    aged(&tags.join("build-1"), 90);
    aged(&tags.join("build-2"), 40);
    aged(&tags.join("build-3"), 10);
    let care = |arguments: &[&str]| {
        bench.rbuild([&["registry"][..], arguments, &["--config", config]].concat())
    };
    let planned = care(&["retention", "--dry-run"]).ok();
    let expected = "ci/app:build-2 (set 40d ago, not known to be pulled)\n\
                    ci/app:build-1 (set 90d ago, not known to be pulled)";
    assert_eq!(planned.text(), expected);
    assert!(tags.join("build-1").exists());
    assert_eq!(care(&["retention"]).ok().text(), expected);
    assert!(!tags.join("build-1").exists() && tags.join("build-3").exists());

    // Nothing of it is old enough to be collected; without a grace, all of it is.
    assert!(care(&["gc"]).ok().text().starts_with("deleted 0 blobs"));
    let done = care(&["gc", "--grace", "0s"]).ok();
    assert!(
        done.text().starts_with("deleted 6 blobs and manifests, 2 untagged"),
        "{}",
        done.text()
    );
    let left = served.name("ci/app:build-3");
    bench.rcopy(["copy", &format!("docker://{left}"), "oci:left:1"]).ok();

    // A bit turns on the disk.
    assert!(care(&["scrub"]).ok().text().starts_with("read 6 blobs and manifests"));
    let manifest = wire::send(&served.address, "GET", "/v2/ci/app/manifests/build-3", &[], b"");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let path = bench.path().join("images/blobs").join(layer.replace(':', "/"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let scrubbed = care(&["scrub"]).code(1);
    assert!(scrubbed.text().contains(&format!("broken {layer}")));
    let repaired = care(&["scrub", "--repair"]).code(1);
    assert!(repaired.text().contains(&format!("lacks {layer}")), "{}", repaired.text());
    // The image that lacks something is deleted, and pushed again.
    let digest = bench.rcopy(["digest", &format!("docker://{left}")]).ok().text().to_owned();
    let at = format!("/v2/ci/app/manifests/{digest}");
    assert_eq!(wire::send(&served.address, "DELETE", &at, &[], b"").status, 202);
    let from = format!("oci:{}:x", bench.path().join("build-3").display());
    bench.rcopy(["copy", &from, &format!("docker://{left}")]).ok();
    care(&["scrub"]).ok();

    for (arguments, words) in [
        (&["gc"][..], &["no storage is configured"][..]),
        (&["gc", "--directory", "x", "--grace", "soon"], &["soon", "span of time"]),
        (&["retention", "--directory", "x"], &["no retention rules"]),
        (&["check-config", "none.toml"], &["reading none.toml"]),
        (&["serve", "--directory", "x", "--address", "nowhere"], &["listening on nowhere"]),
    ] {
        bench.rbuild([&["registry"][..], arguments].concat()).fails(words);
    }
    bench.write("odd.toml", "[limits]\nblobs = 5\n");
    bench.rbuild(["registry", "check-config", "odd.toml"]).fails(&["odd.toml", "blobs", "line 2"]);
}

#[test]
fn what_goes_wrong_is_logged_without_being_asked_for_and_without_secrets() {
    let bench = Bench::new();
    let right =
        "webhooks = [\"http://127.0.0.1:1/secret\"]\nstorage = { directory = \"images\" }\n";
    let config = bench.write("registry.toml", right);
    let served =
        ServedRegistry::start(bench.command("rbuild"), &["--config", config.to_str().unwrap()]);
    let layer = e2e::image::Layer::new().file("a", 0o644, b"a").finish();
    e2e::image::layout(&bench.path().join("image"), "x", &[layer], |_| {});
    let to = format!("docker://{}", served.name("app:1"));
    bench.rcopy(["copy", "oci:image:x", &to]).ok();
    until(|| served.said().contains("sending an event"));
    assert!(served.said().contains("http://127.0.0.1:1"), "{}", served.said());

    bench.write("images/repositories/app/_tags/1", "no JSON");
    let broken = wire::send(&served.address, "GET", "/v2/app/manifests/1", &[], b"");
    assert_eq!(broken.status, 500);
    until(|| served.said().contains("status=500"));
    assert!(served.said().contains("/v2/app/manifests/1"), "{}", served.said());

    bench.write("registry.toml", format!("{right}[limits]\nblobs = 5\n"));
    until(|| served.said().contains("the previous one applies"));
    assert!(served.said().contains("unknown field `blobs`"), "{}", served.said());
    assert!(!served.said().contains("secret"), "{}", served.said());
}
