//! Real answers made worse on request.

use bytes::Bytes;
use hyper::header;

use super::answer::{Answer, Outgoing, Spoil, With, set_length};
use crate::fault::Effect;

/// The real answer, made worse.
pub(super) fn spoiled(mut real: Answer, effect: Effect) -> Answer {
    let length = hyper::body::Body::size_hint(real.body()).exact().unwrap_or(0);
    let spoil = |mut real: Answer, spoil| {
        let body = std::mem::replace(real.body_mut(), Outgoing::bytes(Bytes::new()));
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
