//! Objects of S3 and Azure Blob Storage.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use image::Digest;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error as Stop, GetResult, ObjectStore, ObjectStoreExt as _, RetryConfig,
    WriteMultipart,
};
use task::{Cause, Kind};

use super::error::{ServiceError, whole};
use super::{Bucket, Objects, Service};
use crate::{Blob, Result, Unverified};

/// Bytes of one part of an upload; a service takes 10,000 of them. What is shorter is sent whole.
const PART: usize = 16 << 20;
/// Parts of an upload on their way at once, which bounds its memory.
const PARTS: usize = 2;
/// What follows a name, so that BuildKit's list of the same name stays.
const OURS: &str = ".rbuild";

/// The objects of a bucket.
pub(super) struct BucketObjects {
    store: Box<dyn ObjectStore>,
    blobs: String,
    names_in: String,
    /// The advice if the service refuses.
    hint: &'static str,
}

fn client(url: Option<&str>) -> ClientOptions {
    // An earlier choice of the process stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new()
        .with_timeout(Duration::from_secs(300))
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(url.is_some_and(|url| url.starts_with("http://")))
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

/// `https://host` as `https://bucket.host`.
fn hosted(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => format!("https://{bucket}.{endpoint}"),
    }
}

fn s3(
    bucket: &str,
    endpoint: Option<&str>,
    path_style: bool,
    settings: &[(String, String)],
) -> Result<Box<dyn ObjectStore>, Stop> {
    let mut builder =
        AmazonS3Builder::new().with_client_options(client(endpoint)).with_retry(retry());
    for (name, value) in settings {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket).with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = endpoint {
        let endpoint = if path_style { endpoint.to_owned() } else { hosted(endpoint, bucket) };
        builder = builder.with_endpoint(endpoint);
    }
    Ok(Box::new(builder.build()?))
}

fn azure(
    url: &str,
    account: &str,
    container: &str,
    settings: &[(String, String)],
) -> Result<Box<dyn ObjectStore>, Stop> {
    let mut builder =
        MicrosoftAzureBuilder::new().with_client_options(client(Some(url))).with_retry(retry());
    for (name, value) in settings {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let builder = builder
        .with_account(account)
        .with_container_name(container)
        .with_endpoint(url.trim_end_matches('/').to_owned());
    Ok(Box::new(builder.build()?))
}

impl BucketObjects {
    pub(super) fn open(bucket: &Bucket) -> Result<BucketObjects, Cause> {
        let (built, hint) = match &bucket.service {
            Service::S3 { bucket, endpoint, path_style, settings } => (
                s3(bucket, endpoint.as_deref(), *path_style, settings),
                "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may read and write the bucket",
            ),
            Service::Azure { url, account, container, settings } => (
                azure(url, account, container, settings),
                "give secret_access_key= or the variables AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
            ),
            Service::Actions { .. } => unreachable!("GitHub's service has a client of its own"),
        };
        let (blobs, names_in) = (bucket.blobs.clone(), bucket.names_in.clone());
        let store = built.map_err(failed(format!("opening {bucket}"), hint))?;
        Ok(BucketObjects { store, blobs, names_in, hint })
    }

    fn path(&self, key: &str) -> Result<Path, Cause> {
        let failed = failed(format!("naming the object {key}"), self.hint);
        Path::parse(key).map_err(|error| failed(error.into()))
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.blobs)
    }

    async fn get(&self, key: &str) -> Result<Option<GetResult>, Cause> {
        match self.store.get(&self.path(key)?).await {
            Ok(got) => Ok(Some(got)),
            Err(Stop::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(format!("reading the object {key}"), self.hint)(error)),
        }
    }

    fn bytes(
        &self,
        key: &str,
        got: GetResult,
    ) -> impl futures::Stream<Item = Result<Bytes, Cause>> + Send + Unpin + use<> {
        let (key, hint) = (key.to_owned(), self.hint);
        got.into_stream()
            .map_err(move |error| failed(format!("reading the object {key}"), hint)(error))
    }

    async fn document(&self, key: &str) -> Result<Option<Bytes>, Cause> {
        match self.get(key).await? {
            None => Ok(None),
            Some(got) => {
                let action = format!("reading the object {key}");
                whole(self.bytes(key, got), &action).await.map(Some)
            }
        }
    }

    async fn parts(&self, path: &Path, key: &str, mut blob: Blob) -> Result<(), Cause> {
        let stop = || failed(format!("writing the object {key}"), self.hint);
        let upload = self.store.put_multipart(path).await.map_err(stop())?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        while let Some(chunk) = blob.next().await {
            let ready = match chunk {
                Ok(chunk) => upload.wait_for_capacity(PARTS).await.map(|()| chunk).map_err(stop()),
                Err(cause) => Err(cause),
            };
            match ready {
                Ok(chunk) => upload.put(chunk),
                Err(cause) => {
                    // The service drops the parts by its own rules if this fails too.
                    let _ = upload.abort().await;
                    return Err(cause);
                }
            }
        }
        upload.finish().await.map(drop).map_err(stop())
    }
}

#[async_trait]
impl Objects for BucketObjects {
    async fn has(&self, digest: &Digest) -> Result<bool, Cause> {
        let key = self.blob(digest);
        match self.store.head(&self.path(&key)?).await {
            Ok(_) => Ok(true),
            Err(Stop::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(format!("looking for the object {key}"), self.hint)(error)),
        }
    }

    async fn read(&self, digest: &Digest) -> Result<Option<Unverified>, Cause> {
        let key = self.blob(digest);
        let got = self.get(&key).await?;
        Ok(got.map(|got| Unverified::new(self.bytes(&key, got))))
    }

    async fn write(&self, mut blob: Blob) -> Result<(), Cause> {
        let key = self.blob(&blob.digest());
        let path = self.path(&key)?;
        if blob.size() > PART as u64 {
            return self.parts(&path, &key, blob).await;
        }
        let mut whole = Vec::new();
        while let Some(chunk) = blob.next().await {
            whole.extend_from_slice(&chunk?);
        }
        let put = self.store.put(&path, whole.into()).await;
        put.map(drop).map_err(failed(format!("writing the object {key}"), self.hint))
    }

    async fn named(&self, name: &str) -> Result<Option<Bytes>, Cause> {
        self.document(&format!("{}{name}{OURS}", self.names_in)).await
    }

    async fn name(&self, name: &str, document: Bytes) -> Result<(), Cause> {
        let key = format!("{}{name}{OURS}", self.names_in);
        let put = self.store.put(&self.path(&key)?, document.into()).await;
        put.map(drop).map_err(failed(format!("writing the object {key}"), self.hint))
    }

    async fn buildkit(&self, name: &str) -> Result<Option<Bytes>, Cause> {
        self.document(&format!("{}{name}", self.names_in)).await
    }
}

/// What a service says, as an error.
fn failed(action: String, hint: &'static str) -> impl FnOnce(Stop) -> Cause {
    move |error| {
        let kind = match &error {
            Stop::NotFound { .. } => Kind::NotFound,
            Stop::PermissionDenied { .. } | Stop::Unauthenticated { .. } => Kind::Denied,
            Stop::InvalidPath { .. } | Stop::UnknownConfigurationKey { .. } => Kind::Invalid,
            _ => Kind::Unavailable,
        };
        let hint = (kind == Kind::Denied).then_some(hint);
        ServiceError { action, reason: error.to_string(), kind, hint }.into()
    }
}
