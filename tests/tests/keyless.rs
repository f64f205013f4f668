//! Keyless signing and verification with both programs, against stand-ins of the services on
//! loopback.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::watch::guarded;
use e2e::{Bench, Ran, root};
use registry_server::{Options, Registry};
use serde_json::{Value, json};
use standins::{Repository, StandinServer, World, serve};

const WORKFLOW: &str = "https://github.com/team/app/.github/workflows/release.yml@refs/heads/main";
const DEV: &str = "dev@team.example";

struct Scene {
    bench: Bench,
    served: StandinServer,
    registry: Registry,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Scene {
    /// A registry with an image, and a world whose trusted root is in `root.json`.
    fn new() -> Scene {
        let (bench, served) = (Bench::new(), serve(World::default()));
        let registry = Registry::start(Options::default()).unwrap();
        bench.write("root.json", served.world.trusted_root().to_string());
        bench.write("stranger.json", World::new(9).trusted_root().to_string());
        let layer = e2e::image::Layer::new().file("f", 0o644, b"content").finish();
        e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
        Scene { bench, served, registry }
    }

    fn place(&self, name: &str) -> String {
        let place = format!("docker://{}/team/{name}:1", self.registry.address());
        self.ours("rcopy", &["copy", "oci:image:app", &place]).ok();
        place
    }

    fn ours(&self, program: &str, arguments: &[&str]) -> Ran {
        self.with(program, &[], arguments)
    }

    fn with(&self, program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.bench.command(program);
        command.env_remove("SIGSTORE_ID_TOKEN").envs(environment.iter().copied());
        guarded(command.current_dir(self.bench.path()).args(arguments))
    }

    /// The flags of the services, with one log or the other.
    fn services(&self, tiles: bool) -> Vec<String> {
        let served = &self.served;
        let log = if tiles { &served.tiles_url } else { &served.url };
        let mut flags = vec![
            format!("--fulcio-url={}", served.url),
            format!("--rekor-url={log}"),
            format!("--rekor-version={}", if tiles { 2 } else { 1 }),
        ];
        if tiles {
            flags.push(format!("--timestamp-server-url={}/api/v1/timestamp", served.url));
        }
        flags
    }

    /// Signs as a workflow.
    fn sign(&self, place: &str, tiles: bool) -> Ran {
        let token = self.served.world.provider.of_workflow("team/app", "release.yml", now());
        let (services, token) = (self.services(tiles), format!("--identity-token={token}"));
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        self.ours("rbuild", &[&["sign", &token][..], &services, &[place]].concat())
    }

    fn verify(&self, root: &str, identity: &str, place: &str, more: &[&str]) -> Ran {
        let issuer = self.served.world.provider.issuer.clone();
        let line = [
            "verify",
            "--trusted-root",
            root,
            "--certificate-identity",
            identity,
            "--certificate-oidc-issuer",
            &issuer,
            place,
        ];
        self.ours("rcopy", &[&line[..], more].concat())
    }
}

#[test]
fn a_workflow_signs_without_a_key_and_is_verified_by_name() {
    let scene = Scene::new();
    for tiles in [false, true] {
        let place = scene.place(&format!("app-{tiles}"));
        scene.verify("root.json", WORKFLOW, &place, &[]).code(10).fails(&["no signature"]);
        let signed = scene.sign(&place, tiles).ok();
        assert!(signed.stdout.contains("by repo:team/app"), "{}", signed.told());
        let good = scene.verify("root.json", WORKFLOW, &place, &[]).ok();
        assert!(good.stdout.contains(&format!("by {WORKFLOW}")), "{}", good.told());
        let json = scene.verify("root.json", WORKFLOW, &place, &["--format=json"]).ok();
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json[0]["certificate"]["subject"], WORKFLOW, "{json:#}");
        assert_eq!(json[0]["certificate"]["claims"]["githubWorkflowRef"], "refs/heads/main");
        // Each is refused with its own reason.
        let fork = WORKFLOW.replace("team/app", "evil/app");
        scene.verify("root.json", &fork, &place, &[]).code(12).fails(&["step 12", WORKFLOW]);
        let stranger = scene.verify("stranger.json", WORKFLOW, &place, &[]).code(12);
        stranger.fails(&["not accepted", "step"]);
        let workflow = ["--certificate-github-workflow-ref", "refs/heads/evil"];
        scene.verify("root.json", WORKFLOW, &place, &workflow).code(12).fails(&["step 12"]);
    }
}

