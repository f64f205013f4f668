//! Images leave the storage of podman and buildah, and go to and from a Docker daemon.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are journeys")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use e2e::{Bench, Ran, peer, root, run};

/// Buildah with a storage of its own, to which `storage` leads.
struct Buildah {
    directory: PathBuf,
    driver: &'static str,
}

impl Buildah {
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("buildah");
        command.current_dir(&self.directory).args(["--storage-driver", self.driver, "--root"]);
        command.arg(self.directory.join("graph")).arg("--runroot");
        run(command.arg(self.directory.join("run")).args(arguments))
    }

    fn place(&self, name: &str) -> String {
        let (graph, run) = (self.directory.join("graph"), self.directory.join("run"));
        let driver = self.driver;
        format!("containers-storage:[{driver}@{}+{}]{name}", graph.display(), run.display())
    }
}

#[test]
fn images_leave_the_storage_of_buildah() {
    if !root() || peer("buildah").is_none() || peer("skopeo").is_none() {
        return;
    }
    let bench = Bench::new();
    let layout = e2e::image::busybox(&bench.path().join("busybox-layout"));
    let from = format!("oci:{}:busybox", layout.display());
    bench.rcopy(["copy", &from, "docker-archive:base.tar:localhost/base:1"]).ok();
    let packed = format!("oci:{}:busybox", bench.path().join("packed").display());
    bench.rcopy(["copy", "--dest-compress", &from, &packed]).ok();
    bench.write(
        "context/Dockerfile",
        "FROM localhost/base:1\nCOPY greeting /greeting\nRUN [\"/bin/sh\", \"-c\", \"mkdir /d && echo made > /d/f && ln /d/f /d/hard && ln -s f /d/soft && rm /greeting\"]\nCMD [\"/bin/cat\", \"/d/hard\"]\n",
    );
    bench.write("context/greeting", "hello");
    // What overlay cannot be mounted on, vfs can.
    for driver in ["vfs", "overlay"] {
        let directory = bench.path().join(driver);
        std::fs::create_dir_all(&directory).unwrap();
        let theirs = Buildah { directory, driver };
        let archive = format!("docker-archive:{}/base.tar", bench.path().display());
        let pulled = theirs.run(&["pull", "-q", "--policy=always", &archive]);
        if driver == "overlay" && pulled.code != 0 {
            e2e::cannot("no storage of the driver overlay");
            continue;
        }
        pulled.ok();
        // The storage keeps layers unpacked: the digest that the image had cannot come out.
        let kept = theirs.place("localhost/kept:1");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "-q", &packed, &kept]);
        run(&mut skopeo).ok();
        bench
            .rcopy(["copy", "--preserve-digests", &kept, &format!("dir:kept-{driver}")])
            .fails(&["unpacked"]);
        assert!(!bench.path().join(format!("kept-{driver}")).exists());
        let context = bench.path().join("context");
        let built = ["bud", "-q", "--layers", "--isolation=chroot", "-t", "localhost/app:1"];
        let id = theirs.run(&[&built[..], &[context.to_str().unwrap()]].concat()).ok();
        let id = id.text().trim_start_matches("sha256:").to_owned();
        let place = theirs.place("localhost/app:1");

        // What comes out is what skopeo gets out: the same config, the same layers.
        let ours = format!("oci:ours-{driver}:app");
        bench.rcopy(["copy", &place, &ours]).ok();
        let mut skopeo = Command::new("skopeo");
        skopeo.current_dir(bench.path()).args(["--insecure-policy", "copy", "-q", &place]);
        run(skopeo.arg(format!("dir:skopeo-{driver}"))).ok();
        let config = |name: &str| {
            let inspected = bench.rcopy(["inspect", "--raw", "--config", name]).ok();
            serde_json::from_str::<serde_json::Value>(inspected.text()).unwrap()
        };
        assert_eq!(config(&ours), config(&format!("dir:skopeo-{driver}")), "{driver}");
        let digest = bench.rcopy(["inspect", "--raw", "--config", &ours]).ok();
        assert_eq!(image::Digest::of(digest.stdout.as_bytes()).hex(), id, "{driver}");

        // By id, by the beginning of it and by another spelling; into the store, where it runs.
        for name in [id.as_str(), &id[..12], "app:1"] {
            let found = bench.rcopy(["digest", &theirs.place(name)]).ok();
            assert_eq!(found.text(), bench.rcopy(["digest", &place]).ok().text(), "{name}");
        }
        let names = bench.rcopy(["list-tags", &place]).ok().stdout;
        assert!(names.contains("localhost/app:1") && names.contains("localhost/base:1"), "{names}");
        let stored = format!("store:localhost/{driver}:1");
        bench.rcopy(["copy", &place, &stored]).ok();
        let ran = bench.rbuild(["run", "--rm", &format!("localhost/{driver}:1")]).ok();
        assert_eq!(ran.text(), "made");

        // Read while a container is open.
        let container = theirs.run(&["from", "localhost/app:1"]).ok();
        bench.rcopy(["digest", &place]).ok();
        theirs.run(&["rm", container.text()]).ok();
        bench.rcopy(["digest", &theirs.place("localhost/none")]).fails(&["localhost/app:1"]);

        // A changed file is found out.
        let greeting = walkdir::WalkDir::new(theirs.directory.join("graph"))
            .into_iter()
            .filter_map(Result::ok)
            .find(|entry| entry.file_name() == "greeting" && entry.file_type().is_file())
            .unwrap();
        std::fs::write(greeting.path(), "HELLO").unwrap();
        bench.rcopy(["copy", &place, "oci:changed:app"]).fails(&["sha256:"]);
    }
}

