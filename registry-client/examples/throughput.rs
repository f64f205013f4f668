//! Times downloading and uploading a blob: `throughput ADDRESS REPOSITORY DIGEST SIZE [ROUNDS]`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]

use std::time::Instant;

use futures::StreamExt;
use image::{Descriptor, MediaType, Repository};
use registry_client::{Client, Options};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let repository = Repository::new(&arguments[1], &arguments[2]).unwrap();
    let (digest, size) = (arguments[3].parse().unwrap(), arguments[4].parse().unwrap());
    let rounds = arguments.get(5).map_or(5, |rounds| rounds.parse().unwrap());
    let started = Instant::now();
    let client = Client::new(Options::default()).unwrap();
    let repo = client.repo(&repository);
    let present = repo.has_blob(digest).await.unwrap();
    println!("first HEAD, connection included: {:?} ({present:?})", started.elapsed());
    let descriptor = Descriptor::new(MediaType::OCI_LAYER, digest, size);
    for _ in 0..rounds {
        let started = Instant::now();
        let mut body = repo.blob(digest, Some(size), None).await.unwrap();
        let (mut bytes, mut chunks) = (0, 0u64);
        while let Some(chunk) = body.next().await {
            bytes += chunk.unwrap().len() as u64;
            chunks += 1;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "down {:.0} MB/s, chunks of {} bytes",
            bytes as f64 / seconds / 1e6,
            bytes / chunks
        );
        let started = Instant::now();
        let other = client.repo(&Repository::new(&arguments[1], "copy/of").unwrap());
        let body = repo.blob(digest, Some(size), None).await.unwrap();
        other.upload(&descriptor, body).await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        println!("copy {:.0} MB/s", size as f64 / seconds / 1e6);
    }
}
