//! Who is to have signed.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;

use super::certificate::{Identity, Name};

/// How a text is compared.
#[derive(Debug, Clone)]
pub enum Matching {
    /// It is this.
    Exact(String),
    /// It is a mail address, and this.
    Email(String),
    /// It is a host name, and this.
    Host(String),
    /// This regular expression matches the whole of it.
    Pattern(Regex),
}

impl PartialEq for Matching {
    fn eq(&self, other: &Matching) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Matching {}

impl Matching {
    /// A regular expression that must match the whole text.
    ///
    /// # Errors
    /// It is none.
    pub fn pattern(text: &str) -> Result<Matching, String> {
        if text.is_empty() {
            return Err("an empty regular expression matches every identity".to_owned());
        }
        // Alone first: what closes the group must not open the expression.
        Regex::new(text).map_err(|error| format!("{text:?}: {error}"))?;
        let whole = Regex::new(&format!("^(?:{text})$"));
        whole.map(Matching::Pattern).map_err(|error| format!("{text:?}: {error}"))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Matching::Exact(wanted) => wanted == text,
            Matching::Email(_) | Matching::Host(_) => false,
            Matching::Pattern(pattern) => pattern.is_match(text),
        }
    }

    fn names(&self, name: &Name) -> bool {
        match (self, name) {
            (Matching::Email(wanted), Name::Email(found)) => wanted == found,
            (Matching::Host(wanted), Name::Host(found)) => wanted.eq_ignore_ascii_case(found),
            (Matching::Email(_) | Matching::Host(_), _) => false,
            (_, Name::Email(text) | Name::Host(text) | Name::Other(text)) => self.matches(text),
        }
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matching::Exact(text) => f.write_str(text),
            Matching::Email(text) => write!(f, "the mail address {text}"),
            Matching::Host(text) => write!(f, "the host {text}"),
            Matching::Pattern(pattern) => write!(f, "{pattern}"),
        }
    }
}

/// Who is to have signed: all that is said must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRule {
    /// The identities that the certificate must have: all of them.
    pub subjects: Vec<Matching>,
    /// Which OpenID provider must have vouched for that.
    pub issuer: Option<Matching>,
    /// What else the provider must have said, such as `githubWorkflowRef`.
    pub claims: BTreeMap<String, String>,
}

impl IdentityRule {
    /// Whether this is the identity.
    ///
    /// # Errors
    /// Says what differs.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), String> {
        for subject in &self.subjects {
            if !identity.names.iter().any(|name| subject.names(name)) {
                return Err(format!("{} signed it, not {subject}", identity.subject));
            }
        }
        if let Some(issuer) = &self.issuer
            && !issuer.matches(&identity.issuer)
        {
            let found = &identity.issuer;
            return Err(format!("{found:?} vouches for its signer, not {issuer}"));
        }
        for (name, wanted) in &self.claims {
            match identity.claims.get(name) {
                Some(found) if found == wanted => {}
                Some(found) => {
                    return Err(format!("its signer's {name} is {found:?}, not {wanted:?}"));
                }
                None => return Err(format!("its certificate says no {name}")),
            }
        }
        Ok(())
    }
}

/// Whether one of the rules holds.
///
/// # Errors
/// The mismatch of the last rule; there is no rule.
pub(crate) fn any(rules: &[IdentityRule], identity: &Identity) -> Result<(), String> {
    let mut why = "no signer is trusted".to_owned();
    for rule in rules {
        match rule.check(identity) {
            Ok(()) => return Ok(()),
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

impl fmt::Display for IdentityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<_> = self.subjects.iter().map(ToString::to_string).collect();
        f.write_str(&subjects.join(" and "))?;
        if let Some(issuer) = &self.issuer {
            write!(f, " ({issuer})")?;
        }
        for (name, value) in &self.claims {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.issuer.is_empty() {
            true => f.write_str(&self.subject),
            false => write!(f, "{} ({})", self.subject, self.issuer),
        }
    }
}
