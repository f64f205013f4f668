//! Which endpoint a path is.

/// The endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Base,
    Catalog,
    Tags(&'a str),
    Referrers(&'a str, &'a str),
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
}

impl<'a> Route<'a> {
    /// From the path below `/v2`.
    pub(crate) fn parse(path: &'a str) -> Option<Route<'a>> {
        let path = match path {
            "" | "/" => return Some(Route::Base),
            "/_catalog" => return Some(Route::Catalog),
            path => path.strip_prefix('/')?,
        };
        let two =
            |middle: &str| path.rfind(middle).map(|at| (&path[..at], &path[at + middle.len()..]));
        let route = if let Some((name, session)) = two("/blobs/uploads/") {
            if session.is_empty() { Route::Uploads(name) } else { Route::Upload(name, session) }
        } else if let Some(name) = path.strip_suffix("/blobs/uploads") {
            Route::Uploads(name)
        } else if let Some(name) = path.strip_suffix("/tags/list") {
            Route::Tags(name)
        } else if let Some((name, reference)) = two("/manifests/") {
            Route::Manifest(name, reference)
        } else if let Some((name, digest)) = two("/referrers/") {
            Route::Referrers(name, digest)
        } else {
            let (name, digest) = two("/blobs/")?;
            Route::Blob(name, digest)
        };
        let valid =
            route.repository().is_none_or(|name| image::Repository::new("localhost", name).is_ok());
        valid.then_some(route)
    }

    /// What it is called in metrics and logs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Route::Base => "base",
            Route::Catalog => "catalog",
            Route::Tags(_) => "tags",
            Route::Referrers(..) => "referrers",
            Route::Manifest(..) => "manifest",
            Route::Blob(..) => "blob",
            Route::Uploads(_) | Route::Upload(..) => "upload",
        }
    }

    /// The repository it is about.
    pub(crate) fn repository(self) -> Option<&'a str> {
        match self {
            Route::Base | Route::Catalog => None,
            Route::Tags(name)
            | Route::Referrers(name, _)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (path, expected) in [
            ("/", Some(Route::Base)),
            ("/_catalog", Some(Route::Catalog)),
            ("/a/b/tags/list", Some(Route::Tags("a/b"))),
            ("/a/manifests/latest", Some(Route::Manifest("a", "latest"))),
            ("/a/blobs/b/blobs/sha256:1", Some(Route::Blob("a/blobs/b", "sha256:1"))),
            ("/a/blobs/uploads/", Some(Route::Uploads("a"))),
            ("/a/blobs/uploads/7", Some(Route::Upload("a", "7"))),
            ("/a/referrers/sha256:1", Some(Route::Referrers("a", "sha256:1"))),
            ("/A/tags/list", None),
            ("/../tags/list", None),
            ("/a/else", None),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }
}
