//! Blobs on their way in: sessions, pieces, mounts.
//!
//! A session is a set of objects in the storage, so any server can continue it: `session` names its
//! owner, `data/…` are the bytes of parts, and `at/<offset>` records a complete part. What a broken
//! connection delivered is a part, too.

use std::io;

use futures::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use hyper::header;
use image::{Algorithm, Digest, Digester};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, HandlerResult, HeaderExt, Refusal, answer, busy, error};
use super::call::Call;
use crate::access::gate;
use crate::content::protocol::KeepOutcome;
use crate::content::uploads::{self, directory};
use crate::inner::RegistryInner;
use crate::keys;
use crate::quota::Claim;
use crate::random::random;
use crate::storage::{WriteCondition, Writer, listed};

/// A long upload is recorded each time so many bytes came: what a server that dies can lose.
const PIECE: u64 = 128 << 20;
/// What quotas keep ahead of an upload of unknown length.
const STEP: u64 = 1 << 20;

/// Bytes of a blob that came in one go.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Piece {
    key: String,
    length: u64,
    sha256: Digest,
}

/// Why an upload failed.
enum UploadError {
    /// Of the client's connection.
    Client(io::Error),
    /// Another connection brought bytes for the same place.
    Raced,
    TooLarge,
    /// A quota has no room.
    Refused(Refusal),
    Storage(io::Error),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> UploadError {
        UploadError::Storage(error)
    }
}

fn created(name: &str, digest: Digest) -> Answer {
    answer(201)
        .with("location", format!("/v2/{name}/blobs/{digest}"))
        .with("docker-content-digest", digest.to_string())
}

/// Where a session goes on, and how far it is.
fn at(status: u16, name: &str, session: &str, length: u64) -> Answer {
    answer(status)
        .with("location", format!("/v2/{name}/blobs/uploads/{session}?state=a%2Fb%3D"))
        .with("range", format!("0-{}", length.saturating_sub(1)))
        .with("docker-upload-uuid", session)
}

/// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a session.
pub(crate) async fn begin(shared: &RegistryInner, call: &mut Call, name: &str) -> HandlerResult {
    if call.method != Method::POST {
        return Err(error(405, "UNSUPPORTED", "uploads begin with POST").into());
    }
    if shared.upstreams.of(name).is_some() {
        return Err(error(405, "UNSUPPORTED", "this is a cache, it accepts no pushes").into());
    }
    if let Some(digest) = call.parameter("mount").and_then(|text| text.parse::<Digest>().ok()) {
        let there = match call.parameter("from") {
            Some(from) => {
                image::Repository::new("localhost", from).is_ok()
                    && gate::may_pull(shared, call, from)
                    && shared.content.blob(from, digest).await?.is_some()
            }
            // Where everybody may read everything, it may come from anywhere.
            None => gate::open(shared),
        };
        if there {
            let stat = shared.content.storage.stat(&keys::blob(digest)).await?;
            let bytes = stat.map_or(0, |stat| stat.size);
            shared.room(name, Claim::Content { digest, bytes, session: None }).await?;
        }
        if there && shared.content.mount(name, digest).await? == KeepOutcome::Yes {
            return Ok(created(name, digest));
        }
    }
    let session = random();
    uploads::open(&shared.content, &session, name).await?;
    if let Some(digest) = call.parameter("digest").map(str::to_owned) {
        return finish(shared, call, name, &session, 0, &digest).await;
    }
    Ok(at(202, name, &session, 0))
}

/// Everything else about a session.
pub(crate) async fn go_on(
    shared: &RegistryInner,
    call: &mut Call,
    name: &str,
    session: &str,
) -> HandlerResult {
    let unknown = || Refusal(error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload"));
    if session.len() != 32 || !session.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unknown());
    }
    if uploads::repository(&shared.content, session).await?.as_deref() != Some(name) {
        return Err(unknown());
    }
    let length = length(shared, session).await?;
    match call.method {
        Method::GET | Method::HEAD => Ok(at(204, name, session, length)),
        Method::DELETE => {
            forget(shared, session).await?;
            Ok(answer(204))
        }
        Method::PATCH | Method::PUT => {
            let begins = call.header(header::CONTENT_RANGE).map(|range| {
                let range = range.strip_prefix("bytes ").unwrap_or(range);
                range.split_once('-').and_then(|(first, _)| first.parse::<u64>().ok())
            });
            if begins.is_some_and(|first| first != Some(length)) {
                return Ok(at(416, name, session, length));
            }
            if call.method == Method::PUT {
                let Some(digest) = call.parameter("digest").map(str::to_owned) else {
                    let message = "the upload ends without a digest";
                    return Err(error(400, "DIGEST_INVALID", message).into());
                };
                return finish(shared, call, name, session, length, &digest).await;
            }
            let received = receive(shared, call, (name, session), length, None).await;
            Ok(at(202, name, session, received.map_err(|trouble| told(trouble, name, session))?))
        }
        _ => Err(error(405, "UNSUPPORTED", "not a method for uploads").into()),
    }
}