#[test]
fn half_an_identity_is_refused() {
    let scene = Scene::new();
    for line in [
        &["verify", "image"][..],
        &["verify", "--certificate-identity", "x", "image"],
        &["verify", "--certificate-oidc-issuer", "x", "image"],
        &[
            "verify",
            "--certificate-identity-regexp",
            "(",
            "--certificate-oidc-issuer",
            "x",
            "image",
        ],
        &["verify", "--trusted-root", "root.json", "image"],
        &["sign", "image"],
    ] {
        scene.ours("rbuild", line).fails(&[]);
    }
    // Without a trusted root nothing is verified.
    let line = [
        "verify",
        "--certificate-identity",
        "x",
        "--certificate-oidc-issuer",
        "y",
        "oci:image:app",
    ];
    scene.ours("rbuild", &line).fails(&["trusted_root.json", "rbuild trust init"]);
}

#[test]
fn tokens_come_from_the_surroundings_or_from_signing_in() {
    let scene = Scene::new();
    let place = scene.place("app");
    let services = scene.services(false);
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let line = [&["sign"][..], &services, &[&place]].concat();
    let github = format!("{}/github-token?x=1", scene.served.url);
    let environment =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", &*github), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")];
    scene.with("rcopy", &environment, &line).ok();
    scene.verify("root.json", WORKFLOW, &place, &[]).ok();
    let asked = scene.served.asked();
    assert!(asked.iter().any(|asked| asked.ends_with("&audience=sigstore")), "{asked:?}");
    let token = scene.served.world.provider.of_email("ci@team.example", now());
    scene.with("rcopy", &[("SIGSTORE_ID_TOKEN", &token)], &line).ok();
    scene.verify("root.json", "ci@team.example", &place, &[]).ok();
    let provider = format!("--oidc-issuer={}", scene.served.url);
    let signed = scene.ours("rcopy", &[&line[..], &[&provider]].concat()).ok();
    assert!(signed.stderr.contains("ABCD-EFGH"), "{}", signed.told());
    scene.verify("root.json", DEV, &place, &[]).ok();
    let buildkite = [
        ("BUILDKITE_AGENT_ENDPOINT", &*scene.served.url),
        ("BUILDKITE_JOB_ID", "job-1"),
        ("BUILDKITE_AGENT_ACCESS_TOKEN", "buildkite-secret"),
    ];
    scene.with("rcopy", &buildkite, &line).ok();
    scene.verify("root.json", "agent@team.example", &place, &[]).ok();
    let google = [("GCE_METADATA_HOST", scene.served.url.trim_start_matches("http://"))];
    scene.with("rcopy", &google, &line).ok();
    scene.verify("root.json", "machine@team.example", &place, &[]).ok();
    // No identity; a token of another provider; one that is no token.
    scene.ours("rcopy", &line).fails(&["there is no identity to sign with"]);
    let forged = World::new(9).provider.of_email("ci@team.example", now());
    scene.with("rcopy", &[("SIGSTORE_ID_TOKEN", &forged)], &line).code(1).fails(&["401"]);
    let junk = scene.with("rcopy", &[("SIGSTORE_ID_TOKEN", "junk")], &line).code(1);
    junk.fails(&["not a JSON web token"]);
    // A secret goes nowhere in the clear.
    let clear = ["sign", "--fulcio-url=http://192.0.2.1", &place];
    let clear = scene.with("rcopy", &[("SIGSTORE_ID_TOKEN", &token)], &clear).code(1);
    clear.fails(&["neither https:// nor on this machine"]);
}

#[test]
fn a_policy_names_the_workflow() {
    let scene = Scene::new();
    let place = scene.place("app");
    scene.sign(&place, true).ok();
    let policy = |name: &str, root: &str, subject: &str| {
        let fulcio = json!({
            "trustedRootPath": scene.bench.path().join(root),
            "oidcIssuer": scene.served.world.provider.issuer,
            "subjectURI": subject, "githubWorkflowRef": "refs/heads/main",
        });
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { scene.registry.address(): [{
                "type": "sigstoreSigned", "fulcio": fulcio,
                "signedIdentity": { "type": "matchRepository" },
            }] } },
        });
        format!("--policy={}", scene.bench.write(name, policy.to_string()).display())
    };
    let good = policy("good.json", "root.json", WORKFLOW);
    let evil = policy("evil.json", "root.json", &WORKFLOW.replace("main", "evil"));
    let stranger = policy("stranger-policy.json", "stranger.json", WORKFLOW);
    let copy = |policy: &str| scene.ours("rcopy", &["copy", policy, &place, "oci:copied:app"]);
    copy(&good).ok();
    copy(&evil).code(1).fails(&["step 12", WORKFLOW]);
    copy(&stranger).code(1).fails(&["step"]);
    let explained = scene.ours("rbuild", &["policy", "explain", &good, &place]).ok();
    for words in ["good.json", "rule: scope docker:", "requires a signature by", WORKFLOW] {
        assert!(explained.stdout.contains(words), "{words}: {}", explained.told());
    }
    let refused = scene.ours("rbuild", &["policy", "explain", &evil, &place]);
    refused.fails(&["step 12", WORKFLOW]);
    if !root() {
        return;
    }
    let name = place.strip_prefix("docker://").unwrap();
    scene.bench.write("context/Dockerfile", format!("FROM {name}\nLABEL a=b\n"));
    scene.ours("rbuild", &["bud", &evil, "-t", "built", "context"]).fails(&["step 12"]);
    scene.ours("rbuild", &["bud", &good, "-t", "built", "context"]).ok();
}

