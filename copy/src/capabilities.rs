/// What a kind of place can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Indexes, not only single images.
    pub indexes: bool,
    /// Manifests that refer to an image, found by [`crate::Source::referrers`].
    pub referrers: bool,
    /// Tags made of digests, by which signatures of the older form are found.
    pub digest_tags: bool,
}

impl Capabilities {
    /// Registries and layouts: everything there is.
    pub const ALL: Capabilities = Capabilities { digest_tags: true, ..Capabilities::REFERRERS };
    /// Archives of layouts and the store: an image with what refers to it.
    pub const REFERRERS: Capabilities = Capabilities { referrers: true, ..Capabilities::INDEXES };
    /// Directories: an image or an index.
    pub const INDEXES: Capabilities = Capabilities { indexes: true, ..Capabilities::ONE_IMAGE };
    /// Docker's archives and daemon, the storage of podman: one image and nothing beside it.
    pub const ONE_IMAGE: Capabilities =
        Capabilities { indexes: false, referrers: false, digest_tags: false };
}