/// The error that a client sees.
fn told(trouble: UploadError, name: &str, session: &str) -> Refusal {
    Refusal(match trouble {
        UploadError::Client(problem) => {
            tracing::debug!(%problem, "an upload broke off");
            error(400, "BLOB_UPLOAD_INVALID", "the upload broke off")
        }
        UploadError::Raced => {
            error(416, "BLOB_UPLOAD_INVALID", "another request brought these bytes")
                .with("location", format!("/v2/{name}/blobs/uploads/{session}"))
        }
        UploadError::TooLarge => error(413, "SIZE_INVALID", "the blob is larger than allowed here"),
        UploadError::Refused(refusal) => return refusal,
        UploadError::Storage(error) => return error.into(),
    })
}

/// How many bytes a session has.
async fn length(shared: &RegistryInner, session: &str) -> io::Result<u64> {
    let directory = format!("{}at/", directory(session));
    let names = shared.content.storage.names(&directory, None, usize::MAX).await?;
    let Some(last) = names.last() else { return Ok(0) };
    let piece = shared.content.document::<Piece>(&format!("{directory}{last}")).await?;
    let offset = u64::from_str_radix(last, 16).map_err(io::Error::other)?;
    Ok(offset + piece.map_or(0, |piece| piece.length))
}

async fn pieces(shared: &RegistryInner, session: &str) -> io::Result<Vec<Piece>> {
    let directory = format!("{}at/", directory(session));
    let names = shared.content.storage.names(&directory, None, usize::MAX).await?;
    let read = stream::iter(names).map(|name| {
        let key = format!("{directory}{name}");
        async move { shared.content.document::<Piece>(&key).await }
    });
    read.buffered(8).try_filter_map(|piece| async { Ok(piece) }).try_collect().await
}

async fn forget(shared: &RegistryInner, session: &str) -> io::Result<()> {
    let storage = shared.content.storage.as_ref();
    for stat in listed(storage, &directory(session)).await? {
        storage.delete(&stat.key).await?;
    }
    shared.quotas.release(session).await;
    Ok(())
}

/// Writes and digests one chunk of an upload.
struct ChunkWriter {
    key: String,
    writer: Box<dyn Writer>,
    digester: Digester,
    length: u64,
}

async fn arriving(shared: &RegistryInner, session: &str) -> io::Result<ChunkWriter> {
    let key = format!("{}data/{}", directory(session), random());
    let writer = shared.content.storage.writer(&key).await?;
    Ok(ChunkWriter { key, writer, digester: Digester::default(), length: 0 })
}

/// Records a piece that is whole.
async fn record(
    shared: &RegistryInner,
    session: &str,
    offset: u64,
    piece: ChunkWriter,
) -> Result<u64, UploadError> {
    let ChunkWriter { key, writer, digester, length } = piece;
    writer.finish().await?;
    let piece = Piece { key: key.clone(), length, sha256: digester.finish() };
    let document = serde_json::to_vec(&piece).map_err(io::Error::other)?.into();
    let at = format!("{}at/{offset:016x}", directory(session));
    let storage = shared.content.storage.as_ref();
    if !storage.put(&at, document, WriteCondition::Absent).await? {
        storage.delete(&key).await?;
        return Err(UploadError::Raced);
    }
    Ok(offset + length)
}

/// The room that quotas keep for an upload.
struct QuotaReservation<'a> {
    shared: &'a RegistryInner,
    name: &'a str,
    session: &'a str,
    digest: Option<Digest>,
    reserved: u64,
}

impl QuotaReservation<'_> {
    async fn reserve(&mut self, bytes: u64) -> Result<(), Refusal> {
        let QuotaReservation { shared, name, session, digest, .. } = *self;
        shared.room(name, Claim::Upload { session, bytes, digest }).await?;
        self.reserved = bytes;
        Ok(())
    }

    /// Reserves space for a body of this length. Ends the upload if there is none.
    async fn begin(&mut self, offset: u64, coming: Option<u64>) -> Result<(), UploadError> {
        let asked = self.reserve(offset.saturating_add(coming.unwrap_or(0))).await;
        if asked.is_err() {
            forget(self.shared, self.session).await?;
        }
        asked.map_err(UploadError::Refused)
    }

    /// Grows to so many bytes, in steps as long as there is room for them.
    async fn grow(&mut self, bytes: u64) -> Result<(), UploadError> {
        if bytes <= self.reserved || self.reserve(bytes.saturating_add(STEP)).await.is_ok() {
            return Ok(());
        }
        self.begin(bytes, None).await
    }
}

