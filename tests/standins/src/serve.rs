//! The world behind HTTP on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::{Value, json};
use x509_cert::der::asn1::{AnyRef, OctetStringRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::request::CertReq;

use crate::log::hex;
use crate::{Certificate, Log, P256, Version, World, kms, oidc, pem};

/// A world that answers until the process ends.
pub struct StandinServer {
    /// `http://127.0.0.1:port`: Fulcio, Rekor v1 and the timestamp authority.
    pub url: String,
    /// The same for Rekor v2, which has the paths of Rekor v1.
    pub tiles_url: String,
    /// The world.
    pub world: Arc<World>,
    /// The files below `/tuf`, by their paths there.
    pub mirrored: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandinServer {
    /// What was asked for: method and path of each request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The time of day, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Puts a world behind two ports of loopback.
pub fn serve(world: World) -> StandinServer {
    let (world, asked) = (Arc::new(world), Arc::new(Mutex::new(Vec::new())));
    let mirrored = Arc::new(Mutex::new(BTreeMap::<String, Vec<u8>>::new()));
    let listen = |tiles: bool| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (world, asked, own) = (Arc::clone(&world), Arc::clone(&asked), url.clone());
        let mirrored = Arc::clone(&mirrored);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (world, asked, own) = (Arc::clone(&world), Arc::clone(&asked), own.clone());
                let mirrored = Arc::clone(&mirrored);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = Request::read(&mut reader, &stream) {
                        asked.lock().unwrap().push(format!("{} {}", request.method, request.path));
                        let answer = match request.path.strip_prefix("/tuf/") {
                            Some(name) => Answer::file(mirrored.lock().unwrap().get(name)),
                            None => answer(&world, &request, tiles, &own),
                        };
                        if answer.send(&stream).is_none() {
                            break;
                        }
                    }
                });
            }
        });
        url
    };
    let (url, tiles_url) = (listen(false), listen(true));
    StandinServer { url, tiles_url, world, mirrored, asked }
}

struct Request {
    method: String,
    path: String,
    /// With names in small letters.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut BufReader<TcpStream>, mut writer: &TcpStream) -> Option<Request> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut chunked, mut headers) = (0, false, Vec::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if let Some((name, value)) = header.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
            if header.starts_with("expect:") {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        while chunked {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            chunked = size > 0;
        }
        Some(Request { method, path, headers, body })
    }
}

impl Request {
    /// What follows `Authorization: Bearer`.
    fn bearer(&self) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == "authorization")?;
        value.strip_prefix("Bearer ")
    }
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    /// What clients of Rekor v1 find their entry by.
    tag: Option<String>,
    /// Where it sends on.
    location: Option<String>,
}

impl Answer {
    fn json(status: u16, value: &Value) -> Answer {
        Answer {
            status,
            kind: "application/json",
            body: value.to_string().into_bytes(),
            tag: None,
            location: None,
        }
    }

    fn file(content: Option<&Vec<u8>>) -> Answer {
        match content {
            Some(body) => Answer { body: body.clone(), ..Answer::json(200, &Value::Null) },
            None => Answer::json(404, &json!({ "message": "there is no such file" })),
        }
    }

    fn refuse(reason: &str) -> Answer {
        Answer::json(400, &json!({ "code": 400, "message": reason }))
    }

