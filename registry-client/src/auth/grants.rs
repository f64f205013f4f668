use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::HeaderValue;
use tokio::time::Instant;
use url::Url;

use super::challenge::Challenge;
use super::scope::Scope;

/// A header that was granted, and until when it serves.
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    pub(super) until: Option<Instant>,
}

impl Grant {
    pub(super) fn valid(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

pub(super) type Slot = Arc<tokio::sync::Mutex<Option<Grant>>>;

/// How one host authenticates clients, as far as known.
#[derive(Default)]
pub(crate) struct Authority {
    /// The last challenge and the URL that gave it; saves the next scope a refused request.
    challenge: Mutex<Option<(Challenge, Url)>>,
    grants: Mutex<HashMap<Scope, Slot>>,
}

impl Authority {
    pub(super) fn slot(&self, scope: &Scope) -> Slot {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() > 4096 {
            grants.clear();
        }
        Arc::clone(grants.entry(scope.clone()).or_default())
    }

    pub(super) fn granted(&self, scope: &Scope) -> Option<HeaderValue> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = grants.get(scope)?.try_lock().ok()?;
        slot.as_ref().filter(|grant| grant.valid()).map(|grant| grant.header.clone())
    }

    pub(super) fn challenge(&self) -> Option<(Challenge, Url)> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn learn(&self, challenge: &Challenge, url: &Url) {
        let challenge = match challenge.clone() {
            // The scope was for one request only.
            Challenge::Bearer { realm, service, .. } => {
                Challenge::Bearer { realm, service, scope: None, error: None }
            }
            other => other,
        };
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((challenge, url.clone()));
    }

    /// Drops what was granted for a scope.
    pub(super) fn forget(&self, scope: &Scope) {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
    }
}
