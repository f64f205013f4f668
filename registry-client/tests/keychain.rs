//! Credential files and helpers.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::Repository;
use registry_client::{AuthFiles, Credential, Error, Keychain};
use serde_json::{Value, json};
use task::{Fault, Kind};

struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        Home { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: &Value) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content.to_string()).unwrap();
        path
    }

    /// A helper of this shell script.
    fn helper(&self, suffix: &str, script: &str) {
        let path = self.path(&format!("docker-credential-{suffix}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn files(&self, paths: &[&str]) -> AuthFiles {
        let mut files = AuthFiles::new(paths.iter().map(|name| self.path(name)).collect());
        files.helper_dirs = vec![self.directory.path().to_owned()];
        files.helper_env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        files.helper_timeout = Duration::from_secs(10);
        files
    }
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.into(), password: password.into() }
}

fn auth(pair: &str) -> Value {
    use base64::Engine as _;
    json!({ "auth": base64::prelude::BASE64_STANDARD.encode(pair) })
}

fn ask(files: &AuthFiles, registry: &str, path: &str) -> Result<Credential, Error> {
    files.credential(&Repository::new(registry, path).unwrap())
}

#[test]
fn the_most_specific_key_wins_and_then_the_first_file() {
    let home = Home::new();
    home.file(
        "auth.json",
        &json!({ "auths": {
            "r.example": auth("host:1"),
            "r.example/team": auth("team:2"),
            "r.example/team/app": auth("app:with:colon"),
            "https://legacy.example/v1/": auth("legacy:3"),
            "token.example": { "identitytoken": "refresh", "auth": "" },
            "access.example": { "registrytoken": "access" },
            "plain.example": { "username": "plain", "password": "4" },
            "empty.example": {},
            "second.example": auth("first file:5"),
        }}),
    );
    home.file(
        "config.json",
        &json!({ "auths": {
            "https://index.docker.io/v1/": auth("hub:6"),
            "empty.example": auth("second file:7"),
            "second.example": auth("no:8"),
        }}),
    );
    let files = home.files(&["missing.json", "auth.json", "config.json"]);
    for (registry, path, expected) in [
        ("r.example", "app", basic("host", "1")),
        ("r.example", "team/other", basic("team", "2")),
        ("r.example", "teams", basic("host", "1")),
        ("r.example", "team/app", basic("app", "with:colon")),
        ("r.example:5000", "team/app", Credential::Anonymous),
        ("legacy.example", "x", basic("legacy", "3")),
        ("token.example", "x", Credential::Identity("refresh".into())),
        ("access.example", "x", Credential::Bearer("access".into())),
        ("plain.example", "x", basic("plain", "4")),
        ("empty.example", "x", basic("second file", "7")),
        ("second.example", "x", basic("first file", "5")),
        ("docker.io", "library/debian", basic("hub", "6")),
        ("nobody.example", "x", Credential::Anonymous),
    ] {
        assert_eq!(ask(&files, registry, path).unwrap(), expected, "{registry}/{path}");
    }
    assert_eq!(files.registry_credential("r.example").unwrap(), basic("host", "1"));
    let listed = files.list().unwrap();
    assert!(listed.contains(&("docker.io".into(), "hub".into())), "{listed:?}");
    assert!(listed.contains(&("r.example/team".into(), "team".into())));
}

