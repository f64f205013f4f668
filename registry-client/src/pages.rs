//! Lists that come in pages: tags, the catalog, referrers.

use std::collections::HashSet;

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::auth::{Access, Scope};
use crate::call::{Answer, BodyMode, Call, Endpoint, RequestTarget};
use crate::connect::same_origin;
use crate::inner::ClientInner;
use crate::{Error, Result, wire};

/// The largest page that is read, in bytes.
const PAGE: u64 = 16 << 20;
/// All pages of one list together, in bytes.
const TOTAL: u64 = 64 << 20;
/// Pages of one list.
const PAGES: usize = 20_000;
/// Pages in a row that may bring nothing new.
const EMPTY: usize = 3;

/// Follows `next` links from page to page of one list, never to another host, never in circles.
pub(crate) struct Pages<'a> {
    inner: &'a ClientInner,
    endpoint: &'a Endpoint,
    call: Call,
    visited: HashSet<Url>,
    bytes: u64,
    barren: usize,
    done: bool,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(inner: &'a ClientInner, endpoint: &'a Endpoint, call: Call) -> Pages<'a> {
        let call = call.read(BodyMode::Document(PAGE));
        Pages { inner, endpoint, call, visited: HashSet::new(), bytes: 0, barren: 0, done: false }
    }

    /// The next page's answer; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>> {
        if self.done {
            return Ok(None);
        }
        let answer = self.inner.send(self.endpoint, &self.call).await?;
        self.visited.insert(answer.url.clone());
        self.bytes += answer.body.len() as u64;
        if self.bytes > TOTAL || self.visited.len() > PAGES {
            return Err(self.malformed("the list does not end".into()));
        }
        let next = wire::next_link(&answer.headers);
        match next.map_err(|link| {
            self.malformed(format!("the link to the next page is malformed: {link}"))
        })? {
            None => self.done = true,
            Some(link) => {
                let next = self.inner.next_url(&answer.url, &link);
                let shown = wire::printable(&link);
                let next = next.map_err(|reason| {
                    self.malformed(format!("the next page is at {shown}, {reason}"))
                })?;
                if !same_origin(&next, &answer.url) {
                    return Err(Error::Unsafe {
                        registry: self.endpoint.registry().to_owned(),
                        action: self.call.action.clone(),
                        reason: format!("the next page is on another host, {shown}"),
                    });
                }
                if self.visited.contains(&next) {
                    return Err(self.malformed("its pages form a cycle".into()));
                }
                self.call.to = RequestTarget::Url(next);
            }
        }
        Ok(Some(answer))
    }

    /// Notes how much of the last page was new; an endless list of nothing is an error.
    pub(crate) fn brought(&mut self, new: usize) -> Result<()> {
        self.barren = if new == 0 { self.barren + 1 } else { 0 };
        if self.barren > EMPTY && !self.done {
            return Err(self.malformed("its pages bring nothing new".into()));
        }
        Ok(())
    }

    /// The page as JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        // A list would pass for an object without any of its fields.
        let object = answer.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if !object {
            return Err(self.malformed("no JSON object".into()));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.malformed(format!("malformed JSON ({error})")))
    }

    fn malformed(&self, reason: String) -> Error {
        Error::Malformed {
            registry: self.endpoint.registry().to_owned(),
            action: self.call.action.clone(),
            reason,
        }
    }
}

/// A page of names; registries send `null` for lists and in lists.
#[derive(Deserialize)]
struct Names {
    #[serde(default, alias = "repositories")]
    tags: Option<Vec<Option<String>>>,
}

async fn names(
    mut pages: Pages<'_>,
    limit: Option<usize>,
    valid: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    while names.len() < limit {
        let Some(answer) = pages.next().await? else { break };
        let page: Names = pages.parse(&answer)?;
        let before = names.len();
        let several = !pages.done || pages.visited.len() > 1;
        for name in page.tags.unwrap_or_default().into_iter().flatten() {
            // What is not a name can only do harm, to a terminal or in a path.
            if valid(&name) && (!several || seen.insert(name.clone())) {
                names.push(name);
            }
        }
        pages.brought(names.len() - before)?;
    }
    names.truncate(limit);
    Ok(names)
}

pub(crate) async fn tags(
    inner: &ClientInner,
    endpoint: &Endpoint,
    limit: Option<usize>,
) -> Result<Vec<String>> {
    let query = limit.map(|limit| format!("?n={limit}")).unwrap_or_default();
    let path = format!("/v2/{}/tags/list{query}", endpoint.path());
    let call = Call::new(
        Method::GET,
        RequestTarget::Path(path),
        Scope::new(Access::Pull, endpoint.path()),
        format!("listing the tags of {}", endpoint.path()),
    );
    let call = call.header(ACCEPT, HeaderValue::from_static("application/json"));
    let pages = Pages::new(inner, endpoint, call);
    names(pages, limit, |name| name.parse::<image::Tag>().is_ok()).await
}

pub(crate) async fn catalog(inner: &ClientInner, endpoint: &Endpoint) -> Result<Vec<String>> {
    let call = Call::new(
        Method::GET,
        RequestTarget::Path("/v2/_catalog?n=1000".into()),
        Scope::new(Access::Catalog, ""),
        "listing the repositories".to_owned(),
    );
    let call = call.header(ACCEPT, HeaderValue::from_static("application/json"));
    let registry = endpoint.registry().to_owned();
    names(Pages::new(inner, endpoint, call), None, |name| {
        image::Repository::new(&registry, name).is_ok()
    })
    .await
}
