/// How one registry, or one part of it, is reached; the first rule that fits wins, longest
/// prefix first. Expresses what registries.conf (version 2) and certs.d directories say.
#[derive(Debug, Clone, Default)]
pub struct HostRule {
    /// What the rule is for: `registry.example:5000`, `registry.example/team`, `*.example`.
    pub prefix: String,
    /// How TLS is used; `None` is [`Tls::Verify`], and [`Tls::Optional`] for loopback hosts.
    pub tls: Option<Tls>,
    /// Certificate authorities to trust beside the system's: PEM files' content.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate to show, for registries that ask for one.
    pub identity: Option<Identity>,
    /// What replaces the prefix in requests: `mirror.example/proxied`.
    pub location: Option<String>,
    /// Tried in order before the registry itself, for reading only.
    pub mirrors: Vec<Mirror>,
    /// Every use is refused.
    pub blocked: bool,
    /// Uploads go in chunks of this many bytes instead of one request.
    pub chunk: Option<u64>,
    /// Requests at once, where it differs from [`crate::Options::concurrency`].
    pub concurrency: Option<usize>,
}

/// How TLS is used with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tls {
    /// TLS, with a certificate that is verified.
    #[default]
    Verify,
    /// TLS, with any certificate.
    SkipVerify,
    /// TLS with any certificate, or plain HTTP where there is no TLS (`insecure = true`). As
    /// Docker does, this is the default for `localhost`, 127.0.0.0/8 and `[::1]`; there plain
    /// HTTP is tried first.
    Optional,
    /// Plain HTTP.
    Off,
}

/// A certificate to show to a registry and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and what leads to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// A place that has (some of) the content of another.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// What replaces the rule's prefix: `mirror.example/proxied`.
    pub location: String,
    /// How TLS is used; as in [`HostRule::tls`].
    pub tls: Option<Tls>,
    /// What it is asked for.
    pub pull: MirrorPull,
}

/// What a mirror is asked for (`pull-from-mirror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MirrorPull {
    /// Everything.
    #[default]
    All,
    /// Only what is named by digest.
    Digests,
    /// Only what is named by tag.
    Tags,
}
