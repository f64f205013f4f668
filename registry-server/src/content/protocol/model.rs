//! The protocol under random schedules: pushes, deletions and collections that die, one step at a
//! time in any order, while time passes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use super::*;
use crate::lock::Lock;

const GRACE: u64 = 80;
const LEASE: u64 = 40;
const REPOS: u8 = 2;
/// Two blobs, an image of both, an image of the second, an index of the images.
const BLOBS: [u8; 2] = [0, 1];
const IMAGES: [(u8, &[u8]); 2] = [(2, &[0, 1]), (3, &[1])];
const INDEX: (u8, &[u8]) = (4, &[2, 3]);

#[derive(Default)]
struct ModelState {
    content: BTreeSet<u8>,
    links: BTreeMap<(u8, u8), Duration>,
    manifests: BTreeMap<(u8, u8), SurveyedManifest<u8>>,
    tags: BTreeMap<(u8, u8), u8>,
    condemned: BTreeSet<u8>,
    /// Who collects, and until when.
    lease: Option<(u64, u64)>,
}

#[derive(Clone, Default)]
struct Model {
    state: Arc<Lock<ModelState>>,
    time: Arc<AtomicU64>,
    /// Faults to show that the test can fail.
    defect: Defect,
    first: Arc<Lock<Option<Survey<u8, u8>>>>,
    me: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Defect {
    #[default]
    No,
    /// A push does not look for condemnations.
    Blind,
    /// A collection does not look again after it condemned.
    Hasty,
    /// A collection goes on though another took over.
    Deaf,
}

/// Lets another participant take the next step.
fn step() -> impl Future<Output = ()> + Send {
    let mut done = false;
    std::future::poll_fn(move |_| match std::mem::replace(&mut done, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
}

fn at(time: u64) -> Duration {
    Duration::from_secs(time)
}

impl World for Model {
    type Id = u8;
    type Repo = u8;

    async fn now(&self) -> io::Result<Duration> {
        Ok(at(self.time.load(Ordering::Relaxed)))
    }

    fn grace(&self) -> Duration {
        at(GRACE)
    }

    async fn pause(&self) {
        step().await;
    }

    async fn linked(&self, repo: &u8, id: u8) -> io::Result<Option<Duration>> {
        step().await;
        Ok(self.state.lock().links.get(&(id, *repo)).copied())
    }

    async fn link(&self, repo: &u8, id: u8) -> io::Result<()> {
        step().await;
        let now = self.now().await?;
        self.state.lock().links.insert((id, *repo), now);
        Ok(())
    }

    async fn condemned(&self, ids: &[u8]) -> io::Result<bool> {
        step().await;
        let state = self.state.lock();
        Ok(self.defect != Defect::Blind && ids.iter().any(|id| state.condemned.contains(id)))
    }

    async fn content(&self, id: u8) -> io::Result<bool> {
        step().await;
        Ok(self.state.lock().content.contains(&id))
    }

    async fn enlist(&self, repo: &u8, id: u8) -> io::Result<()> {
        step().await;
        let modified = self.now().await?;
        let all = IMAGES.into_iter().chain([INDEX]);
        let children = all.filter(|(known, _)| *known == id).flat_map(|(_, c)| c.to_vec());
        let listed = SurveyedManifest { children: children.collect(), subject: None, modified };
        self.state.lock().manifests.insert((id, *repo), listed);
        Ok(())
    }

    async fn enlisted(&self, repo: &u8, id: u8) -> io::Result<bool> {
        step().await;
        Ok(self.state.lock().manifests.contains_key(&(id, *repo)))
    }

    async fn delist(&self, repo: &u8, id: u8) -> io::Result<()> {
        self.checked(|state| {
            state.manifests.remove(&(id, *repo));
        })
        .await
    }
}

impl Model {
    /// A deletion happens soon after the collection looked whether it is still the one.
    async fn checked(&self, change: impl FnOnce(&mut ModelState)) -> io::Result<()> {
        step().await;
        self.mine().await?;
        change(&mut self.state.lock());
        Ok(())
    }

    /// Becomes the one that collects.
    async fn take(&self) -> bool {
        step().await;
        let now = self.time.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        let free = state.lease.is_none_or(|(_, until)| until <= now);
        if free {
            state.lease = Some((self.me, now + LEASE));
        }
        free
    }
}

impl CollectionWorld for Model {
    async fn survey(&self) -> io::Result<Survey<u8, u8>> {
        if let (Defect::Hasty, Some(first)) = (self.defect, self.first.lock().take()) {
            return Ok(first);
        }
        // In parts, as a listing comes; and tags before manifests before links before content,
        // or the other way round.
        let mut survey = Survey { tidy: [0].into(), ..Survey::default() };
        let backwards = self.me.is_multiple_of(2);
        for part in if backwards { [3, 2, 1, 0] } else { [0, 1, 2, 3] } {
            step().await;
            let state = self.state.lock();
            match part {
                0 => survey.tagged = state.tags.iter().map(|((_, r), id)| (*id, *r)).collect(),
                1 => survey.manifests = state.manifests.clone(),
                2 => survey.links = state.links.clone(),
                _ => survey.content = state.content.clone(),
            }
        }
        *self.first.lock() = Some(survey.clone());
        Ok(survey)
    }

    async fn sentences(&self) -> io::Result<Vec<u8>> {
        step().await;
        Ok(self.state.lock().condemned.iter().copied().collect())
    }

    async fn condemn(&self, id: u8) -> io::Result<()> {
        self.checked(|state| {
            state.condemned.insert(id);
        })
        .await
    }

    async fn pardon(&self, id: u8) -> io::Result<()> {
        self.checked(|state| {
            state.condemned.remove(&id);
        })
        .await
    }

    async fn unlink(&self, repo: &u8, id: u8) -> io::Result<()> {
        self.checked(|state| {
            state.links.remove(&(id, *repo));
        })
        .await
    }

    async fn erase(&self, id: u8) -> io::Result<()> {
        self.checked(|state| {
            state.content.remove(&id);
        })
        .await
    }

    async fn mine(&self) -> io::Result<()> {
        let now = self.time.load(Ordering::Relaxed);
        // Pushes and deletions by users need no lease.
        let mine = self.me == 0
            || self.defect == Defect::Deaf
            || self.state.lock().lease.is_some_and(|(me, until)| me == self.me && now < until);
        if mine { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
}

/// A push as clients do it: look, upload what is missing, then the manifests, then the tag.
async fn push(model: Model, repo: u8, index: bool, acked: Arc<Lock<BTreeSet<(u8, u8)>>>) {
    let images = if index { &IMAGES[..] } else { &IMAGES[..1] };
    let put = |id: u8| {
        let model = model.clone();
        move || {
            let model = model.clone();
            async move {
                step().await;
                model.state.lock().content.insert(id);
                Ok(())
            }
        }
    };
    for blob in BLOBS {
        if keep(&model, &repo, &[blob]).await.ok() != Some(KeepOutcome::Yes) {
            let kept = acquire(&model, &repo, blob, put(blob)).await;
            if kept.ok() != Some(KeepOutcome::Yes) {
                return;
            }
        }
    }
    let index = index.then_some(INDEX);
    for (id, children) in images.iter().copied().chain(index) {
        let manifest = id == INDEX.0;
        let children: Vec<_> = children.iter().map(|id| Child { id: *id, manifest }).collect();
        // An index's images are often looked for first, and then not pushed.
        let there = !manifest
            && model.enlisted(&repo, id).await.is_ok_and(|there| there)
            && keep(&model, &repo, &[id]).await.ok() == Some(KeepOutcome::Yes);
        if !there {
            let kept = admit(&model, &repo, id, &children, put(id)).await;
            if kept.ok() != Some(KeepOutcome::Yes) {
                return;
            }
        }
        acked.lock().insert((id, repo));
    }
    let top = index.map_or(IMAGES[0].0, |(id, _)| id);
    step().await;
    model.state.lock().tags.insert((0, repo), top);
}

/// A user deletes the tag and the top manifest.
async fn remove(model: Model, repo: u8, acked: Arc<Lock<BTreeSet<(u8, u8)>>>) {
    for _ in 0..3 {
        step().await;
    }
    for id in [INDEX.0, IMAGES[0].0, IMAGES[1].0] {
        step().await;
        acked.lock().remove(&(id, repo));
        let mut state = model.state.lock();
        state.tags.retain(|(_, of), tagged| !(*of == repo && *tagged == id));
        state.manifests.remove(&(id, repo));
    }
}

async fn collector(model: Model) {
    for _ in 0..3 {
        if model.take().await {
            let _ = collect(&model, 2).await;
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

type Actor = Pin<Box<dyn Future<Output = ()>>>;

/// What is wrong: an acknowledged manifest in the list lacks something.
fn wrong<'a>(state: &ModelState, told: impl Iterator<Item = &'a (u8, u8)>) -> Option<String> {
    for key in told {
        let Some(listed) = state.manifests.get(key) else { continue };
        let (id, repo) = key;
        for part in listed.children.iter().chain([id]) {
            if !state.content.contains(part) {
                return Some(format!("{id} of repository {repo} lacks {part}"));
            }
        }
    }
    None
}

/// What disappeared although it was not deleted: in the repository that is not tidied anything that
/// was accepted, in the other the manifests of tags, with the images of an index.
fn gone(state: &ModelState, acked: &BTreeSet<(u8, u8)>) -> Option<String> {
    let tagged = state.tags.iter().map(|((_, repo), id)| (*id, *repo));
    let stay = acked.iter().copied().filter(|(_, repo)| *repo != 0).chain(tagged);
    let parts = |(id, _): (u8, u8)| if id == INDEX.0 { INDEX.1 } else { &[] };
    let mut all = stay.flat_map(|key| parts(key).iter().map(move |id| (*id, key.1)).chain([key]));
    let gone = all.find(|key| !state.manifests.contains_key(key));
    gone.map(|(id, repo)| format!("{id} of repository {repo} is gone"))
}

/// Something old is there already: all of it, or loose ends. What is whole of it.
fn prepare(model: &Model, random: &mut Random) -> BTreeSet<(u8, u8)> {
    let mut old = BTreeSet::new();
    let mut state = model.state.lock();
    for id in 0..=4 {
        if random.below(3) > 0 {
            state.content.insert(id);
            for repo in 0..REPOS {
                if random.below(3) > 0 {
                    state.links.insert((id, repo), at(0));
                }
            }
        }
    }
    if random.below(2) == 0 {
        state.content.extend(0..=4);
        state.links.extend((0..=4).map(|id| ((id, 0), at(0))));
        for (id, children) in IMAGES.into_iter().chain([INDEX]) {
            let children = children.to_vec();
            state
                .manifests
                .insert((id, 0), SurveyedManifest { children, subject: None, modified: at(0) });
            old.insert((id, 0));
        }
    }
    old
}

/// One schedule; what went wrong in it, and whether anything was collected.
fn schedule(seed: u64, defect: Defect) -> (Option<String>, bool) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..4 {
        random.below(2);
    }
    let model = Model { defect, ..Model::default() };
    let acked = Arc::new(Lock::default());
    let mut old = prepare(&model, &mut random);
    model.time.store(GRACE * (1 + random.below(2)) - random.below(20), Ordering::Relaxed);
    let mut actors: Vec<Option<Actor>> = Vec::new();
    for _ in 0..1 + random.below(2) {
        let repo = random.below(u64::from(REPOS)) as u8;
        let index = random.below(2) == 0;
        actors.push(Some(Box::pin(push(model.clone(), repo, index, Arc::clone(&acked)))));
    }
    let removal = random.below(3) == 0;
    if removal {
        actors.push(Some(Box::pin(remove(model.clone(), 0, Arc::clone(&acked)))));
    }
    let collectors = actors.len();
    for me in 1..=2 {
        actors.push(Some(Box::pin(collector(Model { me, ..model.clone() }))));
    }
    let waker = futures::task::noop_waker();
    let mut context = Context::from_waker(&waker);
    // Some run ahead of others for a while.
    let mut favourite = 0;
    let content = model.state.lock().content.len();
    let mut least = content;
    for _ in 0..1_000 {
        if actors.iter().all(Option::is_none) {
            break;
        }
        match random.below(60) {
            0 => {
                model.time.fetch_add(1 + random.below(GRACE / 2), Ordering::Relaxed);
            }
            // A collection dies.
            1 => {
                let which = collectors + random.below(2) as usize;
                if random.below(4) == 0 {
                    actors[which] = None;
                }
            }
            2..12 => favourite = random.below(actors.len() as u64) as usize,
            _ => {}
        }
        let which = match random.below(2) {
            0 => favourite,
            _ => random.below(actors.len() as u64) as usize,
        };
        if let Some(actor) = &mut actors[which] {
            let told = acked.lock().len();
            if actor.as_mut().poll(&mut context).is_ready() {
                actors[which] = None;
            }
            // Only a collection takes something away, only a push makes a promise.
            if which < collectors && acked.lock().len() <= told {
                continue;
            }
            let state = model.state.lock();
            least = least.min(state.content.len());
            // What a client was told is there is whole, at every moment.
            let mut acked = acked.lock();
            old.retain(|key| state.manifests.contains_key(key));
            acked.retain(|key| key.1 != 0 || state.manifests.contains_key(key));
            if let Some(wrong) = wrong(&state, acked.iter().chain(&old)) {
                return (Some(wrong), true);
            }
            if let Some(gone) = gone(&state, &acked).filter(|_| !removal) {
                return (Some(gone), true);
            }
        }
    }
    (None, least < content)
}

#[test]
fn no_schedule_loses_what_was_promised() {
    let mut collected = 0;
    for seed in 0..100_000 {
        let (wrong, erased) = schedule(seed, Defect::No);
        assert_eq!(wrong, None, "schedule {seed}");
        collected += u32::from(erased);
    }
    // The schedules are worth something only if there is something to lose.
    assert!(collected > 10_000, "{collected}");
}

#[test]
fn a_broken_protocol_is_found_out() {
    for broken in [Defect::Blind, Defect::Hasty, Defect::Deaf] {
        let found = (0..20_000).any(|seed| schedule(seed, broken).0.is_some());
        assert!(found, "{}", broken as u8);
    }
}
