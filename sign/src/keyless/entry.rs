//! Entries of signature logs: Rekor v1 (a signed promise, an integrated time) and v2 (tiles: a
//! checkpoint, no time).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::base64::{Base64, Number};
use super::checkpoint::Checkpoint;
use super::merkle;
use super::roots::{Log, Seconds};
use crate::hash::sha256;
use crate::pem;

/// A proof with more hashes belongs to no tree.
const MAX_HASHES: usize = 64;

/// An entry as it lies in a bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogEntry {
    #[serde(default)]
    log_index: Number,
    pub(crate) log_id: LogId,
    kind_version: Option<KindVersion>,
    #[serde(default)]
    integrated_time: Number,
    inclusion_promise: Option<Promise>,
    inclusion_proof: Option<Proof>,
    canonicalized_body: Base64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogId {
    pub(crate) key_id: Base64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindVersion {
    kind: String,
    version: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Promise {
    signed_entry_timestamp: Base64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Proof {
    #[serde(default)]
    log_index: Number,
    root_hash: Base64,
    #[serde(default)]
    tree_size: Number,
    #[serde(default)]
    hashes: Vec<Base64>,
    checkpoint: Option<Note>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    envelope: String,
}

/// The annotation that cosign 1 and 2 keep beside a signature: the log's promise alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RekorBundle {
    signed_entry_timestamp: Base64,
    payload: TaggedPayload,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TaggedPayload {
    body: Base64,
    integrated_time: u64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// The signature that a log entry must be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedSignature<'a> {
    /// What the signature was made over.
    pub(crate) signed: &'a [u8],
    /// The content of the envelope, where there is one.
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) signature: &'a [u8],
    /// The certificate, or the key (SubjectPublicKeyInfo) where there is none; in DER.
    pub(crate) verifier: &'a [u8],
}

impl LogEntry {
    /// Reads the annotation beside a signature of the older form.
    ///
    /// # Errors
    /// It is malformed.
    pub(crate) fn of_annotation(json: &str) -> Result<LogEntry, String> {
        let malformed = |error: String| format!("its log entry is malformed: {error}");
        let tagged: RekorBundle =
            serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
        let id = unhex(&tagged.payload.log_id).ok_or_else(|| malformed("the log's id".into()))?;
        let promise = Promise { signed_entry_timestamp: tagged.signed_entry_timestamp };
        Ok(LogEntry {
            log_index: Number(tagged.payload.log_index),
            log_id: LogId { key_id: Base64(id) },
            kind_version: None,
            integrated_time: Number(tagged.payload.integrated_time),
            inclusion_promise: Some(promise),
            inclusion_proof: None,
            canonicalized_body: tagged.payload.body,
        })
    }

    /// When the log says that it took the entry; only to be believed with a promise.
    pub(crate) fn integrated(&self) -> Option<Seconds> {
        let Number(time) = self.integrated_time;
        (self.inclusion_promise.is_some() && time > 0).then_some(time)
    }

    /// Whether the log says anything that can be checked.
    pub(crate) fn has_evidence(&self) -> bool {
        self.inclusion_proof.is_some() || self.inclusion_promise.is_some()
    }

    /// Whether there is a proof of inclusion.
    pub(crate) fn has_proof(&self) -> bool {
        self.inclusion_proof.is_some()
    }

    /// The log's promise, where there is one.
    ///
    /// # Errors
    /// The log did not make it.
    pub(crate) fn check_promise(&self, log: &Log) -> Result<(), String> {
        let Some(promise) = &self.inclusion_promise else { return Ok(()) };
        let id: String = self.log_id.key_id.0.iter().map(|byte| format!("{byte:02x}")).collect();
        // The canonical form of RFC 8785: names in order, nothing between.
        let signed = format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{id}","logIndex":{}}}"#,
            STANDARD.encode(&self.canonicalized_body.0),
            self.integrated_time.0,
            self.log_index.0
        );
        match log.key.verifies(signed.as_bytes(), &promise.signed_entry_timestamp.0) {
            true => Ok(()),
            false => Err("the log did not sign the promise of its entry".to_owned()),
        }
    }

    /// That the entry is in the tree which the proof names.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check_inclusion(&self) -> Result<(), String> {
        let Some(proof) = &self.inclusion_proof else { return Ok(()) };
        if proof.hashes.len() > MAX_HASHES {
            return Err("its proof of inclusion is too long".to_owned());
        }
        let hashes = proof.hashes.iter().map(|hash| merkle::Hash::try_from(hash.0.as_slice()));
        let hashes = hashes.collect::<Result<Vec<_>, _>>();
        let hashes = hashes.map_err(|_| "a hash of its proof has the wrong length")?;
        let leaf = merkle::leaf(&self.canonicalized_body.0);
        let root = merkle::root(leaf, proof.log_index.0, proof.tree_size.0, &hashes);
        match root.is_some_and(|root| root[..] == proof.root_hash.0[..]) {
            true => Ok(()),
            false => Err("the log's tree does not have its entry".to_owned()),
        }
    }

    /// That the log signed for the tree which the proof names.
    ///
    /// # Errors
    /// It did not.
    pub(crate) fn check_checkpoint(&self, log: &Log) -> Result<(), String> {
        let Some(proof) = &self.inclusion_proof else { return Ok(()) };
        let note = proof.checkpoint.as_ref().ok_or("its proof has no checkpoint")?;
        let checkpoint = Checkpoint::read(&note.envelope)
            .map_err(|why| format!("its checkpoint is malformed: {why}"))?;
        if !checkpoint.is_signed_by(&log.key) {
            return Err("the log did not sign its checkpoint".to_owned());
        }
        let same =
            checkpoint.root[..] == proof.root_hash.0[..] && checkpoint.size == proof.tree_size.0;
        match same {
            true => Ok(()),
            false => Err("its checkpoint is of another tree than its proof".to_owned()),
        }
    }

    /// That the entry is about this signature, this content and this signer.
    ///
    /// # Errors
    /// It is about something else.
    pub(crate) fn check_body(&self, signature: &LoggedSignature<'_>) -> Result<(), String> {
        let body: Body = serde_json::from_slice(&self.canonicalized_body.0)
            .map_err(|error| format!("its log entry is malformed: {error}"))?;
        if let Some(KindVersion { kind, version }) = &self.kind_version
            && (*kind != body.kind || *version != body.api_version)
        {
            return Err("its log entry is of another kind than it says".to_owned());
        }
        let malformed = |error: serde_json::Error| format!("its log entry is malformed: {error}");
        let spec = body.spec;
        let facts = match (body.kind.as_str(), body.api_version.as_str()) {
            ("hashedrekord", "0.0.1") => {
                serde_json::from_value::<HashedRecord>(spec).map_err(malformed)?.facts()?
            }
            ("dsse", "0.0.1") => {
                serde_json::from_value::<Dsse>(spec).map_err(malformed)?.facts()?
            }
            ("intoto", "0.0.2") => {
                serde_json::from_value::<InToto>(spec).map_err(malformed)?.facts()?
            }
            ("hashedrekord", "0.0.2") => {
                serde_json::from_value::<HashedRecord2>(spec).map_err(malformed)?.facts()
            }
            ("dsse", "0.0.2") => {
                serde_json::from_value::<Dsse2>(spec).map_err(malformed)?.facts()?
            }
            (kind, version) => {
                let kind: String = kind.chars().take(50).collect();
                return Err(format!("its log entry is a {kind:?} of version {version:?}"));
            }
        };
        facts.are_of(signature)
    }
}

