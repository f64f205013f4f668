//! Certificates of registries and clients, and the errors when they do not match.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::*;
use registry_client::{
    Client, ClientIdentity, Credential, Error, Flaw, HostRule, Options, Tls, TlsParameters,
};
use registry_server::Registry;
use task::{Fault as _, Kind};

/// Certificates made by openssl in a directory that goes away; `None` without it.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Option<Made> {
        requires::program("openssl")?;
        let made = Made(tempfile::tempdir().unwrap());
        assert!(made.selfsigned("ca", &["-subj", "/CN=authority", "-days", "9"]));
        Some(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn openssl(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("openssl");
        command.current_dir(self.0.path()).args(arguments);
        command.output().is_ok_and(|ran| ran.status.success())
    }

    /// `NAME.pem` and `NAME.key`, an authority's own.
    fn selfsigned(&self, name: &str, more: &[&str]) -> bool {
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        let curve = "ec_paramgen_curve:P-256";
        let first = ["req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes"];
        self.openssl(&[&first[..], &["-keyout", &key, "-out", &out], more].concat())
    }

    /// `NAME.pem` and `NAME.key`, issued by the authority with these extensions; of version 1 without.
    fn issued(&self, name: &str, days: &str, extensions: Option<&str>) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let (out, extra) = (format!("{name}.pem"), format!("{name}.ext"));
        let curve = "ec_paramgen_curve:P-256";
        let subject = format!("/CN={name}");
        let asking = ["req", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key];
        assert!(self.openssl(&[&asking[..], &["-out", &request, "-subj", &subject]].concat()));
        let mut issuing =
            vec!["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key"];
        issuing.extend(["-CAcreateserial", "-out", &out, "-days", days]);
        if let Some(extensions) = extensions {
            std::fs::write(self.path(&extra), extensions).unwrap();
            issuing.extend(["-extfile", &extra]);
        }
        assert!(self.openssl(&issuing));
    }

    fn serve(&self, name: &str, asks: bool) -> Registry {
        let tls = registry_server::Tls {
            certificate: self.read(&format!("{name}.pem")),
            key: self.read(&format!("{name}.key")),
            client_authorities: asks.then(|| self.read("ca.pem")),
        };
        Registry::start(registry_server::Options { tls: Some(tls), ..Default::default() }).unwrap()
    }

    fn identity(&self, name: &str) -> ClientIdentity {
        ClientIdentity {
            certificate: self.read(&format!("{name}.pem")),
            key: self.read(&format!("{name}.key")),
        }
    }
}

/// Asks whether it is a registry, under this rule.
async fn ping(address: &str, rule: HostRule) -> Result<(), Error> {
    let rule = HostRule { prefix: address.to_owned(), tls: Some(Tls::Verify), ..rule };
    let options = Options { hosts: vec![rule], ..options(Credential::Anonymous) };
    Client::new(options).unwrap().ping(address).await
}

fn trusting(authority: Vec<u8>) -> HostRule {
    HostRule { authorities: vec![authority], ..HostRule::default() }
}

const HERE: &str = "subjectAltName=IP:127.0.0.1\n";

