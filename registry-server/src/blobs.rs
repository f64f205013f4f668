//! Blobs on their way out.

use hyper::Method;
use hyper::header;
use image::Digest;

use crate::answer::{Answer, Bytestream, With, answer, error, set_length, trouble};
use crate::server::{Call, Shared};

pub(crate) fn blob(shared: &Shared, call: &Call, name: &str, digest: &str) -> Answer {
    let Ok(digest) = digest.parse::<Digest>() else {
        return error(400, "DIGEST_INVALID", "not a digest");
    };
    let linked = |repository: &crate::state::Repository| {
        repository.blobs.contains(&digest) || repository.manifests.contains_key(&digest)
    };
    if shared.read(name, linked) != Some(true) {
        return error(404, "BLOB_UNKNOWN", "no such blob in this repository");
    }
    match call.method {
        Method::GET | Method::HEAD => get(shared, call, digest),
        Method::DELETE if shared.options.keep => {
            error(405, "UNSUPPORTED", "nothing is deleted here")
        }
        Method::DELETE => {
            let removed = shared.change(name, |repository| repository.blobs.remove(&digest));
            match removed.and_then(|_| sweep(shared, digest)) {
                Ok(()) => answer(202),
                Err(error) => trouble(&error),
            }
        }
        _ => error(405, "UNSUPPORTED", "not a method for blobs"),
    }
}

/// Removes content nothing links to.
pub(crate) fn sweep(shared: &Shared, digest: Digest) -> crate::Result<()> {
    let repositories = shared.repositories.lock();
    let mut all = repositories.values();
    if all.any(|r| r.blobs.contains(&digest) || r.manifests.contains_key(&digest)) {
        return Ok(());
    }
    drop(repositories);
    shared.store.remove(digest).map_err(|source| crate::Error::Store {
        action: "removing content from",
        path: shared.options.directory.clone().unwrap_or_default(),
        source,
    })
}

fn get(shared: &Shared, call: &Call, digest: Digest) -> Answer {
    let content = match shared.store.open(digest) {
        Ok(Some(content)) => content,
        Ok(None) => return error(404, "BLOB_UNKNOWN", "no such blob"),
        Err(error) => return trouble(&error),
    };
    let length = content.len();
    let etag = format!("\"{digest}\"");
    let current = call.header(header::IF_RANGE).is_none_or(|condition| condition == etag);
    let range = call.header(header::RANGE).filter(|_| current);
    let described = |answer: Answer| {
        answer
            .with("content-type", "application/octet-stream")
            .with("docker-content-digest", digest.to_string())
            .with("accept-ranges", "bytes")
            .with("etag", &etag)
    };
    let (status, first, count) = match range.map(|range| requested(range, length)) {
        None | Some(None) => (200, 0, length),
        Some(Some((first, count))) if count > 0 => (206, first, count),
        Some(Some(_)) => {
            return error(416, "RANGE_INVALID", "no such range")
                .with("content-range", format!("bytes */{length}"));
        }
    };
    let mut answer = described(answer(status));
    if status == 206 {
        let last = first + count - 1;
        answer = answer.with("content-range", format!("bytes {first}-{last}/{length}"));
    }
    if call.method == Method::HEAD {
        set_length(&mut answer, count);
    } else {
        *answer.body_mut() = Bytestream::part(content, first, count);
    }
    answer
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
