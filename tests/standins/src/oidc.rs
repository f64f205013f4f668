//! An OpenID provider: tokens that state an identity.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::{P256, San, sha256};

/// An OpenID provider.
pub struct Provider {
    key: P256,
    /// Its URL.
    pub issuer: String,
}

impl Provider {
    /// A provider whose key follows from a seed.
    pub fn new(seed: &[u8]) -> Provider {
        Provider { key: P256::new(seed), issuer: "https://oidc.standin.example".to_owned() }
    }

    /// A token with these claims beside the usual ones, valid around a time.
    pub fn token(&self, claims: &Value, now: u64) -> String {
        let mut all = json!({
            "iss": self.issuer, "aud": "sigstore", "iat": now, "nbf": now - 5, "exp": now + 300,
        });
        let extend = claims.as_object().expect("claims are an object").clone();
        all.as_object_mut().expect("an object").extend(extend);
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "standin" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&all));
        let signature = self.key.sign_fixed(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token for who has signed in: on another device, or with a browser, where the verifier must fit
    /// the challenge of before.
    pub(crate) fn sign_in(&self, form: &str, email: &str, now: u64) -> Option<String> {
        let value = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name));
        if value("grant_type=") != Some("authorization_code") {
            return Some(self.of_email(email, now));
        }
        let (challenge, nonce) = value("code=")?.split_once('.')?;
        let verifier = sha256(value("code_verifier=")?.as_bytes());
        let claims = json!({
            "sub": email, "email": email, "email_verified": true, "nonce": nonce,
        });
        (URL_SAFE_NO_PAD.encode(verifier) == challenge).then(|| self.token(&claims, now))
    }

    /// A token of a mail address.
    pub fn of_email(&self, email: &str, now: u64) -> String {
        self.token(&json!({ "sub": email, "email": email, "email_verified": true }), now)
    }

    /// A token as GitHub gives one to a workflow on its main branch.
    pub fn of_workflow(&self, repository: &str, workflow: &str, now: u64) -> String {
        let reference = "refs/heads/main";
        let claims = json!({
            "sub": format!("repo:{repository}:ref:{reference}"),
            "event_name": "push", "sha": "0123456789012345678901234567890123456789",
            "workflow": "release", "repository": repository, "ref": reference,
            "job_workflow_ref":
                format!("{repository}/.github/workflows/{workflow}@{reference}"),
        });
        self.token(&claims, now)
    }

    /// The claims of a token that this provider signed for sigstore, still valid.
    pub fn read(&self, token: &str, now: u64) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let spki = self.key.spki();
        let point = &spki[spki.len() - 65..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let good = claims["iss"] == self.issuer.as_str()
            && claims["aud"] == "sigstore"
            && claims["exp"].as_u64()? > now;
        good.then_some(claims)
    }
}

/// Where a browser that asks to sign in is sent: somebody has signed in at once.
pub(crate) fn authorize(path: &str) -> Option<String> {
    let query = path.split_once('?')?.1;
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
    let redirect = value("redirect_uri=")?.replace("%3A", ":").replace("%2F", "/");
    let (state, nonce) = (value("state=")?, value("nonce=")?);
    let challenge = value("code_challenge=")?;
    Some(format!("{redirect}?code={challenge}.{nonce}&state={state}"))
}

/// GitHub claims by their numbers.
type Claims = Vec<(u8, String)>;

/// What a certificate says for these claims: its name, the GitHub claims by their numbers, and
/// what the holder of the key must have signed.
pub(crate) fn certified(claims: &Value) -> Option<(San, Claims, String)> {
    let text = |name: &str| claims[name].as_str().map(str::to_owned);
    let subject = text("sub")?;
    if let Some(email) = text("email") {
        return Some((San::Email(email.clone()), Vec::new(), email));
    }
    let Some(workflow) = text("job_workflow_ref") else {
        return Some((San::Uri(subject.clone()), Vec::new(), subject));
    };
    let names = [(2, "event_name"), (3, "sha"), (4, "workflow"), (5, "repository"), (6, "ref")];
    let found = names.into_iter().filter_map(|(number, name)| Some((number, text(name)?)));
    Some((San::Uri(format!("https://github.com/{workflow}")), found.collect(), subject))
}
