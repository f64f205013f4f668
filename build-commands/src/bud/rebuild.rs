//! The flags of a build that a user wrote for `rbuild verify-build`.

use app::values::invocation;
use builder::{ExplicitChoices, Request};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};

use super::{Bud, BuildResources, InputFlags, inputs};
use options::Failure;
use options::registry::RegistryFlags;

/// What a build is to be done again with.
pub(crate) struct Rebuild<'a> {
    /// The flags, as on the command line of `rbuild bud`.
    pub(crate) flags: &'a [String],
    pub(crate) context: &'a str,
    /// The Dockerfile, before those of the flags.
    pub(crate) file: Option<String>,
    /// Arguments, contexts and secrets, before those of the flags.
    pub(crate) inputs: &'a InputFlags,
    /// How registries are reached; the flags say what this does not.
    pub(crate) registry: RegistryFlags,
}

impl Bud {
    /// The build that flags ask for, and which single choices they state.
    ///
    /// # Errors
    /// The flags are wrong; one is no flag.
    pub(super) fn stated(flags: &[String]) -> Result<(Bud, ExplicitChoices), Failure> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct BudLine {
            #[command(flatten)]
            bud: Bud,
        }
        let wrong = |error: clap::Error| Failure::usage(error.to_string());
        let matches = BudLine::command().try_get_matches_from(flags).map_err(wrong)?;
        let bud = BudLine::from_arg_matches(&matches).map_err(wrong)?.bud;
        let stated = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        if stated("context") {
            return Err(Failure::usage(format!("{:?} is not a flag of a build", bud.context)));
        }
        let stated = ExplicitChoices {
            target: stated("target"),
            time: stated("timestamp"),
            format: stated("format"),
            dialect: stated("compat"),
            encoding: stated("compression") || stated("disable_compression"),
            level: stated("compression_level"),
            network: stated("network"),
        };
        Ok((bud, stated))
    }
}

impl Rebuild<'_> {
    /// The request, what it is done with, and which single choices the flags state.
    ///
    /// # Errors
    /// The flags are wrong; the Dockerfile or the context is not there.
    pub(crate) fn request(self) -> Result<(Request, BuildResources, ExplicitChoices), Failure> {
        let (bud, stated) = Bud::stated(self.flags)?;
        let files: Vec<_> = self.file.into_iter().chain(bud.file.iter().cloned()).collect();
        let found = inputs(self.context, &files, &bud.cpp_flag, &invocation()?)?;
        let mut request = bud.request_of(self.context, found, Some(self.inputs))?;
        request.no_cache = true;
        // What it is compared with has left the store, or is read as if it did.
        request.defer = false;
        let registry = self.registry.or(bud.registry.clone());
        let means = BuildResources { reach: bud.pull.reach(registry.reach()?), ..bud.means()? };
        Ok((request, means, stated))
    }
}
