//! `rbuild images`: the list, and which images are in it.

use clap::Args;
use dockerfile::glob::Pattern;
use image::{Image, Platform};
use serde_json::{Value, json};
use store::{Published, Store};
use task::{Fault, Kind};

use super::images::{ago, size, split};
use super::lookup;
use crate::app::App;
use crate::dialect::Dialect;
use crate::flags;
use crate::format;
use crate::render;
use crate::report::Failure;

/// List the images in the store
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Show images of this name only
    name: Option<String>,
    /// Accepted for scripts: builds leave no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show matching images only: dangling=BOOL, reference=PATTERN, label=KEY[=VALUE],
    /// label!=KEY[=VALUE], before=IMAGE, since=IMAGE, until=AGE|TIME, id=PREFIX, digest=PREFIX,
    /// manifest=BOOL
    #[arg(short, long, value_name = "KEY=VALUE", value_delimiter = ',')]
    filter: Vec<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show full ids
    #[arg(long, alias = "notruncate")]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Print no header
    #[arg(short, long)]
    noheading: bool,
    /// Print JSON with buildah's fields
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    json: bool,
    /// Format each image with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
    /// Not supported: the store keeps no former names
    #[arg(long, hide = true)]
    history: bool,
}

/// An image, with all its names.
struct Listed {
    names: Vec<String>,
    digest: String,
    image: Image,
    index: bool,
}

/// An image under one of its names.
struct Row<'a> {
    repository: String,
    tag: String,
    image: &'a Listed,
}

impl Images {
    /// Lists.
    ///
    /// # Errors
    /// The store cannot be read; a filter is not understood.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        if self.history {
            return Err(Failure::usage("--history is not supported: former names are not kept")
                .hint("`rbuild history IMAGE` shows the steps that made an image"));
        }
        let store = app.store()?;
        let mut images = all(store)?;
        for text in &self.filter {
            let filter = Filter::read(text, store)?;
            images.retain(|image| filter.fits(image));
        }
        let newest = |image: &Listed| image.created().unwrap_or_default();
        images.sort_by(|a, b| newest(b).cmp(&newest(a)).then_with(|| a.names.cmp(&b.names)));
        let rows = self.rows(&images);
        if self.json {
            let mut shown: Vec<&Listed> = rows.iter().map(|row| row.image).collect();
            shown.dedup_by_key(|image| &image.digest);
            let list: Vec<Value> = shown.into_iter().map(Listed::json).collect();
            outln!("{:#}", Value::from(list));
            return Ok(0);
        }
        match self.format.as_deref() {
            Some("json") => {
                let list: Vec<Value> =
                    rows.iter().map(|row| row.json(&row.image.image.id().hex())).collect();
                outln!("{:#}", Value::from(list));
            }
            Some(template) => {
                let values =
                    rows.iter().map(|row| row.json(&self.id(row.image))).collect::<Vec<_>>();
                out!("{}", format::lines(template, &values, HEADERS, self.noheading)?);
            }
            None if self.quiet => {
                let mut ids: Vec<String> = rows.iter().map(|row| self.id(row.image)).collect();
                ids.dedup();
                ids.iter().for_each(|id| outln!("{id}"));
            }
            None => out!("{}", format::headed(self.table(&rows), self.noheading)),
        }
        Ok(0)
    }

    fn id(&self, image: &Listed) -> String {
        let id = image.image.id().hex();
        if self.no_trunc { format!("sha256:{id}") } else { short(&id) }
    }

    fn table(&self, rows: &[Row<'_>]) -> String {
        let mut header = vec!["REPOSITORY", "TAG"];
        header.extend(self.digests.then_some("DIGEST"));
        header.extend(["IMAGE ID", "CREATED", "SIZE"]);
        let rows = rows.iter().map(|row| {
            let mut cells = vec![row.repository.clone(), row.tag.clone()];
            cells.extend(self.digests.then(|| row.image.digest.clone()));
            let created = ago(row.image.written());
            cells.extend([self.id(row.image), created, render::bytes(size(&row.image.image))]);
            cells
        });
        format::table(&header, &rows.collect::<Vec<_>>())
    }

    fn rows<'a>(&self, images: &'a [Listed]) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        for image in images {
            let names = match image.names.as_slice() {
                [] => vec![("<none>".to_owned(), "<none>".to_owned())],
                names => names.iter().map(|name| split(Dialect::spoken().shown(name))).collect(),
            };
            for (repository, tag) in names {
                let fits = self.name.as_deref().is_none_or(|wanted| {
                    let full = format!("{repository}:{tag}");
                    let short = |text: &str| {
                        let known = ["localhost/", "docker.io/library/", "docker.io/"];
                        known.iter().any(|start| text.strip_prefix(start) == Some(wanted))
                    };
                    [&repository, &full].into_iter().any(|text| text == wanted || short(text))
                });
                if fits {
                    rows.push(Row { repository, tag, image });
                }
            }
        }
        rows
    }
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Everything that is an image for this machine.
fn all(store: &Store) -> Result<Vec<Listed>, Failure> {
    let mut all = Vec::new();
    for Published { descriptor, names, .. } in store.published()? {
        let image = match store.image(&descriptor, &Platform::host()) {
            Ok(image) => image,
            // Not an image, or not for this machine.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => continue,
            Err(error) => return Err(error.into()),
        };
        let digest = descriptor.digest.to_string();
        let index = image.descriptor().digest != descriptor.digest;
        all.push(Listed { names, digest, image, index });
    }
    Ok(all)
}

