//! Updates from a mirror that is honest, old, stolen or broken.

use std::collections::BTreeMap;
use std::sync::Mutex;

use standins::{P256, Repository};

use super::*;

const NOW: u64 = standins::BEGIN;
const FILE: &str = "trusted_root.json";

/// A mirror in memory, and what it was asked for.
struct Memory(BTreeMap<String, Vec<u8>>, Mutex<Vec<String>>);

#[async_trait]
impl Mirror for Memory {
    async fn get(&self, name: &str, _: u64) -> Result<Option<Vec<u8>>> {
        self.1.lock().unwrap().push(name.to_owned());
        Ok(self.0.get(name).cloned())
    }
}

fn mirror(files: BTreeMap<String, Vec<u8>>) -> Memory {
    Memory(files, Mutex::default())
}

fn repository() -> Repository {
    Repository::new(1, BTreeMap::from([(FILE.to_owned(), b"the first".to_vec())]))
}

fn begin(repository: &Repository) -> TrustedMetadata {
    TrustedMetadata { root: repository.root(), ..TrustedMetadata::default() }
}

async fn updated(
    trusted: &TrustedMetadata,
    repository: &Repository,
) -> Result<(TrustedMetadata, Vec<u8>)> {
    let (kept, mut files) = update(trusted, &mirror(repository.published()), &[FILE], NOW).await?;
    Ok((kept, files.remove(FILE).expect("the file is listed")))
}

#[track_caller]
fn says<T>(result: Result<T>, file: &str, words: &str) {
    let Err(error) = result else { panic!("accepted, not refused with {words:?}") };
    let text = error.to_string();
    assert!(text.contains(&format!("{file}: ")) && text.contains(words), "{text}");
}

/// A root after a change of all its keyholders.
fn changed(before: &Repository) -> Repository {
    let keyholders: Vec<_> = (30..33_u8).map(|key| P256::new(&[key])).collect();
    let signers = [before.keyholders.clone(), keyholders.clone()].concat();
    Repository { root: before.root + 1, keyholders, signers, ..before.clone() }
}

#[tokio::test]
async fn a_file_comes_with_its_metadata_and_changes_when_that_does() {
    let first = repository();
    let (kept, file) = updated(&begin(&first), &first).await.unwrap();
    assert_eq!(file, b"the first");
    let mut second = Repository { versions: [2, 2, 2], ..first.clone() };
    second.files.insert(FILE.to_owned(), b"the second".to_vec());
    let (kept, file) = updated(&kept, &second).await.unwrap();
    assert_eq!(file, b"the second");
    // Again: nothing but the timestamp and the file is fetched, and nothing changes.
    let again = mirror(second.published());
    let (same, _) = update(&kept, &again, &[FILE, "no-such-file"], NOW).await.unwrap();
    assert_eq!(same, kept);
    let asked = again.1.into_inner().unwrap();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(summary(&kept, NOW).unwrap()[1].contains("timestamp: version 2, expires 2099"));
    assert!(summary(&kept, u64::MAX).unwrap()[0].contains("has expired"));
}

#[tokio::test]
async fn roots_are_followed_one_by_one() {
    let first = repository();
    let second = changed(&first);
    let third = Repository { root: 3, signers: second.keyholders.clone(), ..second.clone() };
    let mut files = third.published();
    // Without the one between, the third is not reached, and the online files are still good.
    let (kept, _) = update(&begin(&first), &mirror(files.clone()), &[FILE], NOW).await.unwrap();
    assert_eq!(kept.root, first.root());
    files.insert("2.root.json".to_owned(), second.root());
    let (kept, _) = update(&begin(&first), &mirror(files.clone()), &[FILE], NOW).await.unwrap();
    assert_eq!(kept.root, third.root());
    // An expired root between is followed, an expired last one is not.
    let old = Repository { expires: ["2020-01-01T00:00:00Z"; 4], ..second.clone() };
    files.insert("2.root.json".to_owned(), old.root());
    update(&begin(&first), &mirror(files), &[FILE], NOW).await.unwrap();
    says(updated(&begin(&first), &old).await, "root.json", "expired at 2020");
}

