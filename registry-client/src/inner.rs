use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use image::Repository;

use crate::call::Endpoint;
use crate::connect::Connections;
use crate::limit::{Host, Hosts};
use crate::routes::{self, RepositoryAddress, Use};
use crate::sessions::Sessions;
use crate::{Error, Options, Result, quirks, wire};

/// Warnings passed on at most.
const MOST_WARNINGS: usize = 20;

/// What a client consists of; shared by all its repositories.
pub(crate) struct ClientInner {
    pub(crate) options: Options,
    pub(crate) connections: Connections,
    pub(crate) hosts: Hosts,
    pub(crate) sessions: Sessions,
    /// The warnings passed on.
    told: Mutex<HashSet<String>>,
}

impl ClientInner {
    pub(crate) fn new(options: Options) -> ClientInner {
        ClientInner {
            options,
            connections: Connections::default(),
            hosts: Hosts::default(),
            sessions: Sessions::default(),
            told: Mutex::default(),
        }
    }

    /// Says something to the user, each text once.
    pub(crate) fn warn(&self, text: &str) {
        let Some(warn) = &self.options.warn else { return };
        let text = wire::printable(text);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST_WARNINGS && told.insert(text.clone()) {
            drop(told);
            warn(&text);
        }
    }

    /// An endpoint, ready for requests.
    pub(crate) fn endpoint(&self, place: RepositoryAddress) -> Endpoint {
        let rule = place.rule.and_then(|index| self.options.hosts.get(index));
        let host = self.hosts.host((&place.authority, place.tls, place.rule), || {
            let concurrency = rule.and_then(|rule| rule.concurrency);
            let like = rule.and_then(|rule| rule.like.as_deref());
            let quirk = quirks::of(like.unwrap_or(place.repository.registry()));
            Host::new(
                place.authority.clone(),
                place.tls,
                place.rule,
                (rule.and_then(|rule| rule.chunk), quirk),
                concurrency.unwrap_or(self.options.concurrency),
            )
        });
        Endpoint { place: Arc::new(place), host, about_registry: false }
    }

    /// A registry as such: its catalog, its presence.
    pub(crate) fn registry_endpoint(&self, registry: &str) -> Result<Endpoint> {
        // Rules and hosts go by repositories; the path is not used.
        let repository =
            Repository::new(registry, "registry").map_err(|error| Error::Configuration {
                action: format!("using {registry:?}"),
                reason: error.to_string(),
            })?;
        let place = self.primary(&repository)?.place;
        Ok(Endpoint { about_registry: true, ..self.endpoint((*place).clone()) })
    }

    /// The places of a repository, the mirrors that serve this use and the registry itself; see
    /// [`routes::places`].
    pub(crate) fn endpoints(
        &self,
        repository: &Repository,
        r#use: &Use,
    ) -> Result<(Vec<Endpoint>, Endpoint)> {
        let known = (&self.options.routes[..], &self.options.hosts[..]);
        let (mirrors, own) = routes::places(known, repository, r#use)?;
        let mirrors = mirrors.into_iter().map(|place| self.endpoint(place)).collect();
        Ok((mirrors, self.endpoint(own)))
    }

    /// The registry of a repository itself.
    pub(crate) fn primary(&self, repository: &Repository) -> Result<Endpoint> {
        Ok(self.endpoints(repository, &Use::Writing)?.1)
    }
}
