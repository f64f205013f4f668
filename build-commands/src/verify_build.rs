//! `rbuild verify-build`: building an image again and comparing.

use std::io::Read;
use std::path::PathBuf;

use app::place::Access;
use app::{App, lookup, observed, place};
use builder::{
    EnforcedLock, ExplicitChoices, Grant, Lock, RebuildReport, Recipe, Request, SLSA_V1,
};
use clap::{Args, ValueEnum};
use image::{Descriptor, Image, Layer, Platform};
use layers::Times;
use task::{Cause, Kind, Task};
use transport::{Location, Source};

use crate::bud::{InputFlags, Rebuild, recorded};
use options::Failure;
use options::key_file::public_key;
use options::progress::Progress;
use options::registry::RegistryFlags;

/// The exit code when the image is another one.
const DIFFERS: u8 = 3;

/// Rebuild an image from its provenance or a lock file, and show the differences
///
/// Exit code 0: the rebuild gives the same manifest, or with --ignore-times the same but for times; 3:
/// it gives another; 125: no comparison was possible. Every step runs again, with the original inputs.
#[derive(Debug, Args)]
pub struct VerifyBuild {
    /// The image: a name in the store or on a registry, or transport:…
    image: String,
    /// The original build context
    #[arg(long, value_name = "CONTEXT", default_value = ".")]
    context: String,
    /// The Dockerfile (default: the one in the provenance, or the context's)
    #[arg(short, long = "file", value_name = "FILE")]
    file: Option<String>,
    /// Take the digests of inputs from this lock file instead of the provenance
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Read the provenance from this file (an in-toto statement) instead of the attached one
    #[arg(long, value_name = "FILE")]
    provenance: Option<PathBuf>,
    /// Accept only provenance that this public key has signed (`rbuild attest`)
    #[arg(long, value_name = "FILE", conflicts_with = "provenance")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    inputs: InputFlags,
    /// Pass a flag of `rbuild bud` that the provenance does not contain:
    /// --build-flag=--add-host=db:10.0.0.1
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    build_flag: Vec<String>,
    /// Accept other times of files, and in the config and its history
    #[arg(long)]
    ignore_times: bool,
    /// Choose the image of this platform in an index (default: this machine's)
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print the result in this format
    #[arg(long, value_enum, default_value = "text")]
    format: AnswerFormat,
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AnswerFormat {
    Text,
    Json,
}

/// The image to be verified, and where it is.
struct Subject {
    source: Box<dyn Source>,
    named: Descriptor,
    image: Image,
}

impl VerifyBuild {
    /// Builds again and compares.
    ///
    /// # Errors
    /// There is no such image; it has no recipe; it does not build.
    pub fn run(self, app: &App) -> Result<u8, Failure> {
        let RebuildReport { expected, found, deviations } =
            observed("verify-build", self.progress, |task| self.verify(app, task))?;
        let same = expected == found;
        let but_for_times = self.ignore_times && deviations.is_empty();
        let (expected, found) = (expected.to_string(), found.to_string());
        match self.format {
            AnswerFormat::Json => outln!("{:#}", deviations.json(&expected, &found)),
            AnswerFormat::Text if same => outln!("identical: building again gives {found}"),
            AnswerFormat::Text if but_for_times => outln!(
                "identical but for times: the image is {expected}, building again gives {found}"
            ),
            AnswerFormat::Text => {
                outln!("different: the image is {expected}, building again gives {found}");
                out!("{}", deviations.text());
            }
        }
        Ok(if same || but_for_times { 0 } else { DIFFERS })
    }