#[test]
fn files_are_signed_and_verified() {
    let scene = Scene::new();
    let file = scene.bench.write("file", "content");
    let token = scene.served.world.provider.of_email(DEV, now());
    scene.bench.write("token", &token);
    let issuer = scene.served.world.provider.issuer.clone();
    let verify = |file: &str, identity: &str| {
        let line = [
            "verify-blob",
            "--bundle=bundle.json",
            "--trusted-root=root.json",
            "--certificate-identity",
            identity,
            "--certificate-oidc-issuer",
            &issuer,
            file,
        ];
        scene.ours("rcopy", &line)
    };
    for tiles in [false, true] {
        let services = scene.services(tiles);
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        let line = ["sign-blob", "--bundle=bundle.json", "--identity-token=token", "file"];
        scene.ours("rbuild", &[&line[..], &services].concat()).ok();
        verify("file", DEV).ok();
        verify("file", "other@team.example").code(1).fails(&["step 12", DEV]);
        verify("root.json", DEV).code(1).fails(&["signs another file"]);
    }
    std::fs::write(file, "changed").unwrap();
    verify("file", DEV).code(1).fails(&["signs another file"]);
}

#[test]
fn what_is_pushed_and_what_is_said_of_it_is_signed_by_who_one_is() {
    if !root() {
        return;
    }
    let scene = Scene::new();
    let config = json!({
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [{ "url": scene.served.url, "majorApiVersion": 1 }],
        "rekorTlogUrls": [{ "url": scene.served.tiles_url, "majorApiVersion": 2 }],
        "tsaUrls": [{ "url": format!("{}/api/v1/timestamp", scene.served.url), "majorApiVersion": 1 }],
    });
    scene.bench.write("config.json", config.to_string());
    let init = ["trust", "init", "--trusted-root=root.json", "--signing-config=config.json"];
    scene.ours("rbuild", &init).ok();
    let shown = scene.ours("rcopy", &["trust", "show"]).ok();
    assert!(shown.stdout.contains("signature logs: 2"), "{}", shown.told());
    scene.ours("rbuild", &["trust", "init", "--trusted-root=config.json"]).fails(&["caUrls"]);
    scene.bench.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let name = format!("{}/team/built:1", scene.registry.address());
    let token = scene.served.world.provider.of_email(DEV, now());
    let line = ["bud", "--push", "--sign", "--provenance=true", "-t", &name, "context"];
    scene.with("rbuild", &[("SIGSTORE_ID_TOKEN", &token)], &line).ok();
    let issuer = scene.served.world.provider.issuer.clone();
    let who = ["--certificate-identity", DEV, "--certificate-oidc-issuer", &issuer, &name];
    scene.ours("rbuild", &[&["verify"][..], &who].concat()).ok();
    let said = scene.ours("rbuild", &[&["verify-attestation"][..], &who].concat()).ok();
    assert!(said.stderr.contains(&format!("signed by {DEV}")), "{}", said.told());
}

