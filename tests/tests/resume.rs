//! A push that was killed goes on where the registry is.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::registry::DockerRegistry;
use e2e::{Bench, Ran, run};
use registry_server::{Effect, Fault, Options, Registry};

/// 80 MiB go in ten parts.
const PART: u64 = 8 << 20;
const SIZE: usize = 10 * PART as usize;

fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        bytes.extend_from_slice(&words.next().unwrap().to_le_bytes());
    }
    bytes
}

/// Waits until so much of a blob has come to a place.
fn wait_for(what: &str, arrived: impl Fn() -> bool) {
    let began = Instant::now();
    while !arrived() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How much of an upload has arrived, as the push remembers it.
fn arrived(cache: &Path) -> u64 {
    let files = walkdir::WalkDir::new(cache).into_iter().filter_map(Result::ok);
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let sent = texts.filter_map(|text| {
        serde_json::from_str::<serde_json::Value>(&text).ok()?.get("sent")?.as_u64()
    });
    sent.max().unwrap_or(0)
}

fn copy(bench: &Bench, from: &str, to: &str) -> Command {
    let mut command = bench.command("rcopy");
    let cache = bench.path().join("cache");
    command.env("XDG_CACHE_HOME", cache).args(["--log", "registry_client=debug", "copy", from, to]);
    command
}

/// How far the registry was when the push went on, as the log says.
fn went_on_at(ran: &Ran) -> u64 {
    let line = ran.stderr.lines().find(|line| line.contains("uploading in parts")).unwrap();
    let plain: String = line.chars().filter(|c| !c.is_control()).collect();
    let sent = plain.split("sent").nth(1).unwrap();
    let digits: String = sent.chars().skip_while(|c| *c != '=').skip(1).collect();
    // The name of the field may be shown in another colour than its value.
    let digits = digits.trim_start_matches("[0m").trim_start();
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn a_killed_push_goes_on_where_the_registry_is() {
    let bench = Bench::new();
    let source = Registry::start(Options::default()).unwrap();
    let ours = Registry::start(Options::default()).unwrap();
    let image = source.put_image("big", "1", &[&noise()]).unwrap();
    let blob = "*/blobs/sha256:*";
    let from = format!("docker://{}/big:1", source.address());
    let theirs = DockerRegistry::start();
    let mut places = vec![ours.address()];
    places.extend(theirs.as_ref().map(|theirs| theirs.address.clone()));
    for address in places {
        let to = format!("docker://{address}/mirror/big:1");
        // The source stops after nine parts of ten; the config has not so many bytes.
        source.fault(Fault::times(2, "GET", blob, Effect::Stall(9 * PART)));
        let mut child =
            copy(&bench, &from, &to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let cache = bench.path().join("cache");
        wait_for("nine parts", || arrived(&cache) >= 9 * PART);
        child.kill().unwrap();
        child.wait().unwrap();
        source.heal();
        let ran = run(&mut copy(&bench, &from, &to)).ok();
        let sent = SIZE as u64 - went_on_at(&ran);
        assert!(sent * 100 < 15 * SIZE as u64, "{sent} bytes went to {address} again");
        let found = bench.rcopy(["digest", &to]).ok();
        assert_eq!(found.text(), image.digest.to_string());
        bench.rcopy(["copy", &to, "oci:check:big"]).ok();
    }
}