#[test]
fn broken_files_are_errors_that_tell_no_secret() {
    let home = Home::new();
    for (name, content) in [
        ("a.json", r#"{"auths":{"r.example":{"auth":"SECRET"#),
        ("b.json", r#"["SECRET"]"#),
        ("c.json", r#"{"auths":{"r.example":{"auth":"SECRET!!!"}}}"#),
        ("d.json", r#"{"auths":{"r.example":{"auth":"U0VDUkVU"}}}"#),
    ] {
        fs::write(home.path(name), content).unwrap();
        let error = ask(&home.files(&[name]), "r.example", "x").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error:?} {error}").contains("SECRET"), "{error:?}");
    }
    fs::write(home.path("empty.json"), "\n").unwrap();
    let found = ask(&home.files(&["empty.json"]), "r.example", "x").unwrap();
    assert_eq!(found, Credential::Anonymous);
    let shown =
        format!("{:?} {:?}", basic("user", "SECRET"), Credential::Identity("SECRET".into()));
    assert!(!shown.contains("SECRET"));
}

#[test]
fn the_oldest_file_is_entries_alone() {
    let home = Home::new();
    home.file(".dockercfg", &json!({ "https://r.example": auth("old:1") }));
    assert_eq!(ask(&home.files(&[".dockercfg"]), "r.example", "x").unwrap(), basic("old", "1"));
}

#[test]
fn storing_keeps_what_it_does_not_know_and_nobody_else_reads_it() {
    let home = Home::new();
    home.file("config.json", &json!({ "HttpHeaders": {"X": "y"}, "auths": {"a": auth("a:1")} }));
    fs::set_permissions(home.path("config.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let link = home.path("link.json");
    std::os::unix::fs::symlink(home.path("config.json"), &link).unwrap();
    for (name, key) in [("link.json", "r.example"), ("new/deep/auth.json", "docker.io")] {
        let files = home.files(&[name]);
        files.store(key, &basic("user", "pass")).unwrap();
        files.store("t.example/team", &Credential::Identity("refresh".into())).unwrap();
        let path = home.path(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ask(&files, key, "x/y").unwrap(), basic("user", "pass"));
        let token = ask(&files, "t.example", "team/app").unwrap();
        assert_eq!(token, Credential::Identity("refresh".into()));
        assert!(files.erase(key).unwrap());
        assert!(!files.erase(key).unwrap());
        assert_eq!(ask(&files, key, "x/y").unwrap(), Credential::Anonymous);
        let left = fs::read_dir(path.parent().unwrap()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    }
    assert!(fs::symlink_metadata(link).unwrap().is_symlink());
    let text = fs::read_to_string(home.path("config.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["HttpHeaders"]["X"], "y");
    assert_eq!(value["auths"]["a"], auth("a:1"));
    assert!(text.find("HttpHeaders").is_some());
    let files = home.files(&["new/deep/auth.json"]);
    assert!(files.store("r", &Credential::Anonymous).is_err());
    assert!(AuthFiles::new(vec![]).store("r", &basic("a", "b")).is_err());
}

#[test]
fn helpers_are_asked_and_their_environment_is_ours() {
    let home = Home::new();
    home.file(
        "config.json",
        &json!({
            "credsStore": "all",
            "credHelpers": { "own.example": "own", "token.example": "token" },
            "auths": { "all.example": auth("file:1"), "own.example/team": auth("team:2") }
        }),
    );
    home.helper("own", r#"read server; echo "{\"Username\":\"$server\",\"Secret\":\"$(env | grep -c '^HOME=\|^CARGO')\"}""#);
    home.helper("token", r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh"}'"#);
    home.helper("all", "echo 'credentials not found in native keychain'; exit 1");
    let files = home.files(&["config.json"]);
    assert_eq!(ask(&files, "own.example", "x").unwrap(), basic("own.example", "0"));
    assert_eq!(ask(&files, "own.example", "team/x").unwrap(), basic("team", "2"));
    let error = files.store("own.example/team", &basic("a", "b")).unwrap_err();
    assert!(error.to_string().contains("whole registries"), "{error}");
    let token = ask(&files, "token.example", "x").unwrap();
    assert_eq!(token, Credential::Identity("refresh".into()));
    assert_eq!(ask(&files, "all.example", "x").unwrap(), basic("file", "1"));
    assert_eq!(ask(&files, "none.example", "x").unwrap(), Credential::Anonymous);
    // As registries.conf orders it: this helper alone, or after the files.
    let mut other = home.files(&["config.json"]);
    other.order = vec!["token".into()];
    assert_eq!(ask(&other, "own.example", "x").unwrap(), token);
    other.order = vec![AuthFiles::OWN.into(), "token".into()];
    assert_eq!(ask(&other, "all.example", "x").unwrap(), basic("file", "1"));
    assert_eq!(ask(&other, "none.example", "x").unwrap(), token);
}

#[test]
fn a_helper_that_fails_is_an_error_and_not_another_credential() {
    let home = Home::new();
    let cases = [
        ("broken", "echo 'keyring is locked' >&2; exit 1", "it failed"),
        ("says", "echo 'keyring is locked'; exit 1", "keyring is locked"),
        ("garbage", "echo 'not json'", "not the expected JSON"),
        ("stuck", "exec sleep 600", "did not answer"),
        ("flood", "while :; do echo 0123456789012345678901234567890123456789; done", ""),
    ];
    for (name, script, text) in cases {
        home.helper(name, script);
        home.file(
            "config.json",
            &json!({ "credHelpers": { "r.example": name }, "auths": { "r.example": auth("a:b") } }),
        );
        let mut files = home.files(&["config.json"]);
        if matches!(name, "stuck" | "flood") {
            files.helper_timeout = Duration::from_millis(100);
        }
        let error = ask(&files, "r.example", "x").unwrap_err();
        assert!(matches!(error, Error::Helper { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(text), "{name}: {error}");
    }
    for name in ["../evil", "missing", "a b", ""] {
        home.file("config.json", &json!({ "credHelpers": { "r.example": name } }));
        let found = ask(&home.files(&["config.json"]), "r.example", "x");
        assert_eq!(found.is_ok(), name.is_empty(), "{name}");
    }
}

#[test]
fn storing_and_erasing_go_to_the_helper() {
    let home = Home::new();
    let log = home.path("log");
    let log = Path::new(&log).display();
    home.helper(
        "all",
        &format!(
            r#"case $1 in get) echo '{{"Username":"u","Secret":"s"}}';; *) echo "$1 $(cat)" >> {log};; esac"#
        ),
    );
    home.file("config.json", &json!({ "credsStore": "all" }));
    let files = home.files(&["config.json"]);
    files.store("docker.io", &basic("user", "pass")).unwrap();
    let text = fs::read_to_string(home.path("log")).unwrap();
    assert_eq!(
        text.trim(),
        r#"store {"ServerURL":"https://index.docker.io/v1/","Username":"user","Secret":"pass"}"#
    );
    assert!(!fs::read_to_string(home.path("config.json")).unwrap().contains("auths"));
    assert!(files.erase("r.example").unwrap());
    assert!(fs::read_to_string(home.path("log")).unwrap().contains("erase r.example\n"));
}
