//! Builds that are recorded and replayed: `bud --record`, `bud --offline`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use e2e::git::Repositories;
use e2e::http::Files;
use e2e::image::{Layer, busybox_layer, layout};
use e2e::user::User;
use e2e::{Bench, Ran, peer, root, run};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;

/// Puts `localhost/curl` into the store: busybox, and curl of this machine with its libraries.
fn curl_image(bench: &Bench) {
    let curl = peer("curl").expect("curl is there");
    let listed = run(Command::new("ldd").arg(&curl)).ok().stdout;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let mut layer = Layer::new();
    for path in words.chain([curl.to_str().expect("a path")]) {
        let content = fs::read(path).expect("a library");
        layer = layer.file(path.trim_start_matches('/'), 0o755, &content);
    }
    let directory = bench.path().join("curl-layout");
    let layout = layout(&directory, "curl", &[busybox_layer(), layer.finish()], |_| {});
    bench.rcopy(["copy", &format!("oci:{}:curl", layout.display()), "store:localhost/curl"]).ok();
}

/// Serves `hello over tls` over TLS as `files.example`, under an authority of its own that it
/// writes into a file. Gives the port.
fn tls_server(authority: &Path) -> u16 {
    let own = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&own).expect("a certificate").pem();
    fs::write(authority, pem).expect("a file");
    let issuer = Issuer::new(params, own);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["files.example".to_owned()]).expect("a name");
    let chain = vec![params.signed_by(&key, &issuer).expect("a certificate").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, stream);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nSet-Cookie: session=hunter22\r\n\
                          ETag: \"1\"\r\nConnection: close\r\n\r\nhello over tls";
            stream.write_all(answer.as_bytes()).ok();
            stream.conn.send_close_notify();
            stream.flush().ok();
        }
    });
    port
}

struct Scene {
    bench: Bench,
    files: Files,
}

impl Scene {
    /// A server, a store with curl, a context with this Dockerfile, in which `HTTP` and `TLS` are
    /// the servers. `None` if this machine cannot do it.
    fn new(dockerfile: &str) -> Option<Scene> {
        if !root() || peer("curl").is_none() {
            return None;
        }
        Some(Scene::of(Bench::new(), dockerfile))
    }

    /// A scene in which the bench's user builds.
    fn of(bench: Bench, dockerfile: &str) -> Scene {
        curl_image(&bench);
        bench.write("served/a", "hello");
        let files = Files::serve(bench.path().join("served"));
        let tls = tls_server(&bench.path().join("authority.pem"));
        let port = files.url.rsplit_once(':').expect("a port").1.to_owned();
        let text = dockerfile
            .replace("HTTP", &format!("http://files.example:{port}"))
            .replace("TLS", &format!("https://files.example:{tls}"))
            .replace("HERE", &files.url);
        bench.write("context/Dockerfile", text);
        Scene { bench, files }
    }

    fn bud(&self, more: &[&str]) -> Ran {
        let mut command = self.bench.command("rbuild");
        command.env("SSL_CERT_FILE", self.bench.path().join("authority.pem"));
        command.args(["bud", "--progress=plain", "--add-host=files.example:host-gateway"]);
        run(command.args(more).arg("context"))
    }

    /// Builds on another machine, which has no network: the store is new, and of this one it has
    /// the context and the recording.
    fn offline(&self, more: &[&str]) -> Ran {
        let there = Bench::new();
        curl_image(&there);
        for name in ["context", "lock", "lock.d"] {
            let copied = run(Command::new("cp")
                .arg("-r")
                .args([self.bench.path().join(name)])
                .arg(there.path()));
            copied.ok();
        }
        let command = there.command("rbuild");
        let mut apart = Command::new("unshare");
        apart.arg("-n").arg(command.get_program()).current_dir(there.path());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => apart.env(name, value),
                None => apart.env_remove(name),
            };
        }
        apart.args(["bud", "--progress=plain", "--offline=lock"]);
        run(apart.arg("--add-host=files.example:host-gateway").args(more).arg("context"))
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.bench.path().join("lock")).expect("a lock file")
    }
}

