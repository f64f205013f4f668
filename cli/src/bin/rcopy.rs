//! `rcopy`: copies, inspects, deletes and signs images between registries, layouts and archives.

fn main() -> std::process::ExitCode {
    cli::rcopy()
}
