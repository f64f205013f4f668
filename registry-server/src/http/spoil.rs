//! Bodies that misbehave.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::answer::{BLOCK, ResponseBody};

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

/// The fault of a response body, if it has one.
#[derive(Default)]
pub(super) struct BodyFault {
    spoil: Option<Spoil>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl BodyFault {
    pub(super) fn is_on(&self) -> bool {
        self.spoil.is_some()
    }
}

impl ResponseBody {
    pub(crate) fn spoil(mut self, spoil: Spoil) -> ResponseBody {
        self.fault.spoil = Some(spoil);
        self
    }

    /// Gives what was written the time to leave.
    fn lingered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = || Box::pin(tokio::time::sleep(Duration::from_millis(10)));
        self.fault.pause.get_or_insert_with(linger).as_mut().poll(context)
    }

    /// The next bytes, spoilt if they are to be.
    pub(super) fn spoiled(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Bytes>>> {
        let Some(spoil) = self.fault.spoil else { return self.next(BLOCK, context) };
        match spoil {
            Spoil::Cut(after) if self.sent >= after => {
                ready!(self.lingered(context));
                Poll::Ready(Some(Err(std::io::Error::other("cut"))))
            }
            Spoil::Stall(after) if self.sent >= after => Poll::Pending,
            Spoil::Cut(after) | Spoil::Stall(after) => {
                let limit = after - self.sent;
                self.next(limit, context)
            }
            Spoil::Drip(every) => {
                if let Some(pause) = &mut self.fault.pause {
                    ready!(pause.as_mut().poll(context));
                }
                let next = ready!(self.next(1, context));
                self.fault.pause = Some(Box::pin(tokio::time::sleep(every)));
                Poll::Ready(next)
            }
            Spoil::Endless => match ready!(self.next(BLOCK, context)) {
                None => Poll::Ready(Some(Ok(Bytes::from_static(&[b' '; 64 << 10])))),
                next => Poll::Ready(next),
            },
            Spoil::Corrupt(at) => {
                let before = self.sent;
                let next = ready!(self.next(BLOCK, context));
                Poll::Ready(next.map(|bytes| {
                    bytes.map(|bytes| {
                        let mut bytes = bytes.to_vec();
                        let index = at.checked_sub(before).map(|index| index as usize);
                        if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                            *byte ^= 1;
                        }
                        bytes.into()
                    })
                }))
            }
            Spoil::Unmeasured => {
                if self.left == Some(0) {
                    ready!(self.lingered(context));
                }
                self.next(BLOCK, context)
            }
        }
    }
}