fn id(ran: &Ran) -> String {
    ran.text().lines().last().expect("an id").to_owned()
}

#[test]
fn a_recorded_build_replays_to_the_same_digest_without_a_network() {
    let scene = Scene::new(
        "FROM localhost/curl\n\
         RUN --mount=type=secret,id=t,env=T curl -sSf -H \"Authorization: Bearer $T\" \"HTTP/a?token=x&q=$T\" -o /a\n\
         RUN curl -sSf TLS/b -o /b && curl -s HTTP/none -o /c; cat /a /b\n\
         ADD HERE/a /added\n",
    );
    let Some(scene) = scene else { return };
    let token = scene.bench.write("token", "hunter22");
    let secret = format!("--secret=id=t,src={}", token.display());
    let provenance = "--provenance=mode=max";
    let to = "--output=type=oci,dest=out.tar";
    let flags = ["--record=lock", "-t", "app", &secret, provenance, "--attest-as=index", to];
    let recorded = scene.bud(&flags).ok();
    let head = scene.files.asked()[0].head.clone();
    assert!(
        head.contains("Authorization: Bearer hunter22") && head.contains("q=hunter22"),
        "{head}"
    );
    assert!(recorded.stderr.contains("| hellohello over tls"), "{}", recorded.told());

    let lock = scene.lock();
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    for word in [
        digest,
        "/a?token=REDACTED&q=REDACTED",
        "method = \"GET\"",
        "status = 404",
        "[[input]]",
        "time = ",
    ] {
        assert!(lock.contains(word), "{word}: {lock}");
    }
    let kept = run(Command::new("grep")
        .args(["-r", "hunter22", "lock", "lock.d"])
        .current_dir(scene.bench.path()));
    assert_eq!(kept.code, 1, "{}", kept.told());

    let asked = scene.files.asked().len();
    let replayed = scene
        .offline(&[&secret, provenance, "--attest-as=index", "--output=type=oci,dest=out.tar"])
        .ok();
    assert_eq!(id(&replayed), id(&recorded), "{}", replayed.told());
    assert_eq!(scene.files.asked().len(), asked);

    // Provenance has every answer.
    let exported = fs::read(scene.bench.path().join("out.tar")).expect("an archive");
    let exported = String::from_utf8_lossy(&exported);
    let plain: String = exported.split_whitespace().collect();
    let hex = digest.trim_start_matches("sha256:");
    let place =
        plain.find("/a?token=REDACTED&q=REDACTED").expect("the answer is in the provenance");
    let around = &plain[place.saturating_sub(600)..place + 100];
    assert!(around.contains(hex) && !plain.contains("hunter22"), "{around}");

    // Neither certificate nor variables are left.
    let left = scene.bench.rbuild(["run", "--rm", "app", "sh", "-c", "env; ls -a /dev /etc"]).ok();
    for word in ["3128", "CURL_CA_BUNDLE", "rbuild"] {
        let said = left.stdout.lines().filter(|line| !line.starts_with("HOSTNAME"));
        assert!(!said.into_iter().any(|line| line.contains(word)), "{word}: {}", left.told());
    }
}

#[test]
fn a_user_records_what_root_replays() {
    let Some(user) = User::get() else { return };
    let text = "FROM localhost/curl\nRUN curl -sSf HTTP/a -o /a && curl -sSf TLS/b -o /b\n";
    let scene = Scene::of(Bench::of(user.uid, user.gid), text);
    let recorded = scene.bud(&["--record=lock"]).ok();
    assert!(scene.lock().contains("[[exchange]]"), "{}", scene.lock());
    let asked = scene.files.asked().len();
    assert_eq!(asked, 1, "{}", recorded.told());
    let again = scene.bud(&["--offline=lock", "--no-cache"]).ok();
    assert_eq!(id(&again), id(&recorded), "{}", again.told());
    let by_root = scene.offline(&[]).ok();
    assert_eq!(id(&by_root), id(&recorded), "{}", by_root.told());
    assert_eq!(scene.files.asked().len(), asked);
}

