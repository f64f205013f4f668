//! What commands get over HTTP, recorded and played back.
//!
//! A [`Recorder`] stands between a command and the network: a proxy that sees into TLS by an
//! authority of its own, made for one build. While it records, it passes requests on and keeps
//! each answer: an [`Exchange`] with the digest, and the content in a directory of blobs. While it
//! replays, it answers from there and nothing leaves the machine.
//!
//! Headers of requests are never kept, and of answers only those that say what the content is.
//! Values in URLs that are secret are replaced, see [`redacted`].
//!
//! ```
//! let secret = recorder::redacted("https://user:pw@a.example/f?token=x&v=1", &[]);
//! assert_eq!(secret, "https://a.example/f?token=REDACTED&v=1");
//! ```

mod authority;
mod body;
mod contents;
mod error;
mod exchange;
mod headers;
mod proxy;
mod recorder;
mod session;
mod upstream;

pub use contents::ContentDirectory;
pub use error::{Error, Result};
pub use exchange::{Exchange, redacted};
pub use recorder::{Recorder, RecorderOptions};
pub use session::{Session, UnansweredRequests};
