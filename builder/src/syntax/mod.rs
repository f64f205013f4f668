//! The texts in which users describe parts of a build, as docker buildx and buildah have them:
//! outputs (`type=oci,dest=app.tar`), contexts, secrets, attestations, annotations, platforms,
//! entitlements.
//!
//! A text is read as a program got it; an [`Invocation`] says where that program was called.
//!
//! ```
//! use builder::Output;
//! use builder::syntax::{Invocation, Outputs};
//!
//! let call = Invocation {
//!     directory: "/project".into(),
//!     variable: &|_| None,
//!     registry: "localhost",
//! };
//! let mut outputs = Outputs::default();
//! outputs.add_tag("app:2", &call)?;
//! outputs.add("type=oci,dest=app.tar", &call)?;
//! assert_eq!(outputs.tags[0].to_string(), "localhost/app:2");
//! let archive = Output::Image("oci-archive:/project/app.tar:localhost/app:2".to_owned());
//! assert_eq!(outputs.outputs, [archive]);
//! # Ok::<(), builder::Error>(())
//! ```

mod allow;
mod annotation;
mod attest;
mod context;
mod invocation;
mod mount;
mod output;
mod platform;
mod secret;

pub use allow::allow;
pub use annotation::{annotations, compression, epoch};
pub use attest::{add_attestation, set_provenance, set_sbom};
pub use context::{Inputs, inputs, named_context, source};
pub use invocation::Invocation;
pub use mount::{CacheText, WorkingMount, below, working_mount};
pub use output::{ImageSettings, Outputs};
pub use platform::platforms;
pub use secret::{agent, secret};
pub use task::SyntaxError;
