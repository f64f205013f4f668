//! What the Dockerfile may ask for beyond the usual, and what its commands read.

use builder::{Allow, syntax};
use clap::Args;
use options::Failure;
use options::flags::of_flag;

/// Entitlements and the standard input of commands.
#[derive(Debug, Args)]
pub(crate) struct AllowFlags {
    /// Grant an entitlement: security.insecure (RUN --security=insecure), device[=/dev/PATH] (RUN
    /// --device), network.host (RUN --network=host in a build without --network host)
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', help_heading = "RUN: security")]
    allow: Vec<String>,
    /// Connect RUN to the standard input of this command; steps run one at a time
    #[arg(long, help_heading = "RUN: files")]
    stdin: bool,
}

/// What these entitlements allow.
///
/// # Errors
/// There is no such entitlement.
pub(crate) fn allowed(texts: &[String]) -> Result<Allow, Failure> {
    let mut allow = Allow::default();
    for text in texts {
        syntax::allow(text, &mut allow).map_err(of_flag("--allow", text))?;
    }
    Ok(allow)
}

impl AllowFlags {
    /// What is allowed.
    ///
    /// # Errors
    /// An entitlement we do not have.
    pub(super) fn allow(&self) -> Result<Allow, Failure> {
        allowed(&self.allow)
    }

    /// Whether commands read standard input; `taken` is what else reads it.
    ///
    /// # Errors
    /// Something else does.
    pub(super) fn stdin(&self, taken: Option<&str>) -> Result<bool, Failure> {
        match taken.filter(|_| self.stdin) {
            Some(by) => Err(Failure::usage(format!("--stdin: {by} reads standard input"))),
            None => Ok(self.stdin),
        }
    }
}