impl Listed {
    fn written(&self) -> &str {
        self.image.config().created.as_deref().unwrap_or_default()
    }

    fn created(&self) -> Option<jiff::Timestamp> {
        self.written().parse().ok()
    }

    /// In the words of buildah's JSON.
    fn json(&self) -> Value {
        let created = self.created();
        json!({
            "id": self.image.id().hex(), "names": self.names, "digest": self.digest,
            "createdat": ago(self.written()), "size": render::bytes(size(&self.image)),
            "created": created.map_or(0, jiff::Timestamp::as_second), "createdatraw": self.written(),
            "readonly": false,
        })
    }
}

/// What the columns of `--format table …` are called.
const HEADERS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Name", "IMAGE NAME"),
    ("Tag", "IMAGE TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("Bytes", "BYTES"),
    ("ReadOnly", "READONLY"),
];

impl Row<'_> {
    fn json(&self, id: &str) -> Value {
        let bytes = size(&self.image.image);
        json!({
            "Repository": self.repository, "Name": self.repository, "Tag": self.tag,
            "Digest": self.image.digest, "ID": id,
            "CreatedAt": self.image.written(), "CreatedSince": ago(self.image.written()),
            "Size": render::bytes(bytes), "Bytes": bytes, "ReadOnly": false,
        })
    }
}

/// One `--filter`, or what is looked up for it.
enum Filter {
    Dangling(bool),
    Index(bool),
    Reference(Pattern),
    Label { key: String, value: Option<String>, there: bool },
    Before(jiff::Timestamp),
    Since(jiff::Timestamp),
    Id(String),
    Digest(String),
    Nothing,
}

impl Filter {
    fn read(text: &str, store: &Store) -> Result<Filter, Failure> {
        let refuse = |why: &str| Failure::usage(format!("--filter {text:?}: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("expected KEY=VALUE"))?;
        let truth = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(refuse("expected true or false")),
        };
        let created = || {
            let (_, image) = lookup::image(store, value, &Platform::host())?;
            let text = image.config().created.clone().unwrap_or_default();
            text.parse().map_err(|_| refuse("the image has no creation time"))
        };
        Ok(match key {
            "dangling" => Filter::Dangling(truth()?),
            "manifest" => Filter::Index(truth()?),
            // No image of the store is one of these.
            "readonly" | "intermediate" if truth()? => Filter::Nothing,
            "readonly" | "intermediate" => Filter::Id(String::new()),
            "reference" => {
                Filter::Reference(Pattern::parse(value).map_err(|error| refuse(error.reason))?)
            }
            "label" | "label!" => {
                let (name, wanted) = match value.split_once('=') {
                    Some((name, wanted)) => (name, Some(wanted.to_owned())),
                    None => (value, None),
                };
                Filter::Label { key: name.to_owned(), value: wanted, there: key == "label" }
            }
            "before" => Filter::Before(created()?),
            "since" | "after" => Filter::Since(created()?),
            "until" => Filter::Before(match value.parse() {
                Ok(time) => time,
                Err(_) => {
                    let age = flags::age(value).map_err(|why| refuse(&why))?;
                    let then = jiff::Timestamp::now().checked_sub(age);
                    then.map_err(|error| refuse(&error.to_string()))?
                }
            }),
            "id" => Filter::Id(value.strip_prefix("sha256:").unwrap_or(value).to_owned()),
            "digest" => Filter::Digest(value.to_owned()),
            _ => {
                return Err(refuse("this filter is not supported").hint(
                    "use dangling, reference, label, label!, before, since, until, id, digest or manifest",
                ));
            }
        })
    }

    fn fits(&self, image: &Listed) -> bool {
        match self {
            Filter::Dangling(wanted) => image.names.is_empty() == *wanted,
            Filter::Index(wanted) => image.index == *wanted,
            Filter::Reference(pattern) => image.names.iter().any(|name| named(pattern, name)),
            Filter::Label { key, value, there } => {
                let found = image.image.config().config.labels.get(key);
                let fits = found.is_some_and(|found| value.as_ref().is_none_or(|v| v == found));
                fits == *there
            }
            Filter::Before(time) => image.created().is_some_and(|created| created < *time),
            Filter::Since(time) => image.created().is_some_and(|created| created > *time),
            Filter::Id(prefix) => image.image.id().hex().starts_with(prefix),
            Filter::Digest(prefix) => {
                let bare = image.digest.split_once(':').map_or("", |(_, hex)| hex);
                image.digest.starts_with(prefix) || bare.starts_with(prefix)
            }
            Filter::Nothing => false,
        }
    }
}

/// Whether a pattern means a name: with or without its tag, its registry and its directories.
fn named(pattern: &Pattern, name: &str) -> bool {
    let repository = split(name).0;
    [name, &repository].into_iter().any(|text| {
        let ends = text.match_indices('/').map(|(at, _)| &text[at + 1..]);
        std::iter::once(text).chain(ends).any(|text| pattern.matches(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names_with_or_without_what_stands_around() {
        let fits = |pattern: &str| {
            named(&Pattern::parse(pattern).expect("a pattern"), "r.example/team/app:1.2")
        };
        for pattern in ["app", "app:1.2", "app:1*", "team/app", "r.example/team/app:1.2", "*/a*"] {
            assert!(fits(pattern), "{pattern}");
        }
        for pattern in ["ap", "1.2", "app:2*", "team"] {
            assert!(!fits(pattern), "{pattern}");
        }
    }
}
