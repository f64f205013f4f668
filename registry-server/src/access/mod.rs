//! Who may do what.

pub(crate) mod jwt;
pub(crate) mod passwords;
pub(crate) mod service;

use std::time::Duration;

use base64::Engine as _;
use hyper::{Method, header};
use serde::Deserialize;

pub use jwt::Tokens;
pub use passwords::Passwords;
pub(crate) use passwords::Remembered;

use crate::http::answer::{Answer, With, error};
use crate::http::call::Call;
use crate::http::route::Route;
use crate::http::server::Shared;
use crate::pattern::Pattern;

/// A `Basic` header without name and password.
const NOTHING: &str = "Basic Og==";

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody everything.
    #[default]
    None,
    /// Whoever knows this name and password, everything.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// Whoever has a token of the token service at `/token` of the same server, which gives
    /// tokens for what is asked to whoever knows this name and password or the refresh token.
    Bearer {
        /// The name.
        username: String,
        /// The password.
        password: String,
        /// Taken in place of name and password (OAuth 2, POST).
        refresh_token: String,
        /// Whether tokens for pulling are given to everybody.
        anonymous_pull: bool,
        /// How long a token lasts.
        lifetime: Duration,
    },
    /// People with passwords, bearers of signed tokens, and rules.
    Access(Access),
}

/// People with passwords, bearers of signed tokens, and rules.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What a browser would show when it asks for a password.
    pub realm: String,
    /// People.
    pub passwords: Option<Passwords>,
    /// Whose tokens are believed.
    pub tokens: Option<Tokens>,
    /// What people may do; without rules, whoever has a password may do everything. What the bearer
    /// of a token may do the token says.
    pub rules: Vec<Rule>,
}

/// What some people may do with some repositories.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Which repositories; `*` stands for any text without `/`, `**` for any text.
    pub repositories: Vec<Pattern>,
    /// Names of people; `*` is everybody who logged in, `anonymous` everybody.
    pub users: Vec<String>,
    /// What they may do.
    pub allow: Vec<Action>,
}

/// Something one does with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Read everything in it.
    Pull,
    /// Add to it and move tags.
    Push,
    /// Delete from it.
    Delete,
    /// List all repositories.
    Catalog,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
            Action::Catalog => "*",
        }
    }
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Nobody said.
    Nobody,
    /// Somebody with a password.
    User(String),
    /// The bearer of a token.
    Bearer(jwt::Claims),
}

impl Who {
    /// The name in logs.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Who::Nobody => None,
            Who::User(name) => Some(name),
            Who::Bearer(claims) => Some(&claims.subject),
        }
    }
}

/// What a request needs: a repository (or the catalog) and the action.
pub(crate) fn need<'a>(call: &Call, route: &Route<'a>) -> Option<(Option<&'a str>, Action)> {
    let action = match call.method {
        Method::GET | Method::HEAD if !matches!(route, Route::Upload(..)) => Action::Pull,
        Method::DELETE if !matches!(route, Route::Upload(..)) => Action::Delete,
        _ => Action::Push,
    };
    match route {
        Route::Base => None,
        Route::Catalog => Some((None, Action::Catalog)),
        other => other.repository().map(|name| (Some(name), action)),
    }
}

impl Access {
    fn allows(&self, who: &Who, name: Option<&str>, action: Action) -> bool {
        let user = match who {
            Who::Bearer(claims) => return claims.allows(name, action.as_str()),
            Who::User(name) => Some(name.as_str()),
            Who::Nobody => None,
        };
        if self.rules.is_empty() {
            return user.is_some();
        }
        self.rules.iter().any(|rule| {
            let known = rule.users.iter().any(|known| match known.as_str() {
                "anonymous" => true,
                "*" => user.is_some(),
                known => user == Some(known),
            });
            let here = name.is_none_or(|name| rule.repositories.iter().any(|p| p.fits(name)));
            known && here && rule.allow.contains(&action)
        })
    }

