//! `rbuild`: builds, runs, stores, pushes and signs container images.

fn main() -> std::process::ExitCode {
    cli::rbuild()
}
