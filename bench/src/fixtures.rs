//! What is built, pulled and copied: made once, kept in the cache directory, the same every time.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Result, check, context};
use crate::pack::{Content, Layout, PackedImage};
use crate::registry::Registry;

/// The inputs.
pub(crate) struct Fixtures {
    cache: PathBuf,
    quick: bool,
    source: OnceCell<Registry>,
}

impl Fixtures {
    /// Nothing is made yet.
    pub(crate) fn new(cache: &Path, quick: bool) -> Result<Fixtures> {
        let cache = cache.join(if quick { "quick" } else { "full" });
        context("making the cache directory", fs::create_dir_all(&cache))?;
        Ok(Fixtures { cache, quick, source: OnceCell::new() })
    }

    /// `full`, or a tenth of it in quick runs.
    pub(crate) fn scaled(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// A minimal Debian, as a tar of its root file system.
    pub(crate) fn rootfs(&self) -> Result<PathBuf> {
        let file = self.cache.parent().unwrap_or(&self.cache).join("rootfs.tar");
        if !file.exists() {
            let new = file.with_extension("new");
            let mut make = Command::new("mmdebstrap");
            make.env("SOURCE_DATE_EPOCH", "1767225600");
            make.args(["--quiet", "--variant=minbase", "--format=tar"]);
            for place in ["doc", "man", "locale"] {
                make.arg(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
            }
            check(make.arg("bookworm").arg(&new))?;
            context("naming the root file system", fs::rename(&new, &file))?;
        }
        Ok(file)
    }

    /// An image of the layout: `base` (one layer), `big` (six layers, 600 MB), `many` (40 layers).
    pub(crate) fn image(&self, name: &str) -> Result<PackedImage> {
        let layout = Layout::open(&self.cache.join("images"))?;
        if let Some(packed) = layout.find(name) {
            return Ok(packed);
        }
        let mut layers = vec![];
        if name != "many" {
            layers.push(Content::Tar(self.rootfs()?));
        }
        let data = Path::new("/usr/share");
        let code = Path::new("/usr/lib");
        match name {
            "big" => {
                let bytes = self.scaled(95 << 20) as u64;
                layers.extend(files(data, 3, bytes, usize::MAX)?);
                layers.extend(files(code, 2, bytes, usize::MAX)?);
            }
            "many" => layers.extend(files(data, 40, u64::MAX, 20)?),
            _ => {}
        }
        layout.pack(name, &layers)
    }

    /// The registry that holds `base`, `big`, `many`, and `tags` with 10,000 tags.
    pub(crate) fn source(&self) -> Result<&Registry> {
        if let Some(registry) = self.source.get() {
            return Ok(registry);
        }
        let registry = Registry::start(&self.cache.join("registry"))?;
        let layout = self.cache.join("images");
        for (repository, name) in
            [("base", "base"), ("big", "big"), ("many", "many"), ("tags", "many")]
        {
            let image = self.image(name)?;
            if registry.holds(repository, &image).is_err() {
                Layout::open(&layout)?.select(&image)?;
                let mut push = Command::new("skopeo");
                push.args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]);
                push.arg(format!("oci:{}", layout.display()));
                check(push.arg(format!("docker://{}", registry.name(repository))))?;
                registry.holds(repository, &image)?;
            }
        }
        registry.tag_many("tags", &self.image("many")?, TAGS)?;
        Ok(self.source.get_or_init(|| registry))
    }

    /// A small application's directory: some sources, requirements, pages.
    pub(crate) fn small_context(&self) -> Result<PathBuf> {
        self.context_of("small", 60)
    }

    /// 50,000 files, 400 MB.
    pub(crate) fn large_context(&self) -> Result<PathBuf> {
        self.context_of("large", self.scaled(LARGE))
    }

    fn context_of(&self, name: &str, count: usize) -> Result<PathBuf> {
        let directory = self.cache.join(name);
        if directory.exists() {
            return Ok(directory);
        }
        let new = self.cache.join(format!("{name}.new"));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for number in 0..count {
            let folder = new.join(format!("src/d{:03}", number / 100));
            if number % 100 == 0 {
                context("making a context", fs::create_dir_all(&folder))?;
            }
            let bytes = random.file();
            context("making a context", fs::write(folder.join(format!("f{number:05}")), bytes))?;
        }
        context("making a context", fs::write(new.join("requirements.txt"), "flask==2.2.2\n"))?;
        context("making a context", fs::write(new.join("src/main.py"), "print('first')\n"))?;
        context("naming a context", fs::rename(&new, &directory))?;
        Ok(directory)
    }
}

/// How many tags the repository `tags` has.
pub(crate) const TAGS: usize = 10_000;
/// How many files the large context has, beside two.
pub(crate) const LARGE: usize = 50_000;

/// Cuts the regular files below a directory, in the order of their names, into layers of at most so
/// many bytes and files.
fn files(top: &Path, layers: usize, bytes: u64, count: usize) -> Result<Vec<Content>> {
    let (mut all, mut todo) = (Vec::new(), vec![top.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in context("listing files", fs::read_dir(&directory))?.flatten() {
            let path = entry.path();
            let Ok(data) = entry.metadata() else { continue };
            let plain = path.to_str().is_some_and(|text| !text.contains(['\n', '\\', '"']));
            if data.is_dir() {
                todo.push(path);
            } else if data.is_file() && data.size() <= 4 << 20 && plain {
                all.push((path, data.size()));
            }
        }
    }
    all.sort();
    let (mut made, mut now, mut size) = (Vec::new(), Vec::new(), 0);
    for (path, length) in all {
        if made.len() == layers {
            break;
        }
        now.push(path.strip_prefix("/").unwrap_or(&path).to_owned());
        size += length;
        if size >= bytes || now.len() >= count {
            made.push(Content::Files(std::mem::take(&mut now)));
            size = 0;
        }
    }
    if made.len() < layers && !now.is_empty() {
        made.push(Content::Files(now));
    }
    Ok(made)
}

/// A small generator (xorshift64), so that every machine has the same files.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A file of 1 to 15 KiB, about half of which compresses away.
    fn file(&mut self) -> Vec<u8> {
        let length = 1024 + usize::try_from(self.next() % (14 << 10)).unwrap_or_default();
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
            bytes.extend_from_slice(b"let x = ");
        }
        bytes.truncate(length);
        bytes
    }
}
