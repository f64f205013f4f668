//! The places: one file each.

mod archive;
mod containers;
mod daemon;
mod daemon_tls;
mod directory;
mod docker_archive;
pub(crate) mod files;
mod layout;
mod named;
mod registry;
mod store;
mod tar;
mod tarball;

pub use copy::{Memory, MemoryImage};

pub use archive::{Archive, ArchiveSink, ArchiveSource, Form, archive_names};
pub use containers::{ContainersImage, ContainersSink};
pub(crate) use daemon::Daemon;
pub use daemon::{DaemonSink, DaemonSource};
pub use daemon_tls::DaemonTls;
pub use directory::Directory;
pub(crate) use directory::describe;
pub use layout::LayoutImage;
pub use registry::Registry;
pub use store::StoreImage;
pub use tarball::Tarball;