/// Takes what the body brings; the length of the session then.
async fn receive(
    shared: &RegistryInner,
    call: &mut Call,
    (name, session): (&str, &str),
    mut offset: u64,
    digest: Option<Digest>,
) -> Result<u64, UploadError> {
    let _uploading = shared.metrics.uploading();
    let _arrival = shared.quotas.arrival(session);
    let mut room = QuotaReservation { shared, name, session, digest, reserved: 0 };
    let coming = call.header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    room.begin(offset, coming).await?;
    let largest = shared.rules().limits.blob;
    let mut piece: Option<ChunkWriter> = None;
    let result = loop {
        let bytes = match call.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break Ok(()),
            Err(error) => break Err(UploadError::Client(error)),
        };
        shared.metrics.received(bytes.len() as u64);
        let mut into = match piece.take() {
            Some(piece) => piece,
            None => arriving(shared, session).await?,
        };
        if offset + into.length + bytes.len() as u64 > largest {
            into.writer.abort().await;
            return Err(UploadError::TooLarge);
        }
        if let Err(trouble) = room.grow(offset + into.length + bytes.len() as u64).await {
            into.writer.abort().await;
            return Err(trouble);
        }
        into.digester.update(&bytes);
        into.length += bytes.len() as u64;
        into.writer.write(bytes).await?;
        match into.length >= PIECE {
            true => offset = record(shared, session, offset, into).await?,
            false => piece = Some(into),
        }
    };
    if let Some(piece) = piece {
        offset = record(shared, session, offset, piece).await?;
    }
    // It needs no more room than what came; less never is too much.
    if offset < room.reserved && room.reserve(offset).await.is_err() {
        tracing::debug!(session, "an upload keeps more room than it needs");
    }
    result.map(|()| offset)
}

/// Takes the last bytes and keeps the blob if it is what it should be.
async fn finish(
    shared: &RegistryInner,
    call: &mut Call,
    name: &str,
    session: &str,
    length: u64,
    digest: &str,
) -> HandlerResult {
    let wanted = digest.parse::<Digest>().ok();
    if let Err(trouble) = receive(shared, call, (name, session), length, wanted).await {
        return Err(told(trouble, name, session));
    }
    let Some(digest) = wanted else {
        return Err(error(400, "DIGEST_INVALID", "not a sha256 or sha512 digest").into());
    };
    let pieces = pieces(shared, session).await?;
    let (found, key) = match pieces.as_slice() {
        [piece] if digest.algorithm() == Algorithm::Sha256 => (piece.sha256, piece.key.clone()),
        [piece] => {
            let found = shared.content.hashed(&piece.key, digest).await?;
            let found = found.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            (found, piece.key.clone())
        }
        pieces => joined(shared, session, pieces, digest).await?,
    };
    if found != digest {
        forget(shared, session).await?;
        return Err(error(400, "DIGEST_INVALID", &format!("the bytes are {found}")).into());
    }
    let bytes = shared.content.storage.stat(&key).await?.map_or(0, |stat| stat.size);
    let claim = Claim::Content { digest, bytes, session: Some(session) };
    if let Err(refusal) = shared.room(name, claim).await {
        forget(shared, session).await?;
        return Err(refusal);
    }
    let kept = shared.content.adopt(name, digest, &key).await?;
    if kept != KeepOutcome::Yes {
        return Err(busy().into());
    }
    forget(shared, session).await?;
    Ok(created(name, digest))
}

/// Puts pieces together, however many.
async fn joined(
    shared: &RegistryInner,
    session: &str,
    pieces: &[Piece],
    digest: Digest,
) -> io::Result<(Digest, String)> {
    let storage = shared.content.storage.as_ref();
    let key = format!("{}data/{}", directory(session), random());
    let mut writer = storage.writer(&key).await?;
    let mut digester = Digester::new(digest.algorithm());
    for piece in pieces {
        let mut stream = storage.read(&piece.key, None).await?.ok_or(io::ErrorKind::NotFound)?;
        while let Some(bytes) = stream.try_next().await? {
            digester.update(&bytes);
            writer.write(bytes).await?;
        }
    }
    writer.finish().await?;
    Ok((digester.finish(), key))
}
