//! Which names of a list are shown.

use clap::Args;

use crate::Failure;

/// Which names to show.
#[derive(Debug, Clone, Default, Args)]
pub struct NameFilter {
    /// Show names that this regular expression matches as a whole; repeatable
    #[arg(long, value_name = "REGEX")]
    include: Vec<String>,
    /// Omit names that this regular expression matches as a whole; repeatable
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<String>,
    /// Show the first N only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl NameFilter {
    /// The names to show.
    ///
    /// # Errors
    /// An expression is malformed.
    pub fn apply(&self, names: Vec<String>) -> Result<Vec<String>, Failure> {
        let read = |flag: &str, texts: &[String]| {
            let one = |text: &String| {
                regex::Regex::new(&format!("^(?:{text})$"))
                    .map_err(|error| Failure::usage(format!("{flag} {text:?}: {error}")))
            };
            texts.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let (include, exclude) =
            (read("--include", &self.include)?, read("--exclude", &self.exclude)?);
        let any = |list: &[regex::Regex], name: &str| list.iter().any(|one| one.is_match(name));
        let mut names = names;
        names.retain(|name| (include.is_empty() || any(&include, name)) && !any(&exclude, name));
        names.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(names)
    }

    /// How many names must be asked for.
    pub fn ask(&self) -> Option<usize> {
        self.limit.filter(|_| self.include.is_empty() && self.exclude.is_empty())
    }
}
