//! How a command is led through the recorder.

use recorder::Recorder;

use super::mounts::Mounts;
use crate::plan::environment::{PROXY, set_env};
use crate::{Error, Result};

/// The port of the recorder's proxy, in the command's own network.
pub(super) const PORT: u16 = 3128;
/// Where the command finds the certificate of the recorder's authority, and settings of programs
/// that no variable gives it to. Nothing below `/dev` becomes part of a layer.
const CERTIFICATE: &str = "/dev/.rbuild-ca.pem";
const WGETRC: &str = "/dev/.rbuild-wgetrc";
/// The variables that name the certificates a program trusts.
const TRUST: [&str; 10] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
];

/// Mounts the certificate.
pub(super) fn mount(recorder: &Recorder, mounts: &mut Mounts<'_>) -> Result<()> {
    let certificate = recorder.certificate().as_bytes();
    mounts.file(CERTIFICATE, certificate, 0o444, (0, 0), true)?;
    let settings = format!("ca_certificate = {CERTIFICATE}\n");
    mounts.file(WGETRC, settings.as_bytes(), 0o444, (0, 0), true)
}

/// The settings of apt.
pub(super) fn apt_settings() -> String {
    format!("Acquire::https::CAInfo \"{CERTIFICATE}\";\n")
}

/// Sets the variables that lead programs to the proxy and have them trust it.
pub(super) fn environment(env: &mut Vec<String>) {
    let is = |line: &str, name: &str| line.split_once('=').is_some_and(|(own, _)| own == name);
    env.retain(|line| !PROXY.iter().any(|name| is(line, name)));
    let proxy = format!("http://127.0.0.1:{PORT}");
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        set_env(env, name, &proxy);
    }
    for name in ["no_proxy", "NO_PROXY"] {
        set_env(env, name, "localhost,127.0.0.1,::1");
    }
    for name in TRUST {
        set_env(env, name, CERTIFICATE);
    }
    set_env(env, "WGETRC", WGETRC);
    set_env(env, "NODE_USE_ENV_PROXY", "1");
}

/// An error if a recording has no answer to something that was asked.
pub(super) fn complete(recorder: &Recorder, missing: Vec<String>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Unanswered { replayed: recorder.replays(), requests: missing })
}
