//! Moving images between places: the only way an image moves.
//!
//! A place is a [`Source`] or a [`Sink`] of four methods each; an image, an index, a signature
//! are all a rooted graph of descriptors; [`copy`] carries such a graph from one to the other.
//! Nothing becomes content unverified: a source gives [`Unverified`] bytes, a sink takes a
//! [`Blob`], and the only way from one to the other is [`Unverified::verify`].

mod attach;
mod blob;
pub mod bridge;
mod copy;
mod error;
mod location;
mod place;

pub use attach::{Artifact, attach, publish};
pub use blob::{Blob, Unverified};
pub use copy::{CopyOptions, Format, Plan, Select, copy};
pub use error::{Error, Result, Side};
pub use location::{Location, Named};
pub use place::{Gate, Open, Origin, Sink, Source};
