//! Layers unpacked into a directory: nothing appears beside it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir().expect("a directory");
    let inside = place.path().join("root");
    std::fs::create_dir(&inside).expect("a directory");
    let root = layers::Root::open(&inside).expect("a root");
    let mut options = layers::ApplyOptions::default();
    options.whiteouts = layers::Whiteouts::Delete;
    let _ = layers::apply(bytes.to_vec().as_slice(), &root, &options);
    let beside = std::fs::read_dir(place.path()).expect("a directory").count();
    assert_eq!(beside, 1, "something was made outside");
});
