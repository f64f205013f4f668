//! Runtime bundles: config.json.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<runtime::oci::Spec>(bytes);
});
