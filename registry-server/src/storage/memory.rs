//! Everything in memory, for as long as the process lives.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::{Bytestream, Stat, Storage, WriteCondition, Writer, page};
use crate::lock::Lock;

struct Object {
    bytes: Bytes,
    modified: Duration,
    version: u64,
}

#[derive(Default)]
struct MemoryState {
    objects: BTreeMap<String, Object>,
    version: u64,
}

/// Everything in memory.
#[derive(Clone)]
pub(crate) struct Memory {
    state: Arc<Lock<MemoryState>>,
    began: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { state: Arc::default(), began: Instant::now() }
    }
}

struct MemoryWriter {
    memory: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Memory {
    fn set(&self, state: &mut MemoryState, key: &str, bytes: Bytes) {
        state.version += 1;
        let object = Object { bytes, modified: self.began.elapsed(), version: state.version };
        state.objects.insert(key.to_owned(), object);
    }
}

fn stat(key: &str, object: &Object) -> Stat {
    Stat {
        key: key.to_owned(),
        size: object.bytes.len() as u64,
        modified: object.modified,
        version: Some(object.version.to_string()),
    }
}

#[async_trait]
impl Storage for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn now(&self) -> io::Result<Duration> {
        Ok(self.began.elapsed())
    }

    async fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        Ok(self.state.lock().objects.get(key).map(|object| stat(key, object)))
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> io::Result<Option<Bytestream>> {
        let state = self.state.lock();
        let Some(object) = state.objects.get(key) else { return Ok(None) };
        let bytes = match range {
            Some(range) => object.bytes.slice(range.start as usize..range.end as usize),
            None => object.bytes.clone(),
        };
        Ok(Some(stream::iter([Ok(bytes)]).boxed()))
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: WriteCondition) -> io::Result<bool> {
        let mut state = self.state.lock();
        let there = state.objects.get(key).map(|object| object.version.to_string());
        let holds = match condition {
            WriteCondition::Always => true,
            WriteCondition::Absent => there.is_none(),
            WriteCondition::Is(version) => there == Some(version),
        };
        if holds {
            self.set(&mut state, key, bytes);
        }
        Ok(holds)
    }

    async fn writer(&self, key: &str) -> io::Result<Box<dyn Writer>> {
        let (memory, key) = (self.clone(), key.to_owned());
        Ok(Box::new(MemoryWriter { memory, key, bytes: Vec::new() }))
    }

    async fn promote(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let object = state.objects.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.set(&mut state, to, object.bytes);
        Ok(())
    }

    async fn delete(&self, key: &str) -> io::Result<()> {
        self.state.lock().objects.remove(key);
        Ok(())
    }

    async fn names(
        &self,
        directory: &str,
        after: Option<&str>,
        limit: usize,
    ) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let below = state.objects.range(directory.to_owned()..);
        let names = below.map_while(|(key, _)| key.strip_prefix(directory));
        let direct = names.filter(|name| !name.contains('/')).map(str::to_owned);
        Ok(page(direct, after, limit))
    }

    async fn walk(
        &self,
        directory: &str,
    ) -> io::Result<Pin<Box<dyn Stream<Item = io::Result<Stat>> + Send + '_>>> {
        let state = self.state.lock();
        let below = state.objects.range(directory.to_owned()..);
        let below = below.take_while(|(key, _)| key.starts_with(directory));
        let all: Vec<_> = below.map(|(key, object)| Ok(stat(key, object))).collect();
        Ok(stream::iter(all).boxed())
    }
}

#[async_trait]
impl Writer for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> io::Result<()> {
        let MemoryWriter { memory, key, bytes } = *self;
        memory.set(&mut memory.state.lock(), &key, bytes.into());
        Ok(())
    }

    async fn abort(self: Box<Self>) {}
}
