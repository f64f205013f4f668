//! Signing in with a browser on this machine: OAuth 2.0 with an authorization code and PKCE
//! (RFC 6749, RFC 7636, RFC 8252).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::http::Http;
use super::token::{AUDIENCE, FORM, IdentityToken, discover, endpoint, form, refuse};
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::printable::printable;

const WHAT: &str = "the OpenID provider";
/// Where the provider sends the browser.
const CALLBACK: &str = "/auth/callback";
/// How long somebody may take to sign in.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait where no connection can be taken: there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a request of a browser is at most.
const MAX_REQUEST: usize = 16 << 10;

/// 256 random bits, in letters.
fn random() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Lets somebody sign in with a browser: `open` shows or opens the URL. The answer comes to a port of
/// loopback.
///
/// # Errors
/// [`Error::Service`]: the provider refuses, or no user signs in.
pub async fn browser(
    provider: &str,
    http: &Http,
    open: &(dyn Fn(&str) + Send + Sync),
) -> Result<IdentityToken> {
    let known = discover(provider, http).await?;
    let (start, end) =
        (endpoint(&known, "authorization_endpoint")?, endpoint(&known, "token_endpoint")?);
    let failed = |error: std::io::Error| refuse(format!("listening for the browser: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let redirect = format!("http://localhost:{port}{CALLBACK}");
    let (state, nonce, verifier) = (random()?, random()?, random()?);
    let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
    let mut url = Url::parse(&start).map_err(|error| refuse(error.to_string()))?;
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", AUDIENCE),
        ("scope", "openid email"),
        ("redirect_uri", &redirect),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    open(url.as_str());
    let waited = tokio::time::timeout(PATIENCE, code(&listener, &state)).await;
    let code = waited.map_err(|_| refuse("nobody signed in"))??;
    let asked = form(&[
        ("grant_type", "authorization_code"),
        ("client_id", AUDIENCE),
        ("code", &code),
        ("redirect_uri", &redirect),
        ("code_verifier", &verifier),
    ]);
    let answer = http.post_bytes(WHAT, &end, FORM, asked).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let token = answer["id_token"].as_str().ok_or_else(|| refuse("the provider gave none"))?;
    let token = IdentityToken::read(token)?;
    // Another sign-in's token is not taken for this one's.
    match token.claim("nonce")? == nonce {
        true => Ok(token),
        false => Err(refuse("it is of another sign-in")),
    }
}

/// Waits for the browser to bring the code.
async fn code(listener: &TcpListener, state: &str) -> Result<String> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(path) = requested(&mut stream).await else { continue };
        let url = Url::parse("http://localhost").and_then(|base| base.join(&path));
        let Some(url) = url.ok().filter(|url| url.path() == CALLBACK) else {
            say(&mut stream, "404 Not Found", "There is nothing here.").await;
            continue;
        };
        let value = |name: &str| {
            let mut pairs = url.query_pairs();
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        // Any page may send a browser here: only who knows the state was sent by the provider.
        if value("state").as_deref() != Some(state) {
            say(&mut stream, "400 Bad Request", "This is not the answer that is waited for.").await;
            continue;
        }
        if let Some(code) = value("code") {
            say(&mut stream, "200 OK", "You are signed in. You can close this window.").await;
            return Ok(code);
        }
        let why = value("error_description").or_else(|| value("error")).unwrap_or_default();
        say(&mut stream, "403 Forbidden", "The provider refused.").await;
        return Err(refuse(format!("the provider refused: {}", printable(&why))));
    }
}

/// The path of a request; `None` where it is none.
async fn requested(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 2048];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut part));
        let read = read.await.ok()?.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        if bytes.len() > MAX_REQUEST {
            return None;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut words = text.lines().next()?.split(' ');
    (words.next()? == "GET").then(|| words.next().map(str::to_owned))?
}

async fn say(stream: &mut TcpStream, status: &str, text: &str) {
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    // A browser that is gone needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
