//! One name and password, or tokens from a token service of our own: what tests of clients need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use base64::Engine as _;
use hyper::Method;
use hyper::header;
use serde_json::json;

use super::Auth;
use super::token::Token;
use crate::http::answer::{Answer, HeaderExt, error, json};
use crate::http::call::{Call, pairs};
use crate::http::route::Route;
use crate::inner::RegistryInner;
use crate::random::random;

/// What a request needs: the thing and the action.
fn need(call: &Call, route: &Route<'_>) -> Option<(String, &'static str)> {
    let action = match call.method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE if !matches!(route, Route::Upload(..)) => "delete",
        _ => "push",
    };
    match route {
        Route::Base => None,
        Route::Catalog => Some(("registry:catalog".to_owned(), "*")),
        other => other.repository().map(|name| (format!("repository:{name}"), action)),
    }
}

fn basic(username: &str, password: &str) -> String {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{username}:{password}"));
    format!("Basic {pair}")
}

/// Refuses a request that is not allowed.
pub(crate) fn check(shared: &RegistryInner, call: &Call, route: &Route<'_>) -> Result<(), Answer> {
    let sent = call.header(header::AUTHORIZATION).unwrap_or_default();
    match &shared.rules().auth {
        Auth::None | Auth::Access(_) => Ok(()),
        Auth::Basic { username, password } if sent == basic(username, password) => Ok(()),
        Auth::Basic { .. } => Err(error(401, "UNAUTHORIZED", "authentication required")
            .with("www-authenticate", "Basic realm=\"registry\"")),
        Auth::Bearer { .. } => {
            let need = need(call, route);
            let token = sent.strip_prefix("Bearer ").unwrap_or_default();
            let token = shared.tokens.lock().get(token).cloned();
            let token = token.filter(|token| Instant::now() < token.until);
            let problem = match (&token, &need) {
                (Some(token), Some((name, action))) if !token.allows(name, action) => {
                    ",error=\"insufficient_scope\""
                }
                (Some(_), _) => return Ok(()),
                (None, _) if sent.is_empty() => "",
                (None, _) => ",error=\"invalid_token\"",
            };
            let scope = need.map(|(name, action)| {
                let action = if action == "push" { "pull,push" } else { action };
                format!(",scope=\"{name}:{action}\"")
            });
            let host = call.header(header::HOST).unwrap_or("localhost");
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"{host}\"{}{problem}",
                scope.unwrap_or_default()
            );
            Err(error(401, "UNAUTHORIZED", "authentication required")
                .with("www-authenticate", challenge))
        }
    }
}

/// Whether the bearer of this request may pull from a repository (for mounts).
pub(crate) fn may_pull(shared: &RegistryInner, call: &Call, repository: &str) -> bool {
    let sent = call.header(header::AUTHORIZATION).unwrap_or_default();
    match &shared.rules().auth {
        Auth::None | Auth::Basic { .. } | Auth::Access(_) => true,
        Auth::Bearer { .. } => {
            let token = sent.strip_prefix("Bearer ").unwrap_or_default();
            let tokens = shared.tokens.lock();
            tokens.get(token).is_some_and(|t| t.allows(&format!("repository:{repository}"), "pull"))
        }
    }
}

/// The token service.
pub(crate) async fn token(shared: &RegistryInner, call: &mut Call) -> Answer {
    let rules = shared.rules();
    let Auth::Bearer { username, password, refresh_token, anonymous_pull, lifetime } = &rules.auth
    else {
        return error(404, "UNSUPPORTED", "there is no token service");
    };
    let form = match call.method {
        Method::POST => {
            let body = call.collect(64 << 10).await.unwrap_or_default();
            pairs(&String::from_utf8_lossy(&body))
        }
        _ => call.query.clone(),
    };
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
    let known = match call.method {
        Method::POST => {
            field("grant_type") == Some("refresh_token")
                && field("refresh_token") == Some(refresh_token)
                && !refresh_token.is_empty()
        }
        _ => match call.header(header::AUTHORIZATION) {
            Some(sent) if sent == basic(username, password) => true,
            Some(_) => return error(401, "UNAUTHORIZED", "wrong name or password"),
            None => false,
        },
    };
    if !known && (call.method == Method::POST || !anonymous_pull) {
        return error(401, "UNAUTHORIZED", "the token service wants credentials");
    }
    let mut grants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let scopes = form.iter().filter(|(key, _)| key == "scope").map(|(_, value)| value);
    for scope in scopes.flat_map(|scopes| scopes.split(' ')) {
        let Some((name, actions)) = scope.rsplit_once(':') else { continue };
        let actions = actions.split(',').filter(|action| known || *action == "pull");
        grants.entry(name.to_owned()).or_default().extend(actions.map(str::to_owned));
    }
    let text = format!("token-{}", random());
    let token = Token { grants, until: Instant::now() + *lifetime };
    shared.tokens.lock().insert(text.clone(), token);
    let name = if call.method == Method::POST { "access_token" } else { "token" };
    json(200, &json!({ name: text, "expires_in": lifetime.as_secs() }))
}
