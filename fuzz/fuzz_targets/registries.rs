//! registries.conf.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("registries.conf");
    std::fs::write(&file, text).expect("a file");
    let _ = registry_client::Registries::read(&[file]);
});
