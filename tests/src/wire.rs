//! An independent client of HTTP/1.1: one request per connection.

use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn head(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

/// Sends a request and reads the answer.
#[track_caller]
pub fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let head = head(address, method, path, headers);
    let mut stream = TcpStream::connect(address).expect("a server");
    let length = body.len();
    stream
        .write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes())
        .expect("a request is sent");
    // A server may answer before it has read everything.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    parse(&answer)
}

/// Sends a request that declares more than it brings; the connection stays open until dropped.
pub fn begin(address: &str, method: &str, path: &str, declared: usize, body: &[u8]) -> TcpStream {
    let head = head(address, method, path, &[]);
    let mut stream = TcpStream::connect(address).expect("a server");
    let head = format!("{head}content-length: {declared}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a request is sent");
    stream.write_all(body).expect("a part of a body is sent");
    stream
}

#[track_caller]
fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = answer[end + 4..].to_vec();
    Answer { status: status.parse().expect("a number"), headers, body }
}
