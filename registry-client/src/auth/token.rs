//! From challenges to `Authorization` headers: basic credentials, tokens (distribution's "Token
//! Authentication Specification"), and OAuth 2 refresh tokens ("Oauth2 Token Authentication").

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::challenge::Challenge;
use super::grants::Grant;
use super::keychain::Credential;
use super::scope::{Access, Scope};
use crate::call::{Auth, BodyMode, Call, Endpoint, Payload, RequestTarget};
use crate::connect::{HostTls, authority_of, policy_of};
use crate::inner::ClientInner;
use crate::limit::Lane;
use crate::routes::RepositoryAddress;
use crate::{Error, Result, wire};

/// The largest answer of a token service that is read.
const TOKEN_ANSWER: u64 = 256 << 10;
/// How long a token is used that does not say how long it lives (the specification's default).
const LIFETIME: u64 = 60;

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl ClientInner {
    /// The header for a request before the registry was asked: what was granted before, or what
    /// it would ask for going by its last challenge.
    pub(crate) async fn authorization(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        action: &str,
    ) -> Result<Option<HeaderValue>> {
        let known = &endpoint.host.known;
        if let Some(header) = known.granted(scope) {
            return Ok(Some(header));
        }
        if scope.access == Access::Pull
            && let Some(header) = known.granted(&Scope { access: Access::Push, ..scope.clone() })
        {
            return Ok(Some(header));
        }
        let Some((challenge, url)) = known.challenge() else { return Ok(None) };
        let slot = known.slot(scope);
        let mut slot = slot.lock().await;
        if let Some(grant) = slot.as_ref().filter(|grant| grant.valid()) {
            return Ok(Some(grant.header.clone()));
        }
        *slot = self.grant(endpoint, scope, &challenge, &url, action).await?;
        Ok(slot.as_ref().map(|grant| grant.header.clone()))
    }

    /// The header that answers a 401.
    #[expect(clippy::too_many_arguments, reason = "one call site; all of it is one request")]
    pub(crate) async fn answer_challenge(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        url: &Url,
        headers: &HeaderMap,
        refused: Option<HeaderValue>,
        said: &str,
        action: &str,
    ) -> Result<Option<HeaderValue>> {
        let denied = |reason: String| Error::Denied {
            registry: endpoint.registry().to_owned(),
            action: action.to_owned(),
            reason,
        };
        let challenge = match Challenge::best(headers) {
            Some(challenge) => challenge,
            // Some registries only say how to log in when asked for nothing.
            None => match self.ask_for_challenge(endpoint, url, action).await? {
                Some(challenge) => challenge,
                None if said.is_empty() => {
                    return Err(denied("without saying how to log in".into()));
                }
                None => return Err(denied(said.to_owned())),
            },
        };
        let slot = endpoint.host.known.slot(scope);
        let mut slot = slot.lock().await;
        if let Some(grant) = slot.as_ref().filter(|grant| grant.valid())
            && refused.as_ref() != Some(&grant.header)
        {
            return Ok(Some(grant.header.clone()));
        }
        *slot = None;
        let grant = self.grant(endpoint, scope, &challenge, url, action).await?;
        let Some(grant) = grant else {
            return Err(denied(match said {
                "" => "authentication required; there are no credentials for it".into(),
                said => format!("{said}; there are no credentials for it"),
            }));
        };
        if refused.as_ref() == Some(&grant.header) {
            return Err(denied(match said {
                "" => "authentication required; it rejected the credentials".into(),
                said => said.to_owned(),
            }));
        }
        endpoint.host.known.learn(&challenge, url);
        let header = grant.header.clone();
        *slot = Some(grant);
        Ok(Some(header))
    }

    /// Drops what was granted for a scope.
    pub(crate) fn forget(&self, endpoint: &Endpoint, scope: &Scope) {
        endpoint.host.known.forget(scope);
    }

    async fn ask_for_challenge(
        &self,
        endpoint: &Endpoint,
        url: &Url,
        action: &str,
    ) -> Result<Option<Challenge>> {
        let Ok(ping) = url.join("/v2/") else { return Ok(None) };
        let mut call = Call::new(
            Method::GET,
            RequestTarget::Url(ping),
            Scope::new(Access::Any, ""),
            action.to_owned(),
        );
        call.auth = Auth::Fixed(None);
        let answer = Box::pin(self.send(endpoint, &call.accept(&[401]).lane(Lane::Free))).await?;
        Ok(Challenge::best(&answer.headers))
    }

    async fn credential(&self, endpoint: &Endpoint) -> Result<Credential> {
        let keychain = Arc::clone(&self.options.keychain);
        let place = Arc::clone(&endpoint.place);
        let registry_only = endpoint.about_registry;
        let asked = tokio::task::spawn_blocking(move || match (place.named, registry_only) {
            (false, _) => keychain.mirror_credential(&place.repository),
            (true, true) => keychain.registry_credential(place.repository.registry()),
            (true, false) => keychain.credential(&place.repository),
        });
        asked.await.unwrap_or_else(|panic| {
            Err(Error::Configuration {
                action: "looking up credentials".into(),
                reason: panic.to_string(),
            })
        })
    }

    async fn grant(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: &Challenge,
        url: &Url,
        action: &str,
    ) -> Result<Option<Grant>> {
        let denied = |reason: String| Error::Denied {
            registry: endpoint.registry().to_owned(),
            action: action.to_owned(),
            reason,
        };
        let credential = self.credential(endpoint).await?;
        let lasting = |header| Ok(Some(Grant { header, until: None }));
        match (challenge, &credential) {
            (Challenge::Other(scheme), _) => {
                Err(denied(format!("it requires {scheme} authentication, which is not supported")))
            }
            (_, Credential::Bearer(token)) => lasting(bearer(token).map_err(denied)?),
            (Challenge::Basic, Credential::Basic { username, password }) => {
                lasting(basic(username, password).map_err(denied)?)
            }
            (Challenge::Basic, Credential::Anonymous) => Ok(None),
            (Challenge::Basic, Credential::Identity(_)) => {
                Err(denied("it requires a password and there is only an identity token".into()))
            }
            (Challenge::Bearer { realm, service, scope: challenged, .. }, credential) => {
                let wanted = scope.texts(challenged.as_deref());
                let realm = self.realm(endpoint, url, realm, credential, action)?;
                let grant = self
                    .token(endpoint, &realm, service.as_deref(), &wanted, credential, action)
                    .await?;
                Ok(Some(grant))
            }
        }
    }

    /// The token service's URL, if it is safe to use. A challenge over TLS comes from the registry,
    /// so the service that it names over TLS may see the credentials (that is how the specification
    /// works). A challenge without TLS may be forged: credentials then go to the registry's own
    /// host only.
    fn realm(
        &self,
        endpoint: &Endpoint,
        challenger: &Url,
        realm: &str,
        credential: &Credential,
        action: &str,
    ) -> Result<Url> {
        let shown = wire::printable(realm);
        let unsafely = |reason: String| Error::Unsafe {
            registry: endpoint.registry().to_owned(),
            action: action.to_owned(),
            reason,
        };
        let url = challenger.join(realm).ok().filter(|url| {
            !realm.is_empty()
                && matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let Some(url) = url else {
            return Err(unsafely(format!(
                "its token service {shown:?} is not an http or https URL"
            )));
        };
        let own_host = url.host_str() == challenger.host_str();
        let trusted = match challenger.scheme() {
            "https" => url.scheme() == "https",
            _ => own_host,
        };
        if challenger.scheme() == "https" && url.scheme() == "http" {
            return Err(unsafely(format!("its token service {shown} is not on https")));
        }
        if !trusted && *credential != Credential::Anonymous {
            return Err(unsafely(format!(
                "credentials to the token service {shown}, named without TLS, on another host"
            )));
        }
        Ok(url)
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        credential: &Credential,
        action: &str,
    ) -> Result<Grant> {
        let mut url = realm.clone();
        let action = format!("{action}: asking {} for a token", authority_of(realm));
        let bad = |reason: String| Error::Malformed {
            registry: endpoint.registry().to_owned(),
            action: action.clone(),
            reason,
        };
        let scope = || Scope::new(Access::Any, "");
        let mut call = if let Credential::Identity(refresh) = credential {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("service", service.unwrap_or_default());
            form.append_pair("client_id", "rbuild");
            form.append_pair("scope", &scopes.join(" "));
            form.append_pair("refresh_token", refresh);
            let mut call =
                Call::new(Method::POST, RequestTarget::Url(url), scope(), action.clone())
                    .header(
                        header::CONTENT_TYPE,
                        HeaderValue::from_static("application/x-www-form-urlencoded"),
                    )
                    .payload(Payload::Bytes(form.finish().into()));
            call.auth = Auth::Fixed(None);
            call.secret = true;
            call
        } else {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            let mut header = None;
            if let Credential::Basic { username, password } = credential {
                query.append_pair("account", username);
                header = Some(basic(username, password).map_err(&bad)?);
            }
            drop(query);
            let mut call = Call::new(Method::GET, RequestTarget::Url(url), scope(), action.clone());
            call.auth = Auth::Fixed(header);
            call
        };
        call = call.read(BodyMode::Document(TOKEN_ANSWER)).lane(Lane::Free);
        // Another host has other pauses and another TLS policy.
        let service = match authority_of(realm) {
            authority if authority == endpoint.host.authority => endpoint.clone(),
            authority => {
                let HostTls { tls, rule } = policy_of(&self.options, realm);
                let repository = endpoint.place.repository.clone();
                let named = endpoint.place.named;
                self.endpoint(RepositoryAddress {
                    repository,
                    authority,
                    tls,
                    rule,
                    image: None,
                    named,
                })
            }
        };
        let answer = Box::pin(self.send(&service, &call)).await.map_err(|error| match error {
            Error::Answer { registry, action, status: 400 | 401 | 403, message, .. } => {
                Error::Denied {
                    registry,
                    action,
                    reason: match (message.as_str(), credential) {
                        ("", Credential::Anonymous) => "there are no credentials for it".into(),
                        ("", _) => "authentication required; it rejected the credentials".into(),
                        (message, _) => message.to_owned(),
                    },
                }
            }
            other => other,
        })?;
        granted(&answer.body).map_err(bad)
    }
}

/// What a token service's answer grants.
fn granted(body: &[u8]) -> Result<Grant, String> {
    let parsed: TokenAnswer = serde_json::from_slice(body)
        .map_err(|error| format!("no token but malformed JSON ({error})"))?;
    let token = parsed.token.filter(|token| !token.is_empty());
    let token = token.or(parsed.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or("no token in it")?;
    let lifetime = match parsed.expires_in {
        Some(serde_json::Value::Number(n)) => n.as_f64().map(|n| n.clamp(0.0, 1e9) as u64),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let lifetime = lifetime.filter(|seconds| *seconds > 0).unwrap_or(LIFETIME).min(86_400);
    let margin = (lifetime / 10).min(30);
    Ok(Grant {
        header: bearer(&token)?,
        until: Some(Instant::now() + Duration::from_secs(lifetime - margin)),
    })
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, String> {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{username}:{password}"));
    secret(format!("Basic {pair}"))
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "the credentials have characters that no header can carry".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_headers_or_refused() {
        assert_eq!(basic("a", "b").unwrap(), "Basic YTpi");
        assert!(bearer("a\r\nb").is_err());
        assert!(bearer("ok").unwrap().is_sensitive());
    }
}
