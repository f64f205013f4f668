//! The Key Management Service of AWS, and its signed requests (Signature Version 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use url::Url;

use super::request::{SigningRequest, WHAT, refuse, text};
use crate::error::Result;
use crate::hash::sha256;
use crate::key::PublicKey;
use crate::online::Http;
use crate::spki::{Scheme, Spki};

/// How AWS is reached.
#[derive(Clone)]
pub struct AwsAccess {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`.
    pub session: Option<String>,
    /// `AWS_REGION`.
    pub region: String,
    /// `AWS_ENDPOINT_URL_KMS`: where the service is, if not where AWS has it.
    pub endpoint: Option<String>,
}

pub(super) struct AwsKey {
    access: AwsAccess,
    now: u64,
    id: String,
    endpoint: String,
}

impl AwsKey {
    pub(super) async fn open(
        place: &str,
        mut access: AwsAccess,
        now: u64,
        http: &Http,
    ) -> Result<(AwsKey, PublicKey)> {
        let (host, id) = place.split_once('/').unwrap_or(("", place));
        // arn:aws:kms:REGION:…
        if let Some(region) = id.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)) {
            region.clone_into(&mut access.region);
        }
        let endpoint = match (host, &access.endpoint) {
            ("", Some(endpoint)) => endpoint.clone(),
            ("", None) => format!("https://kms.{}.amazonaws.com", access.region),
            (host, _) => format!("https://{host}"),
        };
        let key = AwsKey { access, now, id: id.to_owned(), endpoint };
        let answer = key.ask("GetPublicKey", &json!({ "KeyId": key.id }), http).await?;
        let der = STANDARD.decode(text(&answer, "/PublicKey")?);
        let der = der.map_err(|error| refuse(error.to_string()))?;
        Ok((key, PublicKey::from(Spki::read(&der).map_err(refuse)?)))
    }

    pub(super) async fn sign(&self, asked: &SigningRequest<'_>, http: &Http) -> Result<Vec<u8>> {
        let algorithm = match asked.scheme {
            Scheme::P256 => "ECDSA_SHA_256",
            Scheme::P384 => "ECDSA_SHA_384",
            Scheme::P521 => "ECDSA_SHA_512",
            Scheme::Rsa => "RSASSA_PKCS1_V1_5_SHA_256",
            Scheme::Ed25519 => return Err(refuse("keys of Ed25519 are not supported at AWS")),
        };
        let request = json!({
            "KeyId": self.id, "Message": STANDARD.encode(&asked.hash), "MessageType": "DIGEST",
            "SigningAlgorithm": algorithm,
        });
        let answer = self.ask("Sign", &request, http).await?;
        STANDARD.decode(text(&answer, "/Signature")?).map_err(|error| refuse(error.to_string()))
    }

    async fn ask(&self, action: &str, request: &Value, http: &Http) -> Result<Value> {
        let url = Url::parse(&self.endpoint).map_err(|error| refuse(error.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let date = moment(self.now);
        let target = format!("TrentService.{action}");
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", &host),
            ("x-amz-date", &date),
        ];
        headers.extend(self.access.session.as_deref().map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", &target));
        let signed = SignedRequest {
            method: "POST",
            query: "",
            headers: &headers,
            body: &request.to_string(),
        };
        let authorization = signed.authorization(&self.access, "kms");
        // The client sets the host by itself.
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", &authorization));
        http.post_with(WHAT, url.as_str(), request, &headers).await
    }
}

/// `YYYYMMDDThhmmssZ`.
fn moment(now: u64) -> String {
    let time = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_second(now).ok());
    let text = time.unwrap_or_default().to_string();
    text.replace(['-', ':'], "")
}

/// A request to `/`. Its headers are in order, and one is `x-amz-date`.
struct SignedRequest<'a> {
    method: &'a str,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SignedRequest<'_> {
    fn authorization(&self, access: &AwsAccess, service: &str) -> String {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String =
            self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let body = hex(&sha256(self.body.as_bytes()));
        let canonical = format!("{}\n/\n{}\n{lines}\n{names}\n{body}", self.method, self.query);
        let date = self.headers.iter().find(|(name, _)| *name == "x-amz-date");
        let date = date.map_or("", |(_, date)| *date);
        let day = date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{service}/aws4_request", access.region);
        let text =
            format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
        let mut key = format!("AWS4{}", access.secret).into_bytes();
        for part in [day, &access.region, service, "aws4_request", &text] {
            let own = hmac::Key::new(hmac::HMAC_SHA256, &key);
            key = hmac::sign(&own, part.as_bytes()).as_ref().to_vec();
        }
        let id = &access.id;
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={}",
            hex(&key)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's documentation of Signature Version 4.
    #[test]
    fn requests_are_signed_as_aws_documents_it() {
        let access = AwsAccess {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session: None,
            region: "us-east-1".to_owned(),
            endpoint: None,
        };
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let request = SignedRequest { method: "GET", query, headers: &headers, body: "" };
        let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert!(request.authorization(&access, "iam").ends_with(signature));
        assert_eq!(moment(1_440_938_160), "20150830T123600Z");
    }
}
