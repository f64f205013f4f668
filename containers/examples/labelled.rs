//! Runs one container with a label from a program that is not `rbuild`:
//! `labelled STORE IMAGE PROGRAM…`.

use std::path::Path;

use containers::{Containers, NewContainer, StartOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    containers::init();
    let mut words = std::env::args().skip(1);
    let (Some(store), Some(name)) = (words.next(), words.next()) else {
        return Err("usage: labelled STORE IMAGE PROGRAM…".into());
    };
    let task = task::Task::silent();
    let store = store::Store::open(Path::new(&store), containers::store_options(&task))?;
    let found = store.resolve(&name)?.ok_or_else(|| format!("there is no image {name:?}"))?;
    let image = store.image(&found, &image::Platform::host())?;
    let mut new = NewContainer::of(&name, &image);
    new.spec.process.command = words.collect();
    new.spec.lifecycle.labels.insert("example".to_owned(), "labelled".to_owned());
    let containers = Containers::new(store);
    let container = containers.create(new, &task)?;
    container.start(&StartOptions::default(), &task)?;
    let status = container.wait(&task)?;
    let mut output = Vec::new();
    container.logs(&runtime::LogOptions::default(), &task, &mut |line| {
        output.extend_from_slice(line.content());
    })?;
    std::io::Write::write_all(&mut std::io::stdout(), &output)?;
    for known in containers.list()? {
        let labels = &known.record().spec.lifecycle.labels;
        if labels.get("example").is_some_and(|value| value == "labelled") {
            known.remove(true, &task)?;
        }
    }
    std::process::exit(status.code().into());
}
