//! Challenges, Link, Content-Range, Range, Retry-After and warnings of registries.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| registry_client::fuzzing::headers(text));
