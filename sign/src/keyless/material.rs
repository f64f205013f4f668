//! What a signature with a certificate is verified by.

use serde::Deserialize;
use serde_json::Value;

use super::base64::Base64;
use super::entry::LogEntry;
use super::refusal::{At as _, Refusal, Step, refuse};
use crate::pem;

/// The material to verify a signature with a certificate; nothing in it is trusted yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Material {
    /// The signer's certificate and those that may have issued it, in DER.
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) entries: Vec<LogEntry>,
    /// Responses of timestamp authorities.
    pub(crate) timestamps: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamp {
    signed_timestamp: Base64,
}

impl Material {
    /// The log entries of a bundle.
    ///
    /// # Errors
    /// They are malformed.
    pub(crate) fn entries(entries: Vec<Value>) -> Result<Vec<LogEntry>, Refusal> {
        let entries = entries.into_iter().map(serde_json::from_value::<LogEntry>);
        let entries = entries.collect::<Result<Vec<_>, _>>();
        entries.map_err(|error| format!("its log entry is malformed: {error}")).at(Step::Material)
    }

    /// The log entry beside a signature of the older form.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn entry(annotation: Option<&str>) -> Result<Vec<LogEntry>, Refusal> {
        let entry = annotation.map(LogEntry::of_annotation).transpose().at(Step::Material)?;
        Ok(entry.into_iter().collect())
    }

    /// Of a bundle: step 1.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn of_bundle(
        certificates: Vec<Vec<u8>>,
        entries: Vec<Value>,
        timestamps: Option<Value>,
    ) -> Result<Material, Refusal> {
        let entries = Material::entries(entries)?;
        let timestamps = timestamps.map_or(Ok(Vec::new()), |all| {
            let all: Result<Timestamps, _> = serde_json::from_value(all);
            all.map(|all| all.rfc3161_timestamps.into_iter().map(|one| one.signed_timestamp.0))
                .map(Iterator::collect)
                .map_err(|error| format!("its timestamps are malformed: {error}"))
        });
        let timestamps: Vec<Vec<u8>> = timestamps.at(Step::Material)?;
        // Without a proof there is no verifying that the log kept its promise.
        if entries.iter().any(|entry| !entry.has_proof()) {
            return refuse(Step::Material, "its log entry has no proof of inclusion");
        }
        Ok(Material { certificates, entries, timestamps })
    }

    /// Of the annotations of a signature in the older form: step 1.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn of_annotations(
        certificate: &str,
        chain: Option<&str>,
        entry: Option<&str>,
        timestamp: Option<&str>,
    ) -> Result<Material, Refusal> {
        #[derive(Deserialize)]
        struct TimestampAnnotation {
            #[serde(rename = "SignedRFC3161Timestamp")]
            timestamp: Base64,
        }
        let mut certificates = Vec::new();
        for text in [Some(certificate), chain].into_iter().flatten() {
            let blocks = pem::all(text.as_bytes(), |label| label == "CERTIFICATE");
            let blocks =
                blocks.map_err(|why| format!("its certificate: {why}")).at(Step::Material)?;
            certificates.extend(blocks.into_iter().map(|block| block.bytes.to_vec()));
        }
        let entries = Material::entry(entry)?;
        let timestamp = timestamp.map(serde_json::from_str::<TimestampAnnotation>).transpose();
        let timestamp = timestamp
            .map_err(|error| format!("its timestamp is malformed: {error}"))
            .at(Step::Material)?;
        Ok(Material {
            certificates,
            entries,
            timestamps: timestamp.into_iter().map(|tagged| tagged.timestamp.0).collect(),
        })
    }
}
