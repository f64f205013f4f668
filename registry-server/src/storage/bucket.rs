//! A bucket of an S3-compatible object store, shared by any number of servers.
//!
//! Needed of the store: reads and lists that see every finished write, and writes under
//! `If-None-Match: *` and `If-Match`. AWS, MinIO, Ceph and others have them.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, RetryConfig, UpdateVersion, WriteMultipart,
};

use super::{Bucket, Bytestream, Stat, Storage, WriteCondition, Writer, page};

/// Bytes of one part of a multipart upload; the store allows 10,000 of them.
const PART: usize = 16 << 20;
/// Parts on their way at once, per upload: what bounds an upload's memory.
const PARTS: usize = 2;
/// How long a link to an object is valid.
const LINK: Duration = Duration::from_secs(20 * 60);
/// The largest object the store copies in one request.
const COPY_LIMIT: u64 = 5 << 30;

/// A bucket of an S3-compatible object store.
#[derive(Clone)]
pub(crate) struct BucketStorage {
    store: Arc<AmazonS3>,
    prefix: String,
    name: String,
    redirect: bool,
}

struct PartsWriter {
    upload: Option<WriteMultipart>,
}

fn other(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn found<T>(result: object_store::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(other(error)),
    }
}

impl BucketStorage {
    /// A bucket; sends no request yet.
    pub(crate) fn open(bucket: &Bucket) -> io::Result<BucketStorage> {
        // An earlier choice of the process stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_timeout(Duration::from_secs(120))
            .with_connect_timeout(Duration::from_secs(5));
        let retry = RetryConfig {
            max_retries: 5,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_client_options(client)
            .with_retry(retry)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        for (name, value) in &bucket.settings {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder
            .with_bucket_name(&bucket.bucket)
            .with_virtual_hosted_style_request(bucket.virtual_hosted);
        if let Some(region) = &bucket.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &bucket.endpoint {
            builder =
                builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let store = Arc::new(builder.build().map_err(other)?);
        let prefix = match bucket.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let name = format!("s3://{}/{prefix}", bucket.bucket);
        Ok(BucketStorage { store, prefix, name, redirect: bucket.redirect })
    }

    fn path(&self, key: &str) -> io::Result<Path> {
        Path::parse(format!("{}{key}", self.prefix)).map_err(io::Error::other)
    }

    /// The path of a directory; `None` is all.
    fn directory(&self, directory: &str) -> io::Result<Option<Path>> {
        let path = format!("{}{directory}", self.prefix);
        match path.trim_end_matches('/') {
            "" => Ok(None),
            path => Path::parse(path).map(Some).map_err(io::Error::other),
        }
    }

    fn stat_of(&self, meta: ObjectMeta) -> Stat {
        let key = meta.location.as_ref();
        let modified = meta.last_modified.timestamp_millis().max(0);
        Stat {
            key: key.strip_prefix(&self.prefix).unwrap_or(key).to_owned(),
            size: meta.size,
            modified: Duration::from_millis(modified.unsigned_abs()),
            version: meta.e_tag,
        }
    }
}

#[async_trait]
impl Storage for BucketStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn now(&self) -> io::Result<Duration> {
        let path = self.path("gc/clock")?;
        self.store.put(&path, PutPayload::default()).await.map_err(other)?;
        let meta = self.store.head(&path).await.map_err(other)?;
        Ok(self.stat_of(meta).modified)
    }

    async fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        let meta = found(self.store.head(&self.path(key)?).await)?;
        Ok(meta.map(|meta| self.stat_of(meta)))
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> io::Result<Option<Bytestream>> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(Some(futures::stream::empty().boxed()));
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let got = found(self.store.get_opts(&self.path(key)?, options).await)?;
        Ok(got.map(|got| got.into_stream().map_err(other).boxed()))
    }

    async fn signed_url(&self, key: &str) -> io::Result<Option<String>> {
        if !self.redirect {
            return Ok(None);
        }
        let url = self.store.signed_url(hyper::Method::GET, &self.path(key)?, LINK).await;
        url.map(|url| Some(url.to_string())).map_err(other)
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: WriteCondition) -> io::Result<bool> {
        let mode = match condition {
            WriteCondition::Always => PutMode::Overwrite,
            WriteCondition::Absent => PutMode::Create,
            WriteCondition::Is(version) => {
                PutMode::Update(UpdateVersion { e_tag: Some(version), version: None })
            }
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&self.path(key)?, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotFound { .. },
            ) => Ok(false),
            Err(error) => Err(other(error)),
        }
    }

    async fn writer(&self, key: &str) -> io::Result<Box<dyn Writer>> {
        let upload = self.store.put_multipart(&self.path(key)?).await.map_err(other)?;
        let upload = Some(WriteMultipart::new_with_chunk_size(upload, PART));
        Ok(Box::new(PartsWriter { upload }))
    }

    async fn promote(&self, from: &str, to: &str) -> io::Result<()> {
        let size = self.stat(from).await?.ok_or(io::ErrorKind::NotFound)?.size;
        if size <= COPY_LIMIT {
            let (from, to) = (self.path(from)?, self.path(to)?);
            return self.store.copy(&from, &to).await.map_err(other);
        }
        let mut stream = self.read(from, None).await?.ok_or(io::ErrorKind::NotFound)?;
        let mut writer = self.writer(to).await?;
        while let Some(bytes) = stream.next().await {
            writer.write(bytes?).await?;
        }
        writer.finish().await
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        found(self.store.delete(&self.path(key)?).await).map(drop)
    }

    async fn names(
        &self,
        directory: &str,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<String>> {
        let prefix = self.directory(directory)?;
        let mut stream = match after {
            Some(after) => {
                let offset = self.path(&format!("{directory}{after}"))?;
                self.store.list_with_offset(prefix.as_ref(), &offset)
            }
            None => self.store.list(prefix.as_ref()),
        };
        let mut names = Vec::new();
        while names.len() < limit {
            let Some(meta) = stream.try_next().await.map_err(other)? else { break };
            let stat = self.stat_of(meta);
            let name = stat.key.strip_prefix(directory).unwrap_or_default();
            if !name.is_empty() && !name.contains('/') {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(page(names.into_iter(), after, limit))
    }

    async fn walk(
        &self,
        directory: &str,
    ) -> io::Result<Pin<Box<dyn Stream<Item = io::Result<Stat>> + Send + '_>>> {
        let list = self.store.list(self.directory(directory)?.as_ref());
        Ok(list.map(|meta| meta.map(|meta| self.stat_of(meta)).map_err(other)).boxed())
    }
}

#[async_trait]
impl Writer for PartsWriter {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let upload = self.upload.as_mut().ok_or_else(|| io::Error::other("it was finished"))?;
        upload.wait_for_capacity(PARTS).await.map_err(other)?;
        upload.put(bytes);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        let upload = self.upload.take().ok_or_else(|| io::Error::other("it was finished"))?;
        upload.finish().await.map(drop).map_err(other)
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(upload) = self.upload.take() {
            let _ = upload.abort().await;
        }
    }
}

impl Drop for PartsWriter {
    fn drop(&mut self) {
        // The store keeps parts until they are deleted.
        if let (Some(upload), Ok(runtime)) =
            (self.upload.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(upload.abort());
        }
    }
}
