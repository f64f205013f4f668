//! `rcopy explore`: the summary, JSON, the report in a browser, and the browser on a terminal.
#![allow(clippy::unwrap_used, reason = "tests are journeys")]

use std::process::Command;

use e2e::watch::guarded;
use e2e::{Bench, peer};
use serde_json::Value;

/// A layout of two layers: the second overwrites one file and removes another.
fn image(bench: &Bench) -> String {
    let first = e2e::image::Layer::new()
        .dir("etc", 0o755)
        .file("etc/conf", 0o644, &[b'x'; 4000])
        .file("etc/gone", 0o600, &[b'y'; 6000])
        .file("etc/<img src=x onerror=alert(1)>", 0o644, b"hostile")
        .finish();
    let second = e2e::image::Layer::new()
        .file("etc/conf", 0o644, &[b'z'; 5000])
        .file("etc/.wh.gone", 0o644, b"")
        .finish();
    e2e::image::layout(&bench.path().join("image"), "app", &[first, second], |config| {
        config.history = vec![
            image::History { created_by: Some("COPY . /".to_owned()), ..image::History::default() },
            image::History {
                created_by: Some("ENV A=1".to_owned()),
                empty_layer: true,
                ..image::History::default()
            },
            image::History {
                created_by: Some("/bin/sh -c rm /etc/gone".to_owned()),
                ..image::History::default()
            },
        ];
    });
    format!("oci:{}:app", bench.path().join("image").display())
}

#[test]
fn what_is_in_an_image_is_told_in_words_and_json() {
    let bench = Bench::new();
    let image = image(&bench);
    let told = guarded(bench.command("rcopy").args(["explore", &image])).ok();
    for words in [
        "COPY . /",
        "rm /etc/gone",
        "10.0kB of them wasted",
        "/etc/gone  (layer 0, removed in layer 1)",
    ] {
        assert!(told.stdout.contains(words), "{words:?}: {}", told.told());
    }
    let told = guarded(bench.command("rcopy").args(["explore", "--json", &image])).ok();
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(json["wastedBytes"], 10_000);
    assert_eq!(json["fileBytes"], 15_007);
    assert_eq!(json["wasted"][0]["path"], "/etc/gone");
    assert_eq!(json["layers"][1]["step"], "/bin/sh -c rm /etc/gone");
    guarded(bench.command("rcopy").args(["explore", "--max-wasted", "80", &image])).ok();
    guarded(bench.command("rcopy").args(["explore", "--max-wasted", "20", &image]))
        .fails(&["10000 of 15007 bytes", "20 percent"]);
    guarded(bench.command("rcopy").args(["explore", "oci:nowhere"])).fails(&["nowhere"]);
}

#[test]
fn the_report_works_in_a_browser() {
    let bench = Bench::new();
    let image = image(&bench);
    let report = bench.path().join("report.html");
    guarded(bench.command("rcopy").args(["explore", &image, "--html"]).arg(&report)).ok();
    let Some(chromium) = peer("chromium") else { return };
    let mut browser = Command::new(chromium);
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]);
    browser.arg(format!("--user-data-dir={}", bench.path().join("profile").display()));
    browser.env("HOME", bench.path());
    let page = guarded(browser.arg(format!("file://{}", report.display()))).ok();
    let dom = &page.stdout;
    // What the script made of the data, not the data.
    let shown = &dom[..dom.find("<script type=\"application/json\"").unwrap_or(dom.len())];
    for words in [
        "oci:",
        "2 layers",
        "10.0 kB wasted (67 %)",
        "▸ etc",
        "rm /etc/gone",
        "layer 1, removed",
        "layer 1, written again",
    ] {
        assert!(shown.contains(words), "{words:?} is missing: {shown}");
    }
    assert!(!shown.contains("<img"), "a name became markup");
}

#[test]
fn the_browser_runs_on_a_terminal() {
    let Some(script) = peer("script") else { return };
    let bench = Bench::new();
    let image = image(&bench);
    let rcopy = e2e::binary("rcopy");
    // Into the files, open /etc, show what is wasted, quit.
    let keys = "printf 'l'; sleep 0.3; printf 'w'; sleep 0.3; printf 'q'";
    let run = format!("stty rows 30 cols 120; exec {} explore {image}", rcopy.display());
    let line = format!("{{ sleep 1; {keys}; }} | {} -qec '{run}' /dev/null", script.display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).env("TERM", "xterm-256color").env("HOME", bench.path());
    let told = guarded(&mut shell).ok();
    for words in ["Layers", "Files up to layer 1", "etc", "layer 0, removed in 1"] {
        assert!(told.stdout.contains(words), "{words:?} is missing: {}", told.told());
    }
    assert!(told.stdout.contains("\x1b[?1049l"), "the screen is given back");
}
