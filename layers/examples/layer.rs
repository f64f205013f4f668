//! Packs and unpacks layers, to measure with: `layer pack DIR FILE plain|gzip|zstd [LEVEL]
//! [THREADS]`, `layer unpack FILE DIR`, `layer diff UPPER LOWER FILE`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool, not a library")]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use image::Encoding;
use layers::{ApplyOptions, Compression, DiffOptions, LayerWriter, Root, apply, archive, diff};
use task::Task;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (task, start) = (Task::silent(), Instant::now());
    let options = DiffOptions::default();
    match args[..] {
        ["pack", dir, file, encoding, ref rest @ ..] => {
            let encoding = match encoding {
                "gzip" => Encoding::Gzip,
                "zstd" => Encoding::Zstd,
                _ => Encoding::Plain,
            };
            let number = |index: usize| rest.get(index).and_then(|text| text.parse::<i32>().ok());
            let threads = usize::try_from(number(1).unwrap_or(2)).unwrap();
            let compression = Compression { encoding, level: number(0) };
            let out = File::create(file).unwrap();
            let mut writer = LayerWriter::new(out, compression, threads);
            let root = Root::open(Path::new(dir)).unwrap();
            let stats = archive(&root, Path::new(""), &mut writer, &options, &task).unwrap();
            let (_, info) = writer.finish().unwrap();
            let ratio = info.uncompressed as f64 / info.descriptor.size as f64;
            let speed = info.uncompressed as f64 / 1e6 / start.elapsed().as_secs_f64();
            println!("{stats:?} {} ratio {ratio:.3}, {speed:.0} MB/s", info.descriptor.digest);
        }
        ["unpack", file, dir] => {
            let root = Root::open(Path::new(dir)).unwrap();
            let applied =
                apply(File::open(file).unwrap(), &root, &ApplyOptions::default()).unwrap();
            println!("{} entries, {} bytes", applied.entries, applied.uncompressed);
            println!("{} {:?}", applied.diff_id, applied.skipped);
        }
        ["diff", upper, lower, file] => {
            let (upper, lower) = (Root::open(Path::new(upper)), Root::open(Path::new(lower)));
            let mut out = File::create(file).unwrap();
            let stats =
                diff(&upper.unwrap(), Some(&lower.unwrap()), &mut out, &options, &task).unwrap();
            println!("{stats:?}");
        }
        _ => println!("see the source"),
    }
    println!("{:.3} s", start.elapsed().as_secs_f64());
}
