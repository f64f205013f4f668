//! A registry that lies, breaks off, stalls or never ends: every command ends in the right result
//! or in one clear error, in bounded time, and nothing partial is left under a name.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

use std::io::Write;

use e2e::kill::Chance;
use e2e::watch::{guarded, measured};
use e2e::{Bench, Ran, root};
use image::MediaType;
use registry_server::{Effect, Fault, Options, Registry};

const BLOBS: &str = "/v2/team/app/blobs/*";
const MANIFESTS: &str = "/v2/team/app/manifests/*";
const DIGEST_TAGS: &str = "/v2/team/app/manifests/sha256-*";
const REFERRERS: &str = "/v2/team/app/referrers/*";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What must come of it.
enum End {
    /// The right result in spite of it.
    Right,
    /// One error that says this.
    Wrong(&'static [&'static str]),
}
use End::{Right, Wrong};

type Case = (&'static str, Vec<Fault>, End);

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A registry with an image of two layers, the larger of 600 kB that do not compress.
fn registry() -> Registry {
    let registry = Registry::start(Options::default()).unwrap();
    let noise = Chance::new(7).bytes(600_000);
    let large = e2e::image::Layer::new().file("large", 0o644, &noise).finish();
    let small = e2e::image::Layer::new().file("small", 0o644, b"small\n").finish();
    let put = |bytes: Vec<u8>| registry.put_blob("team/app", MediaType::OCI_LAYER_GZIP, bytes);
    let layers = vec![put(gzip(&large)).unwrap(), put(gzip(&small)).unwrap()];
    let diff_ids = [image::Digest::of(&large), image::Digest::of(&small)];
    let config = serde_json::json!({
        "architecture": image::Platform::host().architecture, "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = registry.put_blob("team/app", MediaType::OCI_CONFIG, config.to_string()).unwrap();
    let manifest = image::Manifest::new(MediaType::OCI_MANIFEST, config, layers);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    registry.put_manifest("team/app", Some("1"), MediaType::OCI_MANIFEST, manifest).unwrap();
    registry
}

fn always(method: &'static str, path: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault::always(method, path, effect)]
}

fn once(method: &'static str, path: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault::times(1, method, path, effect)]
}

/// A list of referrers whose one manifest is not there.
fn gone_referrer() -> Fault {
    let gone = image::Descriptor::of(MediaType::OCI_MANIFEST, b"gone");
    let index = image::Index::new(vec![gone]);
    let effect = Effect::Answer {
        status: 200,
        headers: vec![("content-type", INDEX.to_owned())],
        body: serde_json::to_vec(&index).unwrap(),
    };
    Fault::always("GET", REFERRERS, effect)
}

/// Every fault of a registry for a reader.
fn reading(elsewhere: &Registry) -> Vec<Case> {
    let retry = |seconds: &str| Effect::with(429, &[("retry-after", seconds)]);
    let challenge = format!("Bearer realm=\"{}/token\",service=\"x\"", elsewhere.url());
    let unauthorized = Effect::Answer {
        status: 401,
        headers: vec![("www-authenticate", challenge)],
        body: Vec::new(),
    };
    let basic = Effect::with(401, &[("www-authenticate", "Basic realm=\"x\"")]);
    let loops = Effect::with(307, &[("location", "/v2/team/app/blobs/loop")]);
    let html = Effect::Answer {
        status: 200,
        headers: vec![("content-type", "text/html".into())],
        body: b"<html>log in to the hotel's network</html>".to_vec(),
    };
    vec![
        ("blob with a wrong bit", always("GET", BLOBS, Effect::Corrupt(5)), Wrong(&["sha256:"])),
        ("blob with a wrong bit once", once("GET", BLOBS, Effect::Corrupt(5)), Wrong(&["sha256:"])),
        (
            "blob shorter than promised",
            always("GET", BLOBS, Effect::Length(100)),
            Wrong(&["sha256:"]),
        ),
        (
            "blob longer than promised",
            always("GET", BLOBS, Effect::Length(900_000)),
            Wrong(&["sha256:"]),
        ),
        ("blob cut", once("GET", BLOBS, Effect::Cut(50)), Right),
        ("blobs cut in the middle", once("GET", BLOBS, Effect::Cut(300_000)), Right),
        ("blobs cut again and again", always("GET", BLOBS, Effect::Cut(150_000)), Right),
        ("blobs cut before anything", always("GET", BLOBS, Effect::Cut(0)), Wrong(&["sha256:"])),
        ("endless blob", always("GET", BLOBS, Effect::Endless), Wrong(&["sha256:"])),
        ("blob reset once", once("GET", BLOBS, Effect::Reset), Right),
        ("blob always reset", always("GET", BLOBS, Effect::Reset), Wrong(&["127.0.0.1"])),
        ("no such blob", always("GET", BLOBS, Effect::status(404)), Wrong(&["404"])),
        ("forbidden blob", always("GET", BLOBS, Effect::status(403)), Wrong(&["403"])),
        ("blob 500 twice", vec![Fault::times(2, "GET", BLOBS, Effect::status(500))], Right),
        ("blob 503 for ever", always("GET", BLOBS, Effect::status(503)), Wrong(&["503"])),
        ("blob redirect loop", always("GET", BLOBS, loops), Wrong(&["redirect"])),
        (
            "blob redirected nowhere",
            always("GET", BLOBS, Effect::with(307, &[])),
            Wrong(&["answered 307"]),
        ),
        ("blob without length", always("GET", BLOBS, Effect::Remove("content-length")), Right),
        ("blob stalls once", once("GET", BLOBS, Effect::Stall(1000)), Right),
        ("a portal's page for a blob", always("GET", BLOBS, html.clone()), Wrong(&["sha256:"])),
        (
            "manifest with a wrong bit",
            always("GET", MANIFESTS, Effect::Corrupt(9)),
            Wrong(&["manifest"]),
        ),
        (
            "manifest under another digest",
            always(
                "",
                MANIFESTS,
                Effect::Set("docker-content-digest", format!("sha256:{}", "0".repeat(64))),
            ),
            Wrong(&["sha256:0000"]),
        ),
        ("endless manifest", always("GET", MANIFESTS, Effect::Endless), Wrong(&["manifest"])),
        (
            "manifest of a terabyte",
            always("GET", MANIFESTS, Effect::Length(1 << 40)),
            Wrong(&["manifest"]),
        ),
        ("manifest cut once", once("GET", MANIFESTS, Effect::Cut(20)), Right),
        ("manifest always cut", always("GET", MANIFESTS, Effect::Cut(20)), Wrong(&["manifest"])),
        ("empty manifest", always("", MANIFESTS, Effect::json("")), Wrong(&["manifest"])),
        ("manifest that is none", always("", MANIFESTS, Effect::json("{}")), Wrong(&["manifest"])),
        (
            "manifest of depth",
            always("", MANIFESTS, Effect::json("[".repeat(100_000))),
            Wrong(&["manifest"]),
        ),
        (
            "a portal's page for a manifest",
            always("", MANIFESTS, html.clone()),
            Wrong(&["manifest"]),
        ),
        ("HEAD forbidden", always("HEAD", MANIFESTS, Effect::status(403)), Right),
        ("HEAD says 404", always("HEAD", MANIFESTS, Effect::status(404)), Right),
        ("HEAD fails", always("HEAD", MANIFESTS, Effect::status(500)), Right),
        ("HEAD reset", always("HEAD", MANIFESTS, Effect::Reset), Right),
        ("HEAD without an answer", always("HEAD", MANIFESTS, Effect::Forget), Right),
        (
            "HEAD lies about the length",
            always("HEAD", MANIFESTS, Effect::Set("content-length", "77".into())),
            Right,
        ),
        (
            "HEAD lies about the type",
            always("HEAD", MANIFESTS, Effect::Set("content-type", INDEX.into())),
            Right,
        ),
        ("referrers forbidden", always("GET", REFERRERS, Effect::status(403)), Right),
        ("referrers fail", always("GET", REFERRERS, Effect::status(500)), Right),
        ("referrers are not an index", always("GET", REFERRERS, Effect::json("{}")), Right),
        ("a portal's page for referrers", always("GET", REFERRERS, html.clone()), Right),
        ("referrers that are gone", vec![gone_referrer()], Right),
        ("tags of digests refused", always("", DIGEST_TAGS, Effect::status(400)), Right),
        ("tags of digests forbidden", always("", DIGEST_TAGS, Effect::status(403)), Right),
        ("tags of digests fail", always("", DIGEST_TAGS, Effect::status(500)), Right),
        ("tags of digests unknown", always("", DIGEST_TAGS, Effect::status(501)), Right),
        ("no such image", always("", MANIFESTS, Effect::status(404)), Wrong(&["404"])),
        ("forbidden image", always("", MANIFESTS, Effect::status(403)), Wrong(&["403"])),
        ("401 without end", always("", "*", unauthorized), Wrong(&["denied access"])),
        (
            "401 for a password we lack",
            always("", "*", basic),
            Wrong(&["denied access", "login 127.0.0.1"]),
        ),
        ("500 once", once("", MANIFESTS, Effect::status(500)), Right),
        ("502 for ever", always("", MANIFESTS, Effect::status(502)), Wrong(&["502"])),
        ("429, come back at once", vec![Fault::times(2, "", MANIFESTS, retry("0"))], Right),
        ("429, come back in a second", vec![Fault::times(1, "", MANIFESTS, retry("1"))], Right),
        ("429, come back next year", always("", MANIFESTS, retry("31536000")), Wrong(&["429"])),
        ("429 for ever", always("", MANIFESTS, retry("0")), Wrong(&["429"])),
        ("teapot", always("", "*", Effect::status(418)), Wrong(&["418"])),
        (
            "connection closed without a word",
            always("", "*", Effect::Forget),
            Wrong(&["127.0.0.1"]),
        ),
    ]
}

/// Runs every case of a table against a registry of its own, some at once.
fn each(
    cases: impl Fn(&Registry) -> Vec<Case>,
    check: impl Fn(&Case, &Registry) -> Vec<String> + Sync,
) {
    let auth = registry_server::Auth::Bearer {
        username: "me".to_owned(),
        password: "secret".to_owned(),
        refresh_token: "refresh".to_owned(),
        anonymous_pull: true,
        lifetime: std::time::Duration::from_secs(60),
    };
    let elsewhere = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let cases = std::sync::Mutex::new(cases(&elsewhere).into_iter());
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().next() else { return };
                    let registry = registry();
                    case.1.iter().for_each(|fault| registry.fault(fault.clone()));
                    let found = check(&case, &registry);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// What is wrong about how a command ended.
fn judge(name: &str, end: &End, ran: &Ran) -> Vec<String> {
    let mut wrong = Vec::new();
    let codes: &[i32] = if ran.line.contains("/rbuild\"") { &[125] } else { &[1, 2] };
    match end {
        Right if ran.code != 0 => wrong.push(format!("{name}: not right: {}", ran.told())),
        Wrong(_) if !codes.contains(&ran.code) => {
            wrong.push(format!("{name}: code not in {codes:?}: {}", ran.told()));
        }
        Wrong(words) => {
            for word in words.iter().filter(|word| !ran.stderr.contains(**word)) {
                wrong.push(format!("{name}: {word:?} is not said: {}", ran.told()));
            }
            if ran.errors() != 1 {
                wrong.push(format!("{name}: not one error: {}", ran.told()));
            }
        }
        Right => {}
    }
    wrong
}

/// The store is whole, and holds a name only where it should.
fn store_is_whole(bench: &Bench, name: &str, end: &End) -> Vec<String> {
    let mut wrong = Vec::new();
    let names = bench.rbuild(["images", "--format", "{{.Repository}}"]).ok();
    let expected = matches!(end, Right);
    if names.stdout.contains("team/app") != expected {
        wrong.push(format!("{name}: names in the store: {}", names.told()));
    }
    let check = bench.rbuild(["check"]);
    if check.code != 0 {
        wrong.push(format!("{name}: {}", check.told()));
    }
    wrong
}

#[test]
fn pull_ends_right_or_with_one_error() {
    if !root() {
        return;
    }
    each(reading, |(name, _, end), registry| {
        let bench = Bench::new();
        let mut command = bench.command("rbuild");
        let image = format!("{}/team/app:1", registry.address());
        let (ran, memory) = measured(command.args(["pull", "--progress=quiet", &image]));
        let mut wrong = judge(name, end, &ran);
        wrong.extend(store_is_whole(&bench, name, end));
        if memory > 200 << 10 {
            wrong.push(format!("{name}: {memory} KiB of memory"));
        }
        wrong
    });
}

#[test]
fn copy_out_of_it_ends_right_or_with_one_error() {
    each(reading, |(name, _, end), registry| {
        let bench = Bench::new();
        let image = format!("docker://{}/team/app:1", registry.address());
        // Every place gets its share of the cases.
        let places = [
            "oci:layout:x",
            "dir:directory",
            "oci-archive:oci.tar",
            "docker-archive:docker.tar:x:1",
        ];
        let to = places[name.len() % places.len()];
        let run = |arguments: &[&str]| {
            let mut command = bench.command("rcopy");
            guarded(command.current_dir(bench.path()).args(arguments))
        };
        let ran = run(&["copy", "--progress=quiet", &image, to]);
        let mut wrong = judge(&format!("{name} to {to}"), end, &ran);
        let there = run(&["digest", to]);
        if (there.code == 0) != matches!(end, Right) {
            wrong.push(format!("{name}: after {} is {to} there? {}", ran.told(), there.told()));
        }
        let path = bench.path().join(to.split(':').nth(1).unwrap());
        if to.contains("archive") && path.exists() != matches!(end, Right) {
            wrong.push(format!("{name}: is {to} there?"));
        }
        wrong
    });
}

#[test]
fn a_build_from_it_ends_right_or_with_one_error() {
    if !root() {
        return;
    }
    each(reading, |(name, _, end), registry| {
        let bench = Bench::new();
        let dockerfile = format!("FROM {}/team/app:1\nCOPY f /f\n", registry.address());
        bench.write("context/Dockerfile", dockerfile);
        bench.write("context/f", "f");
        let mut command = bench.command("rbuild");
        command.current_dir(bench.path());
        let ran = guarded(command.args(["bud", "--progress=quiet", "-t", "built", "context"]));
        let mut wrong = judge(name, end, &ran);
        let names = bench.rbuild(["images", "--format", "{{.Repository}}"]).ok();
        if names.stdout.contains("localhost/built") != matches!(end, Right) {
            wrong.push(format!("{name}: names in the store: {}", names.told()));
        }
        let check = bench.rbuild(["check"]);
        if check.code != 0 {
            wrong.push(format!("{name}: {}", check.told()));
        }
        wrong
    });
}

/// Every fault of a registry for a writer.
fn writing(_: &Registry) -> Vec<Case> {
    const UPLOADS: &str = "/v2/team/app/blobs/uploads/*";
    vec![
        ("HEAD of blobs forbidden", always("HEAD", BLOBS, Effect::status(403)), Right),
        ("HEAD of blobs fails", always("HEAD", BLOBS, Effect::status(500)), Right),
        ("HEAD of blobs reset", always("HEAD", BLOBS, Effect::Reset), Right),
        ("Range stands still", always("PATCH", UPLOADS, Effect::Set("range", "0-0".into())), Right),
        ("no uploads", always("POST", UPLOADS, Effect::status(405)), Wrong(&["405"])),
        ("forbidden", always("POST", UPLOADS, Effect::status(403)), Wrong(&["403"])),
        ("denied", always("", "*", Effect::status(401)), Wrong(&["denied access"])),
        ("upload 503 once", once("POST", UPLOADS, Effect::status(503)), Right),
        ("upload 500 for ever", always("POST", UPLOADS, Effect::status(500)), Wrong(&["500"])),
        ("429 once", once("POST", UPLOADS, Effect::with(429, &[("retry-after", "0")])), Right),
        ("body reset once", once("P*", UPLOADS, Effect::Reset), Right),
        ("PUT reset once", once("PUT", UPLOADS, Effect::Reset), Right),
        ("PUT forgotten once", once("PUT", UPLOADS, Effect::Forget), Right),
        ("PUT reset for ever", always("PUT", UPLOADS, Effect::Reset), Wrong(&["127.0.0.1"])),
        (
            "no location",
            always("POST", UPLOADS, Effect::Remove("location")),
            Wrong(&["without a Location"]),
        ),
        ("blob refused", always("PUT", UPLOADS, Effect::status(400)), Wrong(&["400"])),
        ("too large", always("PUT", UPLOADS, Effect::status(413)), Wrong(&["413"])),
        (
            "manifest refused",
            always("PUT", MANIFESTS, Effect::status(400)),
            Wrong(&["400", "manifest"]),
        ),
        ("manifest 500 once", once("PUT", MANIFESTS, Effect::status(500)), Right),
        ("manifest forgotten once", once("PUT", MANIFESTS, Effect::Forget), Right),
        (
            "manifest under another digest",
            always(
                "PUT",
                MANIFESTS,
                Effect::Set("docker-content-digest", format!("sha256:{}", "0".repeat(64))),
            ),
            Wrong(&["sha256:0000"]),
        ),
    ]
}

#[test]
fn copy_into_it_ends_right_or_with_one_error() {
    let source = Bench::new();
    let layer = e2e::image::Layer::new().file("f", 0o644, &Chance::new(9).bytes(200_000)).finish();
    let from = e2e::image::layout(source.path(), "x", &[layer], |_| {});
    let from = format!("oci:{}:x", from.display());
    let elsewhere = Registry::start(Options::default()).unwrap();
    let mut wrong = Vec::new();
    for (name, faults, end) in writing(&elsewhere) {
        let registry = Registry::start(Options::default()).unwrap();
        faults.into_iter().for_each(|fault| registry.fault(fault));
        let bench = Bench::new();
        let to = format!("docker://{}/team/app:1", registry.address());
        let mut command = bench.command("rcopy");
        let ran = guarded(command.args(["copy", "--progress=quiet", &from, &to]));
        wrong.extend(judge(name, &end, &ran));
        let tagged = registry.tag("team/app", "1").is_some();
        if tagged != matches!(end, Right) && !name.contains("another digest") {
            wrong.push(format!("{name}: tag is there: {tagged}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn a_redirect_takes_no_credentials_to_another_host() {
    let auth = registry_server::Auth::Basic { username: "me".into(), password: "secret".into() };
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let store = Registry::start(Options::default()).unwrap();
    let layer = gzip(&e2e::image::Layer::new().file("f", 0o644, b"f").finish());
    registry.put_image("team/app", "1", &[&layer]).unwrap();
    store.put_image("team/app", "1", &[&layer]).unwrap();
    let blob = image::Digest::of(&layer);
    let path = format!("/v2/team/app/blobs/{blob}");
    // `localhost` and `127.0.0.1` are two hosts.
    let port = store.address().rsplit(':').next().unwrap().to_owned();
    let target = format!("http://localhost:{port}{path}");
    registry.fault(Fault::always("GET", &*path, Effect::with(307, &[("location", &target)])));
    let bench = Bench::new();
    let from = format!("docker://{}/team/app:1", registry.address());
    let mut command = bench.command("rcopy");
    command.current_dir(bench.path()).args(["copy", "--src-creds=me:secret", &from, "oci:out:x"]);
    guarded(&mut command).ok();
    let asked = store.requests();
    assert!(!asked.is_empty(), "the redirect was not followed");
    assert!(asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
}

#[test]
fn what_was_there_stays_when_a_copy_fails() {
    let registry = registry();
    let bench = Bench::new();
    let from = format!("docker://{}/team/app:1", registry.address());
    let places = [
        "oci:layout:x",
        "dir:directory",
        "oci-archive:oci.tar",
        "docker-archive:docker.tar:x:1",
        "store:x",
    ];
    let copy = |from: &str, to: &str| {
        let mut command = bench.command("rcopy");
        command.current_dir(bench.path());
        guarded(command.args(["copy", "--progress=quiet", from, to]))
    };
    let digest = |of: &str| {
        let mut command = bench.command("rcopy");
        guarded(command.current_dir(bench.path()).args(["digest", of])).ok().stdout
    };
    let old = e2e::image::Layer::new().file("old", 0o644, b"old").finish();
    let old = e2e::image::layout(&bench.path().join("old"), "x", &[old], |_| {});
    let old = format!("oci:{}:x", old.display());
    let before: Vec<_> = places
        .iter()
        .filter(|to| root() || !to.starts_with("store"))
        .map(|to| {
            copy(&old, to).ok();
            digest(to)
        })
        .collect();
    registry.fault(Fault::always("GET", BLOBS, Effect::Corrupt(100)));
    for (to, before) in places.iter().zip(before) {
        let ran = copy(&from, to).code(1);
        assert_eq!(digest(to), before, "{to}: {}", ran.told());
    }
}

#[test]
fn the_log_tells_the_story_of_a_copy() {
    let bench = Bench::new();
    let registry = registry();
    let from = format!("docker://{}/team/app:1", registry.address());
    let ran = bench.rcopy(["--log=debug", "copy", &from, "oci:x:app"]).ok();
    let said = |words: &[&str]| {
        ran.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)))
    };
    let host = registry.address();
    assert!(
        said(&["request", "method=GET", "status=200", &host, "/blobs/sha256:"]),
        "{}",
        ran.told()
    );
    assert!(said(&["finished", "task=\"layer sha256:", "outcome=\"done\""]), "{}", ran.told());
    for noise in ["hyper", "rustls", "reqwest", "h2::"] {
        assert!(!said(&[noise]), "{noise}: {}", ran.told());
    }
}
