//! Tokens of OpenID providers: identities.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Http;
use crate::error::{Error, Result};
use crate::printable::printable;

/// No longer token is taken.
const MAX_TOKEN: usize = 64 << 10;
/// How often the provider is polled for a login.
const TURNS: usize = 200;
/// For whom tokens are.
pub(super) const AUDIENCE: &str = "sigstore";

/// A token that names its holder. It is a secret: it is shown nowhere.
#[derive(Clone)]
pub struct IdentityToken {
    text: String,
    subject: String,
}

impl std::fmt::Debug for IdentityToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentityToken({})", self.subject)
    }
}

/// The variables of a CI job that may ask for an identity token.
#[derive(Clone, Default)]
pub struct CiEnvironment {
    /// `SIGSTORE_ID_TOKEN`: a token, as GitLab gives one.
    pub token: Option<String>,
    /// `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN` of GitHub.
    pub github: Option<(String, String)>,
    /// `BUILDKITE_AGENT_ENDPOINT`, `BUILDKITE_JOB_ID` and `BUILDKITE_AGENT_ACCESS_TOKEN`.
    pub buildkite: Option<(String, String, String)>,
    /// Where the metadata of a machine of Google's is: `metadata.google.internal`, or `GCE_METADATA_HOST`.
    pub google: Option<String>,
    /// The content of a file with a token, as Kubernetes and SPIFFE mount one.
    pub file: Option<String>,
}

/// Where Buildkite's agents ask.
const BUILDKITE: &str = "https://agent.buildkite.com/v3";

impl CiEnvironment {
    /// What variables say, all but [`CiEnvironment::file`]. `variable` gives the value of one that is set.
    pub fn of_variables(variable: &dyn Fn(&str) -> Option<String>) -> CiEnvironment {
        let github = variable("ACTIONS_ID_TOKEN_REQUEST_URL");
        let job = variable("BUILDKITE_JOB_ID").zip(variable("BUILDKITE_AGENT_ACCESS_TOKEN"));
        let endpoint = || variable("BUILDKITE_AGENT_ENDPOINT").unwrap_or_else(|| BUILDKITE.into());
        CiEnvironment {
            token: variable("SIGSTORE_ID_TOKEN"),
            github: github.zip(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")),
            buildkite: job.map(|(job, secret)| (endpoint(), job, secret)),
            google: variable("GCE_METADATA_HOST"),
            file: None,
        }
    }
}

pub(super) fn refuse(reason: impl Into<String>) -> Error {
    Error::Service { what: "the identity token", reason: reason.into() }
}

impl IdentityToken {
    /// Reads a token. Whether it is good is for the certificate authority to say.
    ///
    /// # Errors
    /// [`Error::Service`]: it is none.
    pub fn read(text: &str) -> Result<IdentityToken> {
        #[derive(Deserialize)]
        struct Claims {
            sub: Option<String>,
            email: Option<String>,
            email_verified: Option<Value>,
        }
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(refuse(format!("it is longer than {MAX_TOKEN} bytes")));
        }
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse("it is not a JSON web token"));
        };
        let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('='));
        let claims = claims.ok().and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
        let claims = claims.ok_or_else(|| refuse("its claims cannot be read"))?;
        if claims.email.is_some() && claims.email_verified == Some(Value::Bool(false)) {
            return Err(refuse("its mail address is not verified"));
        }
        let subject = claims.email.or(claims.sub);
        let subject = subject.ok_or_else(|| refuse("it names nobody"))?;
        Ok(IdentityToken { text: text.to_owned(), subject })
    }

    /// Its identity.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What it claims under a name; empty where that is no text.
    ///
    /// # Errors
    /// [`Error::Service`]: its claims cannot be read.
    pub(super) fn claim(&self, name: &str) -> Result<String> {
        let claims = self.text.split('.').nth(1).unwrap_or_default();
        let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('='));
        let claims = claims.ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let claims = claims.ok_or_else(|| refuse("its claims cannot be read"))?;
        Ok(claims[name].as_str().unwrap_or_default().to_owned())
    }

    /// The token itself.
    pub(crate) fn secret(&self) -> &str {
        &self.text
    }
}