/// What an entry says.
#[derive(Debug)]
struct Facts {
    hash: Vec<u8>,
    /// Whether the hash is of the envelope's payload, not of what is signed.
    of_payload: bool,
    signature: Vec<u8>,
    verifier: Vec<u8>,
}

impl Facts {
    fn are_of(&self, logged: &LoggedSignature<'_>) -> Result<(), String> {
        let content = match (self.of_payload, logged.payload) {
            (true, None) => return Err("its log entry is about an envelope".to_owned()),
            (true, Some(payload)) => payload,
            (false, _) => logged.signed,
        };
        if self.hash != sha256(content) {
            return Err("its log entry is about other content".to_owned());
        }
        if self.signature != logged.signature {
            return Err("its log entry is about another signature".to_owned());
        }
        if self.verifier != logged.verifier {
            return Err("its log entry is about another signer".to_owned());
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    api_version: String,
    kind: String,
    spec: Value,
}

#[derive(Deserialize)]
struct HexHash {
    algorithm: String,
    value: String,
}

impl HexHash {
    fn read(&self) -> Result<Vec<u8>, String> {
        match self.algorithm.as_str() {
            "sha256" => {
                unhex(&self.value).ok_or_else(|| "its log entry's hash is not a hash".into())
            }
            other => Err(format!("its log entry is made with the hash {other:?}")),
        }
    }
}

#[derive(Deserialize)]
struct HashedRecord {
    data: RecordData,
    signature: RecordSignature,
}

#[derive(Deserialize)]
struct RecordData {
    hash: HexHash,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordSignature {
    content: Base64,
    public_key: RecordKey,
}

#[derive(Deserialize)]
struct RecordKey {
    content: Base64,
}

impl HashedRecord {
    fn facts(self) -> Result<Facts, String> {
        Ok(Facts {
            hash: self.data.hash.read()?,
            of_payload: false,
            signature: self.signature.content.0,
            verifier: verifier(&self.signature.public_key.content.0)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload_hash: HexHash,
    signatures: Vec<DsseSignature>,
}

#[derive(Deserialize)]
struct DsseSignature {
    signature: Base64,
    verifier: Base64,
}

impl Dsse {
    fn facts(self) -> Result<Facts, String> {
        let [signature] = <[_; 1]>::try_from(self.signatures).map_err(|_| not_one())?;
        Ok(Facts {
            hash: self.payload_hash.read()?,
            of_payload: true,
            signature: signature.signature.0,
            verifier: verifier(&signature.verifier.0)?,
        })
    }
}

#[derive(Deserialize)]
struct InToto {
    content: InTotoContent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InTotoContent {
    envelope: InTotoEnvelope,
    payload_hash: HexHash,
}

#[derive(Deserialize)]
struct InTotoEnvelope {
    signatures: Vec<InTotoSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InTotoSignature {
    /// In base64 twice.
    sig: Base64,
    public_key: Base64,
}

impl InToto {
    fn facts(self) -> Result<Facts, String> {
        let [signature] =
            <[_; 1]>::try_from(self.content.envelope.signatures).map_err(|_| not_one())?;
        let twice = STANDARD.decode(&signature.sig.0);
        Ok(Facts {
            hash: self.content.payload_hash.read()?,
            of_payload: true,
            signature: twice.map_err(|error| format!("its log entry is malformed: {error}"))?,
            verifier: verifier(&signature.public_key.0)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedRecord2 {
    hashed_rekord_v002: HashedRecord2Inner,
}

#[derive(Deserialize)]
struct HashedRecord2Inner {
    data: RawHash,
    signature: RawSignature,
}

#[derive(Deserialize)]
struct RawHash {
    algorithm: String,
    digest: Base64,
}

#[derive(Deserialize)]
struct RawSignature {
    content: Base64,
    verifier: RawVerifier,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVerifier {
    x509_certificate: Option<RawBytes>,
    public_key: Option<RawBytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes {
    raw_bytes: Base64,
}

impl RawVerifier {
    fn bytes(self) -> Vec<u8> {
        self.x509_certificate.or(self.public_key).map(|raw| raw.raw_bytes.0).unwrap_or_default()
    }
}

impl HashedRecord2 {
    fn facts(self) -> Facts {
        let HashedRecord2Inner { data, signature } = self.hashed_rekord_v002;
        // Another function's hash is not equal.
        let hash = if data.algorithm == "SHA2_256" { data.digest.0 } else { Vec::new() };
        let verifier = signature.verifier.bytes();
        Facts { hash, of_payload: false, signature: signature.content.0, verifier }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse2 {
    dsse_v002: Dsse2Inner,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse2Inner {
    payload_hash: RawHash,
    signatures: Vec<RawSignature>,
}

impl Dsse2 {
    fn facts(self) -> Result<Facts, String> {
        let Dsse2Inner { payload_hash, signatures } = self.dsse_v002;
        let [signature] = <[_; 1]>::try_from(signatures).map_err(|_| not_one())?;
        let sha256 = payload_hash.algorithm == "SHA2_256";
        let hash = if sha256 { payload_hash.digest.0 } else { Vec::new() };
        let verifier = signature.verifier.bytes();
        Ok(Facts { hash, of_payload: true, signature: signature.content.0, verifier })
    }
}

fn not_one() -> String {
    "its log entry has not exactly one signature".to_owned()
}

/// A certificate or key in PEM.
fn verifier(text: &[u8]) -> Result<Vec<u8>, String> {
    let wanted = |label: &str| matches!(label, "CERTIFICATE" | "PUBLIC KEY");
    let block = pem::find(text, wanted);
    let block = block.map_err(|why| format!("its log entry's signer is malformed: {why}"))?;
    Ok(block.bytes.to_vec())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        })
        .collect()
}
