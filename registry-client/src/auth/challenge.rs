use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants clients to authenticate (RFC 9110, 11.6.1; the token authentication
/// specification of distribution).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from the token service at `realm`.
    Bearer {
        /// The token service's URL; unchecked.
        realm: String,
        /// What the token is for.
        service: Option<String>,
        /// What it must allow, space-separated.
        scope: Option<String>,
        /// Why the token that was sent is not enough (`insufficient_scope`, `invalid_token`).
        error: Option<String>,
    },
    /// A scheme we do not speak.
    Other(String),
}

impl Challenge {
    /// The challenge to answer among those in the headers: Bearer before Basic before others.
    pub(crate) fn best(headers: &HeaderMap) -> Option<Challenge> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let all = values.flat_map(|v| Challenge::parse(&String::from_utf8_lossy(v.as_bytes())));
        all.min_by_key(|challenge| match challenge {
            Challenge::Bearer { .. } => 0,
            Challenge::Basic => 1,
            Challenge::Other(_) => 2,
        })
    }

    /// All challenges of one header. What the grammar forbids but registries send (unquoted
    /// URLs, for one) is read leniently.
    pub(crate) fn parse(text: &str) -> Vec<Challenge> {
        if text.len() > 8 << 10 {
            return Vec::new();
        }
        let strict: Result<Vec<_>, _> = http_auth::ChallengeParser::new(text).collect();
        match strict {
            Ok(challenges) => challenges
                .into_iter()
                .map(|challenge| {
                    let parameters = challenge.params.iter();
                    let parameters = parameters
                        .map(|(key, value)| ((*key).to_owned(), value.to_unescaped()))
                        .collect();
                    Challenge::from_parts(challenge.scheme, parameters)
                })
                .collect(),
            Err(_) => lenient(text).into_iter().collect(),
        }
    }

    fn from_parts(scheme: &str, parameters: Vec<(String, String)>) -> Challenge {
        if scheme.eq_ignore_ascii_case("basic") {
            return Challenge::Basic;
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Challenge::Other(scheme.chars().take(40).collect());
        }
        let (mut realm, mut service, mut scope, mut error) = (String::new(), None, None, None);
        for (key, value) in parameters {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = value,
                "service" => service = Some(value),
                "scope" => scope = Some(value).filter(|scope| !scope.trim().is_empty()),
                "error" => error = Some(value),
                _ => {}
            }
        }
        Challenge::Bearer { realm, service, scope, error }
    }
}

/// `Scheme key=value, key="value"` with any bytes but quotes and commas in unquoted values.
fn lenient(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return None;
    }
    let mut parameters = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches(|c: char| c == ',' || c.is_whitespace()).to_owned();
        let (value, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((key, value.trim().to_owned()));
        rest = next;
    }
    Some(Challenge::from_parts(scheme, parameters))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            error: None,
        }
    }

    fn best(values: &[&str]) -> Option<Challenge> {
        let values = values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap()));
        Challenge::best(&values.collect())
    }

    #[test]
    fn challenges() {
        let hub = r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull,push""#;
        let expected = bearer("https://a/token", Some("r"), Some("repository:x:pull,push"));
        assert_eq!(best(&[hub]), Some(expected.clone()));
        assert_eq!(best(&[r#"Basic realm="x""#, hub]), Some(expected.clone()));
        assert_eq!(best(&[&format!("Basic realm=\"x\", {hub}")]), Some(expected));
        assert_eq!(best(&["basic"]), Some(Challenge::Basic));
        assert_eq!(best(&["Negotiate"]), Some(Challenge::Other("Negotiate".into())));
        assert_eq!(
            best(&["BEARER Realm=https://a/token, service=r"]),
            Some(bearer("https://a/token", Some("r"), None))
        );
        assert_eq!(
            best(&[r#"Bearer realm="https://a/token",scope="""#]),
            Some(bearer("https://a/token", None, None))
        );
        assert_eq!(best(&[]), None);
        assert_eq!(best(&[""]), None);
        assert_eq!(best(&["Bearer"]), Some(bearer("", None, None)));
        let raw = b"Bearer realm=\"https://a/token\",service=\"caf\xc3\xa9 \xe9\"";
        let map = [(WWW_AUTHENTICATE, reqwest::header::HeaderValue::from_bytes(raw).unwrap())];
        let expected = bearer("https://a/token", Some("caf\u{e9} \u{fffd}"), None);
        assert_eq!(Challenge::best(&HeaderMap::from_iter(map)), Some(expected));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            Challenge::parse(&text);
        }

        #[test]
        fn no_near_miss_panics(text in r#"(Bearer|Basic|Digest)?[ ,="\\a-z:/]{0,60}"#) {
            Challenge::parse(&text);
            lenient(&text);
        }
    }
}
