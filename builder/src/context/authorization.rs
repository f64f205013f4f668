//! Credentials for servers, from the secrets of a request.

use std::collections::BTreeMap;

use base64::Engine as _;

use super::git::Surroundings;
use crate::secret::reveal;
use crate::{Agent, Error, Request, Result};

/// What git works with: the agent `default` of `--ssh`, and the secrets `GIT_AUTH_TOKEN` and
/// `GIT_AUTH_HEADER`, alone or followed by `.HOST`.
pub(super) fn git(request: &Request) -> Result<Surroundings> {
    let mut authorization = Vec::new();
    for (id, secret) in &request.secrets {
        let host = |prefix: &str| {
            let rest = id.strip_prefix(prefix)?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
        };
        if let Some(host) = host("GIT_AUTH_HEADER") {
            authorization.push((host.to_owned(), header(id, &reveal(id, secret)?)?));
        } else if let Some(host) = host("GIT_AUTH_TOKEN") {
            let token = header(id, &reveal(id, secret)?)?;
            let pair = format!("x-access-token:{token}");
            let basic = base64::prelude::BASE64_STANDARD.encode(pair);
            authorization.push((host.to_owned(), format!("Basic {basic}")));
        }
    }
    Ok(Surroundings {
        search_path: request.sources.search_path.clone(),
        agent: match request.ssh.get("default") {
            Some(Agent::Socket(socket)) => Some(socket.clone()),
            _ => None,
        },
        keys_alone: matches!(request.ssh.get("default"), Some(Agent::Keys(_))),
        proxies: request.proxy.clone().into_iter().collect(),
        authorization,
    })
}

/// `Authorization` headers of downloads by host: the secrets `HTTP_AUTH_TOKEN_HOST` and
/// `HTTP_AUTH_HEADER_HOST`.
pub(super) fn http(request: &Request) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (id, secret) in &request.secrets {
        if let Some(host) = id.strip_prefix("HTTP_AUTH_HEADER_") {
            all.insert(host.to_owned(), header(id, &reveal(id, secret)?)?);
        } else if let Some(host) = id.strip_prefix("HTTP_AUTH_TOKEN_") {
            let token = header(id, &reveal(id, secret)?)?;
            all.entry(host.to_owned()).or_insert(format!("Bearer {token}"));
        }
    }
    Ok(all)
}

/// A secret as part of a header.
fn header(id: &str, secret: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(secret).map(str::trim).unwrap_or_default();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Error::malformed(
            format!("secret {id:?}"),
            "it is not text of one line".to_owned(),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Secret, SourceFile};

    #[test]
    fn secrets_become_headers_by_host() {
        let mut request = Request::new(SourceFile::default(), Context::Empty);
        for (id, value) in [
            ("GIT_AUTH_TOKEN", "t1"),
            ("GIT_AUTH_HEADER.h.example", "basic x"),
            ("HTTP_AUTH_TOKEN_h.example", "t2\n"),
            ("HTTP_AUTH_HEADER_i.example", "Digest y"),
            ("other", "z"),
        ] {
            request.secrets.insert(id.to_owned(), Secret::Value(value.into()));
        }
        let known = git(&request).unwrap().authorization;
        assert!(known.contains(&("h.example".to_owned(), "basic x".to_owned())), "{known:?}");
        let basic = "Basic eC1hY2Nlc3MtdG9rZW46dDE=".to_owned();
        assert!(known.contains(&(String::new(), basic)), "{known:?}");
        let known = http(&request).unwrap();
        assert_eq!(known["h.example"], "Bearer t2");
        assert_eq!(known["i.example"], "Digest y");
        request.secrets.insert("GIT_AUTH_TOKEN".to_owned(), Secret::Value(b"a\nb".to_vec()));
        assert!(git(&request).is_err());
    }
}
