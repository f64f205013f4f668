//! A repository of the update framework (TUF 1.0) that hands out files.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::log::hex;
use crate::{Ed25519, P256, pem, sha256};

/// What a repository publishes; each part of it can be changed.
#[derive(Clone)]
pub struct Repository {
    /// The version of the root.
    pub root: u64,
    /// Who may sign the root; two of them must.
    pub keyholders: Vec<P256>,
    /// Who signs the root: its keyholders and, after a change, those before them.
    pub signers: Vec<P256>,
    /// The seed of the key that signs everything else.
    pub online: Vec<u8>,
    /// The versions of the timestamp, the snapshot and the targets.
    pub versions: [u64; 3],
    /// When the root, the timestamp, the snapshot and the targets expire.
    pub expires: [&'static str; 4],
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A time at which nothing has expired.
const FAR: &str = "2099-01-01T00:00:00Z";

/// Names in order, two characters escaped.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{}", canonical(value)))
                .collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(","))
        }
        Value::String(text) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        other => other.to_string(),
    }
}

fn id(key: &Value) -> String {
    hex(&sha256(canonical(key).as_bytes()))
}

fn p256(key: &P256) -> Value {
    let public = pem("PUBLIC KEY", &key.spki());
    json!({ "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": { "public": public } })
}

fn ed25519(key: &Ed25519) -> Value {
    json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex(&key.raw()) } })
}

impl Repository {
    /// A repository whose keys follow from a number.
    pub fn new(seed: u8, files: BTreeMap<String, Vec<u8>>) -> Repository {
        let keyholders: Vec<_> = (10..13_u8).map(|key| P256::new(&[seed, key])).collect();
        Repository {
            root: 1,
            signers: keyholders.clone(),
            keyholders,
            online: vec![seed, 20],
            versions: [1, 1, 1],
            expires: [FAR; 4],
            files,
        }
    }

    fn online_key(&self) -> Ed25519 {
        Ed25519::new(&self.online)
    }

    /// The root.
    pub fn root(&self) -> Vec<u8> {
        let online = ed25519(&self.online_key());
        let role = json!({ "keyids": [id(&online)], "threshold": 1 });
        let holders: Vec<_> = self.keyholders.iter().map(p256).collect();
        let ids: Vec<_> = holders.iter().map(id).collect();
        let keys: serde_json::Map<_, _> =
            holders.into_iter().chain([online]).map(|key| (id(&key), key)).collect();
        let signed = json!({
            "_type": "root", "spec_version": "1.0", "version": self.root, "consistent_snapshot": true,
            "expires": self.expires[0], "keys": keys,
            "roles": {
                "root": { "keyids": ids, "threshold": 2 },
                "timestamp": role, "snapshot": role, "targets": role,
            },
        });
        let message = canonical(&signed).into_bytes();
        let mut signatures: Vec<_> = self
            .signers
            .iter()
            .map(|key| json!({ "keyid": id(&p256(key)), "sig": hex(&key.sign(&message)) }))
            .collect();
        // Somebody who has not signed yet.
        signatures.push(json!({ "keyid": "00", "sig": "" }));
        json!({ "signatures": signatures, "signed": signed }).to_string().into_bytes()
    }

    fn sealed(&self, kind: &str, role: usize, field: &str, content: Value) -> Vec<u8> {
        let mut signed = json!({
            "_type": kind, "spec_version": "1.0", "version": self.versions[role],
            "expires": self.expires[role + 1],
        });
        signed[field] = content;
        let key = self.online_key();
        let signature = hex(&key.sign(canonical(&signed).as_bytes()));
        let signatures = json!([{ "keyid": id(&ed25519(&key)), "sig": signature }]);
        json!({ "signatures": signatures, "signed": signed }).to_string().into_bytes()
    }

    /// Every file that the repository serves, by its path.
    pub fn published(&self) -> BTreeMap<String, Vec<u8>> {
        let hashes = |bytes: &[u8]| json!({ "sha256": hex(&sha256(bytes)) });
        let listed = |version: u64, bytes: &[u8]| json!({ "version": version, "length": bytes.len(), "hashes": hashes(bytes) });
        let [_, snapshot_version, targets_version] = self.versions;
        let mut all = BTreeMap::new();
        let mut targets = serde_json::Map::new();
        for (name, bytes) in &self.files {
            let target = json!({ "length": bytes.len(), "hashes": hashes(bytes) });
            targets.insert(name.clone(), target);
            all.insert(format!("targets/{}.{name}", hex(&sha256(bytes))), bytes.clone());
        }
        let targets = self.sealed("targets", 2, "targets", targets.into());
        let meta = json!({ "targets.json": listed(targets_version, &targets) });
        let snapshot = self.sealed("snapshot", 1, "meta", meta);
        let meta = json!({ "snapshot.json": listed(snapshot_version, &snapshot) });
        all.insert("timestamp.json".to_owned(), self.sealed("timestamp", 0, "meta", meta));
        all.insert(format!("{snapshot_version}.snapshot.json"), snapshot);
        all.insert(format!("{targets_version}.targets.json"), targets);
        all.insert(format!("{}.root.json", self.root), self.root());
        all
    }
}
