//! From a target to its build.

use std::path::{Path, PathBuf};

use bake::{Target, list, pairs, text};
use serde_json::Value;
use task::Kind;

use crate::commands::bud::{Bud, PullPolicy};
use options::Failure;

/// Where the image of a target is that others are built on.
pub(super) fn layout(scratch: &Path, target: &str) -> PathBuf {
    scratch.join(format!("{target}.layout"))
}

/// The build that a target describes.
///
/// # Errors
/// A key is not supported; a value has the wrong type.
pub(super) fn build(name: &str, target: &Target, scratch: &Path) -> Result<Bud, Failure> {
    let mut bud = Bud::usual()?;
    if let Some(context) = target.get("context").and_then(Value::as_str) {
        context.clone_into(&mut bud.context);
    }
    for (key, value) in target {
        set(&mut bud, key, value, scratch).map_err(|why| {
            Failure::new(Kind::Invalid, format!("target {name:?}, {key}: {value} {why}"))
        })?;
    }
    if let Some(text) = target.get("dockerfile-inline").and_then(Value::as_str) {
        let file = scratch.join(format!("{name}.Dockerfile"));
        std::fs::write(&file, text)
            .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
        bud.file.push(file.display().to_string());
    }
    Ok(bud)
}

/// Puts one key of a target into a build.
fn set(bud: &mut Bud, key: &str, value: &Value, scratch: &Path) -> Result<(), String> {
    let no = |what: &str| format!("is no {what}");
    let wrong_type = || "has the wrong type".to_owned();
    match key {
        "context" | "description" => {}
        "dockerfile-inline" => drop(value.as_str().ok_or_else(|| no("text"))?),
        "dockerfile" => {
            let file = value.as_str().ok_or_else(|| no("text"))?;
            let beside = Path::new(&bud.context).join(file);
            let file = if beside.exists() { beside } else { PathBuf::from(file) };
            bud.file.push(file.display().to_string());
        }
        "contexts" => {
            for (context, value) in pairs(value).ok_or_else(|| no("object"))? {
                let value = match bake::context_target(&value) {
                    Some(below) => format!("oci-layout://{}", layout(scratch, below).display()),
                    None => value,
                };
                bud.inputs.build_context.push(format!("{context}={value}"));
            }
        }
        "args" | "labels" | "extra-hosts" => {
            let (to, between) = match key {
                "args" => (&mut bud.inputs.build_arg, '='),
                "labels" => (&mut bud.image.label, '='),
                _ => (&mut bud.run_flags.add_host, ':'),
            };
            let all = pairs(value).ok_or_else(|| no("object"))?;
            to.extend(all.into_iter().map(|(key, value)| format!("{key}{between}{value}")));
        }
        "no-cache" => bud.no_cache = value.as_bool().ok_or_else(wrong_type)?,
        "pull" if value.as_bool().ok_or_else(wrong_type)? => {
            bud.pull.pull = Some(PullPolicy::Always);
        }
        "pull" => {}
        "target" => bud.target = Some(text(value).ok_or_else(wrong_type)?),
        "call" => bud.call.call = Some(text(value).ok_or_else(wrong_type)?),
        "shm-size" => {
            let size = options::flags::size(&text(value).ok_or_else(wrong_type)?);
            bud.run_flags.limits.shm_size = Some(size.map_err(|error| format!("({error})"))?);
        }
        "ulimits" => {
            for text in list(value).ok_or_else(wrong_type)? {
                let limit = containers::syntax::ulimit(&text);
                bud.run_flags.limits.ulimit.push(limit.map_err(|error| format!("({error})"))?);
            }
        }
        _ => {
            let to = texts(bud, key)
                .ok_or_else(|| "is not supported: this key is not known".to_owned())?;
            to.extend(list(value).ok_or_else(wrong_type)?);
        }
    }
    Ok(())
}

/// The texts of a build that a list fills.
fn texts<'a>(bud: &'a mut Bud, key: &str) -> Option<&'a mut Vec<String>> {
    Some(match key {
        "tags" => &mut bud.tag,
        "platforms" => &mut bud.platforms.platform,
        "network" => &mut bud.run_flags.network,
        "cache-from" => &mut bud.cache.cache_from,
        "cache-to" => &mut bud.cache.cache_to,
        "secret" => &mut bud.inputs.secret,
        "ssh" => &mut bud.inputs.ssh,
        "output" => &mut bud.output,
        "attest" => &mut bud.supply.attest,
        "entitlements" => &mut bud.allow.allow,
        "no-cache-filter" => &mut bud.no_cache_filter,
        "annotations" => &mut bud.image.annotation,
        _ => return None,
    })
}
