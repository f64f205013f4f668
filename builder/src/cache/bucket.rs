//! Buckets of caches, in the words of buildx: `type=s3`, `type=azblob`, `type=gha`.

use transport::{Bucket, Service};

use super::fields::{Fields, Result, bad};
use crate::syntax::SyntaxError;

/// The name of a cache that is given without one.
const NAME: &str = "buildkit";

/// A field that the environment may have as well.
fn need(value: &mut Fields<'_>, key: &str, variable: &str) -> Result<String> {
    let found = value.or_variable(key, variable);
    found.ok_or_else(|| bad(format!("it has no {key}=, and {variable} is not set")))
}

/// `one;two`.
fn names(value: &mut Fields<'_>) -> Vec<String> {
    let given = value.take("name").unwrap_or_default();
    let names: Vec<String> =
        given.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() { vec![NAME.to_owned()] } else { names }
}

pub(super) fn s3(value: &mut Fields<'_>) -> Result<Bucket> {
    let bucket = need(value, "bucket", "AWS_BUCKET")?;
    let mut settings = value.variables("AWS_");
    let region = need(value, "region", "AWS_REGION")?;
    settings.push(("aws_region".to_owned(), region));
    for key in ["access_key_id", "secret_access_key", "session_token"] {
        let given = value.take(key);
        settings.extend(given.map(|given| (format!("aws_{key}"), given)));
    }
    let endpoint = value.or_variable("endpoint_url", "AWS_ENDPOINT_URL");
    settings.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
    let path_style = value.flag("use_path_style", endpoint.is_some())?;
    let prefix = value.take("prefix").unwrap_or_default();
    let mut part = |key: &str, usual: &str| {
        let part = value.take(key).unwrap_or_else(|| usual.to_owned());
        format!("{prefix}{part}").trim_start_matches('/').to_owned()
    };
    let (blobs, names_in) =
        (part("blobs_prefix", "blobs/"), part("manifests_prefix", "manifests/"));
    let service = Service::S3 { bucket, endpoint, path_style, settings };
    Ok(Bucket { service, blobs, names_in, names: names(value) })
}

pub(super) fn azure(value: &mut Fields<'_>) -> Result<Bucket> {
    let url = need(value, "account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL")?;
    let account = value.or_variable("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME");
    let account = match account.or_else(|| account_of(&url)) {
        Some(account) => account,
        None => return Err(bad("it has no account_name=, and account_url= begins with none")),
    };
    let container = value.or_variable("container", "BUILDKIT_AZURE_STORAGE_CONTAINER");
    let container = container.unwrap_or_else(|| "buildkit-cache".to_owned());
    let prefix = value.or_variable("prefix", "BUILDKIT_AZURE_STORAGE_PREFIX").unwrap_or_default();
    let mut part = |key: &str, usual: &str| {
        let part = value.take(key).unwrap_or_else(|| usual.to_owned());
        let parts = [prefix.trim_matches('/'), part.trim_matches('/')];
        let parts = parts.iter().filter(|part| !part.is_empty());
        parts.map(|part| format!("{part}/")).collect::<String>()
    };
    let (blobs, names_in) = (part("blobs_prefix", "blobs"), part("manifests_prefix", "manifests"));
    let mut settings = value.variables("AZURE_");
    let key = value.take("secret_access_key");
    settings.extend(key.map(|key| ("azure_storage_account_key".to_owned(), key)));
    let service = Service::Azure { url, account, container, settings };
    Ok(Bucket { service, blobs, names_in, names: names(value) })
}

/// `https://ACCOUNT.blob.core.windows.net`.
fn account_of(url: &str) -> Option<String> {
    let (_, host) = url.split_once("://")?;
    let account = host.split(['.', '/', ':']).next()?;
    (!account.is_empty()).then(|| account.to_owned())
}

pub(super) fn actions(value: &mut Fields<'_>) -> Result<Bucket> {
    let old = value.take("url");
    if let Some(version) = value.take("version")
        && version != "2"
    {
        return Err(SyntaxError {
            reason: format!("version={version} is not supported: GitHub ended it in April 2025"),
            hint: Some("leave the key out"),
        });
    }
    let missing = |what: &str| SyntaxError {
        reason: format!("{what} is not set"),
        hint: Some("pass on ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN of the job"),
    };
    let url = value.or_variable("url_v2", "ACTIONS_RESULTS_URL");
    let url = url.ok_or_else(|| match old {
        None => missing("url_v2=, ACTIONS_RESULTS_URL"),
        Some(_) => bad("url= names version 1 of the service, which GitHub ended in April 2025"),
    })?;
    let token = value.or_variable("token", "ACTIONS_RUNTIME_TOKEN");
    let token = token.ok_or_else(|| missing("token=, ACTIONS_RUNTIME_TOKEN"))?;
    let names = vec![value.take("scope").unwrap_or_else(|| NAME.to_owned())];
    let service = Service::Actions { url, token };
    Ok(Bucket { service, blobs: String::new(), names_in: String::new(), names })
}
