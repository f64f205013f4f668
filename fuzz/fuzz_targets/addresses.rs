//! Addresses of git repositories and of what is downloaded.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| builder::fuzzing::addresses(text));
