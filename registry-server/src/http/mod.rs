//! The distribution-spec over HTTP.

pub(crate) mod answer;
pub(crate) mod blobs;
pub(crate) mod call;
pub(crate) mod connection;
mod faulty;
pub(crate) mod lists;
pub(crate) mod manifests;
pub(crate) mod route;
pub(crate) mod server;
pub(crate) mod uploads;
