//! Layers: compressed or not, read entry by entry; indexes of gzip layers, made and read.
#![no_main]
use std::io::Read;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let layer = image::Descriptor::of(image::MediaType::OCI_LAYER_GZIP, bytes);
    let _ = layers::index_gzip(bytes, &layer);
    let _ = layers::LayerTable::of_gzip(bytes, &layer);
    let Ok(plain) = layers::decompress(bytes) else { return };
    let mut entries = layers::LayerEntries::new(plain.take(64 << 20), layers::Limits::default());
    let mut contents = Vec::new();
    while let Ok(Some(_)) = entries.next() {
        contents.clear();
        if (&mut entries).take(4096).read_to_end(&mut contents).is_err() {
            break;
        }
    }
});
