//! Who may do what: passwords, rules, signed tokens.

#![allow(clippy::disallowed_methods, reason = "tokens need the time of day")]

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use registry_server::{
    Access, Action, Auth, Clock, Immutable, Key, Passwords, Pattern, Rule, Tokens,
};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

fn basic(pair: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

fn rule(repositories: &str, user: &str, allow: &[Action]) -> Rule {
    let (repositories, users) = (vec![Pattern::new(repositories).unwrap()], vec![user.to_owned()]);
    Rule { repositories, users, allow: allow.to_vec() }
}

#[tokio::test]
async fn passwords_and_rules() {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let people = format!("anna:{}\nbert:{}\n", hash("a"), hash("b"));
    let access = Access {
        realm: "here".to_owned(),
        passwords: Some(Passwords::parse(&people).unwrap()),
        tokens: None,
        rules: vec![
            rule("team/**", "anna", &[Action::Pull, Action::Push, Action::Delete]),
            rule("team/**", "bert", &[Action::Pull]),
            rule("public/*", "anonymous", &[Action::Pull]),
            rule("**", "anna", &[Action::Push, Action::Catalog]),
        ],
    };
    let auth = Auth::Access(access);
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let nobody = Http::of(&registry);
    let (anna, bert) = (nobody.authorized(&basic("anna:a")), nobody.authorized(&basic("bert:b")));
    let asked = nobody.get("/v2/").await;
    assert_eq!(asked.status(), 401);
    assert_eq!(header(&asked, "www-authenticate"), "Basic realm=\"here\"");
    for wrong in ["anna:b", "carl:a", "anna:"] {
        assert_eq!(nobody.authorized(&basic(wrong)).get("/v2/").await.status(), 401, "{wrong}");
    }
    for name in ["team/app", "public/app"] {
        assert_eq!(anna.blob(name, CONFIG).await, 201);
        assert_eq!(anna.manifest(name, "v1", &image_of(&[])).await.status(), 201);
        assert_eq!(bert.blob(name, CONFIG).await, 403);
        assert_eq!(nobody.blob(name, CONFIG).await, 401);
    }
    let empty = nobody.authorized(&basic(":"));
    for (http, team, public, catalog) in [
        (&anna, 200, 200, 200),
        (&bert, 200, 200, 403),
        (&nobody, 401, 200, 401),
        (&empty, 401, 200, 401),
    ] {
        assert_eq!(http.get("/v2/team/app/manifests/v1").await.status(), team);
        assert_eq!(http.get("/v2/public/app/manifests/v1").await.status(), public);
        assert_eq!(http.get("/v2/_catalog").await.status(), catalog);
    }
    // Who may push to `public` may not for that pull from `team` by a mount.
    let mount = |http: &Http, to: &str| {
        let path = format!("/v2/{to}/blobs/uploads/?mount={}&from=team/app", Digest::of(CONFIG));
        let http = http.clone();
        async move { http.send("POST", &path, &[], "").await.status() }
    };
    assert_eq!(mount(&anna, "team/other").await, 201);
    assert_eq!(mount(&bert, "team/other").await, 403);
    let delete = |http: &Http| {
        let http = http.clone();
        async move { http.send("DELETE", "/v2/team/app/manifests/v1", &[], "").await.status() }
    };
    assert_eq!(delete(&bert).await, 403);
    assert_eq!(delete(&anna).await, 202);
}

#[tokio::test]
async fn signed_tokens() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k" });
    let tokens = Tokens {
        realm: "https://auth.example/token".to_owned(),
        service: "registry.example".to_owned(),
        issuer: "auth.example".to_owned(),
        keys: Key::parse(&jwk.to_string()).unwrap(),
    };
    let auth = Auth::Access(Access { tokens: Some(tokens), ..Access::default() });
    let timeless = Registry::start(Options { auth: auth.clone(), ..Options::default() });
    assert!(timeless.unwrap_err().to_string().contains("no clock"));
    let clock = Clock::new(SystemTime::now);
    let registry = Registry::start(Options { auth, clock, ..Options::default() }).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |actions: &[&str], age: u64| {
        let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k" }));
        let body = encode(json!({
            "iss": "auth.example", "sub": "anna", "aud": "registry.example",
            "iat": now, "nbf": now - 10, "exp": now + 300 - age,
            "access": [{ "type": "repository", "name": "team/app", "actions": actions }],
        }));
        let signed = format!("{header}.{body}");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
        format!("Bearer {signed}.{signature}")
    };
    let http = Http::of(&registry);
    let asked = http.send("PUT", "/v2/team/app/manifests/v1", &[], "").await;
    assert_eq!(asked.status(), 401);
    assert_eq!(
        header(&asked, "www-authenticate"),
        "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",\
         scope=\"repository:team/app:pull,push\""
    );
    let pusher = http.authorized(&token(&["pull", "push"], 0));
    assert_eq!(pusher.blob("team/app", CONFIG).await, 201);
    assert_eq!(pusher.manifest("team/app", "v1", &image_of(&[])).await.status(), 201);
    assert_eq!(pusher.blob("team/other", CONFIG).await, 401);
    let reader = http.authorized(&token(&["pull"], 0));
    assert_eq!(reader.get("/v2/team/app/manifests/v1").await.status(), 200);
    let more = reader.send("DELETE", "/v2/team/app/manifests/v1", &[], "").await;
    assert!(header(&more, "www-authenticate").contains("insufficient_scope"));
    let old = http.authorized(&token(&["pull"], 400));
    let old = old.get("/v2/team/app/manifests/v1").await;
    assert!(header(&old, "www-authenticate").contains("invalid_token"));
    assert_eq!(http.authorized("Bearer x.y.z").get("/v2/").await.status(), 401);
}

