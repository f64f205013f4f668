use std::io;
use std::path::{Path, PathBuf};

use task::{Cancelled, Fault, Kind};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such container.
    #[error("there is no container {name:?}")]
    NoContainer {
        /// As asked for.
        name: String,
    },
    /// An image that is to be mounted is not in the store.
    #[error("mounting image {name:?}: it is not in the store")]
    NoImage {
        /// As asked for.
        name: String,
    },
    /// A pattern of paths is none, or names nothing.
    #[error("pattern {}: {why}", pattern.display())]
    Pattern {
        /// As given.
        pattern: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// No file describes a device.
    #[error("there is no device {name}: files in {places} describe devices")]
    NoDevice {
        /// As asked for.
        name: String,
        /// Where the files are.
        places: String,
    },
    /// What a file says of a device cannot be done.
    #[error("{what} of {}: {why}", path.display())]
    Device {
        /// The device.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is no such volume.
    #[error("there is no volume {name:?}")]
    NoVolume {
        /// As asked for.
        name: String,
    },
    /// The name is that of a volume.
    #[error("volume {name:?} already exists")]
    VolumeExists {
        /// The name.
        name: String,
    },
    /// A container uses the volume.
    #[error("volume {name} is used by container {by}")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// A container.
        by: String,
    },
    /// Its program must not be running for this.
    #[error("container {name} is running")]
    Running {
        /// The container.
        name: String,
    },
    /// Its program must be running for this.
    #[error("container {name} is not running: {phase}")]
    NotRunning {
        /// The container.
        name: String,
        /// What it is instead.
        phase: &'static str,
    },
    /// Its processes are frozen, so they do not answer.
    #[error("container {name} is paused")]
    Paused {
        /// The container.
        name: String,
    },
    /// It is not paused.
    #[error("container {name} is not paused")]
    NotPaused {
        /// The container.
        name: String,
    },
    /// This machine cannot do it.
    #[error("{what}: {reason}")]
    Unsupported {
        /// What was being done.
        what: &'static str,
        /// What is missing.
        reason: String,
    },
    /// Files are to go where there is no directory.
    #[error("there is no directory {} in the container", .path.display())]
    NoDirectory {
        /// The path in the container.
        path: PathBuf,
    },
    /// What was asked for makes no sense.
    #[error("making container {name}: {reason}")]
    Invalid {
        /// The container, or its image.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A text does not describe what it should.
    #[error("{0}")]
    Syntax(#[from] crate::syntax::SyntaxError),
    /// A value of containers.conf is not understood.
    #[error("containers.conf: {key}: {reason}")]
    Conf {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A seccomp profile is flawed.
    #[error("reading seccomp profile {}: {reason}", path.display())]
    Seccomp {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A document of a container could not be read.
    #[error("reading {}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done: "reading", "writing".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Files could not be had.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// The container's process could not be had.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// A published port without a private network.
    #[error("publishing port {port}: the network is {mode}")]
    Port {
        /// As given.
        port: String,
        /// Which network the container has.
        mode: &'static str,
    },
    /// The network or another namespace of a container cannot be joined by an ordinary user: it is not in the
    /// user namespace that the user's containers share.
    #[error("sharing the {what} namespace of container {name}")]
    Unshared {
        /// Which namespace: `network`, `pid`, `ipc`, `uts` or `user`.
        what: &'static str,
        /// The other container.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The files of an image cannot have the owners that a container's ids ask for.
    #[error("giving the files of the image the owners of the container")]
    Owners(#[source] layers::Error),
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::File { action, path, source }
    }

    /// The exit code by which `run` and `start` report this error: 127 for a program that is not
    /// there, 126 for one that cannot be executed, 125 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Runtime(error) => error.exit_code(),
            _ => 125,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NoContainer { .. }
            | Error::NoDirectory { .. }
            | Error::NoDevice { .. }
            | Error::NoVolume { .. }
            | Error::NoImage { .. } => Kind::NotFound,
            Error::VolumeInUse { .. }
            | Error::Running { .. }
            | Error::NotRunning { .. }
            | Error::NotPaused { .. }
            | Error::Paused { .. }
            | Error::Unsupported { .. }
            | Error::VolumeExists { .. } => Kind::Refused,
            Error::Invalid { .. }
            | Error::Pattern { .. }
            | Error::Device { .. }
            | Error::Port { .. }
            | Error::Syntax(_)
            | Error::Conf { .. }
            | Error::Seccomp { .. }
            | Error::Document { .. } => Kind::Invalid,
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Error::File { .. } => Kind::System,
            Error::Store(error) => error.kind(),
            Error::Layers(error) | Error::Owners(error) => error.kind(),
            Error::Runtime(error) => error.kind(),
            Error::Network(error) => error.kind(),
            Error::Unshared { .. } => Kind::Denied,
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Syntax(error) => error.hint(),
            Error::Store(error) => error.hint(),
            Error::Layers(error) => error.hint(),
            Error::Runtime(error) => error.hint(),
            Error::Network(error) => error.hint(),
            Error::Owners(_) => Some(
                "every owner in the image must be among the ids: choose more of them (size=NUMBER, a larger \
                 map), or add subordinate ids to /etc/subuid and /etc/subgid"
                    .to_owned(),
            ),
            Error::Paused { name } => Some(format!("`rbuild unpause {name}`")),
            Error::Unshared { .. } => Some(
                "it was started with other subordinate ids or by an earlier version: `rbuild restart` brings \
                 it into the user namespace that your containers share"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
