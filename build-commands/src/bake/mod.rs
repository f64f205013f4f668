//! `rbuild bake`: builds the targets that a file describes, as docker buildx does.

mod target;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use app::secret_flags::SecretFlags;
use app::{App, observed_by};
use bake::{Definition, Model, Override, Syntax, Target};
use builder::{BuildResult, RunningBuild};
use clap::Args;
use serde_json::{Map, Value, json};
use task::Kind;

use self::target::BakeTarget;
use crate::bud::{self, BuildResources, ResultDisplay};
use crate::builds;
use options::Dialect;
use options::Failure;
use options::environment;
use options::progress::Progress;

/// The files that are read where none is named, in this order; later ones change earlier ones.
const DEFAULT: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Build the targets of an HCL, JSON or compose file
#[derive(Debug, Args)]
pub struct Bake {
    /// Read this file; several are merged (default: compose and docker-bake files here)
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Print the targets as JSON; build nothing
    #[arg(long)]
    print: bool,
    /// List the targets or the variables; build nothing
    #[arg(long, value_name = "WHAT", value_parser = ["targets", "variables"])]
    list: Option<String>,
    /// Override a key of targets: TARGET.KEY=VALUE, where `*` in TARGET matches anything
    #[arg(long, value_name = "TARGET.KEY=VALUE")]
    set: Vec<String>,
    /// Set a variable of the file
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Push every image to its names
    #[arg(long)]
    push: bool,
    /// Keep pushed images in the store, too, as `bud --load`
    #[arg(long)]
    load: bool,
    /// Execute every step, without the cache
    #[arg(long)]
    no_cache: bool,
    /// Pull base images every time
    #[arg(long)]
    pull: bool,
    /// Attach an SBOM, as `bud --sbom`
    #[arg(long, value_name = "OPTIONS")]
    sbom: Option<String>,
    /// Attach provenance, as `bud --provenance`
    #[arg(long, value_name = "OPTIONS")]
    provenance: Option<String>,
    /// Grant entitlements to targets, as `bud --allow`
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Show progress in this form, as `bud --progress`
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        env = "RBUILD_PROGRESS",
        hide_env = true
    )]
    progress: Progress,
    /// Write the metadata of each target as JSON to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// The targets and groups (default: default)
    targets: Vec<String>,
}

impl Bake {
    /// Builds, one target after the other.
    ///
    /// # Errors
    /// A file is malformed; a target does not exist; a build fails.
    pub fn run(self, app: &App) -> Result<u8, Failure> {
        let model = self.model()?;
        match self.list.as_deref() {
            Some("variables") => {
                model.variables.iter().for_each(|(name, value)| outln!("{name}\t{value}"));
                return Ok(0);
            }
            Some(_) => {
                model.targets.keys().for_each(|name| outln!("{name}"));
                return Ok(0);
            }
            None => {}
        }
        let wanted = match self.targets.is_empty() {
            true => vec!["default".to_owned()],
            false => self.targets.clone(),
        };
        let names = model.expand(&wanted)?;
        let overrides = self.overrides()?;
        if self.print {
            outln!("{:#}", shown(&model, &wanted, &names, &overrides)?);
            return Ok(0);
        }
        let mut metadata = Map::new();
        let scratch = tempfile::tempdir_in(environment::scratch())
            .map_err(|error| Failure::io("making a directory", &error))?;
        for name in model.order(&names)? {
            let target = model.target(&name, &overrides)?;
            let asked = names.contains(&name);
            let built = self.build(app, &name, &target, asked, scratch.path());
            let built = built.map_err(|failure| failure.context(named(&name)))?;
            if asked && let Some(built) = built {
                metadata.insert(name, built.metadata);
            }
        }
        if let Some(file) = &self.metadata_file {
            std::fs::write(file, format!("{:#}\n", Value::from(metadata)))
                .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        }
        Ok(0)
    }

    /// Builds a target and keeps the record; nothing is built where something is asked instead.
    fn build(
        &self,
        app: &App,
        name: &str,
        target: &Target,
        asked: bool,
        scratch: &Path,
    ) -> Result<Option<BuildResult>, Failure> {
        let mut wanted = BakeTarget::read(name, target, scratch)?;
        wanted.no_cache |= self.no_cache;
        wanted.pull |= self.pull;
        wanted.sbom.clone_from(&self.sbom);
        wanted.provenance.clone_from(&self.provenance);
        wanted.entitlements.extend(self.allow.iter().cloned());
        if !asked {
            // Another target is built on it.
            let layout = target::layout(scratch, name);
            wanted.outputs.push(format!("type=oci,tar=false,dest={}", layout.display()));
        }
        let (file, stage) = (wanted.files.first().map(String::as_str), wanted.target.as_deref());
        let mut running = RunningBuild::begin(&wanted.context, file, stage, SystemTime::now());
        let done = self.recorded(app, wanted, asked, &mut running);
        builds::keep(app, running, &done);
        done
    }

