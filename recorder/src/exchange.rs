//! One request and what answered it, as a lock file keeps it.

use std::collections::BTreeMap;

use image::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

/// One request of a step and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The instruction that asked, on one line.
    pub step: String,
    /// The method.
    pub method: String,
    /// The URL, without secrets: see [`redacted`].
    pub url: String,
    /// The digest of what was sent, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Digest>,
    /// The part of the content that was asked for (`Range`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// The status of the answer; 502 if there was none.
    pub status: u16,
    /// The digest of the content.
    pub digest: Digest,
    /// The headers that say what the content is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// The key under which a recording finds a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestKey {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) sent: Option<Digest>,
    pub(crate) range: Option<String>,
}

impl Exchange {
    pub(crate) fn asked(&self) -> RequestKey {
        RequestKey {
            method: self.method.clone(),
            url: self.url.clone(),
            sent: self.sent,
            range: self.range.clone(),
        }
    }
}

impl std::fmt::Display for RequestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.url)?;
        if let Some(range) = &self.range {
            write!(f, " ({range})")?;
        }
        Ok(())
    }
}

/// What stands in place of a secret.
const REDACTED: &str = "REDACTED";
/// Names of query values that are secret, and parts of such names.
const SECRET_NAMES: [&str; 5] = ["sig", "key", "auth", "pwd", "code"];
const SECRET_PARTS: [&str; 9] = [
    "signature",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "apikey",
    "api_key",
    "access_key",
];
/// Secrets shorter than this are words that may stand anywhere.
const SHORT: usize = 6;

/// A URL without user, password, fragment and query values whose names say that they are secret; no
/// text of `secrets` is left in it. Twice gives the same as once.
pub fn redacted(url: &str, secrets: &[String]) -> String {
    let mut text = match Url::parse(url) {
        Ok(parsed) => plain(parsed),
        Err(_) => match url.split_once('?') {
            Some((path, query)) => format!("{path}?{}", plain_query(query)),
            None => url.to_owned(),
        },
    };
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORT) {
        text = text.replace(secret.as_str(), REDACTED);
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        text = text.replace(&encoded, REDACTED);
    }
    text
}

fn plain(mut url: Url) -> String {
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    if let Some(query) = url.query().map(plain_query) {
        url.set_query(Some(&query));
    }
    url.to_string()
}

fn plain_query(query: &str) -> String {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    };
    query.split('&').map(pair).collect::<Vec<_>>().join("&")
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let part = |part: &str| name.replace('-', "_").contains(part);
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|one| part(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_replaced_and_replacing_twice_changes_nothing() {
        let secrets = ["hunter22".to_owned(), "a/b c+d".to_owned(), "abc".to_owned()];
        for (url, expected) in [
            ("https://u:p@a.example:1/x#f", "https://a.example:1/x"),
            (
                "https://a.example/x?X-Amz-Signature=1&X-Amz-Date=2&sig=3&v=4",
                "https://a.example/x?X-Amz-Signature=REDACTED&X-Amz-Date=2&sig=REDACTED&v=4",
            ),
            ("http://a.example/hunter22/abc", "http://a.example/REDACTED/abc"),
            ("http://a.example/?q=a%2Fb+c%2Bd", "http://a.example/?q=REDACTED"),
            ("http://a.example/?sensitive=1", "http://a.example/?sensitive=1"),
            ("/relative?a=1&access_token=2", "/relative?a=1&access_token=REDACTED"),
        ] {
            let once = redacted(url, &secrets);
            assert_eq!(once, expected);
            assert_eq!(redacted(&once, &secrets), once);
        }
    }
}
