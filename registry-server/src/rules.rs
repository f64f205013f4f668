//! What may change while a server runs: certificates, people, keys, upstreams, and the rules and
//! limits of a configuration.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::access::Auth;
use crate::lock::Lock;
use crate::quota::Quota;
use crate::retention::Retention;
use crate::upstream::source::OpenUpstream;
use crate::{Clock, Error, Immutable, Limits, Options, Result};

/// What counts now.
pub(crate) struct Rules {
    pub(crate) auth: Auth,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Whether clients must show a certificate.
    asks: bool,
    pub(crate) immutable: Vec<Immutable>,
    pub(crate) retention: Vec<Retention>,
    pub(crate) quotas: Vec<Quota>,
    /// The grace is not among what changes: collections that run count on it.
    pub(crate) limits: Limits,
    pub(crate) webhooks: Vec<String>,
    /// Where repositories come from, the longest prefix first.
    pub(crate) sources: Vec<Arc<OpenUpstream>>,
}

impl Rules {
    /// # Errors
    /// [`Error::Configuration`].
    pub(crate) fn of(options: &Options, clock: Clock) -> Result<Rules> {
        if matches!(&options.auth, Auth::Access(a) if a.tokens.is_some()) && !clock.goes() {
            let reason = "they run out, and there is no clock".to_owned();
            return Err(Error::Configuration { what: "tokens", reason });
        }
        let tls = options.tls.as_ref();
        Ok(Rules {
            auth: options.auth.clone(),
            tls: tls.map(crate::tls::acceptor).transpose()?,
            asks: tls.is_some_and(|tls| tls.client_authorities.is_some()),
            immutable: options.immutable.clone(),
            retention: options.retention.clone(),
            quotas: options.quotas.clone(),
            limits: options.limits.clone(),
            webhooks: options.webhooks.clone(),
            sources: OpenUpstream::all(&options.upstreams, &options.proxies)?,
        })
    }

    /// Why these rules cannot replace the current ones while a server runs: a half-written file
    /// must not open what was closed.
    fn refuses(&self, new: &Rules) -> Option<&'static str> {
        let rules = |auth: &Auth| match auth {
            Auth::Access(access) => (true, !access.rules.is_empty()),
            _ => (false, false),
        };
        let (old_auth, new_auth) = (rules(&self.auth), rules(&new.auth));
        if self.tls.is_some() != new.tls.is_some() {
            return Some("whether there is [tls] is decided when the server starts");
        }
        if self.asks != new.asks {
            return Some("whether there is a client-ca is decided when the server starts");
        }
        if old_auth.0 != new_auth.0 {
            return Some("whether there is [auth] is decided when the server starts");
        }
        if !self.sources.is_empty() && new.sources.is_empty() {
            return Some("it has no [[upstream]] any more");
        }
        (old_auth.1 && !new_auth.1).then_some("it has no [[access]] any more")
    }
}

/// The current rules of a server, shared by all holders.
#[derive(Clone)]
pub(crate) struct CurrentRules(Arc<Lock<Arc<Rules>>>);

impl CurrentRules {
    pub(crate) fn new(rules: Rules) -> CurrentRules {
        CurrentRules(Arc::new(Lock::new(Arc::new(rules))))
    }

    pub(crate) fn get(&self) -> Arc<Rules> {
        Arc::clone(&self.0.lock())
    }
}

/// Says what is configured now if that changed since it was asked last.
#[derive(Clone)]
pub struct Renewal(pub(crate) Arc<OptionsLoader>);

pub(crate) type OptionsLoader = dyn Fn() -> Result<Option<Options>, String> + Send + Sync;

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

impl Renewal {
    /// Asks this. It may block; its error is why what is there now cannot be used.
    pub fn new(ask: impl Fn() -> Result<Option<Options>, String> + Send + Sync + 'static) -> Self {
        Renewal(Arc::new(ask))
    }
}

/// Takes new rules in place of those there are.
///
/// # Errors
/// Why they are not taken.
pub(crate) fn take(current: &CurrentRules, options: &Options, clock: Clock) -> Result<(), String> {
    let new = Rules::of(options, clock).map_err(|error| error.to_string())?;
    let mut held = current.0.lock();
    if let Some(reason) = held.refuses(&new) {
        return Err(reason.to_owned());
    }
    *held = Arc::new(new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Action, Pattern, Rule};
    use std::time::Duration;

    fn options(auth: Auth) -> Options {
        Options { auth, ..Options::default() }
    }

    fn access(rules: usize) -> Auth {
        let rule = Rule {
            repositories: vec![Pattern::new("**").unwrap()],
            users: vec!["anna".to_owned()],
            allow: vec![Action::Pull],
        };
        Auth::Access(Access { rules: vec![rule; rules], ..Access::default() })
    }

    #[test]
    fn nothing_that_was_closed_is_opened() {
        let current = CurrentRules::new(Rules::of(&options(access(1)), Clock::default()).unwrap());
        let rules = || match &current.get().auth {
            Auth::Access(access) => access.rules.len(),
            _ => 0,
        };
        let try_take = |auth| take(&current, &options(auth), Clock::default());
        assert!(try_take(Auth::None).unwrap_err().contains("[auth]"));
        assert!(try_take(access(0)).unwrap_err().contains("[[access]]"));
        assert_eq!(rules(), 1);
        try_take(access(2)).unwrap();
        assert_eq!(rules(), 2);
        let upstream = crate::Upstream {
            prefix: "mirror".to_owned(),
            registry: "registry.example".to_owned(),
            path: String::new(),
            host: registry_client::HostRule::default(),
            credential: None,
            ttl: Duration::ZERO,
        };
        let more = Options { upstreams: vec![upstream.clone()], ..options(access(2)) };
        take(&current, &more, Clock::default()).unwrap();
        // What comes from elsewhere is not pushed to, whatever became of the file.
        assert!(try_take(access(2)).unwrap_err().contains("[[upstream]]"));
        let odd = crate::Upstream { registry: "no registry".to_owned(), ..upstream };
        let odd = Options { upstreams: vec![odd], ..options(access(3)) };
        assert!(take(&current, &odd, Clock::default()).unwrap_err().contains("mirror"));
        assert_eq!(current.get().sources.len(), 1);
        let tls = crate::Tls { certificate: Vec::new(), key: Vec::new(), client_authorities: None };
        let broken = Options { tls: Some(tls), ..more };
        let error = take(&current, &broken, Clock::default()).unwrap_err();
        assert!(error.contains("no certificate"), "{error}");
        assert_eq!(rules(), 2);
    }
}
