//! The client against the reference registry (`docker-registry`), where it is installed.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use image::{Descriptor, Digest, MediaType, Repository, Tag};
use registry_client::{Body, Client, Credential, Error, HostRule, Options, Target, Timeouts, Tls};
use task::{Fault, Kind};

struct Server {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a registry; `None` (said on stderr) where there is none to start.
fn start(password: Option<&str>) -> Option<Server> {
    start_with(password, false)
}

/// With TLS it has a certificate of its own, `cert.pem`, in its directory.
fn start_with(password: Option<&str>, tls: bool) -> Option<Server> {
    let program = requires::program("docker-registry")?;
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
        directory.path().join("data").display()
    );
    if tls {
        let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let made = Command::new(requires::program("openssl")?)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let lines = format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display());
        config = config.replace(
            &format!("http: {{addr: '{address}'}}\n"),
            &format!("http:\n  addr: '{address}'\n{lines}"),
        );
    }
    if let Some(password) = password {
        let htpasswd = requires::program("htpasswd")?;
        let table = Command::new(htpasswd).args(["-Bbn", "user", password]).output().unwrap();
        let path = directory.path().join("htpasswd");
        std::fs::write(&path, table.stdout).unwrap();
        config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display());
    }
    let path = directory.path().join("config.yml");
    std::fs::write(&path, config).unwrap();
    let mut child = Command::new(program)
        .arg("serve")
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says when it listens.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = lines.by_ref().any(|line| line.is_ok_and(|line| line.contains("listening on")));
    assert!(listening, "docker-registry did not start");
    std::thread::spawn(move || lines.for_each(drop));
    Some(Server { child, address, directory })
}

fn options(credential: Credential) -> Options {
    Options {
        keychain: Arc::new(credential),
        retries: 1,
        backoff: Duration::from_millis(1),
        timeouts: Timeouts { first_byte: Duration::from_secs(5), ..Timeouts::default() },

        ..Options::default()
    }
}