    fn send(&self, mut stream: &TcpStream) -> Option<()> {
        let tag = self.tag.iter().map(|tag| format!("ETag: {tag}\r\n")).collect::<String>();
        let tag = match &self.location {
            Some(place) => format!("{tag}Location: {place}\r\n"),
            None => tag,
        };
        let head = format!(
            "HTTP/1.1 {} status\r\nContent-Type: {}\r\n{tag}Content-Length: {}\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        );
        stream.write_all(&[head.as_bytes(), &self.body].concat()).ok()
    }
}

fn answer(world: &World, request: &Request, tiles: bool, own: &str) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let given = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let done = match (request.method.as_str(), path) {
        ("POST", "/api/v2/signingCert") => certificate(world, &given(), request.bearer()),
        ("POST", "/api/v1/log/entries") if !tiles => entry_v1(&world.rekor, &given()),
        ("POST", "/api/v2/log/entries") if tiles => entry_v2(&world.tiles, &given()),
        ("POST", "/api/v1/timestamp") => timestamp(world, &request.body),
        ("GET", "/trusted_root.json") => Some(Answer::json(200, &world.trusted_root())),
        // What GitHub offers to a job under ACTIONS_ID_TOKEN_REQUEST_URL.
        ("GET", "/github-token") => {
            let token = world.provider.of_workflow("team/app", "release.yml", now());
            Some(Answer::json(200, &json!({ "value": token })))
        }
        ("GET", "/.well-known/openid-configuration") => Some(Answer::json(
            200,
            &json!({ "issuer": world.provider.issuer, "device_authorization_endpoint": format!("{own}/device"), "authorization_endpoint": format!("{own}/authorize"), "token_endpoint": format!("{own}/token") }),
        )),
        ("POST", "/device") => Some(Answer::json(
            200,
            &json!({ "device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": format!("{own}/activate"), "interval": 0, "expires_in": 60 }),
        )),
        ("GET", "/authorize") => oidc::authorize(&request.path)
            .map(|place| Answer { location: Some(place), ..Answer::json(302, &Value::Null) }),
        ("POST", "/token") => {
            let form = String::from_utf8_lossy(&request.body);
            let token = world.provider.sign_in(&form, "dev@team.example", now());
            token.map(|token| {
                Answer::json(200, &json!({ "id_token": token, "token_type": "Bearer" }))
            })
        }
        ("POST", "/jobs/job-1/oidc/tokens") => {
            let known = request.headers.iter().any(|(_, value)| value == "Token buildkite-secret");
            let token = world.provider.of_email("agent@team.example", now());
            known.then(|| Answer::json(200, &json!({ "token": token })))
        }
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/identity") => {
            let known = request.headers.iter().any(|(name, _)| name == "metadata-flavor");
            let token = world.provider.of_email("machine@team.example", now());
            known.then(|| Answer { body: token.into_bytes(), ..Answer::json(200, &Value::Null) })
        }
        (method, _) => {
            let (path, headers) = (request.path.as_str(), &request.headers[..]);
            let asked = kms::ReceivedRequest { method, path, headers, body: &request.body };
            let nothing = || (404, json!({ "message": "there is no such thing" }));
            let (status, value) = kms::answer(&world.service_key, &asked).unwrap_or_else(nothing);
            Some(Answer::json(status, &value))
        }
    };
    done.unwrap_or_else(|| Answer::refuse("this is no good request"))
}

/// Fulcio v2: a token and either a key with a proof of possession or a signing request.
/// The token stands in the request, or in its header.
fn certificate(world: &World, given: &Value, bearer: Option<&str>) -> Option<Answer> {
    let token = given["credentials"]["oidcIdentityToken"].as_str().or(bearer)?;
    let Some(claims) = world.provider.read(token, now()) else {
        return Some(Answer::json(401, &json!({ "code": 16, "message": "the token is no good" })));
    };
    let (name, claims, challenge) = oidc::certified(&claims)?;
    let key = match given["publicKeyRequest"]["publicKey"]["content"].as_str() {
        Some(text) => {
            let key = unpem(text)?;
            let proof = given["publicKeyRequest"]["proofOfPossession"].as_str()?;
            let proof = STANDARD.decode(proof).ok()?;
            if !verifies(&key, challenge.as_bytes(), &proof) {
                return Some(Answer::refuse("the key's holder did not sign the subject"));
            }
            key
        }
        None => {
            let request = given["certificateSigningRequest"].as_str()?;
            let request = unpem(std::str::from_utf8(&STANDARD.decode(request).ok()?).ok()?)?;
            let request = CertReq::from_der(&request).ok()?;
            request.info.public_key.to_der().ok()?
        }
    };
    let from = now();
    let issuer = &world.provider.issuer;
    let wanted =
        Certificate { key, claims, ..Certificate::new(&P256::new(b"unused"), name, issuer, from) };
    let leaf = world.fulcio.issue(&wanted, &world.certificate_log);
    let chain = [vec![leaf], world.fulcio.chain()].concat();
    let chain: Vec<String> = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let chain = json!({ "chain": { "certificates": chain } });
    Some(Answer::json(200, &json!({ "signedCertificateEmbeddedSct": chain })))
}

fn unpem(text: &str) -> Option<Vec<u8>> {
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).ok()
}

/// A signature of an ECDSA key on P-256.
fn verifies(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(point) = spki.len().checked_sub(65).map(|at| &spki[at..]) else { return false };
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}

