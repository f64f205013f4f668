//! Signing and verifying with both programs, and the policy that decides what may be used.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::path::PathBuf;

use e2e::registry::DockerRegistry;
use e2e::watch::guarded;
use e2e::{Bench, Ran, root};
use registry_server::{Options, Registry};

const PASSPHRASE: &str = "correct horse";

struct Scene {
    bench: Bench,
}

impl Scene {
    /// A bench with two key pairs, `one` and `two`, and an image in a layout.
    fn new() -> Scene {
        let scene = Scene { bench: Bench::new() };
        for name in ["one", "two"] {
            scene.ours("rcopy", &["generate-key-pair", "--output", name]).ok();
        }
        for (name, content) in [("image", "original\n"), ("other", "tampered\n")] {
            let layer = e2e::image::Layer::new().file("f", 0o644, content.as_bytes()).finish();
            e2e::image::layout(&scene.path(name), "app", &[layer], |_| {});
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn ours(&self, program: &str, arguments: &[&str]) -> Ran {
        self.with(program, PASSPHRASE, arguments)
    }

    fn with(&self, program: &str, passphrase: &str, arguments: &[&str]) -> Ran {
        let mut command = self.bench.command(program);
        command.current_dir(self.bench.path()).env("COSIGN_PASSWORD", passphrase).args(arguments);
        guarded(&mut command)
    }

    fn copy(&self, from: &str, to: &str) -> Ran {
        self.ours("rcopy", &["copy", from, to])
    }

    /// Writes a policy that refuses everything but images of these scopes signed with a key.
    fn policy(&self, name: &str, transport: &str, scope: &str, key: &str) -> String {
        let key = self.path(key);
        let policy = serde_json::json!({
            "default": [{ "type": "reject" }],
            "transports": { transport: { scope: [{
                "type": "sigstoreSigned", "keyPath": key,
                "signedIdentity": { "type": "matchRepository" },
            }] } },
        });
        let path = self.bench.write(name, policy.to_string());
        format!("--policy={}", path.display())
    }
}

/// Signs and verifies at a place, in a form.
fn round(scene: &Scene, place: &str, form: &str, identity: &str) {
    let form = format!("--form={form}");
    let verify = |key: &str, more: &[&str]| {
        let line = [&["verify", "--key", key][..], more, &[place]].concat();
        scene.ours("rcopy", &line)
    };
    verify("one.pub", &[]).code(10).fails(&["it has no signature"]);
    // A layout has no name to sign.
    let named = if identity.is_empty() { "registry.example/team/app:1" } else { identity };
    let named = format!("--sign-identity={named}");
    let line = ["sign", "--key", "one.key", &form, &named, "-a", "by=me", place];
    let signed = scene.ours("rbuild", &line);
    let digest = scene.ours("rcopy", &["digest", place]).ok();
    assert!(signed.ok().stdout.contains(digest.text()));
    let good = verify("one.pub", &["-a", "by=me"]).ok();
    assert!(
        good.stdout.contains(digest.text()) && good.stdout.contains("by=me"),
        "{}",
        good.told()
    );
    verify("two.pub", &["--key", "one.pub"]).ok();
    verify("two.pub", &[]).code(12).fails(&["key"]);
    verify("one.pub", &["-a", "by=you"]).code(12).fails(&["by"]);
    if !identity.is_empty() {
        named_image(verify, identity);
    }
}

/// Verifies a signature of an image that has a name.
fn named_image(verify: impl Fn(&str, &[&str]) -> Ran, identity: &str) {
    verify("one.pub", &["--identity", identity]).ok();
    let other = "registry.example/other/name:1";
    verify("one.pub", &["--identity", other]).code(12).fails(&["registry.example/other/name"]);
    let json = verify("one.pub", &["--format", "json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(1), "{json:#}");
    assert_eq!(json[0]["annotations"]["by"], "me", "{json:#}");
}

#[test]
fn keys_are_made_once_and_closed() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    let mode = |name: &str| scene.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("one.key"), mode("one.pub")), (0o600, 0o644));
    let text = std::fs::read_to_string(scene.path("one.key")).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"), "{text}");
    let again = scene.ours("rbuild", &["generate-key-pair", "--output", "one"]).code(125);
    again.fails(&["one.key", "exists"]);
    assert_eq!(std::fs::read_to_string(scene.path("one.key")).unwrap(), text);
    let place = "oci:image:app";
    let sign = |key: &str, passphrase: &str| {
        scene.with("rcopy", passphrase, &["sign", "--key", key, place])
    };
    sign("one.key", "wrong").fails(&["one.key", "passphrase is wrong"]);
    sign("one.pub", PASSPHRASE).fails(&["one.pub"]);
    sign("none.key", PASSPHRASE).fails(&["none.key", "no such file"]);
    scene.bench.write("junk.key", "junk");
    sign("junk.key", PASSPHRASE).fails(&["junk.key"]);
    scene.ours("rcopy", &["verify", place]).code(1).fails(&["--key"]);
    scene.ours("rcopy", &["verify", "--key", "one.pub", place]).code(10).fails(&["no signature"]);
}

#[test]
fn our_registry_in_both_forms() {
    let registry = Registry::start(Options::default()).unwrap();
    let scene = Scene::new();
    for form in ["bundle", "tag"] {
        let name = format!("{}/team/{form}:1", registry.address());
        let place = format!("docker://{name}");
        scene.copy("oci:image:app", &place).ok();
        round(&scene, &place, form, &name);
    }
}

#[test]
fn signing_again_changes_nothing() {
    let registry = Registry::start(Options::default()).unwrap();
    let scene = Scene::new();
    let place = format!("docker://{}/team/app:1", registry.address());
    scene.copy("oci:image:app", &place).ok();
    scene.bench.write("said.json", r#"{"x":1}"#);
    let count = || {
        let listed = scene.ours("rcopy", &["tree", "--format", "json", &place]).ok().stdout;
        let tags = scene.ours("rcopy", &["list-tags", &place]).ok().stdout;
        (listed.matches("sha256:").count(), tags)
    };
    let mut before = None;
    for _ in 0..3 {
        scene
            .ours("rbuild", &["sign", "--key", "one.key", "--form=bundle", "--form=tag", &place])
            .ok();
        let attest = ["--type", "https://example.com/x", "--predicate", "said.json", &place];
        scene.ours("rbuild", &[&["attest", "--key", "one.key"][..], &attest].concat()).ok();
        let now = Some(count());
        assert!(before.is_none() || before == now, "{before:?} {now:?}");
        before = now;
    }
    // What differs in what it says is added.
    scene.ours("rbuild", &["sign", "--key", "one.key", "-a", "a=b", &place]).ok();
    assert_ne!(before, Some(count()));
}

#[test]
fn recursive_takes_every_image_of_an_index_as_well() {
    let registry = Registry::start(Options::default()).unwrap();
    let scene = Scene::new();
    let members: Vec<_> = ["a", "b"]
        .iter()
        .map(|tag| registry.put_image("team/app", tag, &[tag.as_bytes()]).unwrap())
        .collect();
    let digests: Vec<_> = members.iter().map(|member| member.digest).collect();
    let index = image::Document::write(image::MediaType::OCI_INDEX, image::Index::new(members));
    let bytes = index.bytes().clone();
    registry.put_manifest("team/app", Some("1"), image::MediaType::OCI_INDEX, bytes).unwrap();
    let place = format!("docker://{}/team/app", registry.address());
    scene.bench.write("said.json", r#"{"x":1}"#);
    let verify = |what: &str, at: &str| {
        let kind: &[&str] = if what == "verify" { &[] } else { &["--type=https://example.com/x"] };
        scene.ours("rbuild", &[&[what, "--key=one.pub"], kind, &[at]].concat())
    };
    let at = |digest| format!("{place}@{digest}");
    let (root, one, other) = (format!("{place}:1"), at(digests[0]), at(digests[1]));
    scene.ours("rbuild", &["sign", "--key=one.key", &root]).ok();
    verify("verify", &root).ok();
    verify("verify", &one).code(10);
    scene.ours("rbuild", &["sign", "--key=one.key", "--recursive", &root]).ok();
    let attest = ["attest", "--key=one.key", "--type=https://example.com/x"];
    let rest = ["--predicate=said.json", "--recursive", &root];
    scene.ours("rbuild", &[&attest[..], &rest].concat()).ok();
    for what in ["verify", "verify-attestation"] {
        for at in [&root, &one, &other] {
            verify(what, at).ok();
        }
    }
}

#[test]
fn signers_at_once_lose_nothing() {
    // This registry has no list of referrers, so that both forms are lists under a tag.
    let Some(registry) = DockerRegistry::start() else { return };
    let scene = Scene::new();
    for key in 0..6 {
        scene.ours("rcopy", &["generate-key-pair", "--output", &format!("k{key}")]).ok();
    }
    for form in ["bundle", "tag"] {
        let place = format!("docker://{}", registry.name(&format!("team/{form}:1")));
        scene.copy("oci:image:app", &place).ok();
        let form = format!("--form={form}");
        std::thread::scope(|scope| {
            for key in 0..6 {
                let (scene, place, form) = (&scene, &place, &form);
                let key = format!("k{key}.key");
                scope.spawn(move || {
                    scene.ours("rcopy", &["sign", "--key", &key, form, place]).ok();
                });
            }
        });
        for key in 0..6 {
            scene.ours("rcopy", &["verify", "--key", &format!("k{key}.pub"), &place]).ok();
        }
    }
}

#[test]
fn another_registry_in_both_forms() {
    let Some(registry) = DockerRegistry::start() else { return };
    let scene = Scene::new();
    for form in ["bundle", "tag"] {
        let name = registry.name(&format!("team/{form}:1"));
        let place = format!("docker://{name}");
        scene.copy("oci:image:app", &place).ok();
        round(&scene, &place, form, &name);
    }
}

#[test]
fn a_layout_in_both_forms() {
    let scene = Scene::new();
    for form in ["bundle", "tag"] {
        let place = format!("oci:layout-{form}:app");
        scene.copy("oci:image:app", &place).ok();
        round(&scene, &place, form, "");
    }
}

#[test]
fn the_store_in_both_forms() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    for form in ["bundle", "tag"] {
        let layer = e2e::image::Layer::new().file("f", 0o644, form.as_bytes()).finish();
        let from =
            e2e::image::layout(&scene.path(&format!("from-{form}")), "app", &[layer], |_| {});
        let name = format!("registry.example/team/{form}:1");
        scene.copy(&format!("oci:{}:app", from.display()), &format!("store:{name}")).ok();
        round(&scene, &format!("store:{name}"), form, &name);
    }
    scene.bench.rbuild(["check"]).ok();
}

#[test]
fn an_image_put_in_place_of_the_signed_one_is_refused() {
    let registry = Registry::start(Options::default()).unwrap();
    let scene = Scene::new();
    for form in ["bundle", "tag"] {
        let place = format!("docker://{}/team/{form}:1", registry.address());
        scene.copy("oci:image:app", &place).ok();
        let form = format!("--form={form}");
        scene.ours("rcopy", &["sign", "--key", "one.key", &form, &place]).ok();
        scene.copy("oci:other:app", &place).ok();
        let other = scene.ours("rcopy", &["digest", &place]).ok();
        let refused = scene.ours("rcopy", &["verify", "--key", "one.pub", &place]).code(10);
        refused.fails(&[other.text(), "no signature"]);
    }
    // A signature of one image presented as one of another.
    let repository = "team/tag";
    let signed = image_digest(&scene, "oci:image:app");
    let other = image_digest(&scene, "oci:other:app");
    let tag = |digest: &str| {
        format!("docker://{}/{repository}:{}.sig", registry.address(), digest.replace(':', "-"))
    };
    scene.copy(&tag(&signed), &tag(&other)).ok();
    let place = format!("docker://{}/{repository}:1", registry.address());
    let refused = scene.ours("rcopy", &["verify", "--key", "one.pub", &place]).code(12);
    refused.fails(&[&signed]);
}

fn image_digest(scene: &Scene, place: &str) -> String {
    scene.ours("rcopy", &["digest", place]).ok().text().to_owned()
}

#[test]
fn a_policy_lets_through_what_is_signed_with_its_key() {
    if !root() {
        return;
    }
    let registry = Registry::start(Options::default()).unwrap();
    let scene = Scene::new();
    let host = registry.address();
    let policy = scene.policy("policy.json", "docker", &host, "one.pub");
    for (name, key, form) in [
        ("good-bundle", Some("one.key"), "bundle"),
        ("good-tag", Some("one.key"), "tag"),
        ("wrong-bundle", Some("two.key"), "bundle"),
        ("wrong-tag", Some("two.key"), "tag"),
        ("unsigned", None, ""),
    ] {
        let layer = e2e::image::Layer::new().file("name", 0o644, name.as_bytes()).finish();
        let from = e2e::image::layout(&scene.path(name), "app", &[layer], |_| {});
        let place = format!("docker://{host}/team/{name}:1");
        scene.copy(&format!("oci:{}:app", from.display()), &place).ok();
        if let Some(key) = key {
            let form = format!("--form={form}");
            scene.ours("rcopy", &["sign", "--key", key, &form, &place]).ok();
        }
        let dockerfile = format!("FROM {host}/team/{name}:1\nLABEL a=b\n");
        scene.bench.write(&format!("context-{name}/Dockerfile"), dockerfile);
        let image = format!("{host}/team/{name}:1");
        let (layout, stored) = (format!("oci:copied-{name}:app"), format!("store:copied/{name}:1"));
        let built = format!("built-{name}");
        let context = format!("context-{name}");
        let ways: [&[&str]; 4] = [
            &["rcopy", "copy", &place, &layout],
            &["rcopy", "copy", &place, &stored],
            &["rbuild", "bud", "-t", &built, &context],
            &["rbuild", "pull", &image],
        ];
        for way in ways {
            let line = [&[way[1], &policy], &way[2..]].concat();
            let ran = scene.ours(way[0], &line);
            if key == Some("one.key") {
                ran.ok();
                continue;
            }
            let what = if key.is_some() { "key" } else { "no signature" };
            let ran = ran.code(if way[0] == "rbuild" { 125 } else { 1 }).fails(&[what]);
            assert_eq!(ran.errors(), 1, "{}", ran.told());
        }
        let names = scene.bench.rbuild(["images", "--format", "{{.Repository}}"]).ok().stdout;
        for stored in [format!("team/{name}"), format!("copied/{name}"), built] {
            assert_eq!(names.contains(&stored), key == Some("one.key"), "{stored} in {names}");
        }
        let copied = scene.ours("rcopy", &["digest", &layout]);
        assert_eq!(copied.code == 0, key == Some("one.key"), "{}", copied.told());
    }
    // What the policy does not name is rejected: other transports, the store's archives.
    for way in [
        &["rcopy", "copy", &policy, "oci:image:app", "oci:rejected:app"][..],
        &["rbuild", "pull", &policy, "oci:image:app"],
        &["rbuild", "load", &policy, "-i", "image"],
    ] {
        let code = if way[0] == "rbuild" { 125 } else { 1 };
        scene.ours(way[0], &way[1..]).code(code).fails(&["rejected", "policy.json"]);
    }
    scene.bench.rbuild(["check"]).ok();
    let broken = scene.bench.write("broken.json", r#"{"default":[{"type":"acceptAnything"}]}"#);
    let broken = format!("--policy={}", broken.display());
    let ran = scene.ours("rcopy", &["copy", &broken, "oci:image:app", "oci:broken:app"]);
    ran.code(1).fails(&["broken.json", "acceptAnything"]);
}

#[test]
fn cosign_and_we_agree() {
    let (Some(cosign), Some(registry)) = (e2e::peer("cosign"), DockerRegistry::start()) else {
        return;
    };
    let scene = Scene::new();
    let cosign = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&cosign);
        command.current_dir(scene.bench.path()).env("HOME", scene.bench.path());
        guarded(command.env("COSIGN_PASSWORD", PASSPHRASE).args(arguments))
    };
    for form in ["bundle", "tag"] {
        let name = registry.name(&format!("team/{form}:1"));
        let place = format!("docker://{name}");
        scene.copy("oci:image:app", &place).ok();
        let ours = format!("--form={form}");
        scene.ours("rcopy", &["sign", "--key", "one.key", &ours, &place]).ok();
        let bundle = format!("--new-bundle-format={}", form == "bundle");
        let verify =
            ["verify", "--insecure-ignore-tlog", "--allow-http-registry", &bundle, "--key"];
        cosign(&[&verify[..], &["one.pub", &name]].concat()).ok();
        assert_ne!(cosign(&[&verify[..], &["two.pub", &name]].concat()).code, 0);
    }
}

#[test]
fn images_of_the_store_are_asked_about_again_where_the_policy_is_another() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let registry = Registry::start(Options::default()).unwrap();
    let name = format!("{}/team/app:1", registry.address());
    let place = format!("docker://{name}");
    scene.copy("oci:image:app", &place).ok();
    scene.ours("rbuild", &["sign", "--key", "one.key", &place]).ok();
    let one = scene.policy("one.json", "docker", &registry.address(), "one.pub");
    let two = scene.policy("two.json", "docker", &registry.address(), "two.pub");
    scene.bench.write("from/Dockerfile", format!("FROM {name}\nLABEL a=b\n"));
    scene.bench.write("copy/Dockerfile", format!("FROM scratch\nCOPY --from={name} /f /g\n"));
    scene.bench.write("own/Dockerfile", "FROM scratch\nLABEL a=b\n");
    scene.bench.write("use/Dockerfile", "FROM localhost/own\nLABEL b=c\n");
    let build = |policy: &str, context: &str| {
        scene.ours("rbuild", &["bud", policy, "-t", context, context])
    };
    // It comes without any policy.
    scene.ours("rbuild", &["pull", &name]).ok();
    for context in ["from", "copy"] {
        build(&two, context).fails(&["was made with key"]);
    }
    let run = |policy: &str| scene.ours("rbuild", &["run", policy, "--rm", &name, "/none"]);
    run(&two).code(125).fails(&["was made with key"]);
    build(&one, "from").ok();
    // What was decided stays decided without the registry, by the same policy alone.
    drop(registry);
    build(&one, "from").ok();
    build(&one, "copy").ok();
    // 127: there is no such program, so that it was let through.
    run(&one).code(127);
    build(&two, "from").fails(&[&name]);
    std::fs::copy(scene.path("two.pub"), scene.path("one.pub")).unwrap();
    build(&one, "from").fails(&[&name]);
    // What was made here is not a registry's.
    build(&two, "own").ok();
    build(&two, "use").ok();
}
