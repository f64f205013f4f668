//! Credentials: where they go, and what is answered to them.

use super::*;

#[test]
fn logins_under_faults() {
    run(async {
        let token = "/token*";
        let cases: Vec<(&str, Vec<Fault>, Option<Kind>)> = vec![
            ("token 503 once", once("GET", token, Effect::status(503)), None),
            ("token reset once", once("GET", token, Effect::Reset), None),
            ("token cut once", once("GET", token, Effect::Cut(3)), None),
            (
                "unknown lifetime",
                once("GET", token, Effect::json(r#"{"token":"x","expires_in":"soon"}"#)),
                None,
            ),
            ("token silent", always("GET", token, Effect::Silence), Some(Kind::Unavailable)),
            ("token garbage", always("GET", token, Effect::json("<html>")), Some(Kind::Invalid)),
            (
                "token empty",
                always("GET", token, Effect::json(r#"{"token":""}"#)),
                Some(Kind::Invalid),
            ),
            (
                "token with line break",
                always("GET", token, Effect::json(r#"{"token":"a\r\nb"}"#)),
                Some(Kind::Invalid),
            ),
            ("token endless", always("GET", token, Effect::Endless), Some(Kind::Invalid)),
            (
                "token never taken",
                always("GET", token, Effect::json(r#"{"token":"x"}"#)),
                Some(Kind::Denied),
            ),
            ("token 403", always("GET", token, Effect::status(403)), Some(Kind::Denied)),
            (
                "token in circles",
                always("GET", token, Effect::with(302, &[("location", "/token")])),
                Some(Kind::Refused),
            ),
            ("401 without a challenge", once("HEAD", "*", Effect::status(401)), None),
            ("401 for ever without one", always("", "*", Effect::status(401)), Some(Kind::Denied)),
            (
                "401 for ever",
                always(
                    "HEAD",
                    "*",
                    Effect::with(401, &[("www-authenticate", "Bearer realm=\"/token\"")]),
                ),
                Some(Kind::Denied),
            ),
            (
                "another scheme",
                always("HEAD", "*", Effect::with(401, &[("www-authenticate", "Negotiate")])),
                Some(Kind::Denied),
            ),
            (
                "no realm",
                always(
                    "HEAD",
                    "*",
                    Effect::with(401, &[("www-authenticate", "Bearer service=\"x\"")]),
                ),
                Some(Kind::Refused),
            ),
            (
                "file realm",
                always(
                    "HEAD",
                    "*",
                    Effect::with(401, &[("www-authenticate", "Bearer realm=\"file:///x\"")]),
                ),
                Some(Kind::Refused),
            ),
            (
                "basic beside bearer",
                once(
                    "HEAD",
                    "*",
                    Effect::with(
                        401,
                        &[(
                            "www-authenticate",
                            "Basic realm=\"x\", Bearer realm=\"/token\",scope=\"repository:team/app:pull\"",
                        )],
                    ),
                ),
                None,
            ),
        ];
        each(cases, |(case, faults, expected)| async move {
            let registry = guarded(bearer());
            let image = registry.put_image(NAME, "1", &[]).unwrap();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            match (repo(&registry, user()).resolve(&tag("1")).await, expected) {
                (Ok(found), None) => assert_eq!(found, image, "{case}"),
                (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{case}: {error}"),
                (other, _) => panic!("{case}: {other:?}"),
            }
            assert!(registry.requests().len() < 16, "{case}: {}", registry.requests().len());
        })
        .await;
    });
}

#[test]
fn a_password_does_not_leave_for_another_token_service() {
    run(async {
        let thief = guarded(bearer());
        for credential in [user(), Credential::Identity("refresh".into())] {
            let registry = guarded(bearer());
            registry.put_image(NAME, "1", &[]).unwrap();
            // The challenge came without TLS: anybody may have named this host. The loopback
            // address is written differently, as a port alone is no other host.
            let realm = thief.url().replace("127.0.0.1", "localhost");
            let challenge = format!("Bearer realm=\"{realm}/token\",service=\"x\"");
            let effect = Effect::with(401, &[("www-authenticate", &challenge)]);
            registry.fault(Fault::always("", "/v2/*", effect));
            let error = repo(&registry, credential).resolve(&tag("1")).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.to_string().contains("another host"), "{error}");
            assert!(thief.requests().is_empty());
        }
    });
}

#[test]
fn a_password_does_not_follow_the_token_services_redirect() {
    run(async {
        for credential in [user(), Credential::Identity("refresh".into())] {
            let thief = registry();
            let registry = guarded(bearer());
            registry.put_image(NAME, "1", &[]).unwrap();
            let to = format!("{}/token", thief.url());
            registry.fault(Fault::always("", "/token*", Effect::with(307, &[("location", &to)])));
            let error = repo(&registry, credential).resolve(&tag("1")).await.unwrap_err();
            assert!(matches!(error.kind(), Kind::NotFound | Kind::Refused), "{error}");
            for request in thief.requests() {
                assert_eq!(request.header("authorization"), None);
                assert!(!format!("{request:?}").contains("refresh"), "{request:?}");
            }
        }
    });
}

#[test]
fn a_token_that_dies_during_an_upload_costs_one_more_try() {
    run(async {
        let registry = guarded(bearer());
        let client = client(user());
        let bytes = noise(700_000);
        let refused = [("www-authenticate", "Bearer realm=\"/token\",error=\"invalid_token\"")];
        registry.fault(Fault::times(1, "PUT", UPLOADS, Effect::with(401, &refused)));
        assert_eq!(pushed(&registry, &client, &bytes).await.unwrap(), 2);
    });
}

#[test]
fn a_token_without_enough_scope_is_replaced() {
    run(async {
        let registry = guarded(bearer());
        let bytes = noise(10);
        let wants = "Bearer realm=\"/token\",scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\"";
        let client = client(user());
        let repo = client.repo(&name(&registry));
        repo.has_blob(Digest::of(b"")).await.unwrap();
        let effect = Effect::with(403, &[("www-authenticate", wants)]);
        registry.fault(Fault::times(1, "POST", UPLOADS, effect));
        repo.upload(&layer(&bytes), body(&bytes)).await.unwrap();
    });
}
