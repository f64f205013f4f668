//! Telling others what happened: a POST with JSON for each event, in order, to each address.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::lock::Lock;
use crate::options::Clock;

/// Events that wait at most; more are dropped and logged.
const WAITING: usize = 1_000;
/// An event is sent so often at most.
const ATTEMPTS: u32 = 4;

/// By URL.
type Senders = Vec<(String, mpsc::Sender<Value>)>;

/// Where events go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    senders: Arc<Lock<Senders>>,
    clock: Clock,
}

impl Notices {
    /// Begins to send to these URLs. To be called where tasks can run.
    pub(crate) fn start(urls: &[String], clock: Clock) -> Notices {
        let notices = Notices { senders: Arc::default(), clock };
        notices.send_to(urls);
        notices
    }

    /// Sends to these URLs from now on. To those that are not among them goes what waits for them;
    /// to those that are it goes on in order.
    pub(crate) fn send_to(&self, urls: &[String]) {
        let mut senders = self.senders.lock();
        senders.retain(|(known, _)| urls.contains(known));
        for url in urls {
            if !senders.iter().any(|(known, _)| known == url) {
                let (sender, receiver) = mpsc::channel(WAITING);
                tokio::spawn(deliver(url.clone(), receiver));
                senders.push((url.clone(), sender));
            }
        }
    }

    /// Tells of something that happened to a manifest.
    pub(crate) fn tell(&self, action: &str, repository: &str, tags: &[String], digest: &str) {
        let senders = self.senders.lock().clone();
        if senders.is_empty() {
            return;
        }
        let event = json!({
            "timestamp": self.clock.timestamp(),
            "action": action,
            "target": { "repository": repository, "tags": tags, "digest": digest },
        });
        for (_, sender) in &senders {
            if sender.try_send(event.clone()).is_err() {
                tracing::warn!(action, repository, "dropping an event: the queue is full");
            }
        }
    }
}

/// Where a URL leads without what it may keep secret: user, path and query.
fn origin(url: &str) -> String {
    let origin = reqwest::Url::parse(url).ok().map(|url| url.origin().ascii_serialization());
    origin.unwrap_or_else(|| "an address that is not a URL".to_owned())
}

async fn deliver(url: String, mut events: mpsc::Receiver<Value>) {
    let to = origin(&url);
    // An earlier choice of the process stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, to, "no events will be sent");
            return;
        }
    };
    while let Some(event) = events.recv().await {
        let body = event.to_string();
        for attempt in 1..=ATTEMPTS {
            let request = client.post(&url).header("content-type", "application/json");
            let problem = match request.body(body.clone()).send().await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => format!("it answered {}", answer.status()),
                Err(error) => error.without_url().to_string(),
            };
            tracing::warn!(problem, to, attempt, "sending an event");
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_say_where_events_go_and_keep_the_secret() {
        for url in ["https://me:secret@hooks.example:8443/secret?key=secret", "secret"] {
            let said = origin(url);
            assert!(!said.contains("secret"), "{said}");
        }
        assert_eq!(origin("http://hooks.example/x"), "http://hooks.example");
    }
}
