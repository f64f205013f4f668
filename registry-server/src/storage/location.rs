//! Which bucket of an object store a registry keeps its content in.

use serde::Deserialize;

/// Which bucket, and how it is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bucket {
    /// The bucket's name.
    pub bucket: String,
    /// What the names of all objects begin with.
    #[serde(default)]
    pub prefix: String,
    /// The URL of a store that is not AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether the bucket is part of the host name rather than of the path.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// Whether clients read blobs from the bucket: a GET of a blob is answered with a redirect to a
    /// signed URL, which is valid for 20 minutes.
    #[serde(default)]
    pub redirect: bool,
    /// `AWS_ACCESS_KEY_ID` and its like, for what is not said above; the caller takes them from the
    /// environment. Without keys, the machine's or pod's own identity is used.
    #[serde(skip)]
    pub settings: Vec<(String, String)>,
}
