//! Package databases and files of foreign images.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = sbom::scan(std::io::Cursor::new(bytes.to_vec()), &task::Task::silent());
});