/// A scripted Docker daemon: it serves one archive and keeps what it receives.
struct Daemon {
    socket: PathBuf,
    loaded: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Daemon {
    fn start(directory: &Path, archive: Vec<u8>, answer: &'static str) -> Daemon {
        let socket = directory.join("docker.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&loaded);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = serve(stream.unwrap(), &archive, answer, &kept);
            }
        });
        Daemon { socket, loaded }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

fn serve(
    stream: impl Read + Write,
    archive: &[u8],
    answer: &str,
    loaded: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {}
    assert!(header.to_lowercase().contains("host: "), "{header}");
    if line.starts_with("GET /images/localhost%2Fapp%3A1/get ") {
        let stream = reader.get_mut();
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for piece in archive.chunks(50_000) {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(piece)?;
            write!(stream, "\r\n")?;
        }
        write!(stream, "0\r\n\r\n")?;
        return stream.flush();
    }
    if line.starts_with("POST /images/load") {
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&piece[..size]);
        }
        loaded.lock().unwrap().push(body);
        let length = answer.len();
        let stream = reader.get_mut();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}")?;
        return stream.flush();
    }
    let said = "{\"message\":\"No such image: none\"}";
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{said}", said.len())?;
    stream.flush()
}

/// A certificate for 127.0.0.1, its own authority or by another.
fn certificate(directory: &Path, by: Option<&Path>) -> Option<()> {
    std::fs::create_dir_all(directory).unwrap();
    let path = |directory: &Path, name: &str| directory.join(name).to_str().unwrap().to_owned();
    let mut command = Command::new(peer("openssl")?);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-keyout", &path(directory, "key.pem"), "-out", &path(directory, "cert.pem")]);
    if let Some(by) = by {
        command.args(["-CA", &path(by, "cert.pem"), "-CAkey", &path(by, "key.pem")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    run(&mut command).ok();
    Some(())
}

/// A daemon behind TLS that asks its clients for a certificate of `authority`; its port.
fn secured(own: &Path, authority: &Path, archive: Vec<u8>) -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let read = |directory: &Path| {
        let read = CertificateDer::pem_file_iter(directory.join("cert.pem")).unwrap();
        read.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(read(authority));
    let people = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let key = PrivateKeyDer::from_pem_file(own.join("key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(people.build().unwrap())
        .with_single_cert(read(own), key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let _ = serve(stream, &archive, "", &Mutex::default());
        }
    });
    port
}

#[test]
fn a_docker_daemon_behind_tls_is_believed_by_its_certificate() {
    let bench = Bench::new();
    let at = |name: &str| bench.path().join(name);
    let Some(()) = certificate(&at("authority"), None) else { return };
    for name in ["daemon", "client"] {
        certificate(&at(name), Some(&at("authority")));
    }
    certificate(&at("stranger"), None);
    for name in ["client", "stranger"] {
        std::fs::copy(at("authority/cert.pem"), at(name).join("ca.pem")).unwrap();
    }
    certificate(&at("nobody"), None);
    std::fs::copy(at("client/cert.pem"), at("nobody/cert.pem")).unwrap();
    std::fs::copy(at("client/key.pem"), at("nobody/key.pem")).unwrap();

    let layer = e2e::image::Layer::new().file("f", 0o644, &[b'x'; 200_000]).finish();
    e2e::image::layout(&at("image"), "app", &[layer], |_| {});
    let archive = "docker-archive:app.tar:localhost/app:1";
    bench.rcopy(["copy", "--format", "v2s2", "oci:image:app", archive]).ok();
    let port = secured(&at("daemon"), &at("authority"), std::fs::read(at("app.tar")).unwrap());
    let digest = |scheme: &str, variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = bench.command("rcopy");
        command
            .current_dir(bench.path())
            .env("DOCKER_HOST", format!("{scheme}://127.0.0.1:{port}"));
        command.envs(variables.iter().copied());
        run(command.arg("digest").args(flags).arg("docker-daemon:localhost/app:1"))
    };
    let expected = bench.rcopy(["digest", archive]).ok().text().to_owned();
    let with = |name: &str| at(name).to_str().unwrap().to_owned();
    let client = ("DOCKER_CERT_PATH", &*with("client"));
    assert_eq!(digest("tcp", &[client, ("DOCKER_TLS_VERIFY", "1")], &[]).ok().text(), expected);
    assert_eq!(digest("tcp", &[client], &[]).ok().text(), expected);
    assert_eq!(digest("https", &[], &["--cert-dir", "client"]).ok().text(), expected);
    // A client with an unknown certificate is refused; so is a daemon with one.
    digest("tcp", &[], &["--cert-dir", "stranger"]).fails(&["cannot be reached"]);
    digest("tcp", &[], &["--cert-dir", "nobody"]).fails(&["certificate"]);
    digest("tcp", &[("DOCKER_CERT_PATH", &*with("nobody"))], &[]).fails(&["certificate"]);
    let unseen = ["--cert-dir", "nobody", "--tls-verify=false"];
    assert_eq!(digest("tcp", &[], &unseen).ok().text(), expected);
    digest("tcp", &[], &["--cert-dir", "image"]).fails(&["neither ca.pem nor cert.pem"]);
    digest("tcp", &[], &[]).fails(&["cannot be reached"]);

    let place = format!("--src-daemon-host=tcp://127.0.0.1:{port}");
    let copy = |certificates: &str| {
        let flags = ["copy", &place, "--src-cert-dir", certificates];
        bench.rcopy([&flags[..], &["docker-daemon:localhost/app:1", "oci:out:app"]].concat())
    };
    copy(&with("client")).ok();
    copy(&with("stranger")).fails(&["cannot be reached"]);
}

#[test]
fn a_docker_daemon_gives_and_takes_images() {
    let bench = Bench::new();
    let layer = e2e::image::Layer::new().file("f", 0o644, &[b'x'; 200_000]).finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[layer], |_| {});
    let archive = "docker-archive:app.tar:localhost/app:1";
    bench.rcopy(["copy", "--format", "v2s2", "oci:image:app", archive]).ok();
    let bytes = std::fs::read(bench.path().join("app.tar")).unwrap();
    let loaded = "{\"stream\":\"Loaded image: localhost/app:1\\n\"}\n";
    let daemon = Daemon::start(bench.path(), bytes, loaded);
    let digest = |place: &str| bench.rcopy(["digest", place]).ok().text().to_owned();
    let rcopy = |arguments: &[&str]| {
        run(bench.command("rcopy").env("DOCKER_HOST", daemon.host()).args(arguments))
    };
    rcopy(&["copy", "docker-daemon:localhost/app:1", "oci:out:app"]).ok();
    let read = rcopy(&["digest", "docker-daemon:localhost/app:1"]).ok();
    assert_eq!(read.text(), digest(archive));
    rcopy(&["digest", "docker-daemon:localhost/none"]).fails(&["No such image: none", "404"]);

    rcopy(&["copy", archive, "docker-daemon:app:2"]).ok();
    let taken = daemon.loaded.lock().unwrap().pop().unwrap();
    std::fs::write(bench.path().join("taken.tar"), taken).unwrap();
    let names = bench.rcopy(["list-tags", "docker-archive:taken.tar"]).ok().stdout;
    assert!(names.contains("docker.io/library/app:2"), "{names}");
    assert_eq!(digest("docker-archive:taken.tar"), digest(archive));

    // A daemon that refuses says so with a status of success; one that is not there, not at all.
    let failing = "{\"stream\":\"Loading\"}\n{\"errorDetail\":{},\"error\":\"no space left\"}\n";
    drop(daemon);
    let daemon = Daemon::start(bench.path(), Vec::new(), failing);
    let mut command = bench.command("rcopy");
    command.env("DOCKER_HOST", daemon.host()).args(["copy", archive, "docker-daemon:app:2"]);
    run(&mut command).fails(&["refused it: no space left"]);
    let nowhere = ["inspect", "--daemon-host", "unix:///nowhere.sock", "docker-daemon:app:1"];
    bench.rcopy(nowhere).fails(&["unix:///nowhere.sock", "DOCKER_HOST"]);
}