fn body(bytes: &Bytes) -> Body {
    let chunks: Vec<_> = bytes.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    Box::pin(futures::stream::iter(chunks))
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn whole_story(server: &Server, credential: Credential) {
    let client = Client::new(options(credential)).unwrap();
    let app = Repository::new(&server.address, "team/app").unwrap();
    let copy = Repository::new(&server.address, "team/copy").unwrap();
    let (repo, other) = (client.repo(&app), client.repo(&copy));

    let layer: Bytes = (0..3_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let layer_descriptor = Descriptor::of(MediaType::OCI_LAYER, &layer);
    let config = Bytes::from_static(b"{}");
    let config_descriptor = Descriptor::of(MediaType::OCI_CONFIG, &config);

    assert_eq!(repo.has_blob(layer_descriptor.digest).await.unwrap(), None);
    repo.upload(&layer_descriptor, body(&layer)).await.unwrap();
    repo.upload(&config_descriptor, body(&config)).await.unwrap();
    assert_eq!(repo.has_blob(layer_descriptor.digest).await.unwrap(), Some(3_000_000));
    assert!(other.mount(layer_descriptor.digest, &app).await.unwrap());
    assert!(!other.mount(Digest::of(b"nowhere"), &app).await.unwrap());

    let manifest = image::Manifest::new(
        MediaType::OCI_MANIFEST,
        config_descriptor.clone(),
        vec![layer_descriptor.clone()],
    );
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    let tag = |text: &str| Target::Tag(text.parse::<Tag>().unwrap());
    for name in ["1", "2"] {
        repo.put_manifest(&tag(name), &MediaType::OCI_MANIFEST, manifest.clone()).await.unwrap();
    }
    let mut tags = repo.tags(None).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    assert_eq!(repo.resolve(&tag("1")).await.unwrap(), descriptor);
    let digest = Target::Digest(descriptor.digest);
    assert_eq!(repo.manifest(&digest).await.unwrap(), (descriptor.clone(), manifest.clone()));
    assert!(client.catalog(&server.address).await.unwrap().contains(&"team/app".to_owned()));

    let whole = repo.blob(layer_descriptor.digest, Some(3_000_000), None).await.unwrap();
    assert!(collect(whole).await.unwrap() == layer);
    let part = repo.blob(layer_descriptor.digest, Some(3_000_000), Some(10..20)).await.unwrap();
    assert_eq!(collect(part).await.unwrap(), layer[10..20]);

    // No referrers API here: the fallback tag.
    assert!(repo.referrers(descriptor.digest, None).await.unwrap().is_empty());
    let mut referrer = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    referrer.artifact_type = Some("application/x".into());
    repo.add_referrer(descriptor.digest, &referrer).await.unwrap();
    repo.add_referrer(descriptor.digest, &referrer).await.unwrap();
    let found = repo.referrers(descriptor.digest, Some("application/x")).await.unwrap();
    assert_eq!(found, [referrer.clone()]);
    assert!(repo.referrers(descriptor.digest, Some("other")).await.unwrap().is_empty());
    repo.remove_referrer(descriptor.digest, referrer.digest).await.unwrap();
    assert!(repo.referrers(descriptor.digest, None).await.unwrap().is_empty());

    repo.delete_manifest(&digest).await.unwrap();
    let gone = repo.resolve(&tag("1")).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    other.delete_blob(layer_descriptor.digest).await.unwrap();
    assert_eq!(other.has_blob(layer_descriptor.digest).await.unwrap(), None);
}

#[tokio::test]
async fn push_pull_mount_list_delete() {
    let Some(server) = start(None) else { return };
    let story = whole_story(&server, Credential::Anonymous);
    tokio::time::timeout(Duration::from_secs(60), story).await.unwrap();
}

#[tokio::test]
async fn with_a_password_and_only_with_the_right_one() {
    let Some(server) = start(Some("secret")) else { return };
    let user =
        |password: &str| Credential::Basic { username: "user".into(), password: password.into() };
    let story = async {
        let client = Client::new(options(Credential::Anonymous)).unwrap();
        client.check(&server.address, &user("secret")).await.unwrap();
        for credential in [user("wrong"), Credential::Anonymous] {
            let error = client.check(&server.address, &credential).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(error.hint().unwrap().contains(&server.address));
        }
        whole_story(&server, user("secret")).await;
    };
    tokio::time::timeout(Duration::from_secs(60), story).await.unwrap();
}

#[tokio::test]
async fn tls_is_verified_unless_told_otherwise_and_found_on_loopback() {
    let Some(server) = start_with(None, true) else { return };
    let authority = std::fs::read(server.directory.path().join("cert.pem")).unwrap();
    let ping = |tls, authorities| {
        let prefix = server.address.clone();
        let hosts = vec![HostRule { prefix, tls, authorities, ..HostRule::default() }];
        let client = Client::new(Options { hosts, ..options(Credential::Anonymous) }).unwrap();
        let address = server.address.clone();
        async move { client.ping(&address).await }
    };
    let story = async {
        let error = ping(Some(Tls::Verify), vec![]).await.unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
        assert_eq!(error.kind(), Kind::Refused);
        ping(Some(Tls::Verify), vec![authority.clone()]).await.unwrap();
        // The same certificate under a name it is not for.
        let name = server.address.replace("127.0.0.1", "localhost");
        let rule = HostRule {
            prefix: name.clone(),
            tls: Some(Tls::Verify),
            authorities: vec![authority.clone()],
            ..HostRule::default()
        };
        let other = Options { hosts: vec![rule], ..options(Credential::Anonymous) };
        let error = Client::new(other).unwrap().ping(&name).await.unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
        ping(Some(Tls::SkipVerify), vec![]).await.unwrap();
        ping(None, vec![]).await.unwrap();
        assert!(ping(Some(Tls::Off), vec![]).await.is_err());
        let broken = ping(Some(Tls::Verify), vec![b"-----BEGIN CERTIFICATE-----\nx".to_vec()]);
        assert!(broken.await.is_err());
        whole_story(&server, Credential::Anonymous).await;
    };
    tokio::time::timeout(Duration::from_secs(60), story).await.unwrap();
}

#[tokio::test]
async fn tls_that_is_asked_for_is_never_given_up() {
    let Some(server) = start(None) else { return };
    for tls in [Tls::Verify, Tls::SkipVerify] {
        let rule =
            HostRule { prefix: server.address.clone(), tls: Some(tls), ..HostRule::default() };
        let options = Options { hosts: vec![rule], ..options(Credential::Anonymous) };
        let ping = Client::new(options).unwrap();
        let ping = tokio::time::timeout(Duration::from_secs(60), ping.ping(&server.address));
        let error = ping.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::NoTls { .. }), "{error:?}");
    }
}
