//! `version`, `info`, `completion`.

use app::{App, Runnable, format};
use clap::Args;
use options::{Dialect, Failure};
use serde_json::{Value, json};

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Format the output with a Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print JSON as buildah does
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl Version {
    /// Shows.
    ///
    /// # Errors
    /// A bad template.
    pub(crate) fn run(self, program: &str) -> Result<u8, Failure> {
        let value = json!({
            "Program": program, "Version": env!("CARGO_PKG_VERSION"),
            "OsArch": image::Platform::host().to_string(),
            "Client": part(program), "Server": part(program),
        });
        if self.json {
            outln!(
                "{:#}",
                json!({
                    "version": env!("CARGO_PKG_VERSION"), "osArch": value["OsArch"],
                    "imageSpec": "1.1.1", "runtimeSpec": "1.2.1",
                })
            );
            return Ok(0);
        }
        match self.format.as_deref() {
            None if Dialect::spoken() == Dialect::Crane => outln!("{}", env!("CARGO_PKG_VERSION")),
            None => outln!("{program} {} {}", env!("CARGO_PKG_VERSION"), image::Platform::host()),
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
        }
        Ok(0)
    }
}

/// One side of `docker version`: client and server are this program.
fn part(program: &str) -> Value {
    let host = image::Platform::host();
    json!({
        "Name": program, "Version": env!("CARGO_PKG_VERSION"),
        "Os": host.os, "Arch": host.architecture,
    })
}

/// Show what rbuild detects on this machine
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Format the output with a Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Runnable for Info {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let value = self.gather(app)?;
        match self.format.as_deref() {
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!(
                "{}",
                format::template(
                    template,
                    &containers::info_of_engines(value, env!("CARGO_PKG_VERSION"))
                )?
            ),
            None if Dialect::spoken().informs_in_json() => outln!("{value:#}"),
            None => {
                for (section, fields) in value.as_object().into_iter().flatten() {
                    outln!("{section}:");
                    for (name, value) in fields.as_object().into_iter().flatten() {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        outln!("  {name:<18} {text}");
                    }
                }
            }
        }
        Ok(0)
    }
}

impl Info {
    fn gather(&self, app: &App) -> Result<Value, Failure> {
        let store = app.store()?;
        let authentication = app.conf.paths.auth_files(app.conf.globals.authfile.as_deref());
        let policy = app.conf.paths.policy(app.conf.globals.policy.as_deref());
        let root = store.path();
        let (images, containers) = (store.published()?.len(), store.containers()?.len());
        Ok(json!({
            "host": containers::host_document(),
            "store": {
                "root": root,
                "images": images,
                "containers": containers,
                "GraphDriverName": "overlay",
                "GraphOptions": [],
                "GraphRoot": root,
                "GraphStatus": {},
                "RunRoot": root,
                "VolumePath": root.join("volumes"),
                "ImageStore": {"number": images},
                "ContainerStore": {"number": containers},
            },
            "configuration": {
                "credentials": authentication,
                "policy": policy,
            },
        }))
    }
}
