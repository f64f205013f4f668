//! How `ls` of networks and of volumes prints.

use app::format;
use clap::Args;
use options::Failure;
use serde_json::Value;

/// What a list shows of each row.
#[derive(Debug, Args)]
pub(crate) struct TableFlags {
    /// Format each row with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print ids only (of volumes: names); a --format overrides this
    #[arg(short, long)]
    quiet: bool,
    /// Print no header
    #[arg(long)]
    noheading: bool,
}

impl TableFlags {
    /// Prints rows: as `usual` says without a format, and only `key` of each for a quiet list.
    ///
    /// # Errors
    /// The template is malformed.
    pub(crate) fn print(
        &self,
        rows: &[Value],
        key: &str,
        usual: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), Failure> {
        match self.format.as_deref() {
            Some("json") => rows.iter().for_each(|row| outln!("{row}")),
            None if self.quiet => {
                let keys = rows.iter().filter_map(|row| row[key].as_str());
                keys.for_each(|key| outln!("{key}"));
            }
            given => {
                out!("{}", format::lines(given.unwrap_or(usual), rows, headers, self.noheading)?);
            }
        }
        Ok(())
    }
}
