//! Locked builds: what a build takes from elsewhere is pinned, and stays what it was.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use e2e::image::{Layer, busybox_layer, layout};
use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran};

/// Serves one file over HTTP for any request.
struct Server {
    address: String,
    body: Arc<Mutex<String>>,
}

impl Server {
    fn start(body: &str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let body = Arc::new(Mutex::new(body.to_owned()));
        let served = Arc::clone(&body);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let body = served.lock().expect("a body").clone();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                let _ = write!(stream, "{head}: {}\r\n\r\n{body}", body.len());
            }
        });
        Server { address, body }
    }
}

/// Pushes an image with this content under a name of the registry.
fn push(bench: &Bench, name: &str, content: &str) {
    let directory = bench.path().join(format!("layout-{content}"));
    let layers = [busybox_layer(), Layer::new().file("f", 0o644, content.as_bytes()).finish()];
    let layout = layout(&directory, "app", &layers, |_| {});
    let from = format!("oci:{}:app", layout.display());
    let to = format!("docker://{name}");
    bench.rcopy(["copy", "-q", "--dest-tls-verify=false", &from, &to]).ok();
}

fn digest(ran: &Ran) -> String {
    let line = ran.stderr.lines().find(|line| line.starts_with("built ")).expect("a summary");
    let digest = line.split(' ').find(|word| word.contains("sha256:")).expect("a digest");
    digest.trim_end_matches(&[',', ':'][..]).to_owned()
}

#[test]
fn a_locked_build_stays_the_same_when_tags_move_and_drift_is_one_line() {
    let Some(registry) = DockerRegistry::start() else { return };
    let bench = Bench::new();
    let (base, tool) = (registry.name("base:1"), registry.name("tool:1"));
    push(&bench, &base, "first");
    push(&bench, &tool, "tool");
    let server = Server::start("hello");
    let url = format!("http://{}/file", server.address);
    let dockerfile = format!(
        "ARG BASE={base}\nFROM $BASE\nCOPY --from={tool} /f /tool\nADD {url} /file\n\
         RUN --mount=type=bind,from=extra,target=/x cat /x/f > /extra\n"
    );
    bench.write("ctx/Dockerfile", &dockerfile);
    let extra = format!("extra=docker-image://{tool}");
    let flags = ["--tls-verify=false", "--build-context", &extra];
    let lock = |more: &[&str]| bench.rbuild([&["lock"][..], more, &flags].concat());

    lock(&["ctx"]).ok();
    let file = bench.path().join("ctx/rbuild.lock");
    let first = std::fs::read_to_string(&file).expect("the lock");
    for word in [&format!("docker-image://{base}"), &format!("docker-image://{tool}"), &url] {
        assert_eq!(first.matches(word.as_str()).count(), 1, "{word}: {first}");
    }
    lock(&["ctx"]).ok();
    assert_eq!(std::fs::read_to_string(&file).expect("the lock"), first);
    lock(&["check", "ctx"]).ok();

    let build = |bench: &Bench, more: &[&str]| {
        let common = ["bud", "--progress=plain", "--timestamp=1", "-t", "app"];
        bench.rbuild([&common[..], more, &flags, &["ctx"]].concat())
    };
    let locked = digest(&build(&bench, &["--locked"]).ok());

    // Both tags move; the lock does not.
    push(&bench, &base, "second");
    let elsewhere = Bench::new();
    std::fs::create_dir(elsewhere.path().join("ctx")).expect("a directory");
    for name in ["Dockerfile", "rbuild.lock"] {
        let path = bench.path().join("ctx").join(name);
        std::fs::copy(path, elsewhere.path().join("ctx").join(name)).expect("a copy");
    }
    assert_eq!(digest(&build(&elsewhere, &["--locked", "--pull=always"]).ok()), locked);
    assert_ne!(digest(&build(&bench, &["--pull=always"]).ok()), locked);

    let drift = lock(&["check", "ctx"]).code(1);
    let lines: Vec<_> = drift.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{}", drift.told());
    assert!(lines[0].starts_with(&format!("~ docker-image://{base} sha256:")), "{}", lines[0]);
    assert!(lines[0].contains(" -> sha256:") && lines[0].contains("Dockerfile"), "{}", lines[0]);

    // Only what is named is renewed.
    *server.body.lock().expect("a body") = "other".to_owned();
    lock(&["update", "--context=ctx", "nothing"]).fails(&["nothing", "tool:1"]);
    let updated = lock(&["update", "--context=ctx", "base"]).ok();
    assert_eq!(updated.stdout.lines().count(), 1, "{}", updated.told());
    let drift = lock(&["check", "ctx"]).code(1);
    assert_eq!(drift.stdout.lines().count(), 1, "{}", drift.told());
    assert!(drift.stdout.starts_with(&format!("~ {url} sha256:")), "{}", drift.told());

    // What is not in the lock is not used, nor what has another content.
    let fresh = Bench::new();
    std::fs::create_dir(fresh.path().join("ctx")).expect("a directory");
    fresh.write("ctx/rbuild.lock", std::fs::read(&file).expect("the lock"));
    fresh.write("ctx/Dockerfile", &dockerfile);
    let refused = build(&fresh, &["--locked", "--build-arg", &format!("BASE={tool}-other")]);
    refused.fails(&["is not in", "rbuild.lock"]);
    build(&fresh, &["--locked"]).fails(&["Dockerfile:4", "sha256:"]);
    fresh.write("ctx/rbuild.lock", "version = 1\n[[input]]\nsource = 3\n");
    build(&fresh, &["--locked"]).fails(&["rbuild.lock:3"]);
    fresh.write("ctx/rbuild.lock", "");
    std::fs::remove_file(fresh.path().join("ctx/rbuild.lock")).expect("a file");
    build(&fresh, &["--locked"]).fails(&["rbuild.lock", "rbuild lock"]);
    assert!(!fresh.rbuild(["images"]).ok().text().contains("localhost/app"));
}
