//! What the files of a layer say about packages. Every parser takes any bytes, and gives what it
//! understands of them.

mod binary;
mod debian;
mod elf;
mod java;
mod manifests;
mod php;
mod ruby;

pub(crate) use binary::Binary;
pub(crate) use debian::{apk_installed, copyright, dpkg_status};
pub(crate) use java::{is_java_archive, java_archive};
pub(crate) use manifests::{cargo_lock, node_package, python_metadata};
pub(crate) use php::composer;
pub(crate) use ruby::{gemfile_lock, gemspec};
