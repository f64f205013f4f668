//! The linter with what a build knows besides the Dockerfile: its platform and arguments, base
//! images, ignored files. Nothing is fetched for it.

use std::sync::Arc;

use dockerfile::{Check, Diagnostic, Dockerfile, Ignore, LintContext, Severity};
use image::{Image, Platform};
use layers::Root;

use crate::{Context, Env, Error, Request, Result, SourceFile, context, images};

/// The build argument that says what a `# check=` line says, and counts instead of it.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The findings of the linter.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// The Dockerfile the findings are about.
    pub file: Arc<SourceFile>,
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a Dockerfile without building it. Rules know only those base images that are in the
/// store.
///
/// # Errors
/// `BUILDKIT_DOCKERFILE_CHECK` or the ignore file cannot be read.
pub fn check(request: &Request, env: &Env) -> Result<CheckReport> {
    let (mut dockerfile, mut diagnostics) = dockerfile::parse(&request.dockerfile.text);
    if diagnostics.iter().all(|found| found.severity == Severity::Warning) {
        configure(&mut dockerfile, request)?;
        let stored = |name: &str, platform: &Platform| images::stored(env, name, platform);
        diagnostics.extend(lint(&dockerfile, request, &stored)?);
    }
    diagnostics.sort_by_key(|found| found.span.start);
    Ok(CheckReport { file: Arc::new(request.dockerfile.clone()), diagnostics })
}

/// Lets the build argument take the place of the `check` line.
pub(crate) fn configure(dockerfile: &mut Dockerfile, request: &Request) -> Result<()> {
    if let Some(text) = request.build_args.get(ARGUMENT) {
        dockerfile.directives.check = Check::parse(text).map_err(|why| {
            Error::malformed(format!("build argument {ARGUMENT}"), why.to_string())
        })?;
    }
    Ok(())
}

/// Runs the rules.
pub(crate) fn lint(
    dockerfile: &Dockerfile,
    request: &Request,
    image: &dyn Fn(&str, &Platform) -> Option<Image>,
) -> Result<Vec<Diagnostic>> {
    let platform = request.platforms.first().cloned().unwrap_or_else(Platform::host);
    let target = platform.to_string();
    let args: Vec<(String, String)> = request.build_args.clone().into_iter().collect();
    let ignore = ignored(request)?;
    let variable = |line: &String| line.split_once('=').map(|(name, _)| name.to_owned());
    let context = LintContext {
        ignore: ignore.as_ref(),
        target_platform: Some(&target),
        base_platform: Some(&|name| Some(image(name, &platform)?.platform().to_string())),
        base_environment: Some(&|name| {
            let image = image(name, &platform)?;
            Some(image.config().config.env.iter().filter_map(variable).collect())
        }),
        build_args: &args,
    };
    Ok(dockerfile::lint(dockerfile, &context))
}

/// What the ignore file of the context leaves out, as far as that can be known before the context
/// is read.
fn ignored(request: &Request) -> Result<Option<Ignore>> {
    let file = match (&request.ignore, &request.context) {
        (Some(file), _) => Some(file.clone()),
        (None, Context::Directory(path)) => match Root::open(path) {
            Ok(root) => context::dockerfile::ignore_file(&root)?,
            Err(_) => None,
        },
        (None, _) => None,
    };
    Ok(file.map(|file| Ignore::parse(&file.text).0))
}

/// Findings as what they are when `check=error=true`: errors.
pub(crate) fn strict(file: &Arc<SourceFile>, found: Vec<Diagnostic>) -> Error {
    let error = |found| Diagnostic { severity: Severity::Error, ..found };
    let diagnostics = found.into_iter().map(error).collect();
    Error::Dockerfile { file: Arc::clone(file), diagnostics }
}
