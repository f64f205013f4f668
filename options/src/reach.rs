use std::path::PathBuf;
use std::time::Duration;

use registry_client::Credential;

/// How registries are reached; each flag holds for the registries of one command.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// `--tls-verify`
    pub tls_verify: Option<bool>,
    /// `--creds`
    pub credential: Option<Credential>,
    /// `--authfile`, where it is not the global one
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`
    pub cert_dir: Option<PathBuf>,
    /// `--retry-times`: how often a request that failed for a temporary reason is repeated
    pub retries: Option<u32>,
    /// `--retry-delay`: the pause before the first retry
    pub retry_delay: Option<Duration>,
    /// `--daemon-host`
    pub daemon_host: Option<String>,
    /// Whether `cert_dir` and `tls_verify` apply to a Docker daemon
    pub daemon_certs: bool,
    /// `--shared-blob-dir`
    pub shared_blob_dir: Option<PathBuf>,
    /// `--no-sync`
    pub unsynced: bool,
}