#[test]
fn a_request_that_was_not_recorded_fails_with_its_url_and_its_step() {
    let Some(scene) = Scene::new("FROM localhost/curl\nRUN curl -sSf HTTP/a -o /a\n") else {
        return;
    };
    scene.bud(&["--record=lock"]).ok();
    let path = scene.bench.path().join("context/Dockerfile");
    let text = fs::read_to_string(&path).expect("a Dockerfile");
    fs::write(&path, text.replace("-o /a", "-o /a; curl -s http://other.example/x || true"))
        .expect("a file");
    // Another instruction has another recording.
    scene.offline(&[]).fails(&["Dockerfile:2", "GET http://files.example", "is not recorded"]);
    let lock = scene.lock().replace("-o /a", "-o /a; curl -s http://other.example/x || true");
    fs::write(scene.bench.path().join("lock"), lock).expect("a file");
    // Nor does it help that the command goes on.
    let failed = scene.offline(&[]);
    failed.fails(&["Dockerfile:2", "GET http://other.example/x is not recorded"]);
}

#[test]
fn another_digest_in_the_lock_or_another_content_fails() {
    let Some(scene) = Scene::new("FROM localhost/curl\nRUN curl -sSf HTTP/a -o /a\n") else {
        return;
    };
    scene.bud(&["--record=lock"]).ok();
    let lock = scene.lock();
    let hex = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let other = hex.replace("2cf2", "2cf3");
    fs::write(scene.bench.path().join("lock"), lock.replace(hex, &other)).expect("a file");
    scene.offline(&[]).fails(&["Dockerfile:2", "/a has no content", &other]);

    fs::write(scene.bench.path().join("lock"), lock).expect("a file");
    let content = scene.bench.path().join("lock.d/blobs/sha256").join(hex);
    fs::write(content, "hallo").expect("a file");
    scene.offline(&[]).fails(&["Dockerfile:2", hex, "its digest is another one"]);
}

#[test]
fn a_recorded_command_has_no_other_network() {
    let text = "FROM localhost/curl\nRUN curl -sS --noproxy '*' --max-time 5 HERE/a && exit 3 || true\n\
                RUN curl -s --noproxy '' HERE/a; true\n";
    let Some(scene) = Scene::new(text) else { return };
    scene.bud(&["--record=lock"]).ok();
    assert!(scene.files.asked().is_empty());
    assert!(scene.lock().contains("status = 502"), "{}", scene.lock());
    scene.bench.write("context/Dockerfile", "FROM localhost/curl\nRUN --network=host true\n");
    scene
        .bud(&["--record=lock", "--allow=network.host"])
        .fails(&["Dockerfile:2", "cannot be recorded or replayed"]);
    scene.bud(&["--record=a", "--offline=b"]).fails(&["--offline"]);
    scene.bud(&["--offline=lock", "--cache-from=type=local,src=x"]).fails(&["--cache-from"]);
}

#[test]
fn steps_that_are_recorded_run_again_and_replayed_ones_are_cached_by_their_answers() {
    let Some(scene) = Scene::new("FROM localhost/curl\nRUN curl -sSf HTTP/a -o /a\n") else {
        return;
    };
    let asked = || scene.files.asked().len();
    scene.bud(&["--record=lock"]).ok();
    scene.bud(&["--record=lock"]).ok();
    assert_eq!(asked(), 2);
    let offline = || scene.bud(&["--offline=lock"]).ok();
    let first = offline();
    assert!(!first.stderr.contains("2 of 2 steps cached"), "{}", first.told());
    assert_eq!(id(&offline()), id(&first));
    let lock = scene.lock().replace("2cf24dba", "3cf24dba");
    fs::write(scene.bench.path().join("lock"), lock).expect("a file");
    scene.bud(&["--offline=lock"]).fails(&["3cf24dba"]);
    assert_eq!(asked(), 2);
}

