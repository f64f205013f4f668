//! A small HTTP server on loopback, which remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What a request asked for.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// The path with its query, without the slash at its beginning.
    pub path: String,
    /// Everything above the body, as it came.
    pub head: String,
}

/// Files below a directory, served until the test ends.
#[derive(Clone)]
pub struct Files {
    /// `http://127.0.0.1:port`.
    pub url: String,
    directory: PathBuf,
    redirects: Arc<Mutex<BTreeMap<String, String>>>,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl Files {
    /// Serves a directory, which may be made later.
    pub fn serve(directory: PathBuf) -> Files {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let url = format!("http://{address}");
        let (redirects, asked) = (Arc::default(), Arc::default());
        let files = Files { url, directory, redirects, received: asked };
        let own = files.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.answer(stream));
            }
        });
        files
    }

    /// Sends those who ask for `path` to another address.
    pub fn redirect(&self, path: &str, to: &str) {
        self.redirects.lock().expect("nobody panicked").insert(path.to_owned(), to.to_owned());
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<ReceivedRequest> {
        self.received.lock().expect("nobody panicked").clone()
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
        self.received
            .lock()
            .expect("nobody panicked")
            .push(ReceivedRequest { path: path.clone(), head: head.clone() });
        let plain = path.split('?').next().unwrap_or(&path);
        let redirect = self.redirects.lock().expect("nobody panicked").get(plain).cloned();
        let (status, more, body) = match (redirect, std::fs::read(self.directory.join(plain))) {
            (Some(to), _) => ("302 Found", format!("Location: {to}\r\n"), Vec::new()),
            (None, Ok(body)) => ("200 OK", String::new(), body),
            (None, Err(_)) => ("404 Not Found", String::new(), Vec::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{more}Last-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(answer.as_bytes()).ok();
        if !head.starts_with("HEAD") {
            stream.write_all(&body).ok();
        }
    }
}
