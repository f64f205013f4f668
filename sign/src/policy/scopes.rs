//! Which part of a policy is about an image.

use std::path::Path;

use copy::{ImageSelector, Location, real_path};
use image::Reference;

/// The scopes of a policy that are about a place, the most specific first. The transport's
/// default (the empty scope) and the policy's own default are not among them.
pub(crate) fn scopes(location: &Location) -> Vec<String> {
    match location {
        Location::Registry(reference) => registry_scopes(reference),
        Location::Layout(path, named)
        | Location::OciArchive(path, named)
        | Location::DockerArchive(path, named) => {
            let path = path.to_string_lossy();
            let full = match named {
                ImageSelector::Name(name) => Some(format!("{path}:{name}")),
                ImageSelector::Digest(digest) => Some(format!("{path}@{digest}")),
                _ => None,
            };
            // A directory whose name has a colon could pass for an image of another directory.
            let full = full.filter(|_| !path.contains(':'));
            let paths = path_scopes(&path).into_iter().filter(|path| !path.contains(':'));
            full.into_iter().chain(paths).collect()
        }
        Location::Directory(path) => path_scopes(&path.to_string_lossy()),
        // Only the transport's default is about several files.
        Location::Tarball(_) => Vec::new(),
        Location::Store(name) => vec![name.clone()],
        Location::Daemon(name) => match name.parse::<Reference>() {
            Ok(reference) => registry_scopes(&reference),
            Err(_) => vec![name.clone()],
        },
        Location::Containers(at, name) => {
            let name = name.parse::<Reference>().ok();
            let mut scopes = name.map(|name| registry_scopes(&name)).unwrap_or_default();
            if let Some(at) = at {
                let graph = at.graph_root.display();
                let driver = at.driver.as_deref().unwrap_or("overlay");
                let place = format!("[{driver}@{graph}]");
                let placed: Vec<_> = scopes.iter().map(|scope| format!("{place}{scope}")).collect();
                scopes.splice(0..0, placed);
                scopes.extend([place, format!("[{graph}]")]);
            }
            scopes
        }
    }
}

/// A scope of a policy by the real path of what it names, so that it is compared with what is
/// opened.
pub(crate) fn real_scope(transport: &str, scope: &str) -> String {
    let real = |path: &str| real_path(Path::new(path)).to_string_lossy().into_owned();
    match transport {
        "dir" if scope.starts_with('/') => real(scope),
        "oci" | "oci-archive" | "docker-archive" if scope.starts_with('/') => {
            let at = scope.find("@sha").or_else(|| scope.find(':')).unwrap_or(scope.len());
            let (path, image) = scope.split_at(at);
            match image.strip_prefix(':').map(str::parse::<Reference>) {
                Some(Ok(name)) if transport == "docker-archive" => {
                    format!("{}:{}", real(path), name.or_latest())
                }
                _ => format!("{}{image}", real(path)),
            }
        }
        "containers-storage" => match scope.strip_prefix('[').and_then(|s| s.split_once(']')) {
            Some((place, image)) => match place.split_once('@') {
                Some((driver, graph)) => format!("[{driver}@{}]{image}", real(graph)),
                None => format!("[{}]{image}", real(place)),
            },
            None => scope.to_owned(),
        },
        _ => scope.to_owned(),
    }
}

fn registry_scopes(reference: &Reference) -> Vec<String> {
    let name = reference.repository.to_string();
    let mut scopes = Vec::new();
    scopes.extend(reference.digest.map(|digest| format!("{name}@{digest}")));
    scopes.extend(reference.tag.as_ref().map(|tag| format!("{name}:{tag}")));
    let mut rest = name.as_str();
    scopes.push(rest.to_owned());
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    // Wildcards are about host names without their port, as in containers' own libraries.
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let mut rest = if host.starts_with('[') { "" } else { host };
    while let Some((_, parent)) = rest.split_once('.') {
        scopes.push(format!("*.{parent}"));
        rest = parent;
    }
    scopes
}

/// A directory and its parents, without the root.
fn path_scopes(path: &str) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut rest = path.trim_end_matches('/');
    while rest.starts_with('/') && rest.len() > 1 {
        scopes.push(rest.to_owned());
        rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn scopes_go_from_the_image_to_the_host_and_its_domains() {
        let of = |text: &str| scopes(&text.parse().unwrap());
        assert_eq!(
            of("docker://debian:12"),
            [
                "docker.io/library/debian:12",
                "docker.io/library/debian",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        assert_eq!(
            of("docker://a.b.example:5000/x:t"),
            [
                "a.b.example:5000/x:t",
                "a.b.example:5000/x",
                "a.b.example:5000",
                "*.b.example",
                "*.example"
            ]
        );
        let pinned = of(&format!("docker://localhost:5000/x@{DIGEST}"));
        assert_eq!(pinned[0], format!("localhost:5000/x@{DIGEST}"));
        assert_eq!(pinned[1..], ["localhost:5000/x", "localhost:5000"]);
        let layout = of("oci:/srv/images/app:v1");
        assert_eq!(layout, ["/srv/images/app:v1", "/srv/images/app", "/srv/images", "/srv"]);
        assert_eq!(of("dir:/srv/x/"), ["/srv/x", "/srv"]);
        assert!(of("dir:relative/path").is_empty());
    }
}
