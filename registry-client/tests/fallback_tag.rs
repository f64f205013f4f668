//! Writers of one tag, which has no lock.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use image::{Descriptor, Digest, MediaType, Repository};
use registry_client::{Credential, Repo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A registry that has one tag and no list of referrers. Each write takes effect after its delay.
#[derive(Clone)]
struct Slow {
    content: Arc<Mutex<Option<Vec<u8>>>>,
    delays: Arc<Mutex<Vec<Duration>>>,
}

impl Slow {
    /// The delays are for the first writes, the last one first.
    async fn start(delays: Vec<Duration>) -> (Slow, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let slow = Slow { content: Arc::default(), delays: Arc::new(Mutex::new(delays)) };
        let own = slow.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(stream));
            }
        });
        (slow, address)
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |text| text.trim().parse().unwrap())];
        stream.read_exact(&mut body).await.ok()?;
        let (status, answer) = match head.split(' ').collect::<Vec<_>>()[..] {
            ["put", path, ..] if path.contains("/manifests/") => {
                let delay = self.delays.lock().unwrap().pop();
                tokio::time::sleep(delay.unwrap_or_default()).await;
                *self.content.lock().unwrap() = Some(body);
                ("201 Created", Vec::new())
            }
            ["get", path, ..] if path.contains("/manifests/") => {
                match self.content.lock().unwrap().clone() {
                    Some(content) => ("200 OK", content),
                    None => ("404 Not Found", Vec::new()),
                }
            }
            ["get", "/v2/", ..] => ("200 OK", Vec::new()),
            _ => ("404 Not Found", Vec::new()),
        };
        let kind = MediaType::OCI_INDEX;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&answer).await.ok()
    }
}

#[test]
fn a_writer_who_was_slower_does_not_undo_what_another_has_written() {
    run(async {
        let (_slow, address) = Slow::start([650, 200].map(Duration::from_millis).into()).await;
        let repository = Repository::new(&address, NAME).unwrap();
        let subject = Digest::of(b"subject");
        let repo = || -> Repo { client(Credential::Anonymous).repo(&repository) };
        let referrer = |bytes: &[u8]| Descriptor::of(MediaType::OCI_MANIFEST, bytes);
        let (one, other) = (referrer(b"one"), referrer(b"other"));
        let (first, second) = (repo(), repo());
        let (a, b) =
            tokio::join!(first.add_referrer(subject, &one), second.add_referrer(subject, &other),);
        a.unwrap();
        b.unwrap();
        let listed = repo().tagged_referrers(subject).await.unwrap();
        let mut digests: Vec<_> = listed.iter().map(|entry| entry.digest).collect();
        let mut expected = vec![one.digest, other.digest];
        digests.sort();
        expected.sort();
        assert_eq!(digests, expected);
    });
}
