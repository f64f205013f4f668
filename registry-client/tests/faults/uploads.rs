//! Uploads that a registry breaks off, refuses or sends elsewhere.

use super::*;

#[test]
fn uploads_that_passing_faults_do_not_stop() {
    run(async {
        let large = 700_000;
        let cases: Vec<(&str, usize, Vec<Fault>, usize)> = vec![
            ("begin 503", large, once("POST", UPLOADS, Effect::status(503)), 1),
            ("begin reset", large, once("POST", UPLOADS, Effect::Reset), 1),
            ("end 503", large, once("PUT", UPLOADS, Effect::status(503)), 2),
            ("end 429", large, once("PUT", UPLOADS, Effect::with(429, &[("retry-after", "0")])), 2),
            ("end reset", large, once("PUT", UPLOADS, Effect::Reset), 2),
            ("end silent", large, once("PUT", UPLOADS, Effect::Silence), 2),
            ("session forgotten", large, once("PUT", UPLOADS, Effect::status(404)), 2),
            ("answer lost", large, once("PUT", UPLOADS, Effect::Forget), 1),
            ("small: end 503", 100, once("PUT", UPLOADS, Effect::status(503)), 1),
            ("small: end reset", 100, once("PUT", UPLOADS, Effect::Reset), 1),
            ("small: answer lost", 100, once("PUT", UPLOADS, Effect::Forget), 1),
            ("small: session forgotten", 100, once("PUT", UPLOADS, Effect::status(404)), 1),
            ("only PATCH", large, once("PUT", UPLOADS, Effect::status(405)), 2),
            ("only PATCH, small", 100, once("PUT", UPLOADS, Effect::status(405)), 1),
            ("only pieces", large, once("PUT", UPLOADS, Effect::status(413)), 2),
        ];
        each(cases, |(case, size, faults, tries)| async move {
            let registry = registry();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            let bytes = noise(size);
            let client = client(Credential::Anonymous);
            let took = pushed(&registry, &client, &bytes).await;
            let took = took.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert_eq!(took, tries, "{case}");
            assert!(registry.content(Digest::of(&bytes)).unwrap().unwrap() == bytes, "{case}");
            let patched = count(&registry, "PATCH", "") > 0;
            assert_eq!(patched, case.starts_with("only"), "{case}");
        })
        .await;
    });
}

#[test]
fn pieces_go_on_where_the_registry_is() {
    run(async {
        for (case, effect) in [
            ("503 before", Effect::status(503)),
            ("reset before", Effect::Reset),
            ("done, answer lost", Effect::Forget),
            ("416", Effect::status(416)),
        ] {
            let registry = registry();
            let fault = Fault::times(1, "PATCH", "*", effect).after(1);
            registry.fault(fault);
            let rule =
                HostRule { prefix: registry.address(), chunk: Some(200_000), ..Default::default() };
            let options = Options { hosts: vec![rule], ..options(Credential::Anonymous) };
            let bytes = noise(700_000);
            let client = Client::new(options).unwrap();
            match pushed(&registry, &client, &bytes).await {
                Ok(_) => {}
                Err(error) => panic!("{case}: {error:?}"),
            }
            assert!(registry.content(Digest::of(&bytes)).unwrap().unwrap() == bytes, "{case}");
        }
    });
}

#[test]
fn uploads_that_end_in_one_clear_error() {
    run(async {
        let location = |url: &str| Effect::Set("location", url.to_owned());
        let other = Digest::of(b"other").to_string();
        let cases: Vec<(&str, Vec<Fault>, Kind, &str)> = vec![
            (
                "no location",
                always("POST", UPLOADS, Effect::Remove("location")),
                Kind::Invalid,
                "Location",
            ),
            ("ftp", always("POST", UPLOADS, location("ftp://x/")), Kind::Refused, "neither http"),
            ("no url", always("POST", UPLOADS, location("http://[")), Kind::Refused, "not a URL"),
            ("denied", always("POST", UPLOADS, Effect::status(403)), Kind::Denied, "403"),
            ("refused", always("PUT", UPLOADS, Effect::status(418)), Kind::Refused, "418"),
            ("503 for ever", always("PUT", UPLOADS, Effect::status(503)), Kind::Unavailable, "503"),
            (
                "something else",
                always("PUT", UPLOADS, Effect::Set("docker-content-digest", other)),
                Kind::Invalid,
                "stored sha256",
            ),
            (
                "never stored",
                always("PUT", UPLOADS, Effect::status(202)),
                Kind::Invalid,
                "does not have it",
            ),
            (
                "redirected",
                always("PUT", UPLOADS, Effect::with(302, &[("location", "/x")])),
                Kind::Refused,
                "redirects a PUT",
            ),
        ];
        for (case, faults, kind, text) in cases {
            for size in [100, 700_000] {
                let registry = registry();
                faults.iter().for_each(|fault| registry.fault(fault.clone()));
                let bytes = noise(size);
                let client = client(Credential::Anonymous);
                let error = pushed(&registry, &client, &bytes).await.expect_err(case);
                let said = task::chain(&error).join(": ");
                assert_eq!(error.kind(), kind, "{case}: {said}");
                assert!(said.contains(text), "{case}: {said}");
                assert!(said.contains("writing blob"), "{said}");
            }
        }
    });
}

#[test]
fn an_upload_of_the_wrong_bytes_is_the_sources_fault() {
    run(async {
        for size in [100, 700_000] {
            let registry = registry();
            let repo = repo(&registry, Credential::Anonymous);
            let bytes = noise(size);
            for wrong in [noise(size - 1), noise(size + 1)] {
                let error = repo.upload(&layer(&bytes), body(&wrong)).await.unwrap_err();
                assert!(matches!(error, Error::Source { .. }), "{size}: {error:?}");
                assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
            }
            let mut wrong = bytes.to_vec();
            wrong[0] ^= 1;
            let error = repo.upload(&layer(&bytes), body(&wrong.into())).await.unwrap_err();
            assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
            let broken: registry_client::Body = Box::pin(futures::stream::iter([
                Ok(bytes.slice(..50)),
                Err(Error::source(task::Cancelled)),
            ]));
            let error = repo.upload(&layer(&bytes), broken).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Cancelled, "{error:?}");
            assert_eq!(repo.has_blob(Digest::of(&bytes)).await.unwrap(), None);
        }
    });
}

#[test]
fn an_upload_to_another_host_goes_without_credentials() {
    run(async {
        let storage = registry();
        let registry = guarded(bearer());
        let url = format!("{}/v2/team/app/blobs/uploads/1?sig=x", storage.url());
        registry.fault(Fault::always("POST", UPLOADS, Effect::with(202, &[("location", &url)])));
        storage.fault(Fault::always("PUT", "*", Effect::status(201)));
        let bytes = noise(500_000);
        registry.put_image(NAME, "1", &[]).unwrap();
        let client = client(user());
        client.repo(&name(&registry)).tags(None).await.unwrap();
        assert_eq!(pushed(&registry, &client, &bytes).await.unwrap(), 1);
        assert_eq!(count(&storage, "PUT", "sig=x&digest="), 1);
        assert_no_secrets(&storage);
        // Nor does it get them by asking.
        storage.heal();
        let asks = [("www-authenticate", "Basic realm=\"storage\"")];
        storage.fault(Fault::always("PUT", "*", Effect::with(401, &asks)));
        let error = pushed(&registry, &client, &bytes).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert_no_secrets(&storage);
    });
}
