use std::collections::{BTreeMap, BTreeSet};

/// What a request needs to be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Nothing in particular.
    Any,
    Pull,
    Push,
    Delete,
    Catalog,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) access: Access,
    /// The repository's path; empty for the registry itself.
    pub(crate) repository: String,
    /// Another repository to read from, for mounts.
    pub(crate) from: Option<String>,
}

impl Scope {
    pub(crate) fn new(access: Access, repository: &str) -> Scope {
        Scope { access, repository: repository.to_owned(), from: None }
    }

    /// The scopes to ask a token service for, with what the challenge asks for added: one token
    /// that serves both needs one request.
    pub(super) fn texts(&self, challenged: Option<&str>) -> Vec<String> {
        let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut add = |name: String, actions: &str| {
            let actions = actions.split(',').filter(|action| !action.is_empty());
            wanted.entry(name).or_default().extend(actions.map(str::to_owned));
        };
        let repository = format!("repository:{}", self.repository);
        match (self.access, challenged) {
            (Access::Any, _) => {}
            (Access::Pull, _) => add(repository, "pull"),
            (Access::Push, _) => add(repository, "pull,push"),
            // Token services that do not know `delete` refuse it, so their word goes first.
            (Access::Delete, Some(_)) => {}
            (Access::Delete, None) => add(repository, "delete,pull"),
            (Access::Catalog, _) => add("registry:catalog".to_owned(), "*"),
        }
        if let Some(from) = &self.from {
            add(format!("repository:{from}"), "pull");
        }
        for scope in challenged.unwrap_or_default().split_ascii_whitespace().take(8) {
            if let Some((name, actions)) = scope.rsplit_once(':') {
                add(name.to_owned(), actions);
            }
        }
        let join = |actions: BTreeSet<String>| actions.into_iter().collect::<Vec<_>>().join(",");
        wanted.into_iter().map(|(name, actions)| format!("{name}:{}", join(actions))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let scope = |access, from: Option<&str>| Scope {
            access,
            repository: "a/b".into(),
            from: from.map(str::to_owned),
        };
        for (scope, challenged, expected) in [
            (scope(Access::Pull, None), None, "repository:a/b:pull"),
            (scope(Access::Push, None), Some("repository:a/b:pull"), "repository:a/b:pull,push"),
            (scope(Access::Push, Some("c")), None, "repository:a/b:pull,push repository:c:pull"),
            (scope(Access::Delete, None), Some("repository:a/b:*"), "repository:a/b:*"),
            (scope(Access::Delete, None), None, "repository:a/b:delete,pull"),
            (scope(Access::Catalog, None), None, "registry:catalog:*"),
            (scope(Access::Any, None), None, ""),
            (scope(Access::Pull, None), Some("nonsense"), "repository:a/b:pull"),
        ] {
            assert_eq!(scope.texts(challenged).join(" "), expected);
        }
    }
}
