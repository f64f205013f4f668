//! What the tests against the in-process registry share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part; tests"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use image::{Descriptor, MediaType, Repository, Tag};
use registry_client::{Body, Client, Credential, Error, Options, Repo, Target, Timeouts};
use registry_server::{Auth, Registry};

pub const NAME: &str = "team/app";

/// Runs a test under a guard: a wait without an end is a failure.
pub fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guarded = async { tokio::time::timeout(Duration::from_secs(120), test).await };
    runtime.block_on(guarded).expect("the test hangs");
}

/// Options with little patience, but enough for a busy machine.
pub fn options(credential: Credential) -> Options {
    Options {
        keychain: Arc::new(credential),
        retries: 3,
        backoff: Duration::from_millis(1),
        timeouts: Timeouts {
            connect: Duration::from_millis(2000),
            first_byte: Duration::from_millis(2000),
            stall: Duration::from_millis(2000),
            commit: Duration::from_millis(2500),
            document: Duration::from_millis(2000),
            pause: Duration::from_secs(2),
        },

        ..Options::default()
    }
}

pub fn client(credential: Credential) -> Client {
    Client::new(options(credential)).unwrap()
}

pub fn registry() -> Registry {
    Registry::start(registry_server::Options::default()).unwrap()
}

pub fn guarded(auth: Auth) -> Registry {
    Registry::start(registry_server::Options { auth, ..Default::default() }).unwrap()
}

pub fn basic() -> Auth {
    Auth::Basic { username: "user".into(), password: "secret".into() }
}

pub fn bearer() -> Auth {
    Auth::Bearer {
        username: "user".into(),
        password: "secret".into(),
        refresh_token: "refresh".into(),
        anonymous_pull: false,
        lifetime: Duration::from_secs(300),
    }
}

pub fn user() -> Credential {
    Credential::Basic { username: "user".into(), password: "secret".into() }
}

pub fn name(registry: &Registry) -> Repository {
    Repository::new(&registry.address(), NAME).unwrap()
}

pub fn repo(registry: &Registry, credential: Credential) -> Repo {
    client(credential).repo(&name(registry))
}

pub fn tag(text: &str) -> Target {
    Target::Tag(text.parse::<Tag>().unwrap())
}

/// Bytes that are the same nowhere near.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect::<Vec<_>>().into()
}

pub fn layer(bytes: &Bytes) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER, bytes)
}

/// A body of 64 KiB chunks.
pub fn body(bytes: &Bytes) -> Body {
    let chunks: Vec<_> = bytes.chunks(64 << 10).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    Box::pin(futures::stream::iter(chunks))
}

pub async fn collect(mut body: Body) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

/// Opens and reads a blob.
pub async fn download(repo: &Repo, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    collect(repo.blob(descriptor.digest, Some(descriptor.size), None).await?).await
}

/// How many requests fit.
pub fn count(registry: &Registry, method: &str, part: &str) -> usize {
    let requests = registry.requests();
    requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
}

/// Fails if a secret of the tests reached this server.
pub fn assert_no_secrets(registry: &Registry) {
    for request in registry.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        let everything = format!("{request:?}");
        for secret in ["secret", "dXNlcjpzZWNyZXQ", "refresh", "token-"] {
            assert!(!everything.contains(secret), "{secret} in {request:?}");
        }
    }
}
