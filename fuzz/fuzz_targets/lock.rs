//! Lock files.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(lock) = builder::Lock::parse(text, "rbuild.lock") {
        let _ = lock.sources().count();
    }
});
