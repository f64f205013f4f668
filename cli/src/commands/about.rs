//! `version`, `info`, `completion`.

use clap::Args;
use serde_json::{Value, json};

use crate::app::App;
use crate::format;
use crate::report::Failure;

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
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
        });
        match self.format.as_deref() {
            None => outln!("{program} {} {}", env!("CARGO_PKG_VERSION"), image::Platform::host()),
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
        }
        Ok(0)
    }
}

/// Show what rbuild finds on this machine
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Info {
    /// Shows.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let value = self.gather(app)?;
        match self.format.as_deref() {
            Some("json") => outln!("{value:#}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
            None => {
                for (section, fields) in value.as_object().into_iter().flatten() {
                    outln!("{section}:");
                    for (name, value) in fields.as_object().into_iter().flatten() {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        outln!("  {name:<14} {text}");
                    }
                }
            }
        }
        Ok(0)
    }

    fn gather(&self, app: &App) -> Result<Value, Failure> {
        let store = app.store()?;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let controllers = |path: &str| std::path::Path::new(path).exists();
        let cgroups = match (
            controllers("/sys/fs/cgroup/cgroup.controllers"),
            controllers("/sys/fs/cgroup/unified"),
        ) {
            (true, _) => "v2",
            (false, true) => "hybrid (v1 controllers, v2 hierarchy)",
            (false, false) => "v1",
        };
        let authentication = app.places.auth_files(app.globals.authfile.as_deref());
        let policy = app.places.policy(app.globals.policy.as_deref());
        Ok(json!({
            "host": {
                "platform": image::Platform::host().to_string(),
                "kernel": read("/proc/sys/kernel/osrelease"),
                "cpus": std::thread::available_parallelism().map_or(1, usize::from),
                "cgroups": cgroups,
                "rootless": runtime::in_user_namespace(),
                "singleId": runtime::single_id(),
            },
            "store": {
                "root": store.path(),
                "images": store.published()?.len(),
                "containers": store.containers()?.len(),
            },
            "configuration": {
                "credentials": authentication,
                "policy": policy,
            },
        }))
    }
}
