//! What the files of a layer say about packages. Every parser takes any bytes, and gives what it
//! understands of them.

mod binary;
mod debian;
mod elf;
mod manifests;

pub(crate) use binary::Binary;
pub(crate) use debian::{apk_installed, copyright, dpkg_status};
pub(crate) use manifests::{cargo_lock, node_package, python_metadata};
