//! The file by which programs know that they run in a container, as buildah and podman make it.

/// Where it is.
pub(crate) const CONTAINER_FILE: &str = "/run/.containerenv";

/// Its content: shell assignments. `image_id` is hexadecimal.
pub(crate) fn container_file(name: &str, id: &str, image: &str, image_id: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let rootless =
        u8::from(rustix::process::getuid().as_raw() != 0 || runtime::in_user_namespace());
    format!(
        "engine=\"rbuild-{version}\"\nname=\"{name}\"\nid=\"{id}\"\nimage=\"{image}\"\n\
         imageid=\"{image_id}\"\nrootless={rootless}\n"
    )
}
