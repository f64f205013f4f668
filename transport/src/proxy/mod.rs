//! Images for programs that speak the protocol of skopeo's `experimental-image-proxy`: bootc,
//! ostree and rpm-ostree. A request is one packet of JSON on a socket; content goes through pipes
//! whose ends are passed along with the answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use image::{Descriptor, Digest, Image, Manifest, MediaType, Node, Platform};
use serde_json::{Value, json};
use task::{Cause, Kind, Task};
use tokio::task::JoinHandle;

use crate::bridge::{self, blocking};
use crate::{Blob, Error, Gate, Location, Places, Result, Source};

mod packets;

use packets::{Packets, ProxyAnswer, ProxyRequest};

/// The version of the protocol that is spoken.
const VERSION: &str = "0.2.8";
/// The largest number that JSON keeps exactly.
const LARGEST: u64 = (1 << 53) - 1;

/// What a proxy needs to open images.
pub struct ImageProxy<'a> {
    /// Where images are opened.
    pub places: &'a Places<'a>,
    /// Decides which images may be opened.
    pub gate: &'a dyn Gate,
    /// Which image of an index is meant.
    pub platform: Platform,
    /// What the client asks for belongs to it.
    pub task: &'a Task,
}

/// An image that the client opened.
struct OpenImage {
    source: Box<dyn Source>,
    image: Image,
    /// The digest that the image has where it is.
    digest: Digest,
}

/// What the client has open.
#[derive(Default)]
struct ProxySession {
    started: bool,
    last: u64,
    images: BTreeMap<u64, OpenImage>,
    pipes: BTreeMap<u64, JoinHandle<Result<(), Cause>>>,
}

fn refuse(reason: impl Into<String>) -> Cause {
    Error::Malformed { place: "the request".to_owned(), reason: reason.into() }.into()
}

fn number(value: &Value) -> Result<u64, Cause> {
    value.as_u64().filter(|n| *n <= LARGEST).ok_or_else(|| refuse(format!("{value} is no number")))
}

fn text(value: &Value) -> Result<&str, Cause> {
    value.as_str().ok_or_else(|| refuse(format!("{value} is no text")))
}

impl ImageProxy<'_> {
    /// Answers until the client says so or is gone.
    ///
    /// # Errors
    /// [`Error::Stream`] when the socket fails.
    pub async fn serve(&self, socket: OwnedFd) -> Result<()> {
        let packets = Packets::new(socket).map_err(Error::Stream)?;
        let mut session = ProxySession::default();
        loop {
            let from = packets.clone();
            let packet = blocking(move || from.receive()).await.map_err(Error::Stream)?;
            let Some(packet) = packet else { return Ok(()) };
            let answer = match ProxyRequest::read(&packet) {
                Ok(request) if request.method == "Shutdown" => return Ok(()),
                Ok(request) => self.answer(&mut session, &request).await,
                Err(error) => Err(refuse(format!("malformed JSON ({error})"))),
            };
            let to = packets.clone();
            blocking(move || to.send(answer)).await.map_err(Error::Stream)?;
        }
    }

    async fn answer(
        &self,
        session: &mut ProxySession,
        request: &ProxyRequest,
    ) -> Result<ProxyAnswer, Cause> {
        let arguments = request.args.as_deref().unwrap_or_default();
        if request.method == "Initialize" {
            return match (arguments, session.started) {
                ([], false) => {
                    session.started = true;
                    Ok(ProxyAnswer::value(json!(VERSION)))
                }
                ([], true) => Err(refuse("the session was initialized before")),
                _ => Err(refuse("Initialize takes no arguments")),
            };
        }
        if !session.started {
            return Err(refuse("Initialize comes first"));
        }
        match (request.method.as_str(), arguments) {
            ("OpenImage", [name]) => self.open(session, text(name)?).await.map(id),
            ("OpenImageOptional", [name]) => match self.open(session, text(name)?).await {
                Err(cause) if cause.kind() == Kind::NotFound => Ok(id(0)),
                opened => opened.map(id),
            },
            ("CloseImage", [image]) => {
                session.image(image)?;
                session.images.remove(&number(image)?);
                Ok(ProxyAnswer::value(Value::Null))
            }
            ("GetManifest", [image]) => {
                let opened = session.image(image)?;
                let (digest, bytes) = (opened.digest, oci_manifest(&opened.image)?);
                session.give(json!(digest), bytes)
            }
            ("GetFullConfig", [image]) => {
                let bytes = session.image(image)?.image.config().bytes().to_vec();
                session.give(Value::Null, bytes)
            }
            ("GetConfig", [image]) => {
                let bytes = run_config(&session.image(image)?.image)?;
                session.give(Value::Null, bytes)
            }
            ("GetLayerInfo", [image]) => {
                Ok(ProxyAnswer::value(layers(&session.image(image)?.image)))
            }
            ("GetLayerInfoPiped", [image]) => {
                let bytes = layers(&session.image(image)?.image).to_string().into_bytes();
                session.give(Value::Null, bytes)
            }
            ("GetBlob", [image, digest, size]) => {
                let (digest, size) = (text(digest)?.parse()?, number(size)?);
                let blob = Descriptor::new(MediaType::default(), digest, size);
                let blob = session.image(image)?.source.fetch(&blob).await?.verify(&blob);
                session.pipe(json!(size), |file| pour(blob, file))
            }
            ("GetRawBlob", [image, digest]) => {
                let digest: Digest = text(digest)?.parse()?;
                raw_blob(session.image(image)?, digest).await
            }
            ("FinishPipe", [pipe]) => {
                let pipe = session.pipes.remove(&number(pipe)?);
                let pipe = pipe.ok_or_else(|| refuse("there is no such pipe"))?;
                let end = pipe.await.map_err(|error| Error::Stream(io::Error::other(error)))?;
                end.map(|()| ProxyAnswer::value(Value::Null))
            }
            (
                "OpenImage" | "OpenImageOptional" | "CloseImage" | "GetManifest" | "GetFullConfig"
                | "GetConfig" | "GetLayerInfo" | "GetLayerInfoPiped" | "GetBlob" | "GetRawBlob"
                | "FinishPipe",
                _,
            ) => {
                let (method, given) = (&request.method, arguments.len());
                Err(refuse(format!("{method} does not take {given} arguments")))
            }
            (other, _) => Err(refuse(format!("the method {other:?} is not known"))),
        }
    }

    async fn open(&self, session: &mut ProxySession, name: &str) -> Result<u64, Cause> {
        let source = self.places.source(&name.parse::<Location>()?)?;
        let named = source.resolve().await?;
        let (chosen, image) = crate::open(&*source, &self.platform).await?;
        crate::permit(&*source, self.gate, &named, &chosen, self.task).await?;
        let digest = source.original().await?.unwrap_or(chosen.digest);
        let digest = if named.digest == chosen.digest { digest } else { chosen.digest };
        session.last += 1;
        session.images.insert(session.last, OpenImage { source, image, digest });
        Ok(session.last)
    }
}

