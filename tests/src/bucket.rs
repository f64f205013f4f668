//! Services that keep objects: moto's S3, and stand-ins for Azure Blob Storage and the cache
//! service of GitHub Actions.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::served::ServedRegistry;
use crate::{Bench, peer, wire};

/// What says who asks; moto does not check it.
const KEY: &str = "AWS key:signature";

/// An S3-compatible store (moto's server) with the bucket `images`, ended when this is dropped.
pub struct S3 {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl S3 {
    /// Starts it, where it is installed.
    pub fn start() -> Option<S3> {
        let program = peer("moto_server")?;
        let port = crate::free_port();
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server starts");
        let address = format!("127.0.0.1:{port}");
        while TcpStream::connect(&address).is_err() {
            assert!(child.try_wait().expect("a child").is_none(), "moto_server ended");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let store = S3 { child, address };
        let made = wire::send(&store.address, "PUT", "/images", &[], b"");
        assert_eq!(made.status, 200, "{}", made.text());
        Some(store)
    }

    /// A registry of ours on the bucket.
    pub fn server(&self, bench: &Bench, arguments: &[&str]) -> ServedRegistry {
        let endpoint = format!("http://{}", self.address);
        let bucket = ["--s3-bucket", "images", "--s3-endpoint", &endpoint, "--s3-prefix", "one"];
        let mut command = bench.command("rbuild");
        self.key(&mut command);
        ServedRegistry::start(command, &[&bucket, arguments].concat())
    }

    /// Gives a program the key of the store.
    pub fn key(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_REGION", "us-east-1");
    }

    /// The content of an object.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        let path = format!("/images/{key}");
        let got = wire::send(&self.address, "GET", &path, &[("Authorization", KEY)], b"");
        (got.status == 200).then_some(got.body)
    }

    /// Writes an object.
    pub fn put(&self, key: &str, content: &[u8]) {
        let path = format!("/images/{key}");
        let put = wire::send(&self.address, "PUT", &path, &[("Authorization", KEY)], content);
        assert_eq!(put.status, 200, "{}", put.text());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a cloud keeps and was asked.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Entries of the cache service that are finished, in the order of that.
    entries: Vec<String>,
    /// Parts of blobs that are not put together yet, by blob and id.
    parts: BTreeMap<(String, String), Vec<u8>>,
    asked: Vec<String>,
    busy: usize,
}

/// A container of Azure Blob Storage at `/account/…`, and the cache service of GitHub Actions, whose
/// signed URLs point below `/signed/`. It wants the token `job` or a signature of a shared key.
#[derive(Clone)]
pub struct Cloud {
    /// `127.0.0.1:port`.
    pub address: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Request> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap_or(0));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let path = path.replace("%3A", ":");
        Some(Request { method, path, query: query.to_owned(), headers, body })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

type Reply = (u16, Vec<u8>);

impl Cloud {
    /// Starts it.
    pub fn start() -> Cloud {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let cloud = Cloud { address, state: Arc::default() };
        let own = cloud.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        cloud
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// What was asked so far: method and path, or the call of the cache service.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Has no time for the next calls.
    pub fn busy(&self, calls: usize) {
        self.state().busy = calls;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    fn serve(&self, mut stream: TcpStream) {
        while let Some(request) = Request::read(&stream) {
            let (status, body) = self.answer(&request);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nETag: \"1\"\r\nRetry-After: 0\r\n\
                 Last-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\n\r\n",
                body.len()
            );
            let body = if request.method == "HEAD" { Vec::new() } else { body };
            if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        self.state().asked.push(format!("{} {}", request.method, request.path));
        if let Some(call) =
            request.path.strip_prefix("/twirp/github.actions.results.api.v1.CacheService/")
        {
            if request.header("authorization") != "Bearer job" {
                return (401, Vec::new());
            }
            let mut state = self.state();
            if state.busy > 0 {
                state.busy -= 1;
                return (429, Vec::new());
            }
            let body = serde_json::from_slice(&request.body).expect("JSON");
            return called(&mut state, &self.address, call, &body);
        }
        let signed = request.header("authorization").starts_with("SharedKey account:");
        if request.path.starts_with("/account/") && !signed {
            return (403, Vec::new());
        }
        blob(&mut self.state(), request)
    }
}

/// Azure's Put Blob, Put Block, Put Block List, Get Blob and Get Blob Properties.
fn blob(state: &mut State, request: &Request) -> Reply {
    let name = request.path.trim_start_matches('/').to_owned();
    match (request.method.as_str(), &request.query) {
        ("PUT", query) if query.contains("comp=blocklist") => {
            let list = String::from_utf8_lossy(&request.body).into_owned();
            let mut whole = Vec::new();
            for (id, _) in list.split("<Uncommitted>").skip(1).filter_map(|id| id.split_once('<')) {
                whole
                    .extend(state.parts.remove(&(name.clone(), id.to_owned())).unwrap_or_default());
            }
            state.objects.insert(name, whole);
            (201, Vec::new())
        }
        ("PUT", query) if query.contains("comp=block") => {
            let id = query.split('&').find_map(|pair| pair.strip_prefix("blockid="));
            let id = id.unwrap_or_default().replace("%3D", "=");
            state.parts.insert((name, id), request.body.clone());
            (201, Vec::new())
        }
        ("PUT", _) if request.header("x-ms-blob-type") == "BlockBlob" => {
            state.objects.insert(name, request.body.clone());
            (201, Vec::new())
        }
        ("GET" | "HEAD", _) => match state.objects.get(&name) {
            Some(content) => (200, content.clone()),
            None => (404, Vec::new()),
        },
        _ => (400, Vec::new()),
    }
}

/// A call of the cache service.
fn called(state: &mut State, address: &str, call: &str, body: &Value) -> Reply {
    let key = body["key"].as_str().unwrap_or_default().to_owned();
    let name = format!("signed/{}", key.replace('#', "_"));
    let url = format!("http://{address}/{name}?sig=hidden");
    let known = |state: &State| state.entries.contains(&key);
    let answer = match call {
        "CreateCacheEntry" if known(state) => return (409, Vec::new()),
        "CreateCacheEntry" => json!({ "ok": true, "signed_upload_url": url }),
        "FinalizeCacheEntryUpload" => {
            let size = state.objects.get(&name).map(Vec::len);
            let right = size == body["size_bytes"].as_u64().and_then(|n| usize::try_from(n).ok());
            if right {
                state.entries.push(key);
            }
            json!({ "ok": right, "entry_id": "1" })
        }
        "GetCacheEntryDownloadURL" => {
            let newest = state.entries.iter().rev().find(|entry| entry.starts_with(&key));
            match newest {
                None => json!({ "ok": false }),
                Some(entry) => {
                    let name = entry.replace('#', "_");
                    let url = format!("http://{address}/signed/{name}?sig=hidden");
                    json!({ "ok": true, "signed_download_url": url, "matched_key": entry })
                }
            }
        }
        _ => return (404, Vec::new()),
    };
    (200, answer.to_string().into_bytes())
}