    fn verify(&self, app: &App, task: &Task) -> Result<RebuildReport, Failure> {
        let subject = self.subject(app, task)?;
        let recipe = self.recipe(app, &subject, task)?;
        let file = match (&self.file, &recipe.dockerfile) {
            (Some(file), _) => Some(file.clone()),
            // The context need not have one: it comes from the provenance.
            (None, Some(_)) => Some("/dev/null".to_owned()),
            (None, None) => None,
        };
        let rebuild = Rebuild {
            flags: &self.build_flag,
            context: &self.context,
            file,
            inputs: &self.inputs,
            registry: self.registry.clone(),
        };
        let (request, means, stated) = rebuild.request()?;
        let platform = subject.image.platform();
        let mut request = self.request(request, stated, &recipe, platform)?;
        let (lock, file) = match &self.lock {
            Some(file) => (Lock::read(file)?, file.display().to_string()),
            None => (recipe.lock, "the provenance".to_owned()),
        };
        request.inputs.lock = Some(EnforcedLock { lock, file, partial: false });
        let built = means.build(app, request, task)?;
        let mut open = |layer: &Layer<'_>| -> Result<Box<dyn Read>, Cause> {
            place::open_layer(app, &*subject.source, layer)
        };
        let times = if self.ignore_times { Times::Ignored } else { Times::Compared };
        let store = app.store()?;
        Ok(builder::compare_rebuilt(store, &subject.image, &built, times, &mut open, task)?)
    }

    fn subject(&self, app: &App, task: &Task) -> Result<Subject, Failure> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let location = match self.image.parse::<Location>() {
            Ok(_) => options::place::location(&self.image, "")?,
            Err(_) => match lookup::find(app.store()?, &self.image)? {
                Some(found) => Location::Store(
                    found.name.unwrap_or_else(|| found.descriptor.digest.to_string()),
                ),
                None => options::place::location(&self.image, "docker://")?,
            },
        };
        let source = Access::new(app, self.registry.reach()?).source(&location)?;
        // Of an image that never left the store the layers are compressed now.
        app.wait(source.seal(task))?.map_err(Failure::of)?;
        let (named, image) = app.wait(transport::open(&*source, &platform))??;
        Ok(Subject { source, named, image })
    }

    /// The recipe of the image; with a lock file provenance is optional.
    fn recipe(&self, app: &App, subject: &Subject, task: &Task) -> Result<Recipe, Failure> {
        let digest = subject.image.descriptor().digest;
        if let Some(file) = &self.provenance {
            let bytes = std::fs::read(file)
                .map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
            return Ok(Recipe::parse(&bytes, digest)?);
        }
        let image = subject.image.descriptor();
        let statements: Vec<_> = if self.key.is_empty() {
            app.wait(transport::statements(&*subject.source, &subject.named, image, SLSA_V1))??
        } else {
            let keys =
                self.key.iter().map(|file| public_key(file)).collect::<Result<Vec<_>, _>>()?;
            let signers = sign::Signers::keys(keys);
            let source = &*subject.source;
            let signed = sign::verify_attestations(image, Some(SLSA_V1), &signers, source, task);
            app.wait(signed)??.iter().map(|signed| signed.statement().clone()).collect()
        };
        match (Recipe::find(&statements, digest), &self.lock) {
            (Ok(Some(recipe)), _) => Ok(recipe),
            (_, Some(_)) => Ok(Recipe { locals: true, ..Recipe::default() }),
            (Err(error), None) => Err(error.into()),
            (Ok(None), None) => {
                Err(Failure::new(Kind::NotFound, format!("no provenance is attached to {digest}"))
                    .hint("give --lock FILE, or build with --provenance=mode=max"))
            }
        }
    }

    /// The request of this command line, completed by the recipe. What the recipe opens of the
    /// sandbox is only believed of somebody whose key is known, or if the user opens it too.
    fn request(
        &self,
        mut request: Request,
        stated: ExplicitChoices,
        recipe: &Recipe,
        platform: Platform,
    ) -> Result<Request, Failure> {
        let mut recipe = recipe.clone();
        if self.file.is_some() {
            recipe.dockerfile = None;
        }
        if !recipe.run_flags.is_empty() {
            recipe.run = recorded(&recipe.run_flags)?;
        }
        let missing = recipe.secrets.iter().find(|id| !request.secrets.contains_key(*id));
        if let Some(id) = missing {
            return Err(Failure::usage(format!("the build had the secret {id:?}"))
                .hint(format!("give it: --secret id={id},src=FILE")));
        }
        request.platforms = vec![platform];
        let opened = recipe.apply(&mut request, stated);
        if opened.is_empty() || !self.key.is_empty() {
            return Ok(request);
        }
        let names: Vec<_> = opened.iter().map(ToString::to_string).collect();
        let flags: Vec<_> =
            opened.iter().map(|grant| format!("--build-flag={}", flag(grant))).collect();
        let what = format!(
            "the build gave its commands more of the machine than the sandbox: {}",
            names.join(", ")
        );
        Err(Failure::new(Kind::Refused, what).hint(format!(
            "believe provenance that is signed, with --key FILE, or repeat it: {}",
            flags.join(" ")
        )))
    }
}