#[tokio::test]
async fn a_root_needs_the_keyholders_before_it_and_its_own() {
    let first = repository();
    let second = changed(&first);
    let with = |signers: Vec<P256>| Repository { signers, ..second.clone() };
    let own = with(second.keyholders.clone());
    says(updated(&begin(&first), &own).await, "2.root.json", "0 of the 2 signatures");
    let theirs = with(first.keyholders.clone());
    says(updated(&begin(&first), &theirs).await, "2.root.json", "0 of the 2 signatures");
    let one = [vec![first.keyholders[0].clone(); 2], second.keyholders.clone()].concat();
    says(updated(&begin(&first), &with(one)).await, "2.root.json", "1 of the 2 signatures");
    // A root that calls itself another version, and one that is not signed by itself.
    let mut files = second.published();
    files.insert("2.root.json".to_owned(), Repository { root: 7, ..second.clone() }.root());
    let far = update(&begin(&first), &mirror(files), &[FILE], NOW).await;
    says(far, "2.root.json", "it is version 7");
    let unsigned = Repository { signers: Vec::new(), ..first.clone() };
    says(updated(&begin(&unsigned), &first).await, "root.json", "0 of the 2 signatures");
}

#[tokio::test]
async fn nothing_goes_back() {
    let first = repository();
    let second = Repository { versions: [5, 5, 5], ..first.clone() };
    let (kept, _) = updated(&begin(&first), &second).await.unwrap();
    for (versions, file) in
        [([4, 5, 5], "timestamp.json"), ([5, 4, 5], "snapshot.json"), ([6, 6, 4], "targets.json")]
    {
        let old = Repository { versions, ..first.clone() };
        says(updated(&kept, &old).await, file, "older than");
    }
    // After the online key was lost and changed, what it signed counts no more.
    let mut safe = changed(&first);
    safe.online = b"another".to_vec();
    updated(&kept, &safe).await.unwrap();
}

#[tokio::test]
async fn what_has_expired_is_refused() {
    let names = ["root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
    for (role, name) in names.into_iter().enumerate() {
        let mut old = repository();
        old.expires[role] = "2025-12-31T00:00:00Z";
        says(updated(&begin(&old), &old).await, name, "expired at 2025-12-31");
    }
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused() {
    let repository = repository();
    let good = repository.published();
    let stranger = Repository::new(9, repository.files.clone()).published();
    for name in good.keys().filter(|name| *name != "1.root.json") {
        let mut missing = good.clone();
        missing.remove(name);
        update(&begin(&repository), &mirror(missing), &[FILE], NOW).await.unwrap_err();
        let mut cut = good.clone();
        cut.get_mut(name).unwrap().pop();
        update(&begin(&repository), &mirror(cut), &[FILE], NOW).await.unwrap_err();
        if name.ends_with(".json") && !name.starts_with("targets/") {
            let mut forged = good.clone();
            forged.insert(name.clone(), stranger[name].clone());
            let result = update(&begin(&repository), &mirror(forged), &[FILE], NOW).await;
            says(result, name, "0 of the 1 signatures");
        }
    }
    // Old files that are well signed, among newer ones.
    let mut mixed = Repository { versions: [2, 2, 2], ..repository.clone() }.published();
    mixed.insert("2.targets.json".to_owned(), good["1.targets.json"].clone());
    let result = update(&begin(&repository), &mirror(mixed), &[FILE], NOW).await;
    says(result, "2.targets.json", "");
}

#[test]
fn the_public_root_is_signed_by_its_own_keyholders() {
    let root: Metadata<Root> = Metadata::read(Role::Root, PUBLIC_ROOT.to_vec()).unwrap();
    root.check(&root.content).unwrap();
    assert!(root.version >= 10);
    let text = String::from_utf8(PUBLIC_ROOT.to_vec()).unwrap();
    let changed = text.replace("\"consistent_snapshot\": true", "\"consistent_snapshot\": false");
    let changed: Metadata<Root> = Metadata::read(Role::Root, changed.into_bytes()).unwrap();
    assert!(changed.check(&root.content).is_err());
}
