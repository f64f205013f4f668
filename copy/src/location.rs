use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use image::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::{Capabilities, Error, Result};

/// Which image of a layout or archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSelector {
    /// The only one there is.
    Only,
    /// The one with this name (`org.opencontainers.image.ref.name`, a tag, a full reference).
    Name(String),
    /// The one with this digest.
    Digest(Digest),
    /// The one at this place in the list, counted from 0.
    Position(usize),
}

/// The location of an image: `transport:details`, as users write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// `docker://host/path[:tag][@digest]`: a registry.
    Registry(Reference),
    /// `oci:path[:name]`: a directory in the OCI image layout.
    Layout(PathBuf, ImageSelector),
    /// `oci-archive:path[:name]`: the same as a tar file.
    OciArchive(PathBuf, ImageSelector),
    /// `docker-archive:path[:reference]`: a tar file as `docker save` writes it.
    DockerArchive(PathBuf, ImageSelector),
    /// `dir:path`: a directory of loose files as skopeo writes it.
    Directory(PathBuf),
    /// `tarball:path[:path…]`: an image of archives, its layers.
    Tarball(Vec<PathBuf>),
    /// `store:name`: the images on this machine.
    Store(String),
    /// `docker-daemon:name` or `docker-daemon:sha256:id`: an image of a Docker daemon.
    Daemon(String),
    /// `containers-storage:[driver@graphroot+runroot]name`: an image of podman and buildah.
    Containers(Option<StorageAt>, String),
}

/// Which storage of podman and buildah, where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageAt {
    /// How layers are kept there; `None` is whatever is found.
    pub driver: Option<String>,
    /// Where images and layers are.
    pub graph_root: PathBuf,
    /// Where what does not survive a restart is.
    pub run_root: Option<PathBuf>,
}

impl fmt::Display for StorageAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        if let Some(driver) = &self.driver {
            write!(f, "{driver}@")?;
        }
        write!(f, "{}", self.graph_root.display())?;
        if let Some(run_root) = &self.run_root {
            write!(f, "+{}", run_root.display())?;
        }
        f.write_str("]")
    }
}

const TRANSPORTS: &str = "docker://, oci:, oci-archive:, docker-archive:, dir:, tarball:, store:, docker-daemon: or containers-storage:";

impl Location {
    /// The word before the colon.
    pub fn transport(&self) -> &'static str {
        match self {
            Location::Registry(_) => "docker",
            Location::Layout(..) => "oci",
            Location::OciArchive(..) => "oci-archive",
            Location::DockerArchive(..) => "docker-archive",
            Location::Directory(_) => "dir",
            Location::Tarball(_) => "tarball",
            Location::Store(_) => "store",
            Location::Daemon(_) => "docker-daemon",
            Location::Containers(..) => "containers-storage",
        }
    }

    /// What a place of this kind can hold.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Location::Registry(_) | Location::Layout(..) => Capabilities::ALL,
            Location::OciArchive(..) | Location::Store(_) => Capabilities::REFERRERS,
            Location::Directory(_) => Capabilities::INDEXES,
            Location::DockerArchive(..)
            | Location::Tarball(_)
            | Location::Daemon(_)
            | Location::Containers(..) => Capabilities::ONE_IMAGE,
        }
    }

    /// The same with relative paths taken from `base`.
    pub fn under(self, base: &Path) -> Location {
        match self {
            Location::Layout(path, named) => Location::Layout(base.join(path), named),
            Location::OciArchive(path, named) => Location::OciArchive(base.join(path), named),
            Location::DockerArchive(path, named) => Location::DockerArchive(base.join(path), named),
            Location::Directory(path) => Location::Directory(base.join(path)),
            Location::Tarball(paths) => {
                Location::Tarball(paths.into_iter().map(|path| base.join(path)).collect())
            }
            Location::Containers(Some(at), name) => {
                let graph_root = base.join(at.graph_root);
                let run_root = at.run_root.map(|path| base.join(path));
                Location::Containers(Some(StorageAt { graph_root, run_root, ..at }), name)
            }
            other => other,
        }
    }
}

