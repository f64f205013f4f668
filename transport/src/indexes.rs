//! Indexes of gzip layers that the store of this machine keeps.

use copy::Indexes;
use image::Digest;
use store::Store;

const SPACE: &str = "gzip-index";
/// Larger indexes are not kept.
const LARGEST: usize = 16 << 20;

/// Keeps the indexes of gzip layers in a store, until its next collections forget them.
#[derive(Debug, Clone)]
pub struct StoreIndexes(Option<Store>);

impl StoreIndexes {
    /// In this store; without one nothing is kept.
    pub fn new(store: Option<&Store>) -> StoreIndexes {
        StoreIndexes(store.cloned())
    }
}

impl Indexes for StoreIndexes {
    fn index(&self, layer: Digest) -> Option<Vec<u8>> {
        self.0.as_ref()?.memo(SPACE, layer.to_string().as_bytes()).ok().flatten()
    }

    fn keep(&self, layer: Digest, index: &[u8]) {
        if let Some(store) = self.0.as_ref().filter(|_| index.len() <= LARGEST) {
            // What is not kept is made again.
            let _ = store.set_memo(SPACE, layer.to_string().as_bytes(), index);
        }
    }
}
