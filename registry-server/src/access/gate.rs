//! Whether a request is let in.

use hyper::{Method, header};

use super::turns::Overload;
use super::{Access, Action, Auth, Requester, service};
use crate::http::answer::{Answer, HeaderExt, error};
use crate::http::call::Call;
use crate::http::route::Route;
use crate::inner::RegistryInner;

/// A `Basic` header without name and password.
const NOTHING: &str = "Basic Og==";

/// What a request needs: a repository (or the catalog) and the action.
fn need<'a>(call: &Call, route: &Route<'a>) -> Option<(Option<&'a str>, Action)> {
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

    async fn check(
        &self,
        shared: &RegistryInner,
        call: &Call,
        route: &Route<'_>,
    ) -> Result<Requester, Answer> {
        let need = need(call, route);
        let (name, action) = (need.and_then(|(name, _)| name), need.map(|(_, action)| action));
        let sent = call.header(header::AUTHORIZATION).unwrap_or_default();
        let (scheme, value) = sent.split_once(' ').unwrap_or((sent, ""));
        let who = match (&self.passwords, &self.tokens) {
            // Skopeo and Podman send an empty name and password when they have none.
            _ if sent.is_empty() || sent == NOTHING => Requester::Nobody,
            (Some(passwords), _) if scheme.eq_ignore_ascii_case("basic") => {
                let (value, client) = (value.trim(), call.client.ip());
                match shared.passwords.check(passwords, value, client).await {
                    Ok(Some(user)) => Requester::User(user),
                    Ok(None) => return Err(self.challenge(name, action, "")),
                    Err(Overload) => return Err(too_many()),
                }
            }
            (_, Some(tokens)) if scheme.eq_ignore_ascii_case("bearer") => {
                match tokens.verify(value.trim(), shared.options.clock.seconds()) {
                    Ok(claims) => Requester::Bearer(claims),
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
                Requester::Nobody => Err(self.challenge(None, None, "")),
                who => Ok(who),
            };
        };
        match (self.allows(&who, name, action), &who) {
            (true, _) => Ok(who),
            (false, Requester::Nobody) => Err(self.challenge(name, Some(action), "")),
            (false, Requester::Bearer(_)) => {
                Err(self.challenge(name, Some(action), ",error=\"insufficient_scope\""))
            }
            (false, Requester::User(user)) => {
                let message = format!("{user} may not {} here", action.as_str());
                Err(error(403, "DENIED", &message))
            }
        }
    }
}

/// Who makes a request that is allowed, or the refusal.
pub(crate) async fn check(
    shared: &RegistryInner,
    call: &Call,
    route: &Route<'_>,
) -> Result<Requester, Answer> {
    let rules = shared.rules();
    match &rules.auth {
        Auth::None => Ok(Requester::Nobody),
        Auth::Access(access) => access.check(shared, call, route).await,
        Auth::Basic { .. } | Auth::Bearer { .. } => {
            service::check(shared, call, route).map(|()| Requester::Nobody)
        }
    }
}

fn too_many() -> Answer {
    error(429, "TOOMANYREQUESTS", "too many passwords at once").with("retry-after", "1")
}

/// Whether the catalog shows a repository to the client of this request.
pub(crate) fn lists(shared: &RegistryInner, call: &Call, repository: &str) -> bool {
    match &shared.rules().auth {
        Auth::Access(access) => access.lists(&call.requester, repository),
        Auth::None | Auth::Basic { .. } | Auth::Bearer { .. } => true,
    }
}

/// Whether everybody may do everything.
pub(crate) fn open(shared: &RegistryInner) -> bool {
    matches!(shared.rules().auth, Auth::None)
}

/// Whether the client of this request may pull from a repository (for mounts).
pub(crate) fn may_pull(shared: &RegistryInner, call: &Call, repository: &str) -> bool {
    match &shared.rules().auth {
        Auth::None | Auth::Basic { .. } => true,
        Auth::Bearer { .. } => service::may_pull(shared, call, repository),
        Auth::Access(access) => access.allows(&call.requester, Some(repository), Action::Pull),
    }
}
