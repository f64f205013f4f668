//! policy.json.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(sign::Policy::read("policy.json", bytes)));
