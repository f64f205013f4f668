use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use image::MAX_DOCUMENT;
use task::{Cause, Fault, Kind};

/// A request that an object service refused or failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {reason}")]
pub(super) struct ServiceError {
    pub(super) action: String,
    pub(super) reason: String,
    pub(super) kind: Kind,
    pub(super) hint: Option<&'static str>,
}

impl Fault for ServiceError {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.map(str::to_owned)
    }
}

/// All bytes of a document.
pub(super) async fn whole(
    mut stream: impl Stream<Item = Result<Bytes, Cause>> + Unpin,
    action: &str,
) -> Result<Bytes, Cause> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > MAX_DOCUMENT {
            let (action, kind, hint) = (action.to_owned(), Kind::Invalid, None);
            let reason = "it is longer than 4 MiB".to_owned();
            return Err(ServiceError { action, reason, kind, hint }.into());
        }
    }
    Ok(bytes.freeze())
}
