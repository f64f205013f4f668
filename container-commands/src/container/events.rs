//! `rbuild events`.

use app::{App, Runnable, format, observed};
use clap::Args;
use containers::Event;
use options::progress::Progress;
use options::{Failure, flags};
use serde_json::json;

use super::containers;

/// Show events of containers and volumes
#[derive(Debug, Args)]
pub struct Events {
    /// Show events since then: an RFC 3339 time, seconds since 1970, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    since: Option<f64>,
    /// Show events until then and exit: as --since
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    until: Option<f64>,
    /// Wait for further events (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    stream: Option<bool>,
    /// Show matching events only: type=, event=, container=, image=, volume=, label=; several of one
    /// key are alternatives
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show full ids (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_trunc: Option<bool>,
    /// Format each event with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// The keys of `--filter`.
const KEYS: [&str; 7] = ["type", "event", "container", "image", "volume", "label", "scope"];

impl Runnable for Events {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let filters = self.filter.iter().map(|text| {
            text.split_once('=').filter(|(key, _)| KEYS.contains(key)).ok_or_else(|| {
                Failure::usage(format!("--filter {text:?} is not supported")).hint(
                    "type=, event=, container=, image=, volume=, label= and scope= are supported",
                )
            })
        });
        let filters = filters.collect::<Result<Vec<_>, _>>()?;
        let all = containers(app)?;
        // Without more to come, what there is is meant.
        let now = || flags::moment("0s").unwrap_or_default();
        let (since, until) = match self.stream {
            Some(false) => (self.since.or(Some(0.0)), self.until.or_else(|| Some(now()))),
            _ => (self.since, self.until),
        };
        observed("events", Progress::Quiet, |task| {
            let mut failed = None;
            all.events(since, until, task, &mut |event| {
                if event.meets(&filters)
                    && let Err(failure) = self.print(&event)
                {
                    failed.get_or_insert(failure);
                }
            })?;
            failed.map_or(Ok(()), Err)
        })?;
        Ok(0)
    }
}

impl Events {
    fn print(&self, event: &Event) -> Result<(), Failure> {
        let short = self.no_trunc == Some(false);
        let id = if short { &event.id[..event.id.len().min(12)] } else { &event.id };
        let value = json!({
            "Time": event.time, "time": event.time as i64, "timeNano": (event.time * 1e9) as i64,
            "Type": event.kind, "Action": event.action, "Status": event.action, "scope": "local",
            "ID": id, "Actor": {"ID": id, "Attributes": event.attributes},
            "Name": event.attributes.get("name"), "Attributes": event.attributes,
            "Image": event.attributes.get("image"), "From": event.attributes.get("image"),
        });
        match self.format.as_deref() {
            Some("json") => outln!("{value}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
            None => {
                let time = containers::rfc3339(event.time).unwrap_or_default();
                let pairs = event.attributes.iter().map(|(key, value)| format!("{key}={value}"));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                outln!("{time} {} {} {id} ({pairs})", event.kind, event.action);
            }
        }
        Ok(())
    }
}
