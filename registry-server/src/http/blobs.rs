//! Blobs on their way out.

use hyper::Method;
use hyper::header;
use image::Digest;

use super::answer::{
    Answer, HandlerResult, HeaderExt, ResponseBody, answer, busy, error, set_length,
};
use super::call::Call;
use crate::content::protocol::KeepOutcome;
use crate::inner::RegistryInner;
use crate::storage::Bytestream;
use crate::upstream::{ByteRange, UpstreamBlob};

pub(crate) async fn blob(
    shared: &RegistryInner,
    call: &Call,
    name: &str,
    digest: &str,
) -> HandlerResult {
    let Ok(digest) = digest.parse::<Digest>() else {
        return Err(error(400, "DIGEST_INVALID", "not a sha256 or sha512 digest").into());
    };
    match call.method {
        Method::GET | Method::HEAD => get(shared, call, name, digest).await,
        Method::DELETE if shared.options.keep => {
            Err(error(405, "UNSUPPORTED", "nothing is deleted here").into())
        }
        Method::DELETE => {
            shared.unheld(name, digest).await?;
            match shared.content.delete_blob(name, digest).await? {
                true => Ok(answer(202)),
                false => Err(unknown(digest).into()),
            }
        }
        _ => Err(error(405, "UNSUPPORTED", "not a method for blobs").into()),
    }
}

fn unknown(digest: Digest) -> Answer {
    error(404, "BLOB_UNKNOWN", &format!("no blob {digest} in this repository"))
}

async fn get(shared: &RegistryInner, call: &Call, name: &str, digest: Digest) -> HandlerResult {
    let mut found = shared.content.blob(name, digest).await?;
    if let (None, Some(upstream)) = (&found, shared.upstreams.of(name)) {
        // Who was broken off asks for the rest.
        let rest = call.header(header::RANGE).and_then(ByteRange::parse).unwrap_or_default();
        match shared.upstreams.blob(&upstream, (name, digest), rest).await? {
            UpstreamBlob::Stored => found = shared.content.blob(name, digest).await?,
            UpstreamBlob::Arriving(stream, size) if call.method == Method::GET => {
                return Ok(arriving(digest, stream, size, rest));
            }
            UpstreamBlob::Arriving(_, Some(size)) => {
                let mut answer = described(answer(200), digest);
                set_length(&mut answer, size);
                return Ok(answer);
            }
            UpstreamBlob::Arriving(stream, None) => {
                // The size is unknown: it must be found out.
                futures::StreamExt::for_each(stream, |_| async {}).await;
                found = shared.content.blob(name, digest).await?;
            }
            UpstreamBlob::Unknown => {}
            UpstreamBlob::Failed(answer) => return Err((*answer).into()),
        }
    }
    let Some(stat) = found else { return Err(unknown(digest).into()) };
    if call.method == Method::HEAD {
        // The client may be about to push a manifest of it.
        match shared.content.keep(name, digest).await? {
            KeepOutcome::Yes => {}
            KeepOutcome::Missing(_) => return Err(unknown(digest).into()),
            KeepOutcome::Busy => return Err(busy().into()),
        }
    }
    let length = stat.size;
    let etag = format!("\"{digest}\"");
    if call.header(header::IF_NONE_MATCH).is_some_and(|known| known == etag) {
        return Ok(described(answer(304), digest));
    }
    if call.method == Method::GET
        && let Some(url) = shared.content.signed_url(digest).await?
    {
        let redirect = answer(307).with("docker-content-digest", digest.to_string());
        // The URL is valid for a while only.
        return Ok(redirect.with("location", url).with("cache-control", "no-store"));
    }
    let current = call.header(header::IF_RANGE).is_none_or(|condition| condition == etag);
    let range = call.header(header::RANGE).filter(|_| current);
    let (status, first, count) = match range.map(|range| requested(range, length)) {
        None | Some(None) => (200, 0, length),
        Some(Some((first, count))) if count > 0 => (206, first, count),
        Some(Some(_)) => {
            return Err(error(416, "RANGE_INVALID", "no such range")
                .with("content-range", format!("bytes */{length}"))
                .into());
        }
    };
    let mut answer = described(answer(status), digest);
    if status == 206 {
        let last = first + count - 1;
        answer = answer.with("content-range", format!("bytes {first}-{last}/{length}"));
    }
    if call.method == Method::HEAD {
        set_length(&mut answer, count);
    } else {
        let range = (status == 206).then_some(first..first + count);
        let Some(stream) = shared.content.open(digest, range).await? else {
            return Err(unknown(digest).into());
        };
        *answer.body_mut() = ResponseBody::stream(stream, count);
    }
    Ok(answer)
}

/// A blob, or the rest of it, as it comes from an upstream.
fn arriving(digest: Digest, stream: Bytestream, size: Option<u64>, rest: ByteRange) -> Answer {
    let first = rest.of(size);
    let mut answer = described(answer(if first > 0 { 206 } else { 200 }), digest);
    let Some(size) = size else {
        *answer.body_mut() = ResponseBody::unmeasured(stream);
        return answer;
    };
    if first > 0 {
        answer = answer.with("content-range", format!("bytes {first}-{}/{size}", size - 1));
    }
    set_length(&mut answer, size - first);
    *answer.body_mut() = ResponseBody::stream(stream, size - first);
    answer
}

fn described(answer: Answer, digest: Digest) -> Answer {
    answer
        .with("content-type", "application/octet-stream")
        .with("docker-content-digest", digest.to_string())
        .with("accept-ranges", "bytes")
        .with("cache-control", "max-age=31536000")
        .with("etag", format!("\"{digest}\""))
}

/// First byte and number of bytes of a `Range`; `None` for what is not one range of bytes, which
/// a server ignores; no bytes where it lies outside.
fn requested(range: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count = last.parse::<u64>().ok()?.min(length);
        return Some((length - count, count));
    }
    let first = first.parse::<u64>().ok()?;
    let last = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()? };
    if last < first {
        return None;
    }
    let end = last.saturating_add(1).min(length);
    Some((first, end.saturating_sub(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-", Some((0, 10))),
            ("bytes=2-4", Some((2, 3))),
            ("bytes=2-400", Some((2, 8))),
            ("bytes=-3", Some((7, 3))),
            ("bytes=-30", Some((0, 10))),
            ("bytes=10-", Some((10, 0))),
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(requested(range, 10), expected, "{range}");
        }
    }
}
