//! What tests of clients ask for: real answers made worse.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::header;

use super::answer::{Answer, HeaderExt, ResponseBody, answer, set_length};
use super::call::Call;
use super::server::Hangup;
use super::spoil::Spoil;
use crate::fault::Effect;
use crate::inner::RegistryInner;

impl RegistryInner {
    /// Answers a request that something happens to.
    pub(super) async fn fail(
        &self,
        call: &mut Call,
        effect: Effect,
        reset: &AtomicBool,
    ) -> Result<Answer, Hangup> {
        match effect {
            Effect::Silence => std::future::pending().await,
            Effect::Reset => {
                reset.store(true, Ordering::Relaxed);
                Err(Hangup)
            }
            Effect::Forget => {
                self.handle(call).await;
                Err(Hangup)
            }
            Effect::Answer { status, headers, body } => {
                while let Ok(Some(_)) = call.next().await {}
                let mut instead = answer(status);
                for (name, value) in headers {
                    instead = instead.with(name, value);
                }
                *instead.body_mut() = ResponseBody::bytes(body);
                Ok(instead)
            }
            Effect::Ignore(name) => {
                call.headers.remove(name);
                Ok(self.handle(call).await)
            }
            effect => {
                let real = self.handle(call).await;
                Ok(spoiled(real, effect))
            }
        }
    }
}

/// The real answer, made worse.
fn spoiled(mut real: Answer, effect: Effect) -> Answer {
    let length = hyper::body::Body::size_hint(real.body()).exact().unwrap_or(0);
    let spoil = |mut real: Answer, spoil| {
        let body = std::mem::replace(real.body_mut(), ResponseBody::bytes(Bytes::new()));
        *real.body_mut() = body.spoil(spoil);
        if !real.headers().contains_key(header::CONTENT_LENGTH) {
            set_length(&mut real, length);
        }
        real
    };
    match effect {
        Effect::Cut(after) => spoil(real, Spoil::Cut(after)),
        Effect::Stall(after) => spoil(real, Spoil::Stall(after)),
        Effect::Drip(every) => spoil(real, Spoil::Drip(every)),
        Effect::Corrupt(at) => spoil(real, Spoil::Corrupt(at)),
        Effect::Endless => {
            let mut real = spoil(real, Spoil::Endless);
            real.headers_mut().remove(header::CONTENT_LENGTH);
            real
        }
        Effect::Length(length) => {
            let mut real = spoil(real, Spoil::Unmeasured);
            set_length(&mut real, length);
            real
        }
        Effect::Remove("content-length") => {
            let mut real = spoil(real, Spoil::Unmeasured);
            real.headers_mut().remove(header::CONTENT_LENGTH);
            real
        }
        Effect::Set(name, value) => real.with(name, value),
        Effect::Remove(name) => {
            real.headers_mut().remove(name);
            real
        }
        Effect::Answer { .. }
        | Effect::Reset
        | Effect::Forget
        | Effect::Silence
        | Effect::Ignore(_) => real,
    }
}
