//! Signatures with certificates, each part of which can be changed, and their verdicts.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "test support fails loudly")]
#![allow(dead_code, reason = "no test needs all of it")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use serde_json::{Value, json};
use sign::keyless::Step;
use sign::{
    Candidate, Demand, Evidence, IdentityRule, Matching, Mismatch, SignedIdentity, Signer, Signers,
    TrustedRoot, verify,
};
use standins::{BEGIN, Certificate, DAY, Log, P256, San, World};

pub(crate) const WORKFLOW: &str =
    "https://github.com/team/app/.github/workflows/release.yml@refs/heads/main";
pub(crate) const ISSUER: &str = "https://token.actions.example";
pub(crate) const NOW: u64 = BEGIN + 30 * DAY;

pub(crate) fn image() -> Digest {
    Digest::of(b"the image")
}

pub(crate) fn statement() -> Vec<u8> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": image().hex() } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
    });
    statement.to_string().into_bytes()
}

pub(crate) fn pae(payload: &[u8]) -> Vec<u8> {
    sign::dsse::pre_authentication_encoding("application/vnd.in-toto+json", payload)
}

/// The parts of a signature; each can be changed.
pub(crate) struct Recipe<'a> {
    pub(crate) world: &'a World,
    pub(crate) certificate: Certificate,
    pub(crate) log: Option<&'a Log>,
    /// When the log took it, and when the authority saw it.
    pub(crate) integrated: u64,
    pub(crate) stamped: Option<u64>,
    pub(crate) payload: Vec<u8>,
    /// Who signs, if not who holds the certificate.
    pub(crate) signer: P256,
}

pub(crate) fn signer() -> P256 {
    P256::new(b"signer")
}

impl<'a> Recipe<'a> {
    pub(crate) fn new(world: &'a World, log: &'a Log) -> Recipe<'a> {
        let key = signer();
        let mut certificate = Certificate::new(&key, San::Uri(WORKFLOW.to_owned()), ISSUER, NOW);
        certificate.claims = vec![(2, "push".to_owned()), (6, "refs/heads/main".to_owned())];
        let v2 = log.version == standins::Version::V2;
        Recipe {
            world,
            certificate,
            log: Some(log),
            integrated: NOW + 5,
            stamped: v2.then_some(NOW + 5),
            payload: statement(),
            signer: key,
        }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.world.fulcio.issue(&self.certificate, &self.world.certificate_log)
    }

    pub(crate) fn bundle(&self) -> Value {
        self.bundle_with(&self.der())
    }

    pub(crate) fn bundle_with(&self, der: &[u8]) -> Value {
        let signature = self.signer.sign(&pae(&self.payload));
        let entry = self.log.map(|log| {
            let body = log.envelope_body(&self.payload, &signature, der);
            log.add(&body, self.integrated)
        });
        let stamp = self.stamped.map(|time| {
            let response = self.world.timestamps.stamp(&signature, time);
            json!({ "signedTimestamp": STANDARD.encode(response) })
        });
        json!({
            "mediaType": sign::bundle::MEDIA_TYPE,
            "verificationMaterial": {
                "certificate": { "rawBytes": STANDARD.encode(der) },
                "tlogEntries": entry.into_iter().collect::<Vec<_>>(),
                "timestampVerificationData": {
                    "rfc3161Timestamps": stamp.into_iter().collect::<Vec<_>>(),
                },
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(&self.payload),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{ "sig": STANDARD.encode(signature) }],
            },
        })
    }
}

pub(crate) fn rule() -> IdentityRule {
    IdentityRule {
        subjects: vec![Matching::Exact(WORKFLOW.to_owned())],
        issuer: Some(Matching::Exact(ISSUER.to_owned())),
        claims: BTreeMap::from([("githubWorkflowRef".to_owned(), "refs/heads/main".to_owned())]),
    }
}

pub(crate) fn demand_of(root: &Value, rule: IdentityRule) -> Demand {
    let root = TrustedRoot::read(root.to_string().as_bytes()).unwrap();
    let signers = Signers::certificates(vec![rule], root);
    Demand { signers, identity: SignedIdentity::Any, ..Demand::default() }
}

pub(crate) fn verdict(bundle: &Value, demand: &Demand) -> Result<Signer, Mismatch> {
    of(Evidence::Bundle(bundle.to_string().into_bytes().into()), demand)
}

pub(crate) fn of(evidence: Evidence, demand: &Demand) -> Result<Signer, Mismatch> {
    let candidate = Candidate { origin: "here".to_owned(), evidence };
    verify(&image(), &candidate, demand).map(|good| good.signer().clone())
}

/// It must fail at this step, and say this.
#[track_caller]
pub(crate) fn fails(verdict: Result<Signer, Mismatch>, step: Step, words: &str) {
    let Err(Mismatch::Refused(refusal)) = &verdict else { panic!("{words}: {verdict:?}") };
    assert_eq!(refusal.step, step, "{refusal}");
    assert!(refusal.reason.contains(words), "{refusal} is not about {words:?}");
}

pub(crate) fn both(world: &World) -> [&Log; 2] {
    [&world.rekor, &world.tiles]
}
