//! Who may do what.

pub(crate) mod gate;
pub(crate) mod jwt;
pub(crate) mod passwords;
pub(crate) mod service;
pub(crate) mod token;
mod turns;

use std::time::Duration;

use serde::Deserialize;

pub use jwt::Tokens;
pub use passwords::Passwords;

use crate::pattern::Pattern;

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody everything.
    #[default]
    None,
    /// Full access with this name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// Access with a token of the token service at `/token` of the same server. The service issues
    /// tokens to clients with this name and password or with the refresh token.
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
    /// What users may do; without rules, every user with a password may do everything. For tokens,
    /// the token itself says what is allowed.
    pub rules: Vec<Rule>,
}

/// What some people may do with some repositories.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// The repositories; `*` matches any text without `/`, `**` any text.
    pub repositories: Vec<Pattern>,
    /// Names of people; `*` is everybody who logged in, `anonymous` everybody.
    pub users: Vec<String>,
    /// What they may do.
    pub allow: Vec<Action>,
}

impl Rule {
    /// Whether it applies to this user; `None` is a client without a login.
    fn is_for(&self, user: Option<&str>) -> bool {
        self.users.iter().any(|known| match known.as_str() {
            "anonymous" => true,
            "*" => user.is_some(),
            known => user == Some(known),
        })
    }
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
    /// List the repositories of the rule.
    Catalog,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
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
pub(crate) enum Requester {
    /// No identity.
    Nobody,
    /// A user with a password.
    User(String),
    /// The bearer of a token.
    Bearer(jwt::Claims),
}

impl Requester {
    /// The name in logs.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Requester::Nobody => None,
            Requester::User(name) => Some(name),
            Requester::Bearer(claims) => Some(&claims.subject),
        }
    }
}

impl Access {
    pub(super) fn allows(&self, requester: &Requester, name: Option<&str>, action: Action) -> bool {
        let user = match requester {
            Requester::Bearer(claims) => return claims.allows(name, action.as_str()),
            Requester::User(name) => Some(name.as_str()),
            Requester::Nobody => None,
        };
        if self.rules.is_empty() {
            return user.is_some();
        }
        self.rules.iter().any(|rule| {
            let here = name.is_none_or(|name| rule.repositories.iter().any(|p| p.fits(name)));
            rule.is_for(user) && here && rule.allow.contains(&action)
        })
    }

    /// Whether the catalog of this client shows a repository.
    pub(super) fn lists(&self, requester: &Requester, name: &str) -> bool {
        let user = match requester {
            Requester::Bearer(_) => return true,
            Requester::User(user) => Some(user.as_str()),
            Requester::Nobody => None,
        };
        self.rules.is_empty()
            || self.rules.iter().any(|rule| {
                rule.is_for(user)
                    && rule.allow.contains(&Action::Catalog)
                    && rule.repositories.iter().any(|pattern| pattern.fits(name))
            })
    }
}