#[test]
fn repositories_are_recorded_and_replayed_without_their_server() {
    let Some(scene) = Scene::new("FROM localhost/curl\nRUN curl -sSf HTTP/a -o /a\n") else {
        return;
    };
    let served = scene.bench.path().join("repositories");
    let Some(repositories) = Repositories::serve(&served) else { return };
    repositories
        .script("app", "mkdir sub && echo one > sub/file && ln -s file sub/link && commit one");
    let url = format!("{}/app", repositories.url);
    let dockerfile = format!(
        "FROM localhost/curl\nADD {url} /app\nADD --keep-git-dir=true {url} /kept\nCOPY --from=more . /more/\n"
    );
    scene.bench.write("context/Dockerfile", dockerfile);
    let named = format!("--build-context=more={url}");
    let recorded = scene.bud(&["-q", "--record=lock", &named]).ok();
    drop(repositories);
    let replayed = scene.offline(&["-q", &named]).ok();
    assert_eq!(id(&replayed), id(&recorded), "{}", replayed.told());
    // Another content under the recorded name.
    let lock = scene.lock();
    let entry = lock.split("[[").find(|entry| entry.contains("+git-dir")).expect("an entry");
    let line = entry.lines().find(|line| line.starts_with("digest")).expect("a digest");
    let digest = line.split('"').nth(1).expect("a digest").trim_start_matches("sha256:");
    let content = scene.bench.path().join("lock.d/blobs/sha256").join(digest);
    fs::write(&content, "other").expect("a content");
    scene.offline(&[&named]).fails(&["Dockerfile:3", "its digest is another one"]);
    let without: String =
        lock.split_inclusive("[[").filter(|entry| !entry.contains("+git-dir")).collect();
    fs::write(scene.bench.path().join("lock"), without).expect("a lock file");
    scene.offline(&[&named]).fails(&["Dockerfile:3", "+git-dir+submodules is not recorded"]);
}

#[test]
fn two_recordings_of_the_same_inputs_are_the_same_image() {
    let Some(scene) =
        Scene::new("FROM localhost/curl\nCOPY Dockerfile /\nRUN curl -sSf HTTP/a -o /a\n")
    else {
        return;
    };
    let file = fs::File::open(scene.bench.path().join("context/Dockerfile")).expect("a file");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    file.set_modified(time).expect("a time");
    // What a killed recording has left is removed.
    scene.bench.write("lock.d/blobs/sha256/.new-1-0", "half");
    let first = scene.bud(&["-q", "--record=lock", "-t=app"]).ok();
    let left = scene.bench.path().join("lock.d/blobs/sha256/.new-1-0");
    assert!(!left.exists());
    let second = scene.bud(&["-q", "--record=lock"]).ok();
    assert_eq!(id(&first), id(&second));
    let seen = scene.bench.rbuild(["inspect", "--type=image", "app"]).ok();
    assert!(seen.stdout.contains("2020-09-13T12:26:40Z"), "{}", seen.told());
}

#[test]
fn several_platforms_are_recorded_and_replayed() {
    let Some(scene) = Scene::new("FROM scratch\nARG TARGETARCH\nADD HERE/a /$TARGETARCH\n") else {
        return;
    };
    let both = "--platform=linux/amd64,linux/arm64";
    let recorded = scene.bud(&["-q", "--record=lock", both, "--manifest=app"]).ok();
    let replayed = scene.offline(&["-q", both, "--manifest=app"]).ok();
    assert_eq!(id(&replayed), id(&recorded), "{}", replayed.told());
}
