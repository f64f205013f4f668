//! Which headers go where.

use std::collections::BTreeMap;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::exchange::redacted;

/// Headers of an answer that are kept: they say what the content is, and hold no secret.
const KEPT: [&str; 19] = [
    "accept-ranges",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "docker-content-digest",
    "docker-distribution-api-version",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "vary",
    "www-authenticate",
    "x-pypi-last-serial",
];

/// Headers of a request that are not passed on: those about the connection, and those that ask for
/// nothing if nothing has changed, which nobody could replay.
const DROPPED: [HeaderName; 12] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

/// The headers of a request as they are passed on.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<String> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let mut passed = headers.clone();
    for name in &DROPPED {
        passed.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"].into_iter().chain(named.iter().map(|n| &**n)) {
        passed.remove(name);
    }
    passed
}

/// The headers of an answer that are kept.
pub(crate) fn kept(
    headers: &HeaderMap,
    head: bool,
    secrets: &[String],
) -> BTreeMap<String, String> {
    let own = if head { Some("content-length") } else { None };
    let one = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        let value = match name {
            "location" | "content-location" => redacted(value, secrets),
            _ => secrets.iter().fold(value.to_owned(), |value, secret| match secret.len() {
                0..6 => value,
                _ => value.replace(secret.as_str(), "REDACTED"),
            }),
        };
        Some((name.to_owned(), value))
    };
    KEPT.into_iter().chain(own).filter_map(one).collect()
}

/// Puts kept headers into an answer.
pub(crate) fn put(kept: &BTreeMap<String, String>, headers: &mut HeaderMap) {
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_hold_secrets_are_not_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "session=1"),
            ("authorization", "Bearer x"),
            ("x-vault-token", "x"),
            ("content-type", "text/plain"),
            ("etag", "\"of hunter22\""),
            ("location", "https://a.example/?token=1"),
            ("content-length", "3"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = |head| kept(&headers, head, &["hunter22".to_owned()]);
        let text = format!("{:?}", kept(false));
        let expected = "{\"content-type\": \"text/plain\", \"etag\": \"\\\"of REDACTED\\\"\", \
                        \"location\": \"https://a.example/?token=REDACTED\"}";
        assert_eq!(text, expected);
        assert!(kept(true).contains_key("content-length"));
    }

    #[test]
    fn headers_of_the_connection_and_conditions_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic x"),
            ("if-none-match", "\"1\""),
            ("authorization", "Bearer x"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let passed = passed_on(&headers);
        let names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization"]);
    }
}
