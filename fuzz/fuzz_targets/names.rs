//! References, digests, platforms, locations, ranges of versions, parts of mirrors.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<image::Reference>() {
        assert_eq!(reference.to_string().parse::<image::Reference>().ok(), Some(reference));
    }
    if let Ok(digest) = text.parse::<image::Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let _ = text.parse::<image::Platform>();
    if let Ok(location) = text.parse::<transport::Location>() {
        let again = location.to_string().parse::<transport::Location>();
        assert_eq!(again.ok(), Some(location));
    }
    let _ = text.parse::<transport::sync::Shard>();
    if let Ok(range) = text.parse::<transport::sync::Versions>() {
        let _ = range.contains(text);
    }
});
