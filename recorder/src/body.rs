//! Bodies of answers.

use std::convert::Infallible;
use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc::Receiver;

/// What an answer consists of.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A piece of a file that is sent at once.
const PIECE: usize = 64 << 10;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn received(pieces: Receiver<io::Result<Bytes>>) -> Body {
    streamed(stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    }))
}

pub(crate) fn of_file(file: File) -> Body {
    streamed(stream::unfold(tokio::fs::File::from_std(file), async |mut file| {
        let mut piece = BytesMut::with_capacity(PIECE);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    }))
}

fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}