    fn challenge(&self, name: Option<&str>, action: Option<Action>, problem: &str) -> Answer {
        let denied = error(401, "UNAUTHORIZED", "authentication required");
        let quoted = |text: &str| text.replace(['"', '\\'], "");
        let Some(tokens) = &self.tokens else {
            let realm = quoted(&self.realm);
            return denied.with("www-authenticate", format!("Basic realm=\"{realm}\""));
        };
        let scope = match (name, action) {
            (Some(name), Some(Action::Push)) => format!(",scope=\"repository:{name}:pull,push\""),
            (Some(name), Some(action)) => {
                format!(",scope=\"repository:{name}:{}\"", action.as_str())
            }
            (None, Some(_)) => ",scope=\"registry:catalog:*\"".to_owned(),
            (_, None) => String::new(),
        };
        let (realm, service) = (quoted(&tokens.realm), quoted(&tokens.service));
        let challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}{problem}");
        denied.with("www-authenticate", challenge)
    }

    async fn check(&self, shared: &Shared, call: &Call, route: &Route<'_>) -> Result<Who, Answer> {
        let need = need(call, route);
        let (name, action) = (need.and_then(|(name, _)| name), need.map(|(_, action)| action));
        let sent = call.header(header::AUTHORIZATION).unwrap_or_default();
        let (scheme, value) = sent.split_once(' ').unwrap_or((sent, ""));
        let who = match (&self.passwords, &self.tokens) {
            // Skopeo and Podman send an empty name and password when they have none.
            _ if sent.is_empty() || sent == NOTHING => Who::Nobody,
            (Some(passwords), _) if scheme.eq_ignore_ascii_case("basic") => {
                match shared.passwords.check(passwords, value.trim()).await {
                    Some(user) => Who::User(user),
                    None => return Err(self.challenge(name, action, "")),
                }
            }
            (_, Some(tokens)) if scheme.eq_ignore_ascii_case("bearer") => {
                match tokens.verify(value.trim(), shared.options.clock.seconds()) {
                    Ok(claims) => Who::Bearer(claims),
                    Err(reason) => {
                        tracing::info!(reason, "refusing a token");
                        return Err(self.challenge(name, action, ",error=\"invalid_token\""));
                    }
                }
            }
            _ => return Err(self.challenge(name, action, "")),
        };
        let Some((name, action)) = need else {
            // Clients learn here how to log in, so anonymous ones are asked to.
            return match who {
                Who::Nobody => Err(self.challenge(None, None, "")),
                who => Ok(who),
            };
        };
        match (self.allows(&who, name, action), &who) {
            (true, _) => Ok(who),
            (false, Who::Nobody) => Err(self.challenge(name, Some(action), "")),
            (false, Who::Bearer(_)) => {
                Err(self.challenge(name, Some(action), ",error=\"insufficient_scope\""))
            }
            (false, Who::User(user)) => {
                let message = format!("{user} may not {} here", action.as_str());
                Err(error(403, "DENIED", &message))
            }
        }
    }
}

/// Who makes a request that is allowed, or the refusal.
pub(crate) async fn check(shared: &Shared, call: &Call, route: &Route<'_>) -> Result<Who, Answer> {
    let rules = shared.rules();
    match &rules.auth {
        Auth::None => Ok(Who::Nobody),
        Auth::Access(access) => access.check(shared, call, route).await,
        Auth::Basic { .. } | Auth::Bearer { .. } => {
            service::check(shared, call, route).map(|()| Who::Nobody)
        }
    }
}

/// Whether everybody may do everything.
pub(crate) fn open(shared: &Shared) -> bool {
    matches!(shared.rules().auth, Auth::None)
}

/// Whether whoever makes this request may pull from a repository (for mounts).
pub(crate) fn may_pull(shared: &Shared, call: &Call, repository: &str) -> bool {
    match &shared.rules().auth {
        Auth::None | Auth::Basic { .. } => true,
        Auth::Bearer { .. } => service::may_pull(shared, call, repository),
        Auth::Access(access) => access.allows(&call.who, Some(repository), Action::Pull),
    }
}

/// Name and password of a `Basic` header's value.
pub(crate) fn pair(value: &str) -> Option<(String, String)> {
    let decoded = base64::prelude::BASE64_STANDARD.decode(value).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}
