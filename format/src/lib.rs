//! How results are printed: Go templates over JSON values as Docker and Podman take them, tables,
//! ages, and text of others that must not control a terminal.
//!
//! ```
//! use serde_json::json;
//!
//! let images = [json!({"Name": "app", "Size": 7}), json!({"Name": "base", "Size": 12})];
//! let names = format::lines("{{.Name}}: {{.Size}}", &images, &[], false)?;
//! assert_eq!(names, "app: 7\nbase: 12\n");
//! let headers = [("Name", "NAME"), ("Size", "SIZE")];
//! let table = format::lines("table {{.Name}}\t{{.Size}}", &images, &headers, false)?;
//! assert_eq!(table, "NAME  SIZE\napp   7\nbase  12\n");
//! # Ok::<(), format::Error>(())
//! ```

mod error;
mod span;
mod table;
mod template;
mod text;

pub use error::Error;
pub use span::go_span;
pub use table::{headed, table};
pub use template::{lines, name_fields, template};
pub use text::{ago, visible};
