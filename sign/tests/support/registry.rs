//! Debian's registry on a free port of the loopback interface, spoken to with bare HTTP/1.0.

#![allow(clippy::unwrap_used, reason = "this is only built for tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use image::{Descriptor, Digest, Manifest, MediaType};
use transport::at::Memory;

/// A running registry; it ends when this is dropped.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts a registry that keeps its content below `directory`.
    pub(crate) fn start(directory: &Path) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{host}\"}}\n",
            directory.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening =
            log.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listening, "the registry did not start");
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Registry { child, host }
    }

    fn request(
        &self,
        method: &str,
        target: &str,
        media_type: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let target = target.strip_prefix(&format!("http://{}", self.host)).unwrap_or(target);
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let head = format!(
            "{method} {target} HTTP/1.0\r\nHost: {}\r\nAccept: */*\r\nAccept: {}\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            MediaType::OCI_MANIFEST,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }

    /// Stores one blob.
    pub(crate) fn put_blob(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let (status, head, _) = self.request("POST", &target, "text/plain", b"");
        assert_eq!(status, 202, "{head}");
        let location = head.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        let target = format!("{location}&digest={digest}");
        let (status, head, _) = self.request("PUT", &target, "application/octet-stream", bytes);
        assert_eq!(status, 201, "{head}");
    }

    /// Stores a manifest under a tag.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let (status, head, _) =
            self.request("PUT", &target, MediaType::OCI_MANIFEST.as_str(), bytes);
        assert_eq!(status, 201, "{head}");
    }

    /// Copies a manifest and all it points at out of a memory.
    pub(crate) fn push(&self, memory: &Memory, root: &Descriptor, repository: &str, tag: &str) {
        let bytes = memory.get(root.digest).unwrap();
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        for part in manifest.layers.iter().chain([&manifest.config]) {
            self.put_blob(repository, &part.digest, &memory.get(part.digest).unwrap());
        }
        self.put_manifest(repository, tag, &bytes);
    }

    /// Copies a manifest and all it points at into a memory, under its full name.
    pub(crate) fn pull(&self, memory: &Memory, repository: &str, tag: &str) -> Descriptor {
        let get = |target: &str| -> Bytes {
            let (status, head, body) = self.request("GET", target, "text/plain", b"");
            assert_eq!(status, 200, "{target}: {head}");
            body.into()
        };
        let bytes = get(&format!("/v2/{repository}/manifests/{tag}"));
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        for part in manifest.layers.iter().chain([&manifest.config]) {
            let target = format!("/v2/{repository}/blobs/{}", part.digest);
            memory.insert(part.media_type.clone(), get(&target));
        }
        let root = memory.insert(MediaType::OCI_MANIFEST, bytes);
        memory.name(&format!("{}/{repository}:{tag}", self.host), &root);
        root
    }
}
