//! What a build is given beside its context: the same for `bud`, `lock` and `verify-build`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use app::values::{agent, secret};
use builder::syntax::{self, Invocation};
use builder::{Context, Request};
use clap::Args;
use options::Failure;
use options::flags::{self, of_flag};

/// Arguments, contexts and secrets of a build.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct InputFlags {
    /// Set a build argument; a bare NAME takes its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Read build arguments from a file
    #[arg(long, value_name = "FILE")]
    build_arg_file: Vec<PathBuf>,
    /// Add a named context: a directory, a git or http URL, docker-image://NAME or
    /// oci-layout://PATH[:TAG]
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Give RUN --mount=type=secret a secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "id=…")]
    secret: Vec<String>,
    /// Give RUN --mount=type=ssh an agent: default ($SSH_AUTH_SOCK), ID=SOCKET, or the files of
    /// private keys, ID=KEY[,KEY]
    #[arg(long, value_name = "default|ID=SOCKET,…")]
    ssh: Vec<String>,
}

impl InputFlags {
    /// Puts what the flags give into a request.
    ///
    /// # Errors
    /// A value is not understood; a file cannot be read.
    pub(crate) fn apply(
        &self,
        request: &mut Request,
        call: &Invocation<'_>,
    ) -> Result<(), Failure> {
        request.contexts.extend(self.contexts(call)?);
        let lines = flags::environment(&self.build_arg_file, &self.build_arg)?;
        request.build_args.extend(lines.iter().map(|line| flags::pair(line)));
        for text in &self.secret {
            request.secrets.extend([secret(text)?]);
        }
        for text in &self.ssh {
            request.ssh.extend([agent(text)?]);
        }
        Ok(())
    }

    fn contexts(&self, call: &Invocation<'_>) -> Result<BTreeMap<String, Context>, Failure> {
        let one = |text: &String| {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--build-context {text:?}: expected NAME=VALUE"))
            })?;
            let context = syntax::named_context(value, call);
            Ok((name.to_owned(), context.map_err(of_flag("--build-context", text))?))
        };
        self.build_context.iter().map(one).collect()
    }
}
