//! The fields `KEY=VALUE` of a cache.

use std::collections::BTreeMap;
use std::path::Path;

use crate::syntax::SyntaxError;

pub(super) type Result<T> = std::result::Result<T, SyntaxError>;

/// What the fields of a cache depend on beside themselves.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where relative paths begin.
    pub directory: &'a Path,
    /// The variables of the environment: the services of caches have theirs.
    pub variables: &'a BTreeMap<String, String>,
}

pub(super) fn bad(reason: impl Into<String>) -> SyntaxError {
    SyntaxError::new(reason)
}

/// The fields `KEY=VALUE` of a place, which are taken out one by one.
pub(super) struct Fields<'a> {
    pairs: Vec<(String, String)>,
    pub(super) around: Surroundings<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(fields: &[String], around: Surroundings<'a>) -> Result<Fields<'a>> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in fields {
            match pair.split_once('=') {
                Some((key, _)) if pairs.iter().any(|(known, _)| known == key.trim()) => {
                    return Err(bad(format!("{key:?} is given twice")));
                }
                Some((key, value)) => pairs.push((key.trim().to_owned(), value.trim().to_owned())),
                None => return Err(bad(format!("{pair:?} is not KEY=VALUE"))),
            }
        }
        Ok(Fields { pairs, around })
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub(super) fn need(&mut self, key: &str) -> Result<String> {
        let found = self.take(key).filter(|value| !value.is_empty());
        found.ok_or_else(|| bad(format!("it has no {key}=")))
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad(format!("{key}={other}: expected true or false"))),
        }
    }

    /// A field, or what the environment has in a variable.
    pub(super) fn or_variable(&mut self, key: &str, variable: &str) -> Option<String> {
        let given = self.take(key).or_else(|| self.around.variables.get(variable).cloned());
        given.filter(|value| !value.is_empty())
    }

    /// The variables whose names begin so.
    pub(super) fn variables(&self, prefix: &str) -> Vec<(String, String)> {
        let all = self.around.variables.iter();
        let ours = all.filter(|(name, value)| name.starts_with(prefix) && !value.is_empty());
        ours.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(bad(format!("the key {key:?} is not supported"))),
        }
    }
}
