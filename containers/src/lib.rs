//! Containers as things with a name and a life: create, start, list, stop, kill, wait, remove,
//! logs, exec, attach. The only owner of container state.
//!
//! A container is a row in the catalog of the [`store`], a directory, and two documents in it:
//! `container.json`, what was asked for ([`Record`]), which is not written again but by an update,
//! and `state.json`, what became of it, which its monitor alone writes ([`runtime::State`]). Nothing
//! runs in the background but one monitor per container.
//!
//! ```no_run
//! use containers::{Containers, NewContainer, StartOptions};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     containers::init(); // must be the first line: this program becomes monitors and containers
//!     let task = task::Task::silent();
//!     let store = store::Store::open(
//!         std::path::Path::new("/var/lib/containers-example"),
//!         containers::store_options(&task),
//!     )?;
//!     let descriptor = store.resolve("localhost/busybox:latest")?.ok_or("there is no such image")?;
//!     let image = store.image(&descriptor, &image::Platform::host())?;
//!     let mut new = NewContainer::of("busybox", &image);
//!     new.spec.process.command = vec!["echo".to_owned(), "hello".to_owned()];
//!     new.spec.lifecycle.labels.insert("app".to_owned(), "example".to_owned());
//!     let container = Containers::new(store).create(new, &task)?;
//!     container.start(&StartOptions::default(), &task)?;
//!     println!("{} ended with {}", container.name(), container.wait(&task)?.code());
//!     container.remove(true, &task)?;
//!     Ok(())
//! }
//! ```

mod cdi;
mod container;
mod container_filter;
mod create;
mod defaults;
mod detached_mounts;
mod document;
mod ended;
mod error;
mod event;
mod files;
mod filter;
mod host;
mod host_config;
mod ids;
mod image_files;
mod inspect;
mod joined_namespaces;
mod life;
mod notify;
mod owned;
mod pause;
mod process;
mod quadlet;
mod record;
mod start;
pub mod syntax;
mod texts;
mod tmpfs_layer;
mod top;
mod units;
mod uplink;
mod volume;
mod volume_files;

pub use cdi::{add_devices, gpu_devices, is_device_name};
pub use container::{Container, Containers, Kind, Phase};
pub use container_filter::ContainerFilter;
pub use create::{NewContainer, word};
pub use defaults::{apply_defaults, apply_namespaces};
pub(crate) use detached_mounts::matching;
pub use document::network_document;
pub use ended::{init, store_options};
pub use error::{Error, Result};
pub use event::Event;
pub use files::{Change, ChangeKind, CopyOptions};
pub use filter::{LabelFilter, NetworkFilter, VolumeFilter};
pub use host::{host_document, info_of_engines};
pub use ids::free_ids;
pub use image_files::ImageFiles;
pub use joined_namespaces::{JoinedNamespaces, resolve as join_namespaces};
pub use life::PATIENCE;
pub use process::{Process, Usage};
pub use quadlet::{Unit, unit};
pub use record::{MountedVolume, Record};
pub use start::{StartOptions, Transient, add_network_files, give, users};
pub use texts::rfc3339;
pub use top::{TopView, machine_memory, process_table};
pub use units::quadlet_files;
pub use uplink::{connect, create_network, join_named, networks, remove_network};
pub use volume::{Volume, Volumes};
