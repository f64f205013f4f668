//! Copies an image from one location to another: `copy docker://… oci:…`. For measuring.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::Arc;

use registry_client::{Client, Credential, Options};
use task::{Task, chain};
use transport::at::StoreImage;
use transport::{CopyOptions, Location, Open, Places, Select, Sink, copy};

/// Where `store:` is.
const STORE: &str = "/var/tmp/example-store";

#[tokio::main]
async fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let usage = || "usage: copy FROM TO".to_owned();
    let from = arguments.next().ok_or_else(usage)?;
    let to = arguments.next().ok_or_else(usage)?;
    run(&from, &to).await.map_err(|error| chain(&error).join(": "))
}

async fn run(from: &str, to: &str) -> transport::Result<()> {
    let task = Arc::new(Task::silent());
    let client = || {
        let keychain = Arc::new(Credential::Anonymous);
        Ok(Client::new(Options { keychain, ..Options::default() })?)
    };
    let options = store::Options {
        user_xattr: false,
        boot_id: "example".to_owned(),
        clock: || std::time::UNIX_EPOCH,
        task: Arc::clone(&task),
    };
    let store = || Ok(store::Store::open(STORE.as_ref(), options.clone())?);
    let places = Places { client: &client, store: &store, machine: &transport::Machine::default() };
    let (from, to): (Location, Location) = (from.parse()?, to.parse()?);
    let source = places.source(&from)?;
    let sink: Box<dyn Sink> = match &to {
        Location::Store(name) => {
            let store = store::Store::open(STORE.as_ref(), options.clone());
            let store = store.expect("a store for an example");
            let image = StoreImage::new(&store, Some(name));
            Box::new(image.unpacked(image::Platform::host(), task.later("unpacking")))
        }
        _ => places.sink(&to)?,
    };
    let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
    let root = copy(&*source, &*sink, &Open, &options, &task).await?;
    println!("{}", root.digest);
    Ok(())
}