fn id(number: u64) -> ProxyAnswer {
    ProxyAnswer::value(json!(number))
}

impl ProxySession {
    fn image(&self, id: &Value) -> Result<&OpenImage, Cause> {
        let id = number(id)?;
        self.images.get(&id).ok_or_else(|| refuse(format!("there is no image {id}")))
    }

    fn give(&mut self, value: Value, bytes: Vec<u8>) -> Result<ProxyAnswer, Cause> {
        self.pipe(value, |mut file| async move {
            blocking(move || file.write_all(&bytes))
                .await
                .map_err(|error| Error::Stream(error).into())
        })
    }

    /// A pipe that something is written to; `FinishPipe` says how that ended.
    fn pipe<F>(&mut self, value: Value, write: impl FnOnce(File) -> F) -> Result<ProxyAnswer, Cause>
    where
        F: Future<Output = Result<(), Cause>> + Send + 'static,
    {
        let (reader, writer) = pipe()?;
        self.last += 1;
        self.pipes.insert(self.last, tokio::spawn(write(File::from(writer))));
        Ok(ProxyAnswer { value, pipe: self.last, ends: vec![reader] })
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Cause> {
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    pipe.map_err(|error| Error::Stream(error.into()).into())
}

async fn pour(blob: Blob, mut file: File) -> Result<(), Cause> {
    let reader = bridge::reader(blob);
    Ok(blocking(move || reader.pour(&mut file, Path::new("pipe"))).await?)
}

/// A blob of the image with a pipe for its content and one for what went wrong.
async fn raw_blob(opened: &OpenImage, digest: Digest) -> Result<ProxyAnswer, Cause> {
    let manifest = opened.image.manifest();
    let mut blobs = manifest.layers.iter().chain([&manifest.config]);
    let blob = blobs.find(|blob| blob.digest == digest);
    let blob = blob.ok_or_else(|| refuse(format!("the image has no blob {digest}")))?.clone();
    let content = opened.source.fetch(&blob).await?.verify(&blob);
    let ((reader, writer), (errors, told)) = (pipe()?, pipe()?);
    tokio::spawn(async move {
        let Err(cause) = pour(content, File::from(writer)).await else { return };
        let (code, message) = (packets::code(&cause), task::chain(&cause).join(": "));
        let error = json!({"code": code, "message": message}).to_string();
        // A client that does not listen does not want to know.
        let _ = blocking(move || File::from(told).write_all(error.as_bytes())).await;
    });
    Ok(ProxyAnswer { value: json!(blob.size), pipe: 0, ends: vec![reader, errors] })
}

/// The manifest as one of OCI.
fn oci_manifest(image: &Image) -> Result<Vec<u8>, Cause> {
    let manifest = image.manifest().clone();
    let node = Node::Manifest(manifest.clone());
    let converted = copy::as_oci(&node)?;
    Ok(converted.map_or_else(|| manifest.bytes().to_vec(), |node| node.bytes().to_vec()))
}

/// The part of the config that says how a container runs.
fn run_config(image: &Image) -> Result<Vec<u8>, Cause> {
    let config: Value = serde_json::from_slice(image.config().bytes())
        .map_err(|error| refuse(format!("the config is malformed JSON ({error})")))?;
    let config = config.get("config").filter(|config| config.is_object()).cloned();
    Ok(config.unwrap_or_else(|| json!({})).to_string().into_bytes())
}

fn layers(image: &Image) -> Value {
    let manifest: &Manifest = image.manifest();
    let layers = manifest.layers.iter().map(
        |layer| json!({"digest": layer.digest, "size": layer.size, "media_type": layer.media_type}),
    );
    layers.collect()
}
