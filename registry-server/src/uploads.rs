//! Blobs on their way in: sessions, pieces, mounts.

use http_body_util::BodyExt;
use hyper::Method;
use hyper::header;
use image::Digest;

use crate::answer::{Answer, With, answer, error, trouble};
use crate::auth;
use crate::server::{Call, Shared};
use crate::store::Draft;

/// `POST /v2/<name>/blobs/uploads/`: a mount, a whole blob, or a session.
pub(crate) async fn begin(shared: &Shared, call: &mut Call, name: &str) -> Answer {
    if call.method != Method::POST {
        return error(405, "UNSUPPORTED", "uploads begin with POST");
    }
    if let Some(digest) = call.parameter("mount").and_then(|text| text.parse::<Digest>().ok()) {
        let from = call.parameter("from").unwrap_or_default();
        let there = shared.read(from, |repository| repository.blobs.contains(&digest));
        if there == Some(true) && auth::may_pull(shared, call, from) {
            let linked = shared.change(name, |repository| repository.blobs.insert(digest));
            return linked.map_or_else(|error| trouble(&error), |_| created(name, digest));
        }
    }
    let draft = match shared.store.draft() {
        Ok(draft) => draft,
        Err(error) => return trouble(&error),
    };
    if let Some(digest) = call.parameter("digest").map(str::to_owned) {
        return finish(shared, call, name, draft, &digest).await;
    }
    let session = shared.unique();
    shared.drafts.lock().insert(session.clone(), draft);
    at(202, name, &session, 0)
}

/// Everything else about a session.
pub(crate) async fn go_on(shared: &Shared, call: &mut Call, name: &str, session: &str) -> Answer {
    let Some(mut draft) = shared.drafts.lock().remove(session) else {
        return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
    };
    let length = draft.len();
    match call.method {
        Method::GET => {
            shared.drafts.lock().insert(session.to_owned(), draft);
            at(204, name, session, length)
        }
        Method::DELETE => answer(204),
        Method::PATCH | Method::PUT => {
            let begins = call.header(header::CONTENT_RANGE).map(|range| {
                let range = range.strip_prefix("bytes ").unwrap_or(range);
                range.split_once('-').and_then(|(first, _)| first.parse::<u64>().ok())
            });
            if begins.is_some_and(|first| first != Some(length)) {
                shared.drafts.lock().insert(session.to_owned(), draft);
                return at(416, name, session, length);
            }
            if call.method == Method::PUT {
                let Some(digest) = call.parameter("digest").map(str::to_owned) else {
                    return error(400, "DIGEST_INVALID", "the upload ends without a digest");
                };
                return finish(shared, call, name, draft, &digest).await;
            }
            let received = receive(call, draft.as_mut()).await;
            let length = draft.len();
            shared.drafts.lock().insert(session.to_owned(), draft);
            received.map_or_else(|error| trouble(&error), |()| at(202, name, session, length))
        }
        _ => error(405, "UNSUPPORTED", "not a method for uploads"),
    }
}

/// Where a session goes on, and how far it is.
fn at(status: u16, name: &str, session: &str, length: u64) -> Answer {
    answer(status)
        .with("location", format!("/v2/{name}/blobs/uploads/{session}?state=a%2Fb%3D"))
        .with("range", format!("0-{}", length.saturating_sub(1)))
        .with("docker-upload-uuid", session)
}

fn created(name: &str, digest: Digest) -> Answer {
    answer(201)
        .with("location", format!("/v2/{name}/blobs/{digest}"))
        .with("docker-content-digest", digest.to_string())
}

async fn receive(call: &mut Call, draft: &mut dyn Draft) -> std::io::Result<()> {
    while let Some(frame) = call.body.frame().await {
        if let Some(bytes) = frame.map_err(std::io::Error::other)?.data_ref() {
            draft.write(bytes)?;
        }
    }
    Ok(())
}

/// Takes the last bytes and keeps the blob if it is what it should be.
async fn finish(
    shared: &Shared,
    call: &mut Call,
    name: &str,
    mut draft: Box<dyn Draft>,
    digest: &str,
) -> Answer {
    if let Err(error) = receive(call, draft.as_mut()).await {
        return trouble(&error);
    }
    let Ok(digest) = digest.parse::<Digest>() else {
        return error(400, "DIGEST_INVALID", "not a digest");
    };
    match draft.digest(digest) {
        Ok(found) if found != digest => {
            return error(400, "DIGEST_INVALID", &format!("the bytes are {found}"));
        }
        Ok(_) => {}
        Err(error) => return trouble(&error),
    }
    if let Err(error) = draft.commit(digest) {
        return trouble(&error);
    }
    let linked = shared.change(name, |repository| repository.blobs.insert(digest));
    linked.map_or_else(|error| trouble(&error), |_| created(name, digest))
}