/// Asks what surrounds this process for a token; `None` where nothing does.
///
/// # Errors
/// [`Error::Service`]: it refuses.
pub async fn ambient(surroundings: &CiEnvironment, http: &Http) -> Result<Option<IdentityToken>> {
    if let Some(token) = &surroundings.token {
        return IdentityToken::read(token).map(Some);
    }
    if let Some((url, secret)) = &surroundings.github {
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}audience={AUDIENCE}");
        let bearer = format!("bearer {secret}");
        let answer = http.get("GitHub's token service", &url, Some(("Authorization", &bearer)));
        let answer: Value = serde_json::from_slice(&answer.await?).unwrap_or_default();
        let token = answer["value"].as_str().ok_or_else(|| refuse("GitHub gave none"))?;
        return IdentityToken::read(token).map(Some);
    }
    if let Some((endpoint, job, secret)) = &surroundings.buildkite {
        let url = format!("{}/jobs/{job}/oidc/tokens", endpoint.trim_end_matches('/'));
        let secret = format!("Token {secret}");
        let (asked, headers) = (json!({ "audience": AUDIENCE }), [("Authorization", &*secret)]);
        let answer = http.post_with("Buildkite's agent API", &url, &asked, &headers).await?;
        let token = answer["token"].as_str().ok_or_else(|| refuse("Buildkite gave none"))?;
        return IdentityToken::read(token).map(Some);
    }
    if let Some(file) = &surroundings.file {
        return IdentityToken::read(file).map(Some);
    }
    let Some(host) = &surroundings.google else { return Ok(None) };
    let url = format!(
        "http://{host}/computeMetadata/v1/instance/service-accounts/default/identity\
         ?audience={AUDIENCE}&format=full"
    );
    let header = Some(("Metadata-Flavor", "Google"));
    let token = http.get("Google's metadata server", &url, header).await?;
    IdentityToken::read(&String::from_utf8_lossy(&token)).map(Some)
}

/// What a provider says about itself.
///
/// # Errors
/// [`Error::Service`].
pub(super) async fn discover(provider: &str, http: &Http) -> Result<Value> {
    let known = format!("{}/.well-known/openid-configuration", provider.trim_end_matches('/'));
    serde_json::from_slice(&http.get("the OpenID provider", &known, None).await?)
        .map_err(|error| refuse(printable(&error.to_string())))
}

/// A URL of a provider.
///
/// # Errors
/// [`Error::Service`]: it has none.
pub(super) fn endpoint(known: &Value, name: &str) -> Result<String> {
    let found = known[name].as_str().map(str::to_owned);
    found.ok_or_else(|| refuse(format!("the provider has no {name}")))
}

pub(super) fn form(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish().into_bytes()
}

/// The type of a form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Lets somebody sign in on another device (RFC 8628): `tell` shows where and with what code.
///
/// # Errors
/// [`Error::Service`]: the provider refuses, or there is no login in time.
pub async fn device(
    provider: &str,
    http: &Http,
    tell: &(dyn Fn(&str, &str) + Send + Sync),
) -> Result<IdentityToken> {
    const WHAT: &str = "the OpenID provider";
    let known = discover(provider, http).await?;
    let start = endpoint(&known, "device_authorization_endpoint")?;
    let poll = endpoint(&known, "token_endpoint")?;
    let begun = form(&[("client_id", AUDIENCE), ("scope", "openid email")]);
    let begun = http.post_bytes(WHAT, &start, FORM, begun).await?;
    let begun: Value = serde_json::from_slice(&begun).unwrap_or_default();
    let text = |name: &str| begun[name].as_str().unwrap_or_default().to_owned();
    tell(&text("verification_uri"), &text("user_code"));
    let pause = std::time::Duration::from_secs(begun["interval"].as_u64().unwrap_or(5).min(60));
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let asked = form(&[
        ("client_id", AUDIENCE),
        ("grant_type", grant),
        ("device_code", &text("device_code")),
    ]);
    for _ in 0..TURNS {
        tokio::time::sleep(pause).await;
        match http.post_bytes(WHAT, &poll, FORM, asked.clone()).await {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                let token = answer["id_token"].as_str();
                return IdentityToken::read(token.ok_or_else(|| refuse("it gave none"))?);
            }
            Err(Error::Service { reason, .. })
                if reason.contains("authorization_pending") || reason.contains("slow_down") => {}
            Err(error) => return Err(error),
        }
    }
    Err(refuse("nobody signed in"))
}
