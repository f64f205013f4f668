//! `rbuild sbom`: which software an image contains.

use std::path::{Path, PathBuf};

use app::place::{Access, open_layer};
use app::{App, Runnable, lookup, observed};
use clap::{Args, ValueEnum};
use image::{Image, Layer, Platform};
use options::Failure;
use options::environment::{read_bounded, write_whole};
use options::place::location;
use options::progress::Progress;
use options::registry::RegistryFlags;
use sbom::{Inventory, MAX_DATABASE, Subject, Vulnerabilities};
use task::{Kind, Task};
use transport::Location;

/// List the software in an image (its SBOM), from its layers only
///
/// Reads the package databases of dpkg, apk and rpm, installed Python and Node packages, Ruby gems,
/// PHP packages of Composer, Java archives, Cargo.lock and Gemfile.lock files, and the build
/// information of Go and `cargo auditable` in executables. Runs nothing and needs no network.
/// Results are cached per layer.
#[derive(Debug, Args)]
pub struct Sbom {
    /// The image: a name in the store or on a registry, or transport:…
    image: String,
    /// Write this format
    #[arg(long, value_enum, default_value = "table")]
    format: SbomFormat,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Choose the image of this platform in an index (default: this machine's)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// List the known vulnerabilities of the packages instead, from this OSV database: a JSON array
    /// or one record per line
    #[arg(long, value_name = "FILE")]
    vulns: Option<PathBuf>,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SbomFormat {
    /// Readable lines
    Table,
    /// With --vulns: an array of findings
    Json,
    /// SPDX 2.3
    #[value(alias = "spdx")]
    SpdxJson,
    /// CycloneDX 1.6
    #[value(alias = "cyclonedx")]
    CyclonedxJson,
}

impl Runnable for Sbom {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let (name, image, inventory) =
            observed("sbom", self.progress, |task| self.look(app, &platform, task))?;
        if let Some(file) = &self.vulns {
            return self.vulnerable(file, &inventory);
        }
        let diff_ids: Vec<_> = image.layers().map(|layer| layer.diff_id).collect();
        let platform = image.platform().to_string();
        let created = created()?;
        let subject = Subject {
            name: &name,
            digest: image.descriptor().digest,
            diff_ids: &diff_ids,
            platform: &platform,
            created: &created,
            version: env!("CARGO_PKG_VERSION"),
        };
        let pretty = |value: &serde_json::Value| {
            let text = serde_json::to_string_pretty(value);
            text.map(|text| text + "\n").unwrap_or_default()
        };
        let text = match self.format {
            SbomFormat::Table => sbom::table(&inventory),
            SbomFormat::Json => {
                return Err(Failure::usage(
                    "--format=json is for --vulns; an SBOM is spdx-json or cyclonedx-json",
                ));
            }
            SbomFormat::SpdxJson => pretty(&sbom::spdx(&inventory, &subject)),
            SbomFormat::CyclonedxJson => pretty(&sbom::cyclonedx(&inventory, &subject)),
        };
        match &self.output {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => out!("{text}"),
        }
        Ok(0)
    }
}

impl Sbom {
    /// Lists vulnerabilities.
    fn vulnerable(&self, file: &Path, inventory: &Inventory) -> Result<u8, Failure> {
        if !matches!(self.format, SbomFormat::Table | SbomFormat::Json) {
            return Err(Failure::usage("--vulns takes --format=table or json"));
        }
        let json = read_bounded(file, MAX_DATABASE)?;
        let database = Vulnerabilities::read(&json).map_err(|why| {
            Failure::new(
                Kind::Invalid,
                format!("reading vulnerabilities {}: {why}", file.display()),
            )
        })?;
        for warning in Vulnerabilities::unmatched(inventory) {
            eprintln!("warning: {warning}");
        }
        let found = database.of(inventory);
        let text = match self.format {
            SbomFormat::Table => sbom::vulnerability_table(&found),
            _ => format!("{:#}\n", serde_json::json!(found)),
        };
        match &self.output {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => out!("{text}"),
        }
        Ok(0)
    }

    /// In the store by any of its names, or else where the text says.
    fn look(
        &self,
        app: &App,
        platform: &Platform,
        task: &Task,
    ) -> Result<(String, Image, Inventory), Failure> {
        let store = app.store()?;
        let elsewhere = self.image.parse::<Location>().ok();
        if elsewhere.is_none()
            && let Some(found) = lookup::find(store, &self.image)?
        {
            let image = store.image(&found.descriptor, platform)?;
            let inventory =
                builder::inventory(store, &image, &mut |l| builder::open_stored(store, l), task)?;
            let name = found.name.unwrap_or_else(|| found.descriptor.digest.to_string());
            return Ok((name, image, inventory));
        }
        let location = location(&self.image, "docker://")?;
        let name = match &location {
            Location::Registry(reference) => reference.to_string(),
            other => other.to_string(),
        };
        let access = Access::new(app, self.registry.reach()?);
        let source = access.source(&location)?;
        let (_, image) = app.wait(transport::open(&*source, platform))??;
        let mut open = |layer: &Layer<'_>| open_layer(app, &*source, layer);
        let inventory = builder::inventory(store, &image, &mut open, task)?;
        Ok((name, image, inventory))
    }
}

/// Now, or `SOURCE_DATE_EPOCH`; RFC 3339.
pub(crate) fn created() -> Result<String, Failure> {
    let epoch = app::values::epoch_variable()?;
    let time = match epoch {
        Some(seconds) => jiff::Timestamp::from_second(seconds)
            .map_err(|error| Failure::usage(format!("SOURCE_DATE_EPOCH is {seconds}: {error}")))?,
        None => {
            let now = jiff::Timestamp::now().as_second();
            jiff::Timestamp::from_second(now).unwrap_or_default()
        }
    };
    Ok(time.to_string())
}
