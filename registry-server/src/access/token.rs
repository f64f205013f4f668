//! What the token service of tests gave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What a token allows: `repository:name` to its actions.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(super) grants: BTreeMap<String, BTreeSet<String>>,
    pub(super) until: Instant,
}

impl Token {
    pub(super) fn allows(&self, name: &str, action: &str) -> bool {
        let granted = self.grants.get(name);
        granted.is_some_and(|actions| actions.contains(action) || actions.contains("*"))
    }
}
