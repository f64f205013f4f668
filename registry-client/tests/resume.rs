//! Large uploads go on where they broke off: in the process, and in another one.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

mod common;

use std::path::Path;

use bytes::Bytes;
use common::*;
use image::Digest;
use registry_client::{Body, Client, Credential, Error, Options, Resume};
use registry_server::{Effect, Fault, Registry};
use task::{Fault as _, Kind};

const SIZE: usize = 2_000_000;

fn resuming(directory: &Path) -> Client {
    let resume = Some(Resume { directory: directory.to_owned(), from: 500_000 });
    Client::new(Options { resume, retries: 1, ..options(Credential::Anonymous) }).unwrap()
}

/// A body that breaks after some bytes, as when its process is killed.
fn broken_body(bytes: &Bytes, after: usize) -> Body {
    let mut chunks: Vec<_> =
        bytes[..after].chunks(64 << 10).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    chunks.push(Err(Error::source(Killed)));
    Box::pin(futures::stream::iter(chunks))
}

#[derive(Debug, thiserror::Error)]
#[error("killed")]
struct Killed;

impl task::Fault for Killed {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

/// Bytes of the blob that were sent in PATCHes since the log was looked at.
fn sent(registry: &Registry, after: usize) -> u64 {
    let requests = registry.requests();
    let patches = requests.iter().skip(after).filter(|request| request.method == "PATCH");
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap();
        last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
    };
    patches.map(|request| length(request.header("content-range").unwrap())).sum()
}

#[test]
fn an_upload_that_was_cut_off_goes_on_in_another_process() {
    run(async {
        let registry = registry();
        let directory = tempfile::tempdir().unwrap();
        let bytes = noise(SIZE);
        let blob = layer(&bytes);
        let killed = resuming(directory.path()).repo(&name(&registry));
        let error = killed.upload(&blob, broken_body(&bytes, 1_800_000)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let before = registry.requests().len();
        // Another client knows nothing but the directory.
        let next = resuming(directory.path()).repo(&name(&registry));
        next.upload(&blob, body(&bytes)).await.unwrap();
        assert!(registry.content(blob.digest).unwrap().unwrap() == bytes);
        let sent = sent(&registry, before);
        assert!(sent > 0 && sent < SIZE as u64 * 15 / 100, "{sent} bytes");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_no_secrets(&registry);
    });
}

#[test]
fn parts_under_faults() {
    run(async {
        let set = |name, value: &str| Effect::Set(name, value.to_owned());
        let cases: Vec<(&str, Vec<Fault>)> = vec![
            ("503", vec![Fault::times(1, "PATCH", "*", Effect::status(503)).after(3)]),
            ("reset", vec![Fault::times(1, "PATCH", "*", Effect::Reset).after(3)]),
            ("answer lost", vec![Fault::times(1, "PATCH", "*", Effect::Forget).after(3)]),
            ("416", vec![Fault::times(1, "PATCH", "*", Effect::status(416)).after(3)]),
            ("session gone", vec![Fault::times(1, "PATCH", "*", Effect::status(404)).after(3)]),
            ("no parts", vec![Fault::always("PATCH", "*", Effect::status(405))]),
            ("large requests refused", vec![Fault::times(1, "PATCH", "*", Effect::status(413))]),
            ("closing answer lost", vec![Fault::times(1, "PUT", "*", Effect::Forget)]),
            ("closing fails", vec![Fault::times(1, "PUT", "*", Effect::status(500))]),
            (
                "status lost, too",
                vec![
                    Fault::times(1, "PATCH", "*", Effect::Reset).after(3),
                    Fault::times(1, "GET", "*/uploads/*", Effect::status(404)),
                ],
            ),
            (
                "less arrived than was sent",
                vec![Fault::times(1, "PATCH", "*", set("range", "0-99")).after(3)],
            ),
            (
                "nonsense for a status",
                vec![
                    Fault::times(1, "PATCH", "*", Effect::Reset).after(3),
                    Fault::times(1, "GET", "*/uploads/*", set("range", "0-99999999999")),
                ],
            ),
            (
                "large parts wanted",
                vec![Fault::times(1, "POST", "*", set("oci-chunk-min-length", "900000"))],
            ),
        ];
        for (case, faults) in cases {
            let registry = registry();
            let directory = tempfile::tempdir().unwrap();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            let bytes = noise(SIZE);
            let repo = resuming(directory.path()).repo(&name(&registry));
            let mut tries = 0;
            // As a copy does: from the start, as often as the fault may pass.
            loop {
                tries += 1;
                match repo.upload(&layer(&bytes), body(&bytes)).await {
                    Ok(()) => break,
                    Err(error) if error.kind() == Kind::Unavailable && tries < 4 => {}
                    Err(error) => panic!("{case}: {error:?}"),
                }
            }
            let stored = registry.content(Digest::of(&bytes)).unwrap();
            assert!(stored.is_some_and(|stored| stored == bytes), "{case}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{case}");
            if case == "large parts wanted" {
                assert_eq!(count(&registry, "PATCH", ""), 3, "{case}");
            }
        }
    });
}

#[test]
fn what_is_not_what_it_says_is_not_stored() {
    run(async {
        let registry = registry();
        let directory = tempfile::tempdir().unwrap();
        let (bytes, other) = (noise(SIZE), noise(SIZE + 1));
        let repo = resuming(directory.path()).repo(&name(&registry));
        for wrong in [other.clone(), other.slice(..SIZE - 1), Bytes::from(vec![7; SIZE])] {
            let error = repo.upload(&layer(&bytes), body(&wrong)).await.unwrap_err();
            assert!(error.kind() != Kind::Unavailable, "{error}");
            assert!(registry.content(Digest::of(&bytes)).unwrap().is_none());
        }
    });
}