    fn recorded(
        &self,
        app: &App,
        mut wanted: BakeTarget,
        asked: bool,
        running: &mut RunningBuild,
    ) -> Result<Option<BuildResult>, Failure> {
        let start = Instant::now();
        let progress = options::progress::chosen(self.progress)?;
        let prints_id = bud::prints_id(&wanted.outputs);
        let piped = bud::piped(&mut wanted.outputs)?;
        let mut request = wanted.request(self.push && asked)?;
        request.defer &= self.metadata_file.is_none() || !asked;
        request.keep = self.load;
        running.hide_secrets_of(&request);
        let means = BuildResources { secrets: SecretFlags::usual()?, ..BuildResources::default() };
        if let Some(question) = wanted.question()? {
            return question.answer(app, request, &means).map(|_| None);
        }
        let quiet = !asked || progress == Progress::Quiet;
        let shown = if quiet { Progress::Quiet } else { progress };
        let rendering = options::progress::observer(shown);
        let built = observed_by("build", &rendering, |task| means.build(app, request, task))?;
        running.built(&built);
        let dialect = Dialect::spoken();
        let pushes = self.push && asked;
        let tags = Vec::new();
        let shown =
            ResultDisplay { start, progress, quiet, dialect, piped, prints_id, pushes, tags };
        shown.summary(&built);
        shown.result(&built)?;
        Ok(Some(built))
    }

    /// What `--set` overrides.
    fn overrides(&self) -> Result<Vec<Override>, Failure> {
        let one = |text: &String| {
            let refuse = |_| Failure::usage(format!("--set {text:?}: expected TARGET.KEY=VALUE"));
            text.parse().map_err(refuse)
        };
        self.set.iter().map(one).collect()
    }

    fn model(&self) -> Result<Model, Failure> {
        let mut files = self.file.clone();
        if files.is_empty() {
            files.extend(DEFAULT.iter().map(PathBuf::from).filter(|file| file.exists()));
        }
        if files.is_empty() {
            return Err(Failure::usage(
                "there is no docker-bake.hcl, docker-bake.json or compose.yaml here",
            )
            .hint("name a file with --file"));
        }
        let environment = |name: &str| std::env::var(name).ok();
        let mut definition = Definition::default();
        for file in &files {
            let text = read_text(file)?;
            let name = file.display().to_string();
            definition.read(&name, Syntax::of(file), &text, &environment)?;
        }
        let given = |name: &str| {
            let mut given = self.var.iter().rev().filter_map(|text| text.split_once('='));
            let given = given.find(|(known, _)| *known == name);
            given.map(|(_, value)| value.to_owned()).or_else(|| environment(name))
        };
        Ok(Model::new(&definition, &given, std::time::SystemTime::now())?)
    }
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let bytes = options::environment::read_bounded(file, image::MAX_DOCUMENT)?;
    String::from_utf8(bytes).map_err(|error| {
        Failure::new(Kind::Invalid, format!("reading {}: {error}", file.display()))
    })
}

/// What `--print` shows.
fn shown(
    model: &Model,
    wanted: &[String],
    names: &[String],
    overrides: &[Override],
) -> Result<Value, Failure> {
    let mut groups = Map::new();
    for name in wanted {
        if let Some(members) = model.groups.get(name) {
            groups.insert(name.clone(), json!({ "targets": members }));
        }
    }
    groups.entry("default").or_insert_with(|| json!({ "targets": wanted }));
    let mut targets = Map::new();
    for name in model.order(names)? {
        let mut target = model.target(&name, overrides)?;
        target.entry("context".to_owned()).or_insert_with(|| json!("."));
        target.entry("dockerfile".to_owned()).or_insert_with(|| json!("Dockerfile"));
        targets.insert(name, Value::from_iter(target));
    }
    Ok(json!({ "group": groups, "target": targets }))
}

fn named(target: &str) -> String {
    format!("building target {target:?}")
}
