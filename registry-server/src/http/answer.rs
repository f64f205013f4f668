//! Answers and their bodies.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::storage::Bytestream;

/// The most bytes of a body that are sent at a time.
pub(super) const BLOCK: u64 = 256 << 10;

pub(crate) type Answer = Response<ResponseBody>;

/// An answer that is sent instead of the one that was wanted.
pub(crate) struct Refusal(pub(crate) Answer);

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Refusal {
        Refusal(answer)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Refusal(trouble(&error))
    }
}

/// The result of a handler.
pub(crate) type HandlerResult = Result<Answer, Refusal>;

/// A body on its way out.
pub(crate) struct ResponseBody {
    /// What is there to be sent next.
    ready: Bytes,
    rest: Option<Bytestream>,
    /// `None`: as many as come.
    pub(super) left: Option<u64>,
    pub(super) sent: u64,
    #[cfg(feature = "testing")]
    pub(super) fault: super::spoil::BodyFault,
    /// Counts what leaves.
    meter: Option<crate::metrics::Meter>,
}

impl ResponseBody {
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> ResponseBody {
        let ready = bytes.into();
        let left = Some(ready.len() as u64);
        ResponseBody {
            ready,
            rest: None,
            left,
            sent: 0,
            #[cfg(feature = "testing")]
            fault: super::spoil::BodyFault::default(),
            meter: None,
        }
    }

    /// A stream of so many bytes.
    pub(crate) fn stream(stream: Bytestream, length: u64) -> ResponseBody {
        ResponseBody { rest: Some(stream), left: Some(length), ..ResponseBody::bytes(Bytes::new()) }
    }

    /// A stream of unknown length.
    pub(crate) fn unmeasured(stream: Bytestream) -> ResponseBody {
        ResponseBody { left: None, ..ResponseBody::stream(stream, 0) }
    }

    pub(crate) fn metered(&mut self, meter: crate::metrics::Meter) {
        self.meter = Some(meter);
    }

    /// The next bytes, at most `limit` of them.
    pub(super) fn next(
        &mut self,
        limit: u64,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Bytes>>> {
        while self.ready.is_empty() {
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match ready!(rest.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => self.ready = bytes,
                None if self.left.unwrap_or(0) == 0 => {
                    self.rest = None;
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into()))),
                Some(Err(error)) => {
                    tracing::warn!(%error, "a body broke off");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let count = limit.min(BLOCK).min(self.ready.len() as u64);
        let bytes = self.ready.split_to(count as usize);
        self.left = self.left.map(|left| left.saturating_sub(count));
        self.sent += count;
        if let Some(meter) = &self.meter {
            meter.sent(count);
        }
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        #[cfg(feature = "testing")]
        let next = ready!(self.spoiled(context));
        #[cfg(not(feature = "testing"))]
        let next = ready!(self.next(BLOCK, context));
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.fault.is_on() {
            return false;
        }
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        #[cfg(feature = "testing")]
        if self.fault.is_on() {
            return SizeHint::default();
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer under construction.
pub(crate) fn answer(status: u16) -> Answer {
    let mut answer = Response::new(ResponseBody::bytes(Bytes::new()));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// Header setting that drops what no header can carry.
pub(crate) trait HeaderExt {
    fn with(self, name: &'static str, value: impl AsRef<str>) -> Self;
}

impl HeaderExt for Answer {
    fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Answer {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers_mut().insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// An answer with a JSON body.
pub(crate) fn json(status: u16, value: &serde_json::Value) -> Answer {
    let mut answer = answer(status).with("content-type", "application/json");
    *answer.body_mut() = ResponseBody::bytes(value.to_string());
    answer
}

/// A failure as the distribution-spec words it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({ "errors": [{ "code": code, "message": message }] }))
}

/// A failure with what it is about.
pub(crate) fn detailed(
    status: u16,
    code: &str,
    message: &str,
    detail: &serde_json::Value,
) -> Answer {
    let error = serde_json::json!({ "code": code, "message": message, "detail": detail });
    json(status, &serde_json::json!({ "errors": [error] }))
}

/// The registry's own trouble. Clients are not told the names of its files.
pub(crate) fn trouble(error_: &std::io::Error) -> Answer {
    match error_.kind() {
        std::io::ErrorKind::WouldBlock => busy(),
        _ => {
            tracing::error!(error = %error_, "the storage failed");
            error(500, "UNKNOWN", "the registry cannot use its storage")
        }
    }
}

/// A collection works on what was asked for.
pub(crate) fn busy() -> Answer {
    error(503, "UNAVAILABLE", "a collection is working on this content, try again")
        .with("retry-after", "5")
}

/// The length that the client sees.
pub(crate) fn set_length(answer: &mut Answer, length: u64) {
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}
