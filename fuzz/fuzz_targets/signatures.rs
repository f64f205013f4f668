//! Bundles, payloads, PEM files and keys.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sign::fuzzing::signature(bytes));