fn refuse(text: &str, reason: impl Into<String>, hint: Option<String>) -> Error {
    Error::Location { text: text.chars().take(300).collect(), reason: reason.into(), hint }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Location> {
        if text.chars().any(|c| c == '\0' || c == '\n') {
            return Err(refuse(text, "it has a line break or a null character", None));
        }
        let Some((transport, rest)) = text.split_once(':') else {
            return Err(untransported(text));
        };
        match transport {
            "docker" => registry(text, rest),
            "oci" => path_and_name(text, rest).map(|(path, name)| Location::Layout(path, name)),
            "oci-archive" => {
                path_and_name(text, rest).map(|(path, name)| Location::OciArchive(path, name))
            }
            "docker-archive" => {
                path_and_name(text, rest).map(|(path, name)| Location::DockerArchive(path, name))
            }
            "dir" if !rest.is_empty() => Ok(Location::Directory(rest.into())),
            "tarball" if !rest.is_empty() => tarball(text, rest),
            "store" if !rest.is_empty() => Ok(Location::Store(rest.to_owned())),
            "containers-storage" => containers(text, rest),
            "docker-daemon" if is_daemons(rest) => Ok(Location::Daemon(rest.to_owned())),
            "docker-daemon" if !rest.is_empty() => {
                Err(refuse(text, "it is neither a name nor an id of an image", None))
            }
            "dir" | "store" | "tarball" | "docker-daemon" => {
                Err(refuse(text, "nothing follows the colon", None))
            }
            _ if foreign(text) => {
                let found = FOREIGN.iter().find(|(name, _)| *name == transport);
                let instead = found.map(|(_, instead)| (*instead).to_owned());
                Err(refuse(text, format!("{transport}: is not supported"), instead))
            }
            _ => Err(untransported(text)),
        }
    }
}

impl TryFrom<String> for Location {
    type Error = Error;

    fn try_from(text: String) -> Result<Location> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> String {
        location.to_string()
    }
}

/// Transports of skopeo that there are not, and what to do instead.
const FOREIGN: &[(&str, &str)] = &[
    ("atomic", "a registry of OpenShift is reached by docker://, like any other"),
    ("ostree", "write its files to a tar archive; `rbuild import` makes an image from it"),
    (
        "sif",
        "write the files of the container to a tar archive; `rbuild import` makes an image from it",
    ),
];

/// Whether a text begins with a transport of skopeo that there is not.
pub fn foreign(text: &str) -> bool {
    let transport = text.split_once(':').map(|(transport, _)| transport);
    FOREIGN.iter().any(|(name, _)| Some(*name) == transport)
}

/// `path`, `path:path`; `-` is standard input.
fn tarball(text: &str, rest: &str) -> Result<Location> {
    let one = |path: &str| match path {
        "" => Err(refuse(text, "a path is empty", None)),
        "-" => Ok(PathBuf::from("/dev/stdin")),
        path => Ok(PathBuf::from(path)),
    };
    rest.split(':').map(one).collect::<Result<_>>().map(Location::Tarball)
}

fn registry(text: &str, rest: &str) -> Result<Location> {
    let Some(name) = rest.strip_prefix("//") else {
        let hint = Some(format!("docker://{}", rest.trim_start_matches('/')));
        return Err(refuse(text, "docker: must be followed by two slashes", hint));
    };
    name.parse::<Reference>()
        .map(|reference| Location::Registry(reference.or_latest()))
        .map_err(|error| refuse(text, error.to_string(), None))
}

