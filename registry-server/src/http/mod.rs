//! The distribution-spec over HTTP.

pub(crate) mod answer;
pub(crate) mod blobs;
pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod lists;
pub(crate) mod manifests;
pub(crate) mod route;
#[cfg(feature = "testing")]
pub(crate) mod script;
pub(crate) mod server;
#[cfg(feature = "testing")]
mod spoil;
#[cfg(feature = "testing")]
mod testing;
pub(crate) mod uploads;