#[tokio::test]
async fn immutable_tags_and_read_only() {
    let immutable = vec![Immutable {
        repositories: vec![Pattern::new("team/**").unwrap()],
        tags: vec![Pattern::new("v*").unwrap()],
        except: vec![Pattern::new("*-dev").unwrap()],
    }];
    let registry = Registry::start(Options { immutable, ..Options::default() }).unwrap();
    let http = Http::of(&registry);
    http.blob("team/app", CONFIG).await;
    http.blob("team/app", b"one").await;
    let (first, second) = (image_of(&[]), image_of(&[b"one"]));
    for tag in ["v1", "v1-dev", "latest"] {
        assert_eq!(http.manifest("team/app", tag, &first).await.status(), 201);
    }
    assert_eq!(http.manifest("team/app", "v1", &first).await.status(), 201);
    let moved = http.manifest("team/app", "v1", &second).await;
    assert_eq!(code(moved).await, (409, "DENIED".into()));
    let by_digest = format!("{}?tag=v1", digest_of(&second));
    assert_eq!(http.manifest("team/app", &by_digest, &second).await.status(), 409);
    for tag in ["v1-dev", "latest"] {
        assert_eq!(http.manifest("team/app", tag, &second).await.status(), 201);
    }
    for reference in ["v1".to_owned(), digest_of(&first).to_string()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        assert_eq!(http.send("DELETE", &path, &[], "").await.status(), 405);
    }
    assert_eq!(registry.tag("team/app", "v1"), Some(digest_of(&first)));
}

