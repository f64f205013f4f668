//! What a travelling cache consists of.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| builder::fuzzing::cache(bytes));
