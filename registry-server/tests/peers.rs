//! Another implementation's client against this registry, where one is installed.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use image::MediaType;
use registry_server::{Auth, Options, Registry};

fn skopeo(home: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("skopeo")
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .args(["--insecure-policy", "--command-timeout", "60s"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn skopeo_copies_lists_inspects_and_deletes() {
    let Some(_) = requires::program("skopeo") else { return };
    let home = tempfile::tempdir().unwrap();
    let user = || ("user".to_owned(), "secret".to_owned());
    let (username, password) = user();
    let bearer = Auth::Bearer {
        username,
        password,
        refresh_token: String::new(),
        anonymous_pull: false,
        lifetime: Duration::from_secs(60),
    };
    let (username, password) = user();
    for (auth, memory) in
        [(Auth::None, true), (Auth::Basic { username, password }, true), (bearer, false)]
    {
        let login = !matches!(auth, Auth::None);
        let directory = (!memory).then(|| home.path().join("registry"));
        let registry = Registry::start(Options { auth, directory, ..Options::default() }).unwrap();
        // Not gzip in truth, and so copied as it is.
        let layers: [&[u8]; 2] = [&[1; 3_000_000], b"two"];
        let image = registry.put_image("team/app", "1", &layers).unwrap();
        let name = |rest: &str| format!("docker://{}/{rest}", registry.address());
        let (from, to) = (name("team/app:1"), name("other/copy:2"));
        let mut copy = vec!["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let mut single = vec!["--tls-verify=false"];
        if login {
            copy.extend(["--src-creds=user:secret", "--dest-creds=user:secret"]);
            single.push("--creds=user:secret");
        }
        skopeo(home.path(), &[copy.as_slice(), &["--preserve-digests", &from, &to]].concat())
            .unwrap();
        assert_eq!(registry.tag("other/copy", "2"), Some(image.digest));
        let one = |command: &str, name: &str| {
            skopeo(home.path(), &[&[command], single.as_slice(), &[name]].concat())
        };
        assert!(one("list-tags", &name("other/copy")).unwrap().contains("\"2\""));
        assert!(one("inspect", &to).unwrap().contains(&image.digest.to_string()));
        one("delete", &to).unwrap();
        assert_eq!(registry.tag("other/copy", "2"), None);
        assert!(one("inspect", &to).is_err());
        if login {
            let anonymous = skopeo(home.path(), &["inspect", "--tls-verify=false", &from]);
            assert!(anonymous.is_err());
        }
        assert!(registry.content(image.digest).unwrap().is_some());
        registry.put_blob("team/app", MediaType::OCI_LAYER, "x").unwrap();
    }
}
