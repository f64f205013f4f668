//! Answers and their bodies.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::store::Content;

/// Bytes of a file read at a time.
const BLOCK: u64 = 256 << 10;

pub(crate) type Answer = Response<Bytestream>;

/// What a body is made of.
enum Source {
    Memory(Bytes),
    File { file: File, offset: u64, left: u64 },
}

/// How a body misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    Cut(u64),
    Stall(u64),
    Drip(Duration),
    Endless,
    Corrupt(u64),
    /// The length is that of the header, whatever the body has.
    Unmeasured,
}

/// A body on its way out.
pub(crate) struct Bytestream {
    source: Source,
    sent: u64,
    spoil: Option<Spoil>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Bytestream {
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Bytestream {
        Bytestream { source: Source::Memory(bytes.into()), sent: 0, spoil: None, pause: None }
    }

    /// A part of some content.
    pub(crate) fn part(content: Content, offset: u64, length: u64) -> Bytestream {
        let source = match content {
            Content::Memory(bytes) => {
                Source::Memory(bytes.slice(offset as usize..(offset + length) as usize))
            }
            Content::File(file, _) => Source::File { file, offset, left: length },
        };
        Bytestream { source, sent: 0, spoil: None, pause: None }
    }

    pub(crate) fn spoil(mut self, spoil: Spoil) -> Bytestream {
        self.spoil = Some(spoil);
        self
    }

    fn left(&self) -> u64 {
        match &self.source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { left, .. } => *left,
        }
    }

    /// The next bytes, at most `limit` of them.
    fn next(&mut self, limit: u64) -> std::io::Result<Option<Bytes>> {
        let taken = match &mut self.source {
            Source::Memory(bytes) if bytes.is_empty() => None,
            Source::Memory(bytes) => Some(bytes.split_to(limit.min(bytes.len() as u64) as usize)),
            Source::File { left: 0, .. } => None,
            Source::File { file, offset, left } => {
                let mut block = vec![0; limit.min(BLOCK).min(*left) as usize];
                file.read_exact_at(&mut block, *offset)?;
                *offset += block.len() as u64;
                *left -= block.len() as u64;
                Some(block.into())
            }
        };
        self.sent += taken.as_ref().map_or(0, |bytes: &Bytes| bytes.len() as u64);
        Ok(taken)
    }

    /// Gives what was written the time to leave.
    fn lingered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = || Box::pin(tokio::time::sleep(Duration::from_millis(10)));
        self.pause.get_or_insert_with(linger).as_mut().poll(context)
    }

    fn spoiled(
        &mut self,
        spoil: Spoil,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Bytes>>> {
        match spoil {
            Spoil::Cut(after) if self.sent >= after => {
                std::task::ready!(self.lingered(context));
                Poll::Ready(Some(Err(std::io::Error::other("cut"))))
            }
            Spoil::Stall(after) if self.sent >= after => Poll::Pending,
            Spoil::Cut(after) | Spoil::Stall(after) => {
                let limit = after - self.sent;
                Poll::Ready(self.next(limit).transpose())
            }
            Spoil::Drip(every) => {
                if let Some(pause) = &mut self.pause {
                    std::task::ready!(pause.as_mut().poll(context));
                }
                self.pause = Some(Box::pin(tokio::time::sleep(every)));
                Poll::Ready(self.next(1).transpose())
            }
            Spoil::Endless => match self.next(BLOCK) {
                Ok(None) => Poll::Ready(Some(Ok(Bytes::from_static(&[b' '; 64 << 10])))),
                other => Poll::Ready(other.transpose()),
            },
            Spoil::Corrupt(at) => {
                let before = self.sent;
                let next = self.next(BLOCK).map(|bytes| {
                    bytes.map(|bytes| {
                        let mut bytes = bytes.to_vec();
                        let index = at.checked_sub(before).map(|index| index as usize);
                        if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                            *byte ^= 1;
                        }
                        bytes.into()
                    })
                });
                Poll::Ready(next.transpose())
            }
            Spoil::Unmeasured => {
                if self.left() == 0 {
                    std::task::ready!(self.lingered(context));
                }
                Poll::Ready(self.next(BLOCK).transpose())
            }
        }
    }
}

impl Body for Bytestream {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let next = match self.spoil {
            Some(spoil) => std::task::ready!(self.spoiled(spoil, context)),
            None => self.next(BLOCK).transpose(),
        };
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.spoil.is_none() && self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.spoil {
            None => SizeHint::with_exact(self.left()),
            Some(_) => SizeHint::default(),
        }
    }
}

/// An answer under construction.
pub(crate) fn answer(status: u16) -> Answer {
    let mut answer = Response::new(Bytestream::bytes(Bytes::new()));
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// Header setting that drops what no header can carry.
pub(crate) trait With {
    fn with(self, name: &'static str, value: impl AsRef<str>) -> Self;
}

impl With for Answer {
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
    *answer.body_mut() = Bytestream::bytes(value.to_string());
    answer
}

/// A failure as the distribution-spec words it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({ "errors": [{ "code": code, "message": message }] }))
}

/// The registry's own trouble.
pub(crate) fn trouble(error_: &dyn std::error::Error) -> Answer {
    error(500, "UNKNOWN", &error_.to_string())
}

/// The length the client is told.
pub(crate) fn set_length(answer: &mut Answer, length: u64) {
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}
