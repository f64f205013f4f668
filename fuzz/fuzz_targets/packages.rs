//! Package databases and files of foreign images: the first byte chooses the file, the rest is in it.
#![no_main]

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

/// A tar header of a file that anybody may execute.
fn header(path: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, content)) = bytes.split_first() else { return };
    let path = FILES[usize::from(*choice) % FILES.len()];
    let mut layer = header(path, content.len()).to_vec();
    layer.extend_from_slice(content);
    layer.resize(layer.len().next_multiple_of(512) + 1024, 0);
    let (found, _) = sbom::scan(std::io::Cursor::new(layer), &task::Task::silent()).expect("a sound layer");
    let _ = serde_json::to_vec(&found);
});