#[test]
fn a_trusted_root_is_fetched_updated_and_used_without_the_mirror() {
    let scene = Scene::new();
    let place = scene.place("app");
    scene.sign(&place, false).ok();
    let root = |world: &World| world.trusted_root().to_string().into_bytes();
    let config = json!({
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [{ "url": scene.served.url, "majorApiVersion": 1 }],
    });
    let files = BTreeMap::from([
        ("trusted_root.json".to_owned(), root(&World::new(9))),
        ("signing_config.v0.2.json".to_owned(), config.to_string().into_bytes()),
    ]);
    let first = Repository::new(1, files);
    *scene.served.mirrored.lock().unwrap() = first.published();
    scene.bench.write("tuf-root.json", first.root());
    let stranger = Repository::new(2, BTreeMap::new());
    scene.bench.write("other-root.json", stranger.root());
    let mirror = format!("--mirror={}/tuf", scene.served.url);
    scene.ours("rbuild", &["trust", "update"]).fails(&["comes from a mirror", "trust init"]);
    let wrong = ["trust", "init", &mirror, "--root=other-root.json"];
    scene.ours("rbuild", &wrong).code(125).fails(&["timestamp.json", "0 of the 1 signatures"]);
    let init = ["trust", "init", &mirror, "--root=tuf-root.json"];
    let kept = scene.ours("rbuild", &init).ok();
    assert!(kept.stdout.contains("root: version 1, expires 2099"), "{}", kept.told());
    let issuer = scene.served.world.provider.issuer.clone();
    let who = ["--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", &issuer, &place];
    let verify = [&["verify"][..], &who].concat();
    scene.ours("rbuild", &verify).code(12).fails(&["step"]);
    // The next root trusts the world that signed.
    let mut second = Repository { root: 2, versions: [2, 2, 2], ..first.clone() };
    second.files.insert("trusted_root.json".to_owned(), root(&scene.served.world));
    *scene.served.mirrored.lock().unwrap() = second.published();
    scene.ours("rcopy", &["trust", "update"]).ok();
    scene.ours("rbuild", &verify).ok();
    let shown = scene.ours("rbuild", &["trust", "show"]).ok();
    for words in ["updates: root: version 2", "updates: from http://", "certificates from http://"]
    {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.told());
    }
    // An old state is not gone back to, and nothing of it is kept.
    *scene.served.mirrored.lock().unwrap() = first.published();
    scene.ours("rcopy", &["trust", "update"]).code(1).fails(&["timestamp.json", "older than"]);
    scene.served.mirrored.lock().unwrap().clear();
    scene.ours("rcopy", &["trust", "update"]).code(1).fails(&["does not have it"]);
    scene.ours("rbuild", &verify).ok();
    // From a directory.
    for (name, content) in second.published() {
        scene.bench.write(&format!("mirror/{name}"), content);
    }
    let init = ["trust", "init", "--mirror=mirror", "--root=tuf-root.json"];
    scene.bench.write("mirror/2.root.json", second.root());
    scene.ours("rbuild", &init).ok();
    scene.ours("rbuild", &["trust", "init", "--trusted-root=root.json"]).ok();
    scene.ours("rbuild", &["trust", "update"]).fails(&["comes from a mirror"]);
}

/// What a browser gets for a URL: the status line, and where it is sent.
fn browse(url: &str) -> (String, Option<String>) {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(host.replace("localhost", "127.0.0.1")).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let status = lines.next().unwrap_or_default();
    let headers = lines.take_while(|line| !line.is_empty());
    let mut places = headers.filter_map(|line| line.strip_prefix("Location: ").map(str::to_owned));
    (status, places.next())
}

#[test]
fn somebody_signs_in_with_a_browser() {
    let scene = Scene::new();
    let place = scene.place("app");
    let provider = format!("--oidc-issuer={}", scene.served.url);
    let mut command = scene.bench.command("rcopy");
    command.env_remove("SIGSTORE_ID_TOKEN").args([
        "sign",
        "--oidc-flow=browser",
        &provider,
        &place,
    ]);
    command.args(scene.services(false)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.find_map(|line| line.strip_prefix("sign in at ").map(str::to_owned)).unwrap();
    let (_, back) = browse(&url);
    let back = back.unwrap();
    // Another page sends the browser there: it knows no state.
    let forged = back.split("&state=").next().unwrap();
    assert!(browse(&format!("{forged}&state=x")).0.contains("400"));
    let elsewhere = back.split("/auth/").next().unwrap();
    assert!(browse(&format!("{elsewhere}/favicon.ico")).0.contains("404"));
    assert!(browse(&back).0.contains("200"));
    let told: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{told:?}");
    scene.verify("root.json", DEV, &place, &[]).ok();
}

#[test]
fn verify_says_by_its_code_that_there_is_no_image_or_no_certificate() {
    let scene = Scene::new();
    let none = scene.place("app").replace("app:1", "none:1");
    scene.verify("root.json", "x", &none, &[]).code(11).fails(&["team/none:1"]);
    let place = scene.place("keyed");
    let phrase = [("COSIGN_PASSWORD", "phrase")];
    scene.with("rcopy", &phrase, &["generate-key-pair", "--output", "k"]).ok();
    for form in ["bundle", "tag"] {
        let form = format!("--form={form}");
        scene.with("rbuild", &phrase, &["sign", "--key=k.key", &form, &place]).ok();
        let refused = scene.verify("root.json", "x", &place, &[]).code(13);
        refused.fails(&["certificate"]);
    }
}