/// Rekor v1: `dsse` with an envelope, or `hashedrekord`.
fn entry_v1(log: &Log, given: &Value) -> Option<Answer> {
    let spec = &given["spec"];
    let body = match given["kind"].as_str()? {
        "dsse" => {
            let proposed = &spec["proposedContent"];
            let envelope: Value = serde_json::from_str(proposed["envelope"].as_str()?).ok()?;
            let verifier = STANDARD.decode(proposed["verifiers"][0].as_str()?).ok()?;
            envelope_body(log, &envelope, &unpem(std::str::from_utf8(&verifier).ok()?)?)?
        }
        "hashedrekord" => {
            let hash = unhex(spec["data"]["hash"]["value"].as_str()?)?;
            let signature = STANDARD.decode(spec["signature"]["content"].as_str()?).ok()?;
            let key = STANDARD.decode(spec["signature"]["publicKey"]["content"].as_str()?).ok()?;
            let key = std::str::from_utf8(&key).ok()?;
            let label = match key.contains("BEGIN CERTIFICATE") {
                true => "CERTIFICATE",
                false => "PUBLIC KEY",
            };
            log.message_body(&hash, &signature, &unpem(key)?, label)
        }
        _ => return None,
    };
    let entry = log.add(&body, now());
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let number = |value: &Value| value.as_str()?.parse::<u64>().ok();
    let proof = &entry["inclusionProof"];
    let hashes = proof["hashes"].as_array()?.iter().map(|hash| Some(hex(&bytes(hash)?)));
    let answer = json!({
        "body": entry["canonicalizedBody"],
        "integratedTime": number(&entry["integratedTime"])?,
        "logID": hex(&log.id()),
        "logIndex": number(&entry["logIndex"])?,
        "verification": {
            "inclusionProof": {
                "checkpoint": proof["checkpoint"]["envelope"],
                "hashes": hashes.collect::<Option<Vec<_>>>()?,
                "logIndex": number(&proof["logIndex"])?,
                "rootHash": hex(&bytes(&proof["rootHash"])?),
                "treeSize": number(&proof["treeSize"])?,
            },
            "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        },
    });
    let id = Log::entry_id(&bytes(&entry["canonicalizedBody"])?);
    Some(Answer { tag: Some(id.clone()), ..Answer::json(201, &json!({ id: answer })) })
}

/// Rekor v2: `hashedRekordRequestV002`, the only kind that its servers still take.
fn entry_v2(log: &Log, given: &Value) -> Option<Answer> {
    let request = given.get("hashedRekordRequestV002")?;
    let signature = &request["signature"];
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let (verifier, label) = match &signature["verifier"] {
        with if with["publicKey"].is_object() => (&with["publicKey"], "PUBLIC KEY"),
        with => (&with["x509Certificate"], "CERTIFICATE"),
    };
    let (hash, made) = (bytes(&request["digest"])?, bytes(&signature["content"])?);
    let body = log.message_body(&hash, &made, &bytes(&verifier["rawBytes"])?, label);
    debug_assert!(log.version == Version::V2);
    Some(Answer::json(201, &log.add(&body, 0)))
}

fn envelope_body(log: &Log, envelope: &Value, signer: &[u8]) -> Option<Value> {
    let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let signature = bytes(&envelope["signatures"][0]["sig"])?;
    Some(log.envelope_body(&bytes(&envelope["payload"])?, &signature, signer))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// A query (RFC 3161, section 2.4.1): the hash and the nonce of it.
fn timestamp(world: &World, query: &[u8]) -> Option<Answer> {
    let outer = AnyRef::from_der(query).ok()?;
    let mut reader = SliceReader::new(outer.value()).ok()?;
    let _version: u8 = reader.decode().ok()?;
    let imprint: AnyRef<'_> = reader.decode().ok()?;
    let mut parts = SliceReader::new(imprint.value()).ok()?;
    let _algorithm: AnyRef<'_> = parts.decode().ok()?;
    let hash: OctetStringRef<'_> = parts.decode().ok()?;
    let mut nonce = Vec::new();
    while !reader.is_finished() {
        let next: AnyRef<'_> = reader.decode().ok()?;
        if next.tag() == Tag::Integer {
            nonce = next.to_der().ok()?;
        }
    }
    let body = world.timestamps.stamp_hash(hash.as_bytes(), now(), &nonce);
    Some(Answer {
        status: 201,
        kind: "application/timestamp-reply",
        body,
        tag: None,
        location: None,
    })
}