#[tokio::test]
async fn a_scoped_catalog_rule_lists_its_scope() {
    let people = format!("anna:{}\n", bcrypt::hash("a", 4).unwrap());
    let access = Access {
        realm: "here".to_owned(),
        passwords: Some(Passwords::parse(&people).unwrap()),
        tokens: None,
        rules: vec![
            rule("**", "anna", &[Action::Pull, Action::Push]),
            rule("team/**", "anna", &[Action::Catalog]),
            rule("team/public*", "anonymous", &[Action::Catalog]),
        ],
    };
    let auth = Auth::Access(access);
    let registry = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let nobody = Http::of(&registry);
    let anna = nobody.authorized(&basic("anna:a"));
    for name in ["team/a", "team/b", "other/c", "team/public", "team/public2"] {
        assert_eq!(anna.blob(name, CONFIG).await, 201);
        assert_eq!(anna.manifest(name, "v1", &image_of(&[])).await.status(), 201);
    }
    let list = async |http: &Http, query: &str| {
        let answer = http.get(&format!("/v2/_catalog{query}")).await;
        let more = answer.headers().contains_key("link");
        (parsed(answer).await["repositories"].clone(), more)
    };
    let team = json!(["team/a", "team/b", "team/public", "team/public2"]);
    assert_eq!(list(&anna, "").await, (team, false));
    assert_eq!(list(&nobody, "").await, (json!(["team/public", "team/public2"]), false));
    // What is not shown neither shortens a page nor ends the list.
    assert_eq!(list(&nobody, "?n=1").await, (json!(["team/public"]), true));
    let rest = list(&nobody, "?n=1&last=team/public").await;
    assert_eq!(rest, (json!(["team/public2"]), false));
}

#[tokio::test]
async fn what_an_immutable_tag_needs_stays() {
    let immutable = vec![Immutable {
        repositories: vec![Pattern::new("team/**").unwrap()],
        tags: vec![Pattern::new("v*").unwrap()],
        except: Vec::new(),
    }];
    let registry = Registry::start(Options { immutable, ..Options::default() }).unwrap();
    let http = Http::of(&registry);
    let (child, free) = (image_of(&[b"layer"]), image_of(&[b"free"]));
    for name in ["team/app", "other"] {
        for blob in [CONFIG, b"layer", b"free"] {
            assert_eq!(http.blob(name, blob).await, 201);
        }
        for (image, tag) in [(&child, None), (&free, Some("latest"))] {
            let digest = digest_of(image).to_string();
            let reference = tag.unwrap_or(&digest);
            assert_eq!(http.manifest(name, reference, image).await.status(), 201);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": child["mediaType"], "digest": digest_of(&child),
                "size": child.to_string().len(),
            }],
        });
        assert_eq!(http.manifest(name, "v1", &index).await.status(), 201);
    }
    let delete = async |name: &str, kind: &str, digest: Digest| {
        http.send("DELETE", &format!("/v2/{name}/{kind}/{digest}"), &[], "").await
    };
    for (kind, digest) in [
        ("blobs", digest_of(&child)),
        ("manifests", digest_of(&child)),
        ("blobs", Digest::of(b"layer")),
        ("blobs", Digest::of(CONFIG)),
    ] {
        let refused = delete("team/app", kind, digest).await;
        assert_eq!(code(refused).await, (405, "UNSUPPORTED".into()), "{kind} {digest}");
        assert_eq!(delete("other", kind, digest).await.status(), 202, "{kind} {digest}");
    }
    assert_eq!(delete("team/app", "blobs", Digest::of(b"free")).await.status(), 202);
    assert_eq!(delete("team/app", "manifests", digest_of(&free)).await.status(), 202);
}

#[tokio::test]
async fn metrics_are_for_those_who_log_in_unless_they_are_public() {
    let people = format!("anna:{}\n", bcrypt::hash("a", 4).unwrap());
    let passwords = Some(Passwords::parse(&people).unwrap());
    let auth = Auth::Access(Access { passwords, ..Access::default() });
    for (metrics_public, expected) in [(false, 401), (true, 200)] {
        let auth = auth.clone();
        let options = Options { auth, metrics: true, metrics_public, ..Options::default() };
        let registry = Registry::start(options).unwrap();
        let nobody = Http::of(&registry);
        assert_eq!(nobody.get("/metrics").await.status(), expected);
        assert_eq!(nobody.authorized(&basic("anna:a")).get("/metrics").await.status(), 200);
        assert_eq!(nobody.get("/healthz").await.status(), 200);
    }
    let open = Registry::start(Options { metrics: true, ..Options::default() }).unwrap();
    assert_eq!(Http::of(&open).get("/metrics").await.status(), 200);
}
