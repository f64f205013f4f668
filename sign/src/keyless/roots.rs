//! The trusted root of keyless verification: `trusted_root.json` (sigstore protobuf-specs,
//! `sigstore_trustroot.proto`), or parts of it that a policy names.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::base64::Base64;
use crate::hash::sha256;
use crate::spki::Spki;

/// No trusted root larger than this is read (1 MiB; the public one has some 7 KiB).
pub const MAX_TRUSTED_ROOT: u64 = 1 << 20;

/// A moment: seconds since 1970.
pub(crate) type Seconds = u64;

/// The time in which something is trusted; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    pub(crate) start: Option<Seconds>,
    pub(crate) end: Option<Seconds>,
}

impl Window {
    pub(crate) fn contains(&self, time: Seconds) -> bool {
        self.start.is_none_or(|start| start <= time) && self.end.is_none_or(|end| time <= end)
    }
}

/// A log: of certificates, or of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) id: Vec<u8>,
    pub(crate) key: Spki,
    pub(crate) window: Window,
}

/// Who issues certificates, or timestamps: a chain that ends with what is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// In DER; the last one is the anchor.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) window: Window,
}

/// The trusted root of keyless verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedRoot {
    pub(crate) authorities: Vec<Authority>,
    /// Logs of certificates; `None` where certificates need not be logged.
    pub(crate) certificate_logs: Option<Vec<Log>>,
    /// Logs of signatures; `None` where signatures need not be logged.
    pub(crate) logs: Option<Vec<Log>>,
    pub(crate) timestamps: Vec<Authority>,
    /// The time at which certificates must be valid where neither a log nor a timestamp says when
    /// something was signed; they may have several names then.
    pub(crate) now: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TrustedRootFile {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<LogDocument>,
    #[serde(default)]
    certificate_authorities: Vec<AuthorityDocument>,
    #[serde(default)]
    ctlogs: Vec<LogDocument>,
    #[serde(default)]
    timestamp_authorities: Vec<AuthorityDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogDocument {
    #[serde(rename = "baseUrl")]
    _base_url: Option<String>,
    hash_algorithm: Option<String>,
    public_key: KeyDocument,
    log_id: Option<KeyId>,
    #[serde(rename = "checkpointKeyId")]
    _checkpoint_key_id: Option<KeyId>,
    #[serde(rename = "operator")]
    _operator: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyId {
    key_id: Base64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyDocument {
    raw_bytes: Base64,
    #[serde(rename = "keyDetails")]
    _key_details: String,
    valid_for: Option<WindowDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuthorityDocument {
    #[serde(rename = "subject")]
    _subject: Option<Value>,
    #[serde(rename = "uri")]
    _uri: Option<String>,
    cert_chain: Chain,
    valid_for: Option<WindowDocument>,
    #[serde(rename = "operator")]
    _operator: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    raw_bytes: Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowDocument {
    start: Option<String>,
    end: Option<String>,
}

impl WindowDocument {
    fn read(window: Option<WindowDocument>) -> Result<Window, String> {
        let Some(WindowDocument { start, end }) = window else { return Ok(Window::default()) };
        let seconds = |text: Option<String>| {
            text.map(|text| seconds(&text).ok_or_else(|| format!("{text:?} is not a time")))
                .transpose()
        };
        Ok(Window { start: seconds(start)?, end: seconds(end)? })
    }
}

/// A time in RFC 3339.
pub(crate) fn seconds(text: &str) -> Option<Seconds> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Seconds::try_from(time.as_second()).ok()
}

impl LogDocument {
    fn read(self) -> Result<Log, String> {
        if self.hash_algorithm.as_deref().is_some_and(|hash| hash != "SHA2_256") {
            return Err("a log's tree is not of SHA-256".to_owned());
        }
        let key =
            Spki::read(&self.public_key.raw_bytes.0).map_err(|why| format!("a log: {why}"))?;
        let id = match self.log_id {
            Some(id) => id.key_id.0,
            None => sha256(key.der()).to_vec(),
        };
        Ok(Log { id, key, window: WindowDocument::read(self.public_key.valid_for)? })
    }
}

impl AuthorityDocument {
    fn read(self) -> Result<Authority, String> {
        let chain: Vec<_> =
            self.cert_chain.certificates.into_iter().map(|one| one.raw_bytes.0).collect();
        if chain.is_empty() {
            return Err("an authority has no certificates".to_owned());
        }
        Ok(Authority { chain, window: WindowDocument::read(self.valid_for)? })
    }
}

impl TrustedRoot {
    /// Reads a `trusted_root.json`, versions 0.1 and 0.2.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(json: &[u8]) -> Result<TrustedRoot, String> {
        if json.len() as u64 > MAX_TRUSTED_ROOT {
            return Err(format!("it is larger than {MAX_TRUSTED_ROOT} bytes"));
        }
        let file: TrustedRootFile =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let known = [
            "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "application/vnd.dev.sigstore.trustedroot+json;version=0.2",
            "application/vnd.dev.sigstore.trustedroot.v0.2+json",
        ];
        if !known.contains(&file.media_type.as_str()) {
            return Err(format!("its media type {:?} is not known", file.media_type));
        }
        let logs = |logs: Vec<LogDocument>| {
            logs.into_iter().map(LogDocument::read).collect::<Result<Vec<_>, _>>()
        };
        let authorities = |list: Vec<AuthorityDocument>| {
            list.into_iter().map(AuthorityDocument::read).collect::<Result<_, _>>()
        };
        Ok(TrustedRoot {
            authorities: authorities(file.certificate_authorities)?,
            certificate_logs: Some(logs(file.ctlogs)?),
            logs: Some(logs(file.tlogs)?),
            timestamps: authorities(file.timestamp_authorities)?,
            now: None,
        })
    }

    /// What it holds, in lines for people.
    pub fn summary(&self) -> Vec<String> {
        let count = |logs: &Option<Vec<Log>>| logs.as_ref().map_or(0, Vec::len);
        vec![
            format!("certificate authorities: {}", self.authorities.len()),
            format!("certificate logs: {}", count(&self.certificate_logs)),
            format!("signature logs: {}", count(&self.logs)),
            format!("timestamp authorities: {}", self.timestamps.len()),
        ]
    }
}

/// As the certificate library wants it.
pub(crate) fn since_epoch(time: Seconds) -> Duration {
    Duration::from_secs(time)
}
