//! Every platform that the base images of a build are for.

use std::sync::Arc;

use dockerfile::Dockerfile;
use image::Platform;
use task::Task;

use crate::inputs::Inputs;
use crate::lower::bases;
use crate::{Env, Error, Request, Result, SourceFile, images};

/// The platforms that all base images have which the target needs for its own platform, in the
/// order of the first one's index.
pub(crate) async fn platforms(
    dockerfile: &Dockerfile,
    request: &Request,
    env: &Env,
    file: &Arc<SourceFile>,
    inputs: &Inputs,
    task: &Task,
) -> Result<Vec<Platform>> {
    let names = bases(dockerfile, request)
        .map_err(|diagnostics| Error::Dockerfile { file: Arc::clone(file), diagnostics })?;
    let Some((first, others)) = names.split_first() else {
        return Err(refused("nothing the target needs is built on an image for its own platform"));
    };
    let task = task.child("listing platforms");
    let mut common = offered(first, request, env, inputs).await?;
    for name in others {
        let own = offered(name, request, env, inputs).await?;
        common.retain(|platform| own.contains(platform));
    }
    if common.is_empty() {
        return Err(refused(&format!(
            "the base images {} have no platform in common",
            names.join(", ")
        )));
    }
    task.done();
    Ok(common)
}

fn refused(why: &str) -> Error {
    Error::NoCommonPlatform { reason: why.to_owned() }
}

/// What the images in the index of that name are for.
async fn offered(
    name: &str,
    request: &Request,
    env: &Env,
    inputs: &Inputs,
) -> Result<Vec<Platform>> {
    let Some(index) = images::index(request, env, inputs, name).await? else {
        return Err(refused(&format!("{name} is one image, not an index of several")));
    };
    let mut platforms = Vec::new();
    for platform in index.manifests.iter().filter_map(|entry| entry.platform.as_ref()) {
        // Statements about images are for no platform.
        if platform.os != "unknown" && !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    match platforms.is_empty() {
        true => Err(refused(&format!("the index {name} names no platform"))),
        false => Ok(platforms),
    }
}
