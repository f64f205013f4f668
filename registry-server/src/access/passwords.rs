//! Passwords as `htpasswd -B` writes them.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use sha2::Digest as _;

use crate::lock::Lock;

/// How long a password that was right need not be worked out again.
const MEMORY: Duration = Duration::from_secs(300);
/// Passwords that are remembered.
const REMEMBERED: usize = 10_000;
/// The most work a hash may ask for; each step doubles it.
const COST: u32 = 14;

/// People and the hashes of their passwords.
#[derive(Clone, Default)]
pub struct Passwords(HashMap<String, String>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Passwords").field(&self.0.len()).finish()
    }
}

impl Passwords {
    /// Reads an htpasswd file. Only bcrypt hashes are taken.
    ///
    /// # Errors
    /// The line that is malformed, and why.
    pub fn parse(text: &str) -> Result<Passwords, String> {
        let mut people = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |reason: &str| format!("line {}: {reason}", number + 1);
            let (name, hash) = line.split_once(':').ok_or_else(|| refuse("it has no colon"))?;
            let mut parts = hash.split('$').skip(1);
            let bcrypt = matches!(parts.next(), Some("2y" | "2a" | "2b" | "2x"));
            let cost = parts.next().and_then(|cost| cost.parse::<u32>().ok());
            match (bcrypt, cost) {
                (true, Some(cost)) if cost <= COST => {}
                (true, _) => return Err(refuse("the cost of the hash is above 14")),
                (false, _) => return Err(refuse("not a bcrypt hash; make it with htpasswd -B")),
            }
            people.insert(name.to_owned(), hash.to_owned());
        }
        Ok(Passwords(people))
    }
}

/// Passwords that were right a moment ago: working out a hash is slow on purpose.
#[derive(Default)]
pub(crate) struct Remembered(Lock<HashMap<[u8; 32], Instant>>);

impl Remembered {
    /// Whose name and password this is.
    pub(crate) async fn check(&self, passwords: &Passwords, value: &str) -> Option<String> {
        let (name, password) = super::pair(value)?;
        // An unknown name takes as long as a wrong password.
        let nobody = "$2y$05$abcdefghijklmnopqrstuuW7nTzLRWRkl4CLUOi5tqFGoSMl0RLIy";
        let known = passwords.0.get(&name);
        let hash = known.map_or(nobody, String::as_str).to_owned();
        let mut hasher = sha2::Sha256::new();
        for part in [&name, &hash, &password] {
            hasher.update(part.len().to_be_bytes());
            hasher.update(part);
        }
        let key: [u8; 32] = hasher.finalize().into();
        if self.0.lock().get(&key).is_some_and(|at| at.elapsed() < MEMORY) {
            return Some(name);
        }
        let work = move || bcrypt::verify(password, &hash).unwrap_or(false);
        let right = tokio::task::spawn_blocking(work).await.unwrap_or(false);
        if !right || known.is_none() {
            return None;
        }
        let mut remembered = self.0.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Instant::now());
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[tokio::test]
    async fn right_and_wrong_passwords() {
        let hash = bcrypt::hash("geheim", 4).unwrap();
        let passwords = Passwords::parse(&format!("# people\n\nanna:{hash}\n")).unwrap();
        let remembered = Remembered::default();
        let value = |pair: &str| base64::prelude::BASE64_STANDARD.encode(pair);
        for _ in 0..2 {
            let right = remembered.check(&passwords, &value("anna:geheim")).await;
            assert_eq!(right.as_deref(), Some("anna"));
            for wrong in ["anna:geheim2", "anna:", "bert:geheim", "anna", ":"] {
                assert_eq!(remembered.check(&passwords, &value(wrong)).await, None, "{wrong}");
            }
        }
        assert_eq!(remembered.check(&passwords, "%%%").await, None);
    }

    #[test]
    fn other_hashes_are_refused() {
        for (line, reason) in [
            ("anna", "no colon"),
            ("anna:{SHA}abc", "not a bcrypt"),
            ("anna:$apr1$x$y", "not a bcrypt"),
            ("anna:$2y$31$x", "above 14"),
        ] {
            let refused = Passwords::parse(&format!("\n{line}")).unwrap_err();
            assert!(refused.starts_with("line 2") && refused.contains(reason), "{refused}");
        }
    }
}
