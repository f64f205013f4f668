//! GPG signatures beside a registry: made by skopeo where registries.d says, asked for by a
//! policy.json, checked by `rcopy`; and made by `rbuild` where images leave it.
#![allow(clippy::unwrap_used, reason = "a journey")]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, Ran, peer, run};
use registry_server::{Effect, Fault, Options, Registry};
use serde_json::json;

/// A GPG home with one key.
struct Keys(PathBuf);

impl Keys {
    fn new(path: PathBuf, name: &str) -> Keys {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let keys = Keys(path);
        let make = ["--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "never"];
        keys.gpg(&make).ok();
        keys
    }

    fn gpg(&self, arguments: &[&str]) -> Ran {
        run(Command::new("gpg").arg("--homedir").arg(&self.0).arg("--batch").args(arguments))
    }

    /// The public key in a file.
    fn export(&self, to: &Path) -> PathBuf {
        let _ = std::fs::remove_file(to);
        self.gpg(&["--armor", "--output", to.to_str().unwrap(), "--export"]).ok();
        to.to_owned()
    }

    fn fingerprint(&self) -> String {
        let listed = self.gpg(&["--with-colons", "--list-keys"]).ok().stdout;
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The agent that made the key.
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(&self.0).args(["--kill", "all"]).status();
    }
}

#[test]
fn a_policy_is_satisfied_by_gpg_signatures_in_a_lookaside() {
    if peer("gpg").is_none() || peer("gpgconf").is_none() || peer("skopeo").is_none() {
        return;
    }
    let bench = Bench::new();
    // Sockets have short paths.
    let homes = tempfile::tempdir_in("/tmp").unwrap();
    let mine = Keys::new(homes.path().join("m"), "me@example.com");
    let other = Keys::new(homes.path().join("o"), "other@example.com");
    let registry = Registry::start(Options::default()).unwrap();
    let layer = e2e::image::Layer::new().file("f", 0o644, b"signed").finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let address = registry.address();
    let signatures = bench.path().join("signatures");
    bench.write(
        "registries.d/all.yaml",
        format!(
            "docker:\n  {address}:\n    lookaside: file://{0}\n    lookaside-staging: file://{0}\n",
            signatures.display()
        ),
    );
    let place = format!("docker://{address}/team/app:1");
    let mut skopeo = Command::new("skopeo");
    skopeo.current_dir(bench.path()).env("GNUPGHOME", &mine.0).args(["--insecure-policy"]);
    skopeo.args(["--registries.d", "registries.d", "copy", "-q", "--dest-tls-verify=false"]);
    skopeo.args(["--sign-by", &mine.fingerprint(), "oci:image:app", &place]);
    run(&mut skopeo).ok();

    let policy = |keys: &Keys, name: &str| {
        let key = keys.export(&bench.path().join(name));
        let signed = json!([{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": key }]);
        let text = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { &address: signed } } });
        bench.write(&format!("{name}.json"), text.to_string()).display().to_string()
    };
    let (good, bad) = (policy(&mine, "mine.asc"), policy(&other, "other.asc"));
    let copy = |policy: &str, from: &str| {
        let arguments = ["--policy", policy, "--registries.d", "registries.d", "copy", from];
        bench.rcopy([&arguments[..], &["oci:out:app"]].concat())
    };
    copy(&good, &place).ok();
    copy(&bad, &place).fails(&["signature-1", "none of the trusted keys made it"]);
    // Signatures come along, to a lookaside, into a directory and back, and not twice.
    let made = signatures.join("team");
    let digest = bench.rcopy(["digest", &place]).ok().text().replace(':', "=");
    let signed = |name: &str| made.join(format!("{name}@{digest}"));
    let original = std::fs::read(signed("app").join("signature-1")).unwrap();
    let carry = |more: &[&str], from: &str, to: &str| {
        let arguments = [&["--registries.d", "registries.d", "copy"], more, &[from, to]];
        bench.rcopy(arguments.concat()).ok()
    };
    let to = |name: &str| format!("docker://{address}/team/{name}:1");
    for _ in 0..2 {
        carry(&[], &place, &to("carried"));
    }
    carry(&[], &place, "dir:carried");
    carry(&[], "dir:carried", &to("back"));
    for directory in [signed("carried"), bench.path().join("carried"), signed("back")] {
        assert_eq!(std::fs::read(directory.join("signature-1")).unwrap(), original);
        assert!(!directory.join("signature-2").exists());
    }
    // An image that is deleted takes its signatures along.
    bench.rcopy(["--registries.d", "registries.d", "delete", "--yes", &to("back")]).ok();
    assert!(!signed("back").exists() && signed("carried").exists());
    carry(&["--remove-signatures"], &place, &to("bare"));
    assert!(!signed("bare").exists());
    let told = carry(&[], &place, "oci:none:app");
    assert!(told.stderr.contains("1 GPG signature stays behind"), "{}", told.told());
    let mut sync = bench.command("rcopy");
    sync.args(["--registries.d", "registries.d", "sync", "--src=docker", "--dest=docker"]);
    let from = format!("{address}/team/app");
    run(sync.current_dir(bench.path()).args([&from, &format!("{address}/team/mirror")])).ok();
    let mirrored = made.join("mirror").join(format!("app@{digest}/signature-1"));
    assert_eq!(std::fs::read(mirrored).unwrap(), original);
    // The same image under another name, and one that is not signed.
    bench.rcopy(["copy", &place, &format!("docker://{address}/team/other:1")]).ok();
    let unsigned = format!("docker://{address}/team/other:1");
    copy(&good, &unsigned).fails(&["it has no signature"]);
    let from = signatures.join("team");
    let moved = signed("app");
    let name = moved.file_name().unwrap().to_string_lossy().replace("app@", "other@");
    std::fs::rename(&moved, from.join(&name)).unwrap();
    copy(&good, &unsigned).fails(&["it was made for", "team/app:1"]);
    // A changed signature.
    let file = from.join(&name).join("signature-1");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::rename(from.join(&name), &moved).unwrap();
    std::fs::write(moved.join("signature-1"), &bytes).unwrap();
    copy(&good, &place).fails(&["signature-1"]);
    // A file that says nonsense is named.
    bench.write("registries.d/broken.yaml", "docker:\n  r.example:\n    lookside: x\n");
    copy(&good, &place).fails(&["broken.yaml", "lookside"]);
}

#[test]
fn commits_pushes_and_lists_are_signed_and_tried_again_on_their_way() {
    if peer("gpg").is_none() || peer("gpgconf").is_none() || peer("skopeo").is_none() {
        return;
    }
    let bench = Bench::new();
    let home = tempfile::tempdir_in("/tmp").unwrap();
    let keys = Keys::new(home.path().join("k"), "me@example.com");
    let by = format!("--sign-by={}", keys.fingerprint());
    let registry = Registry::start(Options::default()).unwrap();
    let address = registry.address().to_string();
    let lookaside = format!("file://{}", bench.path().join("signatures").display());
    let said = format!("docker:\n  {address}:\n    lookaside: {lookaside}\n");
    let places = bench.write("home/.config/containers/registries.d/all.yaml", said);
    let key = keys.export(&bench.path().join("key.asc"));
    let signed = json!([{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": key }]);
    let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { &address: signed } } });
    let policy = bench.write("policy.json", policy.to_string()).display().to_string();
    let ours =
        |arguments: &[&str]| run(bench.command("rbuild").env("GNUPGHOME", &keys.0).args(arguments));
    let place = |name: &str| format!("docker://{address}/team/{name}:1");
    // Both read what was made here, under a policy that lets nothing else through.
    let checked = |name: &str| {
        let (from, all) = (place(name), "--all");
        bench.rcopy(["--policy", &policy, "copy", all, &from, "dir:ours"]).ok();
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--policy", &policy, "--registries.d"]).arg(places.parent().unwrap());
        skopeo.args(["copy", "-q", all, "--remove-signatures", "--src-tls-verify=false", &from]);
        run(skopeo.arg(format!("dir:{}", bench.path().join("theirs").display()))).ok();
    };
    bench.write("file", "content");
    let name = ours(&["from", "scratch"]).ok().text().to_owned();
    ours(&["copy", &name, "file", "/"]).ok();
    ours(&["commit", &name, "app"]).ok();
    ours(&["manifest", "create", "list", "app"]).ok();
    let (commit, push, list) = (place("commit"), place("push"), place("list"));
    let lines: [(&str, Vec<&str>, Vec<&str>); 3] = [
        ("commit", vec!["commit"], vec![&name, &commit]),
        ("push", vec!["push"], vec!["app", &push]),
        ("list", vec!["manifest", "push", "--all"], vec!["list", &list]),
    ];
    for (made, command, ends) in &lines {
        // One failure too many, then as many as are allowed.
        let busy = |times| {
            let path = format!("/v2/team/{made}/manifests/*");
            registry.fault(Fault::times(times, "PUT", path, Effect::status(503)));
        };
        let line = |more: &[&str]| ours(&[command, more, ends].concat());
        busy(1);
        line(&[&by, "--retry=0"]).fails(&["503"]);
        bench.rcopy(["digest", &place(made)]).code(2);
        busy(7);
        line(&[&by, "--retry=7", "--retry-delay=1ms"]).ok();
        checked(made);
        line(&["--sign-by=0000"]).fails(&["gpg"]);
    }
    // Without a signature the policy refuses it.
    ours(&["push", "app", &place("bare")]).ok();
    bench.rcopy(["--policy", &policy, "copy", &place("bare"), "dir:none"]).fails(&["no signature"]);
    ours(&["commit", &by, &name, "local"]).code(125).fails(&["--sign-by"]);
}
