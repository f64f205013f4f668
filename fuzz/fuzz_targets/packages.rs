//! Package databases and files of foreign images: the first byte chooses the file, the rest is in it.
#![no_main]
#[path = "../tar.rs"]
mod tar;

const FILES: [&str; 12] = [
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "etc/os-release",
    "usr/share/doc/a/copyright",
    "usr/lib/python3/a.dist-info/METADATA",
    "usr/lib/python3/a.egg-info",
    "usr/lib/node_modules/a/package.json",
    "src/Cargo.lock",
    "usr/bin/a",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, content)) = bytes.split_first() else { return };
    let path = FILES[usize::from(*choice) % FILES.len()];
    let mut layer = tar::header(path.as_bytes(), b'0', &[], content.len()).to_vec();
    layer.extend_from_slice(content);
    layer.resize(layer.len().next_multiple_of(512) + 1024, 0);
    let (found, _) =
        sbom::scan(std::io::Cursor::new(layer), &task::Task::silent()).expect("a sound layer");
    let _ = serde_json::to_vec(&found);
});
