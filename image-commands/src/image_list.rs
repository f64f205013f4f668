//! `rbuild images`: the list, and which images are in it.

use app::format::ago;
use app::{App, Runnable, format, lookup};
use clap::Args;
use image::Platform;
use options::{Dialect, Failure, flags};
use serde_json::{Value, json};
use store::{ImageFilter, Store, StoredImage};

/// List the images in the store
#[derive(Debug, Args)]
pub struct Images {
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

/// An image under one of its names.
struct Row<'a> {
    repository: String,
    tag: String,
    image: &'a StoredImage,
}

impl Runnable for Images {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if self.history {
            return Err(Failure::usage("--history is not supported: former names are not kept")
                .hint("`rbuild history IMAGE` shows the steps that made an image"));
        }
        let store = app.store()?;
        let mut images = store.images(&Platform::host())?;
        for text in &self.filter {
            let filter = filter(text, store)?;
            images.retain(|image| filter.passes(image));
        }
        let rows = self.rows(&images);
        if let Some(name) = self.name.as_deref().filter(|_| rows.is_empty())
            && Dialect::spoken().misses_images()
            && self.filter.is_empty()
        {
            return Err(lookup::missing(name));
        }
        if self.json {
            let mut shown: Vec<&StoredImage> = rows.iter().map(|row| row.image).collect();
            shown.dedup_by_key(|image| image.digest);
            let list: Vec<Value> = shown.into_iter().map(buildah_json).collect();
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
}

impl Images {
    fn id(&self, image: &StoredImage) -> String {
        let id = image.image.id().hex();
        if self.no_trunc { format!("sha256:{id}") } else { short(&id) }
    }

    fn table(&self, rows: &[Row<'_>]) -> String {
        let mut header = vec!["REPOSITORY", "TAG"];
        header.extend(self.digests.then_some("DIGEST"));
        header.extend(["IMAGE ID", "CREATED", "SIZE"]);
        let rows = rows.iter().map(|row| {
            let mut cells = vec![row.repository.clone(), row.tag.clone()];
            cells.extend(self.digests.then(|| row.image.digest.to_string()));
            let created = ago(row.image.created_text());
            cells.extend([self.id(row.image), created, progress::bytes(row.image.image.size())]);
            cells
        });
        format::table(&header, &rows.collect::<Vec<_>>())
    }

    fn rows<'a>(&self, images: &'a [StoredImage]) -> Vec<Row<'a>> {
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

/// In the words of buildah's JSON.
fn buildah_json(image: &StoredImage) -> Value {
    let created = image.created();
    json!({
        "id": image.image.id().hex(), "names": image.names, "digest": image.digest,
        "createdat": ago(image.created_text()), "size": progress::bytes(image.image.size()),
        "created": created.map_or(0, jiff::Timestamp::as_second),
        "createdatraw": image.created_text(), "readonly": false, "history": image.names,
    })
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
        let bytes = self.image.image.size();
        json!({
            "Repository": self.repository, "Name": self.repository, "Tag": self.tag,
            "Digest": self.image.digest, "ID": id,
            "CreatedAt": self.image.created_text(), "CreatedSince": ago(self.image.created_text()),
            "Size": progress::bytes(bytes), "Bytes": bytes, "ReadOnly": false,
        })
    }
}

/// Reads one `--filter`, and what is looked up for it.
fn filter(text: &str, store: &Store) -> Result<ImageFilter, Failure> {
    let refuse = |why: &str| Failure::usage(format!("--filter {text:?}: {why}"));
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("expected KEY=VALUE"))?;
    let created = || {
        let (_, image) = lookup::image(store, value, &Platform::host())?;
        let text = image.config().created.clone().unwrap_or_default();
        text.parse().map_err(|_| refuse("the image has no creation time"))
    };
    Ok(match key {
        "before" => ImageFilter::Before(created()?),
        "since" | "after" => ImageFilter::Since(created()?),
        "until" if value.parse::<jiff::Timestamp>().is_err() => {
            let age = flags::age(value).map_err(|why| refuse(&why))?;
            let then = jiff::Timestamp::now().checked_sub(age);
            ImageFilter::Before(then.map_err(|error| refuse(&error.to_string()))?)
        }
        _ => ImageFilter::parse(key, value).map_err(|why| refuse(&why))?.ok_or_else(|| {
            refuse("this filter is not supported").hint(
                "use dangling, reference, label, label!, before, since, until, id, digest or manifest",
            )
        })?,
    })
}

/// A name of the store as repository and tag; a name by digest has none.
fn split(name: &str) -> (String, String) {
    let (repository, tag) = store::repository_and_tag(name);
    (repository.to_owned(), tag.unwrap_or("<none>").to_owned())
}
