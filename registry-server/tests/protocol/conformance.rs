//! Clause by clause: the distribution-spec, in memory and in a directory.

use image::{Algorithm, Digester};

use super::*;

async fn both(check: impl AsyncFn(Http)) {
    let home = tempfile::tempdir().unwrap();
    for options in [Options::default(), in_directory(home.path())] {
        let registry = Registry::start(options).unwrap();
        check(Http::of(&registry)).await;
    }
}

#[tokio::test]
async fn uploads_of_every_form() {
    both(async |http| {
        assert_eq!(http.get("/v2/").await.status(), 200);
        let blob: &[u8] = b"0123456789";
        let digest = Digest::of(blob);
        let at = format!("/v2/a/b/blobs/{digest}");
        assert_eq!(code(http.get(&at).await).await, (404, "BLOB_UNKNOWN".into()));
        assert_eq!(http.blob("a/b", blob).await, 201);
        // POST, then PUT with everything.
        let session = http.send("POST", "/v2/a/c/blobs/uploads/", &[], "").await;
        assert_eq!(session.status(), 202);
        let location = header(&session, "location").to_owned();
        let put = http.send("PUT", &format!("{location}&digest={digest}"), &[], blob).await;
        assert_eq!(put.status(), 201);
        assert_eq!(header(&put, "docker-content-digest"), digest.to_string());
        assert_eq!(header(&put, "location"), format!("/v2/a/c/blobs/{digest}"));
        // In pieces, with a status in between, and one out of order.
        let session = http.send("POST", "/v2/a/d/blobs/uploads/", &[], "").await;
        let location = header(&session, "location").to_owned();
        let piece = |range: &'static str, bytes: &'static [u8]| {
            let (http, location) = (http.clone(), location.clone());
            async move { http.send("PATCH", &location, &[("content-range", range)], bytes).await }
        };
        let first = piece("0-3", b"0123").await;
        assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-3"));
        let wrong = piece("6-9", b"6789").await;
        assert_eq!((wrong.status().as_u16(), header(&wrong, "range")), (416, "0-3"));
        let status = http.get(&location).await;
        assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-3"));
        assert_eq!(piece("4-5", b"45").await.status(), 202);
        let last = [("content-range", "6-9")];
        let put = http.send("PUT", &format!("{location}&digest={digest}"), &last, &blob[6..]).await;
        assert_eq!(put.status(), 201);
        assert_eq!(http.get(&location).await.status(), 404);
        assert_eq!(
            http.get(&format!("/v2/a/d/blobs/{digest}")).await.text().await.unwrap(),
            "0123456789"
        );
        // Cancelled; of another repository; with wrong bytes; nothing at all.
        let session = http.send("POST", "/v2/a/e/blobs/uploads/", &[], "").await;
        let location = header(&session, "location").to_owned();
        let stolen = location.replace("/a/e/", "/a/f/");
        assert_eq!(code(http.get(&stolen).await).await.1, "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(http.send("DELETE", &location, &[], "").await.status(), 204);
        assert_eq!(http.send("PATCH", &location, &[], "x").await.status(), 404);
        let path = format!("/v2/a/e/blobs/uploads/?digest={digest}");
        let wrong = http.send("POST", &path, &[], "other bytes").await;
        assert_eq!(code(wrong).await, (400, "DIGEST_INVALID".into()));
        let odd = http.send("POST", "/v2/a/e/blobs/uploads/?digest=md5:1", &[], "x").await;
        assert_eq!(code(odd).await, (400, "DIGEST_INVALID".into()));
        assert_eq!(http.get(&format!("/v2/a/e/blobs/{digest}")).await.status(), 404);
        assert_eq!(http.blob("a/e", b"").await, 201);
        assert_eq!(http.get("/v2/a/e/blobs/uploads/../../x").await.status(), 404);
        // sha512, in one piece and in two.
        let mut digester = Digester::new(Algorithm::Sha512);
        digester.update(blob);
        let long = digester.finish();
        let path = format!("/v2/a/g/blobs/uploads/?digest={long}");
        assert_eq!(http.send("POST", &path, &[], blob).await.status(), 201);
        assert_eq!(http.get(&format!("/v2/a/g/blobs/{long}")).await.status(), 200);
        assert_eq!(http.get(&format!("/v2/a/g/blobs/{digest}")).await.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn blobs_are_read_in_parts_mounted_and_deleted() {
    both(async |http| {
        let blob: &[u8] = b"0123456789";
        let digest = Digest::of(blob);
        assert_eq!(http.blob("from", blob).await, 201);
        let at = format!("/v2/from/blobs/{digest}");
        let head = http.send("HEAD", &at, &[], "").await;
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10"));
        for (range, status, content, bytes) in [
            ("bytes=2-4", 206, "bytes 2-4/10", "234"),
            ("bytes=7-", 206, "bytes 7-9/10", "789"),
            ("bytes=-2", 206, "bytes 8-9/10", "89"),
            ("bytes=0-99", 206, "bytes 0-9/10", "0123456789"),
            ("bytes=10-", 416, "bytes */10", ""),
            ("bytes=0-1,3-4", 200, "", "0123456789"),
        ] {
            let part = http.send("GET", &at, &[("range", range)], "").await;
            assert_eq!(part.status(), status, "{range}");
            assert_eq!(header(&part, "content-range"), content, "{range}");
            let text = part.text().await.unwrap();
            assert!(status == 416 || text == bytes, "{range} {text}");
        }
        let etag = format!("\"{digest}\"");
        let known = http.send("GET", &at, &[("if-none-match", &etag)], "").await;
        assert_eq!(known.status(), 304);
        let other = [("range", "bytes=2-4"), ("if-range", "\"x\"")];
        assert_eq!(http.send("GET", &at, &other, "").await.status(), 200);
        let mount = |from: &str, digest| format!("/v2/to/blobs/uploads/?mount={digest}{from}");
        let none = Digest::of(b"none");
        for (path, status) in [
            (mount("&from=nobody", digest), 202),
            (mount("&from=from", none), 202),
            (mount("&from=../x", digest), 202),
            (mount("", none), 202),
            (mount("&from=from", digest), 201),
            (mount("", digest), 201),
        ] {
            assert_eq!(http.send("POST", &path, &[], "").await.status(), status, "{path}");
        }
        let there = format!("/v2/to/blobs/{digest}");
        assert_eq!(http.get(&there).await.status(), 200);
        assert_eq!(http.get(&format!("/v2/to/blobs/{none}")).await.status(), 404);
        assert_eq!(http.send("DELETE", &at, &[], "").await.status(), 202);
        assert_eq!(http.send("DELETE", &at, &[], "").await.status(), 404);
        assert_eq!(http.get(&at).await.status(), 404);
        assert_eq!(http.get(&there).await.status(), 200);
        assert_eq!(http.send("PUT", &at, &[], "").await.status(), 405);
        assert_eq!(code(http.get("/v2/to/blobs/sha256:1").await).await.1, "DIGEST_INVALID");
    })
    .await;
}

#[tokio::test]
async fn manifests_tags_and_their_lists() {
    both(async |http| {
        let image = image_of(&[b"one"]);
        let digest = digest_of(&image);
        let lacking = http.manifest("team/app", "v1", &image).await;
        assert_eq!(code(lacking).await, (404, "MANIFEST_BLOB_UNKNOWN".into()));
        assert_eq!(http.get("/v2/team/app/tags/list").await.status(), 404);
        for blob in [CONFIG, b"one"] {
            http.blob("team/app", blob).await;
        }
        let put = http.manifest("team/app", "v1", &image).await;
        assert_eq!(put.status(), 201);
        assert_eq!(header(&put, "docker-content-digest"), digest.to_string());
        assert_eq!(http.manifest("team/app", &digest.to_string(), &image).await.status(), 201);
        let several = format!("{digest}?tag=v3&tag=v2");
        let put = http.manifest("team/app", &several, &image).await;
        let tags: Vec<_> = put.headers().get_all("oci-tag").iter().collect();
        assert_eq!(tags, ["v3", "v2"]);
        for method in ["GET", "HEAD"] {
            for reference in ["v2", &digest.to_string()] {
                let path = format!("/v2/team/app/manifests/{reference}");
                let got = http.send(method, &path, &[], "").await;
                assert_eq!(got.status(), 200);
                assert_eq!(header(&got, "docker-content-digest"), digest.to_string());
                assert_eq!(header(&got, "content-type"), image["mediaType"].as_str().unwrap());
                assert_eq!(header(&got, "content-length"), image.to_string().len().to_string());
            }
        }
        let list = |query: &str| {
            let (http, path) = (http.clone(), format!("/v2/team/app/tags/list{query}"));
            async move {
                let got = http.get(&path).await;
                let link = header(&got, "link").to_owned();
                let list: Value = parsed(got).await;
                (serde_json::from_value::<Vec<String>>(list["tags"].clone()).unwrap(), link)
            }
        };
        assert_eq!(list("").await, (vec!["v1".into(), "v2".into(), "v3".into()], String::new()));
        let (tags, link) = list("?n=2").await;
        assert_eq!(tags, ["v1", "v2"]);
        assert_eq!(link, "</v2/team/app/tags/list?n=2&last=v2>; rel=\"next\"");
        assert_eq!(list("?n=2&last=v2").await, (vec!["v3".into()], String::new()));
        assert_eq!(list("?last=v11").await.0, ["v2", "v3"]);
        assert_eq!(list("?n=0").await.0, [""; 0]);
        let odd = http.get("/v2/team/app/tags/list?n=x").await;
        assert_eq!(code(odd).await, (400, "PAGINATION_NUMBER_INVALID".into()));
        http.blob("zoo", CONFIG).await;
        http.blob("zoo", b"one").await;
        http.manifest("zoo", "v1", &image).await;
        let catalog = http.get("/v2/_catalog?n=1").await;
        assert_eq!(header(&catalog, "link"), "</v2/_catalog?n=1&last=team%2Fapp>; rel=\"next\"");
        let catalog: Value = parsed(http.get("/v2/_catalog?last=team%2Fapp").await).await;
        assert_eq!(catalog, json!({ "repositories": ["zoo"] }));

        let delete = |reference: String| {
            let (http, path) = (http.clone(), format!("/v2/team/app/manifests/{reference}"));
            async move { http.send("DELETE", &path, &[], "").await.status().as_u16() }
        };
        assert_eq!(delete("v3".into()).await, 202);
        assert_eq!(delete("v3".into()).await, 404);
        assert_eq!(list("").await.0, ["v1", "v2"]);
        assert_eq!(delete(digest.to_string()).await, 202);
        assert_eq!(delete(digest.to_string()).await, 404);
        assert_eq!(list("").await.0, [""; 0]);
        // What was deleted is not readable by another door (its bytes may still be stored).
        assert_eq!(http.get(&format!("/v2/team/app/manifests/{digest}")).await.status(), 404);
        assert_eq!(http.get(&format!("/v2/team/app/blobs/{digest}")).await.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn bad_manifests_are_refused() {
    both(async |http| {
        let image = image_of(&[]);
        http.blob("a", CONFIG).await;
        let kind = image["mediaType"].as_str().unwrap();
        let text = image.to_string();
        let both = {
            let mut both = image.clone();
            both["manifests"] = json!([]);
            both.to_string()
        };
        let other = Digest::of(b"other").to_string();
        let large = format!("{text}{}", " ".repeat(5 << 20));
        for (reference, kind, body, status, expected) in [
            ("v1", kind, "not json", 400, "MANIFEST_INVALID"),
            ("v1", kind, "[]", 400, "MANIFEST_INVALID"),
            ("v1", "application/json", text.as_str(), 400, "MANIFEST_INVALID"),
            ("v1", kind, both.as_str(), 400, "MANIFEST_INVALID"),
            ("v1", kind, "{\"layers\": 7}", 400, "MANIFEST_INVALID"),
            (&other, kind, text.as_str(), 400, "DIGEST_INVALID"),
            (".v1", kind, text.as_str(), 400, "TAG_INVALID"),
            ("v1", kind, large.as_str(), 413, "SIZE_INVALID"),
        ] {
            let path = format!("/v2/a/manifests/{reference}");
            let headers = [("content-type", kind)];
            let refused = http.send("PUT", &path, &headers, body.to_owned()).await;
            assert_eq!(code(refused).await, (status, expected.to_owned()), "{expected}");
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": kind, "digest": digest_of(&image), "size": text.len(),
            }],
        });
        let lacking = http.manifest("a", "all", &index).await;
        assert_eq!(code(lacking).await, (404, "MANIFEST_UNKNOWN".into()));
        assert_eq!(http.get("/v2/a/manifests/all").await.status(), 404);
        assert_eq!(http.manifest("a", "v1", &image).await.status(), 201);
        assert_eq!(http.manifest("a", "all", &index).await.status(), 201);
        for path in ["/", "/v1/", "/v2/UPPER/tags/list", "/v2/a/../b/tags/list", "/v2/x"] {
            assert_eq!(http.get(path).await.status(), 404, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn referrers_are_listed_filtered_and_paged() {
    both(async |http| {
        http.blob("a", CONFIG).await;
        let subject = image_of(&[]);
        let subject_digest = digest_of(&subject);
        let attach = |number: u32, kind: &str| {
            let mut artifact = image_of(&[]);
            artifact["artifactType"] = json!(kind);
            artifact["annotations"] = json!({ "number": number.to_string() });
            artifact["subject"] = json!({
                "mediaType": subject["mediaType"], "digest": subject_digest, "size": 1,
            });
            artifact
        };
        let path = format!("/v2/a/referrers/{subject_digest}");
        let list = |query: &str| {
            let (http, path) = (http.clone(), format!("{path}{query}"));
            async move {
                let got = http.get(&path).await;
                assert_eq!(got.status(), 200);
                assert_eq!(header(&got, "content-type"), "application/vnd.oci.image.index.v1+json");
                let link = header(&got, "link").to_owned();
                let filtered = header(&got, "oci-filters-applied").to_owned();
                let index: Value = parsed(got).await;
                (index["manifests"].as_array().unwrap().clone(), link, filtered)
            }
        };
        assert!(list("").await.0.is_empty());
        // Before its subject is there.
        let mut digests = Vec::new();
        for number in 0..4 {
            let kind = if number == 0 { "text/one" } else { "text/two" };
            let artifact = attach(number, kind);
            let digest = digest_of(&artifact).to_string();
            let put = http.manifest("a", &digest, &artifact).await;
            assert_eq!(header(&put, "oci-subject"), subject_digest.to_string());
            digests.push(digest);
        }
        assert_eq!(http.manifest("a", "v1", &subject).await.status(), 201);
        let (all, link, filtered) = list("").await;
        assert_eq!((all.len(), link.as_str(), filtered.as_str()), (4, "", ""));
        let first = all.iter().find(|one| one["digest"] == digests[0].as_str()).unwrap();
        assert_eq!(first["artifactType"], "text/one");
        assert_eq!(first["annotations"]["number"], "0");
        let (one, _, filtered) = list("?artifactType=text/one").await;
        assert_eq!((one.len(), filtered.as_str()), (1, "artifactType"));
        let (page, link, _) = list("?n=3").await;
        assert_eq!(page.len(), 3);
        let next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        let rest: Value = parsed(http.get(&next).await).await;
        assert_eq!(rest["manifests"].as_array().unwrap().len(), 1);
        let delete = format!("/v2/a/manifests/{}", digests[1]);
        assert_eq!(http.send("DELETE", &delete, &[], "").await.status(), 202);
        assert_eq!(list("").await.0.len(), 3);
        assert_eq!(http.get("/v2/a/referrers/x").await.status(), 400);
        let none = format!("/v2/none/referrers/{subject_digest}");
        assert_eq!(http.get(&none).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_outlives_the_server() {
    let home = tempfile::tempdir().unwrap();
    let image = image_of(&[b"one"]);
    let session = {
        let registry = Registry::start(in_directory(home.path())).unwrap();
        let http = Http::of(&registry);
        http.blob("a", CONFIG).await;
        http.blob("a", b"one").await;
        http.manifest("a", "v1", &image).await;
        let session = http.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
        let location = header(&session, "location").to_owned();
        assert_eq!(http.send("PATCH", &location, &[], "01234").await.status(), 202);
        location
    };
    assert!(home.path().join("oci-layout").exists());
    assert!(home.path().join("blobs/sha256").join(Digest::of(b"one").hex()).exists());
    // Another server goes on, also with what was being uploaded.
    let registry = Registry::start(in_directory(home.path())).unwrap();
    let http = Http::of(&registry);
    let got: Value = parsed(http.get("/v2/a/manifests/v1").await).await;
    assert_eq!(got, image);
    assert_eq!(header(&http.get(&session).await, "range"), "0-4");
    let digest = Digest::of(b"0123456789");
    let put = http.send("PUT", &format!("{session}&digest={digest}"), &[], "56789").await;
    assert_eq!(put.status(), 201);
}

#[tokio::test]
async fn documents_of_every_kind_are_kept_whole_or_refused() {
    let registry = Registry::start(Options::default()).unwrap();
    let http = Http::of(&registry);
    assert_eq!(http.blob("a", b"part").await, 201);
    let part = |bytes: &[u8]| json!({ "mediaType": "x", "digest": Digest::of(bytes), "size": 4 });
    let put = async |kind: &str, document: Value| {
        let path = format!("/v2/a/manifests/{}", digest_of(&document));
        let headers = [("content-type", kind)];
        code(http.send("PUT", &path, &headers, document.to_string()).await).await
    };
    let oras = "application/vnd.cncf.oras.artifact.manifest.v1+json";
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let odd = "application/vnd.example.odd+json";
    let layer = |bytes: &[u8]| json!([{ "blobSum": Digest::of(bytes) }]);
    for (kind, whole, torn) in [
        (oras, json!({"blobs": [part(b"part")]}), json!({"blobs": [part(b"none")]})),
        (
            signed,
            json!({"schemaVersion": 1, "fsLayers": layer(b"part")}),
            json!({"schemaVersion": 1, "fsLayers": layer(b"none")}),
        ),
        (odd, json!({"layers": [part(b"part")]}), json!({"layers": [part(b"none")]})),
    ] {
        assert_eq!(put(kind, whole).await.0, 201, "{kind}");
        assert_eq!(put(kind, torn).await, (404, "MANIFEST_BLOB_UNKNOWN".into()), "{kind}");
    }
    let unknown = put(odd, json!({"files": [part(b"part")]})).await;
    assert_eq!(unknown, (400, "MANIFEST_INVALID".into()));
}

#[tokio::test]
async fn an_index_of_what_is_elsewhere_is_refused_whether_it_exists_or_not() {
    let registry = Registry::start(Options::default()).unwrap();
    let http = Http::of(&registry);
    assert_eq!(http.blob("secret", CONFIG).await, 201);
    let image = image_of(&[]);
    assert_eq!(http.manifest("secret", "v1", &image).await.status(), 201);
    let there = digest_of(&image);
    for artifact_type in [None, Some("application/vnd.example.sbom")] {
        let mut answers = Vec::new();
        for child in [there, Digest::of(b"nowhere")] {
            let mut descriptor =
                json!({ "mediaType": image["mediaType"], "digest": child, "size": 300 });
            if let Some(artifact_type) = artifact_type {
                descriptor["artifactType"] = artifact_type.into();
            }
            let index = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [descriptor],
            });
            let refused = http.manifest("public", "v1", &index).await;
            let status = refused.status().as_u16();
            let text = refused.text().await.unwrap().replace(&child.to_string(), "");
            answers.push((status, text));
            // A list of referrers, as clients keep it where there is no referrers API, may be behind.
            let tag = child.to_string().replace(':', "-");
            assert_eq!(http.manifest("public", &tag, &index).await.status(), 201);
        }
        assert_eq!(answers[0].0, 404);
        assert_eq!(answers[0], answers[1]);
    }
}
