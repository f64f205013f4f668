//! Passwords as `htpasswd -B` writes them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use sha2::Digest as _;

use super::turns::{Overload, Turns};
use crate::lock::Lock;

/// How long a password that was right need not be worked out again.
const MEMORY: Duration = Duration::from_secs(300);
/// Passwords that are remembered.
const REMEMBERED: usize = 10_000;
/// The most work a hash may ask for; each step doubles it.
const COST: u32 = 14;

/// People and the hashes of their passwords.
#[derive(Clone, Default)]
pub struct Passwords(BTreeMap<String, String>);

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
        let mut people = BTreeMap::new();
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

    /// The hash to compare a password with, and whether the result counts. An unknown name gets the
    /// hash of another user, so that it takes as long as a known one whatever the hashes cost.
    fn hash_of(&self, name: &str) -> Option<(&str, bool)> {
        if let Some(hash) = self.0.get(name) {
            return Some((hash, true));
        }
        let first = *sha2::Sha256::digest(name).first()?;
        let somebody = self.0.values().nth(usize::from(first) % self.0.len().max(1))?;
        Some((somebody, false))
    }
}

/// Passwords that were right a moment ago: working out a hash is slow on purpose.
#[derive(Default)]
pub(crate) struct PasswordCache {
    right: Lock<HashMap<[u8; 32], Instant>>,
    turns: Turns,
}

impl PasswordCache {
    /// Whose name and password this is.
    ///
    /// # Errors
    /// Too many passwords are being worked out.
    pub(crate) async fn check(
        &self,
        passwords: &Passwords,
        value: &str,
        client: IpAddr,
    ) -> Result<Option<String>, Overload> {
        let Some((name, password)) = pair(value) else { return Ok(None) };
        let Some((hash, known)) = passwords.hash_of(&name) else { return Ok(None) };
        let hash = hash.to_owned();
        let mut hasher = sha2::Sha256::new();
        for part in [&name, &hash, &password] {
            hasher.update(part.len().to_be_bytes());
            hasher.update(part);
        }
        let key: [u8; 32] = hasher.finalize().into();
        if known && self.right.lock().get(&key).is_some_and(|at| at.elapsed() < MEMORY) {
            return Ok(Some(name));
        }
        let work = move || bcrypt::verify(password, &hash).unwrap_or(false);
        if self.turns.take(client, work).await? != Some(true) || !known {
            return Ok(None);
        }
        let mut remembered = self.right.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, Instant::now());
        Ok(Some(name))
    }
}

/// Name and password of a `Basic` header's value.
fn pair(value: &str) -> Option<(String, String)> {
    let decoded = base64::prelude::BASE64_STANDARD.decode(value).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_and_wrong_passwords() {
        let hash = bcrypt::hash("geheim", 4).unwrap();
        let passwords = Passwords::parse(&format!("# people\n\nanna:{hash}\n")).unwrap();
        let remembered = PasswordCache::default();
        let value = |pair: &str| base64::prelude::BASE64_STANDARD.encode(pair);
        let check = async |value: &str| {
            remembered.check(&passwords, value, IpAddr::from([127, 0, 0, 1])).await.unwrap()
        };
        for _ in 0..2 {
            assert_eq!(check(&value("anna:geheim")).await.as_deref(), Some("anna"));
            for wrong in ["anna:geheim2", "anna:", "bert:geheim", "anna", ":"] {
                assert_eq!(check(&value(wrong)).await, None, "{wrong}");
            }
        }
        assert_eq!(check("%%%").await, None);
    }

    #[test]
    fn an_unknown_name_costs_what_a_known_one_does() {
        let hash = |cost| bcrypt::hash("x", cost).unwrap();
        let people = format!("anna:{}\nbert:{}\n", hash(4), hash(5));
        let passwords = Passwords::parse(&people).unwrap();
        let mut costs = std::collections::BTreeSet::new();
        for name in ["carl", "dora", "emil", "frida", "gustav", "hanna", "ida", "jan"] {
            let (hash, known) = passwords.hash_of(name).unwrap();
            assert!(!known && passwords.0.values().any(|of| of == hash), "{name}");
            assert_eq!(passwords.hash_of(name).unwrap().0, hash, "always the same");
            costs.insert(hash.split('$').nth(2).unwrap().to_owned());
        }
        assert_eq!(costs.len(), 2);
        assert!(passwords.hash_of("anna").unwrap().1);
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