/// The flag of a build that gives the same.
fn flag(grant: &Grant) -> String {
    match grant {
        Grant::Privileged => "--cap-add=ALL".to_owned(),
        Grant::Capability(name) => format!("--cap-add={name}"),
        Grant::SystemCalls => "--security-opt=seccomp=FILE".to_owned(),
        Grant::AppArmor(profile) => format!("--security-opt=apparmor={profile}"),
        Grant::Unmask(path) => format!("--security-opt=unmask={path}"),
        Grant::Namespace("cgroup") => "--cgroupns=host".to_owned(),
        Grant::Namespace(name) => format!("--{name}=host"),
        Grant::Chroot => "--isolation=chroot".to_owned(),
        Grant::Sysctl(name) => format!("--sysctl={name}=VALUE"),
        Grant::Device(path) => format!("--device={}", path.display()),
        Grant::RuntimeAnnotation(key) => format!("--annotation={key}=VALUE"),
        Grant::CgroupParent(path) => format!("--cgroup-parent={path}"),
        Grant::OomScore(score) => format!("--oom-score-adj={score}"),
        Grant::Mount { source, target, read_only } => {
            let access = if *read_only { ":ro" } else { "" };
            format!("--volume={}:{}{access}", source.display(), target.display())
        }
        Grant::Overlay { source, target } => {
            format!("--volume={}:{}:O", source.display(), target.display())
        }
        Grant::Volume(target) => format!("--volume={}", target.display()),
        Grant::Owner(path) => format!("--volume={}:TARGET:U", path.display()),
        Grant::HostNetwork => "--network=host".to_owned(),
        Grant::JoinedNetwork(whose) => format!("--network=container:{whose}"),
        Grant::NamedNetwork(name) => format!("--network={name}"),
        Grant::Loopback(name) => format!("--add-host={name}:host-gateway"),
        Grant::Port(port) => format!("--publish={port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_older_provenance_are_believed_only_where_they_open_nothing() {
        for (line, opened) in [
            ("--memory=64m", ""),
            ("--cap-drop=ALL", ""),
            ("--no-hosts", ""),
            ("--pid=private", ""),
            ("--volume=/:/host", "--volume=/:/host"),
            ("--volume=/:/host:ro", "--volume=/:/host:ro"),
            ("--volume=/:/host:O", "--volume=/:/host:O"),
            ("--device=/dev/null", "--device=/dev/null"),
            ("--cap-add=ALL", "--cap-add=ALL"),
            ("--security-opt=seccomp=unconfined", "--security-opt=seccomp=FILE"),
            ("--security-opt=unmask=ALL", "--security-opt=unmask=ALL"),
            ("--pid=host", "--pid=host"),
            ("--cgroupns=host", "--cgroupns=host"),
            ("--isolation=chroot", "--isolation=chroot"),
            ("--cgroup-parent=/x", "--cgroup-parent=/x"),
            ("--sysctl=net.a=1", "--sysctl=net.a=VALUE"),
            ("--add-host=me:host-gateway", "--add-host=me:host-gateway"),
        ] {
            let spec = recorded(&[line.to_owned()]).unwrap_or_else(|e| panic!("{line}: {e:?}"));
            let grants = builder::grants(&spec, builder::Network::Default);
            let flags: Vec<_> = grants.iter().map(flag).collect();
            assert_eq!(flags.first().map_or("", String::as_str), opened, "{line}");
        }
        for line in ["--root=/x", "--output=/", "positional"] {
            assert!(recorded(&[line.to_owned()]).is_err(), "{line}");
        }
    }
}
