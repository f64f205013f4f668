//! Bake files: targets to build, described in HCL, in JSON or in a compose file, as docker buildx
//! reads them.
//!
//! [`Definition`] collects what files say, [`Model`] evaluates it: variables, matrices, groups,
//! what targets inherit and what they are built on. A [`Target`] is then keys with JSON values; what
//! a key means is the business of who builds it. Nothing here reads a file or the environment.
//!
//! ```
//! use bake::{Definition, Model, Syntax};
//!
//! let text = r#"
//!     variable "TAG" { default = "latest" }
//!     target "base" { args = { A = "1" } }
//!     target "app" {
//!       inherits = ["base"]
//!       tags = ["app:${TAG}"]
//!     }
//! "#;
//! let outside = |name: &str| (name == "TAG").then(|| "v2".to_owned());
//! let mut definition = Definition::default();
//! definition.read("docker-bake.hcl", Syntax::Hcl, text, &outside)?;
//! let now = std::time::SystemTime::UNIX_EPOCH;
//! let model = Model::new(&definition, &outside, now)?;
//! let app = model.target("app", &["app.args.B=2".parse()?])?;
//! assert_eq!(app["tags"][0], "app:v2");
//! assert_eq!(app["args"], serde_json::json!({ "A": "1", "B": "2" }));
//! # Ok::<(), bake::Error>(())
//! ```

mod compose;
mod error;
mod file;
mod functions;
mod library;
mod model;
mod overrides;
mod user_function;
mod value;

pub use error::{Error, Result};
pub use file::{Definition, Syntax};
pub use model::{Model, Target, context_target};
pub use overrides::Override;
pub use value::{list, pairs, text};
