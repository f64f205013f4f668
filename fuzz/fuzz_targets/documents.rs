//! Manifests, indexes and configurations keep their bytes.
#![no_main]
use image::{Config, Descriptor, Document, Index, Manifest, MediaType, Node};
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for media_type in [MediaType::OCI_MANIFEST, MediaType::OCI_INDEX] {
        let descriptor = Descriptor::of(media_type, bytes);
        if let Ok(node) = Node::read(descriptor, bytes.to_vec()) {
            assert_eq!(&node.bytes()[..], bytes);
            let _ = node.children();
        }
    }
    let descriptor = Descriptor::of(MediaType::OCI_CONFIG, bytes);
    if let Ok(config) = Document::<Config>::read(descriptor, bytes.to_vec()) {
        let _ = config.platform();
        let _ = config.chain_id();
    }
    let _ = serde_json::from_slice::<Manifest>(bytes);
    let _ = serde_json::from_slice::<Index>(bytes);
});