#[test]
fn what_is_wrong_with_a_registrys_certificate_is_told() {
    run(async {
        let Some(made) = Made::new() else { return };
        made.issued("good", "9", Some(HERE));
        made.issued("expired", "-1", Some(HERE));
        made.issued("elsewhere", "9", Some("subjectAltName=DNS:a.example\n"));
        let ca = || trusting(made.read("ca.pem"));
        let good = made.serve("good", false);
        ping(&good.address(), ca()).await.unwrap();
        let cases = [
            ("good", HostRule::default(), "not from a trusted authority"),
            ("expired", ca(), "expired"),
            ("elsewhere", ca(), "is for"),
        ];
        for (name, rule, words) in cases {
            let registry = made.serve(name, false);
            let error = ping(&registry.address(), rule).await.unwrap_err();
            assert!(matches!(error, Error::Certificate { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(words), "{name}: {error}");
            assert!(error.hint().is_some() && error.kind() == Kind::Refused, "{name}: {error}");
        }
    });
}

#[test]
fn an_authoritys_own_certificate_serves_where_it_is_trusted_itself() {
    run(async {
        let Some(made) = Made::new() else { return };
        let own = ["-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "9"];
        assert!(made.selfsigned("own", &own));
        let registry = made.serve("own", false);
        ping(&registry.address(), trusting(made.read("own.pem"))).await.unwrap();
        for rule in [HostRule::default(), trusting(made.read("ca.pem"))] {
            let error = ping(&registry.address(), rule).await.unwrap_err();
            let flaw = match &error {
                Error::Certificate { flaw, .. } => flaw,
                other => panic!("{other:?}"),
            };
            assert!(matches!(flaw, Flaw::Authority | Flaw::Issuer), "{error}");
        }
    });
}

#[test]
fn a_missing_client_certificate_is_told_and_not_tried_again() {
    run(async {
        let Some(made) = Made::new() else { return };
        made.issued("good", "9", Some(HERE));
        made.issued("client", "9", Some("basicConstraints=CA:FALSE\n"));
        let registry = made.serve("good", true);
        let error = ping(&registry.address(), trusting(made.read("ca.pem"))).await.unwrap_err();
        assert!(matches!(error, Error::ClientCertificate { .. }), "{error:?}");
        assert!(error.kind() == Kind::Denied && error.hint().unwrap().contains("client.cert"));
        let identity = Some(made.identity("client"));
        let shown = HostRule { identity, ..trusting(made.read("ca.pem")) };
        ping(&registry.address(), shown).await.unwrap();
    });
}

/// Another TLS server, which takes certificates of version 1.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    /// The server when it listens, and its address.
    async fn start(directory: &Path, more: &[&str]) -> (Other, String) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(["s_server", "-accept", &port.to_string(), "-www"]);
        command.args(["-cert", "good.pem", "-key", "good.key", "-quiet"]).args(more);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Other(child.spawn().unwrap());
        while std::net::TcpStream::connect(&address).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        (server, address)
    }
}

#[test]
fn a_rule_says_which_tls_is_spoken() {
    run(async {
        let Some(made) = Made::new() else { return };
        made.issued("good", "9", Some(HERE));
        let (_server, address) = Other::start(made.0.path(), &["-tls1_2"]).await;
        let names = |name: &str| Some(vec![name.to_owned()]);
        let usual = TlsParameters::default();
        let suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        for (parameters, works) in [
            (usual.clone(), true),
            (TlsParameters { min_version: Some("1.2".to_owned()), ..usual.clone() }, true),
            (TlsParameters { min_version: Some("1.3".to_owned()), ..usual.clone() }, false),
            (TlsParameters { cipher_suites: names(suite), ..usual.clone() }, true),
            (TlsParameters { cipher_suites: names("TLS_AES_128_GCM_SHA256"), ..usual }, false),
        ] {
            let rule = HostRule { parameters: parameters.clone(), ..trusting(made.read("ca.pem")) };
            assert_eq!(ping(&address, rule).await.is_ok(), works, "{parameters:?}");
        }
    });
}

#[test]
fn client_certificates_of_version_1_are_shown() {
    run(async {
        let Some(made) = Made::new() else { return };
        made.issued("good", "9", Some(HERE));
        made.issued("old", "9", None);
        made.issued("other", "9", None);
        let asks = ["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
        let (_server, address) = Other::start(made.0.path(), &asks).await;
        let identity = Some(made.identity("old"));
        let shown = HostRule { identity, ..trusting(made.read("ca.pem")) };
        ping(&address, shown).await.unwrap();
        assert!(ping(&address, trusting(made.read("ca.pem"))).await.is_err());
    });
}

#[test]
fn plain_http_where_tls_should_be_is_told_as_that() {
    run(async {
        let registry = registry();
        let error = ping(&registry.address(), HostRule::default()).await.unwrap_err();
        assert!(matches!(error, Error::NoTls { .. }), "{error:?}");
        assert!(error.to_string().contains("speaks plain HTTP"), "{error}");
        assert!(error.hint().unwrap().contains("insecure"), "{:?}", error.hint());
    });
}
