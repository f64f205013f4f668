//! Serves a world until it is stopped; for trying clients by hand.
//! Prints its URLs, and writes `trusted_root.json` and `token` into the current directory.

use standins::{World, serve};

fn main() {
    let served = serve(World::default());
    let root = served.world.trusted_root().to_string();
    std::fs::write("trusted_root.json", root).expect("a file");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let token = served.world.provider.of_workflow("team/app", "release.yml", now);
    std::fs::write("token", token).expect("a file");
    println!("{} {}", served.url, served.tiles_url);
    loop {
        std::thread::park();
    }
}
