//! Planted secrets are found, and what only looks like one is not.

use super::*;

/// A key of no value, in pieces, so that no scanner finds it here.
fn key() -> String {
    let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgiMPyskHE29XBVjba\n".repeat(3);
    format!("-----BEGIN {}PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n", "")
}

fn rule_of(text: &str, place: &str, origin: Origin) -> Vec<String> {
    let mut found = Vec::new();
    search(text.as_bytes(), place, origin, &mut found);
    found.into_iter().map(|secret| secret.rule).collect()
}

#[test]
fn planted_secrets_are_found_by_their_rule() {
    let random = "aZ3kQ9xT7bW1mR5cV8nL2pY6dF4gH0jKsUeX";
    for (text, rule) in [
        (key(), "private-key"),
        (key().replace('\n', "\\n"), "private-key"),
        (format!("AWS={}{}", "AKIA", "Q3EGR7TQ2ZXW5KLM"), "aws-access-key"),
        (format!("x gh{}_{random}", 'p'), "github-token"),
        (format!("gl{}-{}", "pat", &random[..20]), "gitlab-token"),
        (format!("npm{}{random}", '_'), "npm-token"),
        (format!("sk{}{}", "_live_", &random[..28]), "stripe-key"),
        (format!("hv{}{}", "s.", &random[..30]), "vault-token"),
    ] {
        assert_eq!(rule_of(&text, "app/main.js", Origin::File), [rule], "{text}");
    }
    let named = format!("DB_PASSWORD={random}");
    assert_eq!(rule_of(&named, "app/.env", Origin::File), ["telling-name"]);
    assert_eq!(rule_of(&named, "environment", Origin::Config), ["telling-name"]);
    assert_eq!(rule_of(&named, "app/main.c", Origin::File), [""; 0]);
    let auth = "{\"auths\":{\"r.example\":{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}}}";
    assert_eq!(rule_of(auth, "root/.docker/config.json", Origin::File), ["registry-password"]);
    assert_eq!(rule_of(auth, "app/data.json", Origin::File), [""; 0]);
}

#[test]
fn what_only_looks_like_a_secret_is_passed_over() {
    for text in [
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        "-----BEGIN PRIVATE KEY-----\n".to_owned(),
        "if line.startswith('-----BEGIN RSA PRIVATE KEY-----'):".to_owned(),
        format!("gh{}_{}", 'p', "0".repeat(36)),
        "PASSWORD=changeme-changeme-changeme".to_owned(),
        "TOKEN=$SECRET_FROM_ELSEWHERE".to_owned(),
        "password: your-password-goes-here-please".to_owned(),
        "SECRET_FILE=/run/secrets/database/password".to_owned(),
    ] {
        assert_eq!(rule_of(&text, "environment", Origin::Config), [""; 0], "{text}");
    }
}

#[test]
fn keys_that_everybody_knows_are_passed_over() {
    let found = |place: &str| !rule_of(&key(), place, Origin::File).is_empty();
    for place in [
        "app/node_modules/ssh2/test/fixtures/id_rsa",
        "usr/lib/python3.11/test/keycert.pem",
        "usr/local/lib/python3.12/site-packages/tornado/test/test.key",
        "root/.cargo/registry/src/index/openssl-0.10/test/key.pem",
        "usr/share/go-1.19/src/crypto/tls/testdata/example-key.pem",
    ] {
        assert!(!found(place), "{place}");
    }
    for place in [
        "app/tests/key.pem",
        "app/node_modules/ssh2/lib/id_rsa",
        "app/my_node_modules/test/key.pem",
        "usr/lib/python3.11/test",
        "root/.ssh/id_rsa",
    ] {
        assert!(found(place), "{place}");
    }
    let emulator = [
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2",
        "UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    ];
    let account = |key: &str| rule_of(&format!("AccountKey={key}"), "app/a.js", Origin::File);
    assert_eq!(account(&emulator.concat()), [""; 0]);
    assert_eq!(account(&emulator.concat().replace("vdM0", "vdM1")), ["azure-storage-key"]);
}

#[test]
fn layers_are_searched_with_the_line_and_without_the_secret() {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, text) in
        [("etc/motd", "hello\n".to_owned()), ("root/key.pem", format!("\n\n{}", key()))]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        layer.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let (found, digest) = search_layer(&layer[..], &Task::silent()).unwrap();
    assert_eq!(digest, Digest::of(&layer));
    let [secret] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*secret.place, secret.line), ("root/key.pem", 3));
    assert!(!format!("{secret:?}").contains("MIGH"));
    let allows = |list: &str| AllowList::parse(list).unwrap().allows(secret);
    assert!(allows("private-key root/*.pem # ours"));
    assert!(allows("* /root/key.pem") && allows("private-key"));
    assert!(!allows("npm-token root/*") && !allows("private-key etc/*") && !allows("# nothing"));
    assert!(!allows("private-key root/*.key") && allows("private-key *o*/k*y.p*m"));
    assert!(AllowList::parse("no-such-rule *").unwrap_err().contains("line 1"));
}
