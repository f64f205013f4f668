use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use image::Platform;
use task::{Event, Observer, TaskId};

use super::Plain;

/// Lines for logs, a log for each platform of a build: the steps of a platform are in its own, all
/// else is in each.
pub struct Split {
    logs: Vec<(String, Plain)>,
    /// Whose each running task is; those of no one platform are missing.
    owners: Mutex<HashMap<TaskId, usize>>,
}

impl Split {
    /// An observer that prints to these files.
    pub fn new(files: Vec<(Platform, Arc<File>)>) -> Split {
        let log =
            |(platform, file): (Platform, Arc<File>)| (platform.to_string(), Plain::new(file));
        Split { logs: files.into_iter().map(log).collect(), owners: Mutex::default() }
    }

    /// The platform in front of a step's name: `[linux/arm64 2/5] RUN make`.
    fn named(&self, name: &str) -> Option<usize> {
        let first = name.strip_prefix('[')?.split([' ', ']']).next()?;
        self.logs.iter().position(|(platform, _)| platform == first)
    }
}

impl Observer for Split {
    fn event(&self, event: Event) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = match &event {
            Event::Started { id, parent, name, .. } => {
                let inherited = parent.and_then(|parent| owners.get(&parent).copied());
                let owner = self.named(name).or(inherited);
                if let Some(owner) = owner {
                    owners.insert(*id, owner);
                }
                owner
            }
            Event::Began { id }
            | Event::Output { id, .. }
            | Event::Warned { id, .. }
            | Event::Noted { id, .. } => owners.get(id).copied(),
            Event::Finished { id, .. } => owners.remove(id),
        };
        drop(owners);
        match owner {
            Some(owner) => self.logs[owner].1.event(event),
            None => self.logs.iter().for_each(|(_, log)| log.event(event.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use task::Task;

    use super::*;

    #[test]
    fn each_platform_has_its_own_steps_and_what_is_everybodys() {
        let mut files = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let platforms = ["linux/amd64", "linux/arm64"];
        let logs = platforms.iter().zip(&files).map(|(platform, file)| {
            (platform.parse().unwrap(), Arc::new(file.try_clone().unwrap()))
        });
        let task = Task::root("build", Arc::new(Split::new(logs.collect())));
        let common = task.child("[context] reading");
        common.output(b"everybody\n");
        common.done();
        for platform in platforms {
            let step = task.child(format!("[{platform} 2/5] RUN make"));
            step.output(format!("only {platform}\n").as_bytes());
            let inner = step.child("inner");
            inner.output(format!("below {platform}\n").as_bytes());
            inner.done();
            step.done();
        }
        task.done();
        for (file, (own, other)) in files.iter_mut().zip([(0, 1), (1, 0)]) {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            let (own, other) = (platforms[own], platforms[other]);
            assert!(text.contains("everybody"), "{text}");
            assert!(text.contains(&format!("only {own}")), "{text}");
            assert!(text.contains(&format!("below {own}")), "{text}");
            assert!(!text.contains(other), "{text}");
        }
    }
}
