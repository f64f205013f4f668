//! bootc and ostree read images over a socket.
#![allow(clippy::unwrap_used, reason = "tests are journeys")]

use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use e2e::{Bench, binary, peer};
use image::Digest;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use serde_json::{Value, json};

/// A client of the proxy.
struct Client {
    socket: OwnedFd,
    proxy: Child,
}

struct Answer {
    value: Value,
    pipe: Value,
    ends: Vec<File>,
}

impl Client {
    fn start(mut command: Command) -> Client {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        command.stdin(Stdio::from(theirs));
        Client { socket: ours, proxy: command.spawn().unwrap() }
    }

    fn initialized(command: Command) -> Client {
        let client = Client::start(command);
        // Clients in Go say null where there are no arguments.
        let version = client.call("Initialize", Value::Null).unwrap().value;
        assert!(version.as_str().unwrap().starts_with("0.2."), "{version}");
        client
    }

    fn call(&self, method: &str, args: Value) -> Result<Answer, Value> {
        let request = json!({"method": method, "args": args}).to_string();
        send(&self.socket, request.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let mut packet = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut packet)];
        let got =
            recvmsg(self.socket.as_fd(), &mut slices, &mut along, RecvFlags::empty()).unwrap();
        let ends = along.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(ends) => ends.map(File::from).collect(),
            _ => Vec::new(),
        });
        let ends = ends.collect();
        let answer: Value = serde_json::from_slice(&packet[..got.bytes]).unwrap();
        match answer["success"].as_bool().unwrap() {
            true => {
                Ok(Answer { value: answer["value"].clone(), pipe: answer["pipeid"].clone(), ends })
            }
            false => Err(answer),
        }
    }

    /// A call whose content comes through a pipe.
    fn content(&self, method: &str, args: Value) -> (Value, Vec<u8>) {
        let answer = self.call(method, args).unwrap();
        let mut content = Vec::new();
        let finished = std::thread::scope(|scope| {
            let mut ends = answer.ends.into_iter();
            let mut end = ends.next().unwrap();
            let read = scope.spawn(move || {
                let mut content = Vec::new();
                end.read_to_end(&mut content).map(|_| content)
            });
            let finished = self.call("FinishPipe", json!([answer.pipe]));
            content = read.join().unwrap().unwrap();
            finished
        });
        finished.unwrap();
        (answer.value, content)
    }

    fn open(&self, place: &str) -> u64 {
        self.call("OpenImage", json!([place])).unwrap().value.as_u64().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// An image of Docker's types, and the same compressed in OCI's.
fn images(bench: &Bench) -> (String, String) {
    let layout = e2e::image::busybox(&bench.path().join("busybox"));
    let from = format!("oci:{}:busybox", layout.display());
    let docker = format!("dir:{}", bench.path().join("docker").display());
    bench.rcopy(["copy", "--dest-compress", "--format", "v2s2", &from, &docker]).ok();
    (docker, from)
}

fn command(bench: &Bench) -> Command {
    let mut command = bench.command("rcopy");
    command.arg("experimental-image-proxy");
    command
}

#[test]
fn an_image_is_read_over_a_socket() {
    let bench = Bench::new();
    let (docker, from) = images(&bench);
    let mut client = Client::initialized(command(&bench));
    let image = client.open(&docker);

    // The manifest is one of OCI, with the digest that the image has there.
    let (digest, manifest) = client.content("GetManifest", json!([image]));
    assert_eq!(digest, bench.rcopy(["digest", &docker]).ok().text());
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");

    let (_, config) = client.content("GetFullConfig", json!([image]));
    assert_eq!(manifest["config"]["digest"], Digest::of(&config).to_string());
    let whole: Value = serde_json::from_slice(&config).unwrap();
    let (_, config) = client.content("GetConfig", json!([image]));
    assert_eq!(serde_json::from_slice::<Value>(&config).unwrap(), whole["config"]);

    let layers = client.call("GetLayerInfo", json!([image])).unwrap().value;
    assert_eq!(layers[0]["digest"], layer["digest"]);
    let (_, piped) = client.content("GetLayerInfoPiped", json!([image]));
    assert_eq!(serde_json::from_slice::<Value>(&piped).unwrap(), layers);

    let (size, blob) = client.content("GetBlob", json!([image, layer["digest"], layer["size"]]));
    assert_eq!((size, layer["digest"].clone()), (layer["size"].clone(), json!(Digest::of(&blob))));
    // Without FinishPipe: what goes wrong comes through a pipe of its own.
    let raw = client.call("GetRawBlob", json!([image, layer["digest"]])).unwrap();
    let all = raw.ends.into_iter().map(|mut end| {
        let mut content = Vec::new();
        end.read_to_end(&mut content).map(|_| content).unwrap()
    });
    assert_eq!(all.collect::<Vec<_>>(), [blob, Vec::new()]);

    // Several at once; closed ones are gone.
    let second = client.open(&from);
    assert_ne!(second, image);
    client.call("CloseImage", json!([image])).unwrap();
    assert!(client.call("GetManifest", json!([image])).is_err());
    client.content("GetManifest", json!([second]));
    let request = json!({"method": "Shutdown", "args": []}).to_string();
    send(&client.socket, request.as_bytes(), SendFlags::NOSIGNAL).unwrap();
    assert!(client.proxy.wait().unwrap().success());
}

#[test]
fn what_the_proxy_cannot_do_is_an_answer_and_the_next_request_works() {
    let bench = Bench::new();
    let (docker, _) = images(&bench);
    let client = Client::start(command(&bench));
    let early = client.call("OpenImage", json!([&docker])).err().unwrap();
    assert!(early["error"].as_str().unwrap().contains("Initialize"), "{early}");
    client.call("Initialize", json!([])).unwrap();
    for (method, args) in [
        ("Initialize", json!([])),
        ("OpenImage", json!([])),
        ("OpenImage", json!([7])),
        ("OpenImage", json!(["oci:nowhere"])),
        ("OpenImage", json!(["nonsense:"])),
        ("GetManifest", json!([0])),
        ("GetManifest", json!([7])),
        ("GetManifest", json!(["x"])),
        ("FinishPipe", json!([99])),
        ("NoSuchMethod", json!([])),
    ] {
        let refused = client.call(method, args.clone()).err().unwrap();
        assert!(!refused["error"].as_str().unwrap().is_empty(), "{method} {args}");
        assert_eq!(refused["error_code"], "other", "{method} {args}");
    }
    let none = client.call("OpenImageOptional", json!(["dir:nowhere"])).unwrap();
    assert_eq!(none.value, 0);
    let image = client.call("OpenImageOptional", json!([&docker])).unwrap().value;

    // Content that is not what it is named ends in an error of its pipe.
    let directory = bench.path().join("docker");
    let layers = client.call("GetLayerInfo", json!([image])).unwrap().value;
    let digest = layers[0]["digest"].as_str().unwrap().to_owned();
    let file = directory.join(digest.trim_start_matches("sha256:"));
    let mut content = std::fs::read(&file).unwrap();
    content[100] ^= 1;
    std::fs::write(&file, content).unwrap();
    let blob = client.call("GetBlob", json!([image, digest, layers[0]["size"]])).unwrap();
    let mut read = Vec::new();
    blob.ends.into_iter().next().unwrap().read_to_end(&mut read).unwrap();
    let failed = client.call("FinishPipe", json!([blob.pipe])).err().unwrap();
    assert!(failed["error"].as_str().unwrap().contains(&digest), "{failed}");
    let raw = client.call("GetRawBlob", json!([image, digest])).unwrap();
    let mut ends = raw.ends.into_iter();
    ends.next().unwrap().read_to_end(&mut read).unwrap();
    let mut told = String::new();
    ends.next().unwrap().read_to_string(&mut told).unwrap();
    assert!(serde_json::from_str::<Value>(&told).unwrap()["message"].is_string(), "{told}");
}

#[test]
fn the_policy_decides_what_the_proxy_opens() {
    let bench = Bench::new();
    let (docker, _) = images(&bench);
    let policy = bench.write("policy.json", r#"{"default":[{"type":"reject"}]}"#);
    let mut proxy = bench.command("rcopy");
    proxy.arg("--policy").arg(policy).arg("experimental-image-proxy");
    let client = Client::initialized(proxy);
    assert!(client.call("OpenImage", json!([docker])).is_err());
    // Standard input that is no such socket is refused.
    let refused = Command::new(binary("rcopy"))
        .arg("experimental-image-proxy")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!refused.status.success());
}

#[test]
fn skopeos_proxy_gives_the_same() {
    if peer("skopeo").is_none() {
        return;
    }
    let bench = Bench::new();
    let (docker, _) = images(&bench);
    let mut theirs = Command::new("skopeo");
    theirs.args(["--insecure-policy", "experimental-image-proxy"]);
    let clients = [Client::initialized(command(&bench)), Client::initialized(theirs)];
    let [ours, theirs] = clients.map(|client| {
        let image = client.open(&docker);
        let (digest, manifest) = client.content("GetManifest", json!([image]));
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = &manifest["layers"][0];
        let blob = client.content("GetBlob", json!([image, layer["digest"], layer["size"]]));
        (digest, layer.clone(), manifest["config"].clone(), blob)
    });
    assert_eq!(ours, theirs);
}