/// What a Docker daemon names images by.
fn is_daemons(name: &str) -> bool {
    let id = name.strip_prefix("sha256:").unwrap_or(name);
    name.parse::<Digest>().is_ok()
        || (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || name.parse::<Reference>().is_ok()
}

/// `name`, `[graphroot]name`, `[driver@graphroot+runroot:options]name`; the options say how
/// storage is written.
fn containers(text: &str, rest: &str) -> Result<Location> {
    let (at, name) = match rest.strip_prefix('[') {
        None => (None, rest),
        Some(inside) => {
            let parts = inside.split_once(']');
            let (place, name) = parts.ok_or_else(|| refuse(text, "a ']' is missing", None))?;
            let (driver, place) = match place.split_once('@') {
                Some((driver, place)) => (Some(driver.to_owned()), place),
                None => (None, place),
            };
            let roots = place.split(':').next().unwrap_or_default();
            let (graph, run) = match roots.split_once('+') {
                Some((graph, run)) => (graph, Some(run.into())),
                None => (roots, None),
            };
            if graph.is_empty() {
                return Err(refuse(text, "it names no directory between the brackets", None));
            }
            (Some(StorageAt { driver, graph_root: graph.into(), run_root: run }), name)
        }
    };
    if name.is_empty() {
        return Err(refuse(text, "it names no image", None));
    }
    Ok(Location::Containers(at, name.to_owned()))
}

/// `path`, `path:name`, `path:@3`, `path@sha256:…`, `path:name@sha256:…` (the digest wins).
fn path_and_name(text: &str, rest: &str) -> Result<(PathBuf, ImageSelector)> {
    let (rest, digest) = match rest.rfind("@sha256:").or_else(|| rest.rfind("@sha512:")) {
        Some(at) => {
            let digest = rest[at + 1..].parse::<Digest>();
            let digest = digest.map_err(|error| refuse(text, error.to_string(), None))?;
            (&rest[..at], Some(digest))
        }
        None => (rest, None),
    };
    let (path, name) = rest.split_once(':').unwrap_or((rest, ""));
    if path.is_empty() {
        return Err(refuse(text, "it has no path", None));
    }
    let named = match (digest, name.strip_prefix('@')) {
        (Some(digest), _) => ImageSelector::Digest(digest),
        (None, Some(position)) => {
            let position = position.parse::<usize>();
            ImageSelector::Position(
                position.map_err(|_| refuse(text, "a number follows '@'", None))?,
            )
        }
        (None, None) if name.is_empty() => ImageSelector::Only,
        (None, None) => ImageSelector::Name(name.to_owned()),
    };
    Ok((PathBuf::from(path), named))
}

fn untransported(text: &str) -> Error {
    let reason = format!("it does not start with {TRANSPORTS}");
    let looks_like_path = text.starts_with(['/', '.']);
    let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let hint = if let Some(name) = url {
        Some(format!("docker://{name}"))
    } else if looks_like_path && (text.ends_with(".tar") || text.contains(".tar:")) {
        Some(format!("oci-archive:{text} or docker-archive:{text}"))
    } else if looks_like_path {
        Some(format!("oci:{text}"))
    } else if text.parse::<Reference>().is_ok() {
        Some(format!("docker://{text} for a registry, store:{text} for an image on this machine"))
    } else {
        None
    };
    refuse(text, reason, hint)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.transport())?;
        match self {
            Location::Registry(reference) => write!(f, "//{reference}"),
            Location::Layout(path, named)
            | Location::OciArchive(path, named)
            | Location::DockerArchive(path, named) => {
                write!(f, "{}", path.display())?;
                match named {
                    ImageSelector::Only => Ok(()),
                    ImageSelector::Name(name) => write!(f, ":{name}"),
                    ImageSelector::Digest(digest) => write!(f, "@{digest}"),
                    ImageSelector::Position(position) => write!(f, ":@{position}"),
                }
            }
            Location::Directory(path) => write!(f, "{}", path.display()),
            Location::Tarball(paths) => {
                let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                f.write_str(&shown.join(":"))
            }
            Location::Store(name) | Location::Daemon(name) | Location::Containers(None, name) => {
                f.write_str(name)
            }
            Location::Containers(Some(at), name) => write!(f, "{at}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn locations_are_read_and_written() {
        let pinned = format!("oci:some/dir@{DIGEST}");
        let both = format!("oci:some/dir:v1@{DIGEST}");
        let cases = [
            ("docker://debian", "docker://docker.io/library/debian:latest"),
            ("docker://localhost:5000/a/b:t", "docker://localhost:5000/a/b:t"),
            ("oci:/tmp/x", "oci:/tmp/x"),
            ("oci:/tmp/x:v1", "oci:/tmp/x:v1"),
            ("oci:x:docker.io/library/a:b", "oci:x:docker.io/library/a:b"),
            ("oci:x:@2", "oci:x:@2"),
            (&pinned, &pinned),
            (&both, &pinned),
            ("oci-archive:a.tar", "oci-archive:a.tar"),
            ("docker-archive:a.tar:app:1", "docker-archive:a.tar:app:1"),
            ("docker-archive:a.tar:@0", "docker-archive:a.tar:@0"),
            ("dir:/a:b", "dir:/a:b"),
            ("tarball:a.tar", "tarball:a.tar"),
            ("tarball:/a.tar.gz:b:-", "tarball:/a.tar.gz:b:/dev/stdin"),
            ("store:localhost/app", "store:localhost/app"),
            ("docker-daemon:app:1", "docker-daemon:app:1"),
            ("docker-daemon:r.example:5000/a/b", "docker-daemon:r.example:5000/a/b"),
            ("containers-storage:app", "containers-storage:app"),
            ("containers-storage:[/g]a:1", "containers-storage:[/g]a:1"),
            (
                "containers-storage:[overlay@/g+/r:overlay.mountopt=x]a@0123",
                "containers-storage:[overlay@/g+/r]a@0123",
            ),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Location>().unwrap();
            assert_eq!(read.to_string(), expected, "{text}");
            assert_eq!(expected.parse::<Location>().unwrap(), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_location_is_refused_with_advice() {
        use task::Fault;
        let cases = [
            ("debian", Some("docker://debian")),
            ("debian:12", Some("docker://debian:12")),
            ("docker:debian", Some("docker://debian")),
            ("docker:/debian", Some("docker://debian")),
            ("/tmp/x.tar", Some("oci-archive:/tmp/x.tar")),
            ("./x", Some("oci:./x")),
            ("containers-storage:", None),
            ("containers-storage:[x", None),
            ("containers-storage:[]x", None),
            ("containers-storage:[overlay@/x]", None),
            ("docker-daemon:", None),
            ("docker-daemon:A B", None),
            ("", None),
            ("oci:", None),
            ("oci::v1", None),
            ("oci:x:@y", None),
            ("oci:x@sha256:00", None),
            ("dir:", None),
            ("tarball:", None),
            ("tarball:a::b", None),
            ("store:", None),
            ("docker://", None),
            ("docker://UPPER/Case", None),
            ("a\nb", None),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Location>().unwrap_err();
            let hint = error.hint();
            match expected {
                Some(part) => assert!(hint.unwrap().contains(part), "{text}"),
                None => assert_eq!(hint, None, "{text}"),
            }
        }
    }
}
