//! Lists: tags, referrers, the catalog.

use hyper::Method;
use image::{Descriptor, Digest, Index, MediaType};
use serde_json::json;

use super::answer::{Answer, HandlerResult, HeaderExt, error, json as answer_json};
use super::call::Call;
use crate::access::gate;
use crate::inner::RegistryInner;
use crate::keys;

/// The most names that are sent at once.
const PAGE: usize = 10_000;
/// The most referrers in one response.
const REFERRERS: usize = 500;

/// How many names a client wants, and after which.
fn wanted(call: &Call) -> Result<(usize, Option<String>), Answer> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(error(405, "UNSUPPORTED", "lists are read"));
    }
    let n = match call.parameter("n") {
        None => PAGE,
        Some(n) => match n.parse::<usize>() {
            Ok(n) => n.min(PAGE),
            Err(_) => {
                return Err(error(400, "PAGINATION_NUMBER_INVALID", "n is not a number"));
            }
        },
    };
    let last = call.parameter("last").filter(|last| !last.is_empty()).map(str::to_owned);
    Ok((n, last))
}

/// A page out of one name more than it has.
fn page(mut names: Vec<String>, n: usize) -> (Vec<String>, Option<String>) {
    let more = names.len() > n;
    names.truncate(n);
    let next = names.last().filter(|_| more).map(|last| format!("n={n}&last={last}"));
    (names, next)
}

/// A name as a part of a query.
fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace('&', "%26")
}

fn linked(answer: Answer, next: Option<String>) -> Answer {
    match next {
        Some(next) => answer.with("link", format!("<{next}>; rel=\"next\"")),
        None => answer,
    }
}

pub(crate) async fn tags(shared: &RegistryInner, call: &Call, name: &str) -> HandlerResult {
    let (n, last) = wanted(call)?;
    let names = match shared.upstreams.of(name) {
        Some(upstream) => shared.upstreams.tags(&upstream, name, last.as_deref(), n + 1).await?,
        None => None,
    };
    let names = match names {
        Some(names) => names,
        None if !shared.content.is_repository(name).await? => {
            let message = format!("there is no repository {name}");
            return Err(error(404, "NAME_UNKNOWN", &message).into());
        }
        None => {
            let directory = keys::tags(name);
            shared.content.storage.names(&directory, last.as_deref(), n + 1).await?
        }
    };
    let (tags, next) = page(names, n);
    let next = next.map(|next| format!("/v2/{name}/tags/list?{next}"));
    Ok(linked(answer_json(200, &json!({ "name": name, "tags": tags })), next))
}

pub(crate) async fn catalog(shared: &RegistryInner, call: &Call) -> HandlerResult {
    let (n, last) = wanted(call)?;
    let mut last = last.map(|last| last.replace('/', "%"));
    let mut names: Vec<String> = Vec::new();
    // Hidden entries do not make a page shorter.
    while names.len() <= n {
        let some = shared.content.storage.names(keys::NAMES, last.as_deref(), PAGE + 1).await?;
        last = some.last().cloned();
        let all = some.len() <= PAGE;
        let some = some.into_iter().map(|name| name.replace('%', "/"));
        names.extend(some.filter(|name| gate::lists(shared, call, name)));
        if all {
            break;
        }
    }
    let more = names.len() > n;
    let names = &names[..names.len().min(n)];
    let next = names.last().filter(|_| more);
    let next = next.map(|last| format!("/v2/_catalog?n={n}&last={}", encoded(last)));
    Ok(linked(answer_json(200, &json!({ "repositories": names })), next))
}

pub(crate) async fn referrers(
    shared: &RegistryInner,
    call: &Call,
    name: &str,
    digest: &str,
) -> HandlerResult {
    let Ok(subject) = digest.parse::<Digest>() else {
        return Err(error(400, "DIGEST_INVALID", "not a digest").into());
    };
    let (n, last) = wanted(call)?;
    let n = n.min(REFERRERS);
    let after = last.and_then(|last| last.parse::<Digest>().ok());
    let kind = call.parameter("artifactType");
    let mut found: Vec<Descriptor> = match shared.upstreams.of(name) {
        Some(upstream) => shared.upstreams.referrers(&upstream, name, subject).await?,
        None => shared.content.referrers(name, subject, after, n + 1).await?,
    };
    let more = found.len() > n;
    found.truncate(n);
    let last = found.last().filter(|_| more).map(|last| last.digest);
    found.retain(|referrer| kind.is_none() || referrer.artifact_type.as_deref() == kind);
    let answer = answer_json(200, &json!(Index::new(found)));
    let answer = answer.with("content-type", MediaType::OCI_INDEX.as_str());
    let filter = kind.map(|kind| format!("&artifactType={}", encoded(kind))).unwrap_or_default();
    let next = last.map(|last| format!("/v2/{name}/referrers/{subject}?n={n}&last={last}{filter}"));
    let answer = linked(answer, next);
    Ok(match kind {
        Some(_) => answer.with("oci-filters-applied", "artifactType"),
        None => answer,
    })
}
