//! Devices of the Container Device Interface: a name such as `vendor.com/class=name` stands for what
//! a file in `/etc/cdi` or `/var/run/cdi` says a container needs of the device.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use runtime::{ContainerSpec, Mount, Propagation};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// Where the files are; of two with the same device the one in the later place counts.
const PLACES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// No file is larger.
const LARGEST: u64 = 4 << 20;

/// A file: devices of one kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: String,
    #[serde(default)]
    devices: Vec<DeviceEdits>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceEdits {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What is changed of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    additional_gids: Vec<u32>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Whether a value of `--device` is such a name, and not a path.
pub fn is_device_name(text: &str) -> bool {
    let kind = text.split_once('=').map(|(kind, _)| kind);
    !text.starts_with(['/', '.']) && kind.is_some_and(|kind| kind.contains('/'))
}

/// The names that `--gpus` stands for: `all`, a number of them, or `device=NAME,…`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn gpu_devices(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim_matches('"');
    let one = |name: &str| format!("nvidia.com/gpu={name}");
    match (text, text.parse::<u32>(), text.strip_prefix("device=")) {
        ("all", ..) => Ok(vec![one("all")]),
        (_, Ok(count), _) => Ok((0..count).map(|number| one(&number.to_string())).collect()),
        (.., Some(names)) if !names.is_empty() => Ok(names.split(',').map(one).collect()),
        _ => Err(format!("{text:?} is not all, a number, or device=NAME")),
    }
}

/// Gives a container these devices, of files in these places; the usual ones if there are none.
///
/// # Errors
/// A device that no file describes; what a file asks for and we do not have, by name.
pub fn add_devices(names: &[String], places: &[PathBuf], spec: &mut ContainerSpec) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let usual = PLACES.map(PathBuf::from);
    let places = if places.is_empty() { &usual[..] } else { places };
    let documents = documents(places)?;
    let mut shared: Vec<&str> = Vec::new();
    for name in names {
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        let found = documents.iter().rev().filter(|(_, document)| document.kind == kind);
        let found = found.flat_map(|(path, document)| {
            let own = document.devices.iter().filter(|one| one.name == device);
            own.map(move |own| (path, document, own))
        });
        let Some((path, document, own)) = found.into_iter().next() else {
            let places = places.iter().map(|place| place.display().to_string());
            let (name, places) = (name.clone(), places.collect::<Vec<_>>().join(" and "));
            return Err(Error::NoDevice { name, places });
        };
        let refuse =
            |why| Error::Device { what: format!("device {name}"), path: path.clone(), why };
        // What holds for all devices of a kind is done once.
        if !shared.contains(&document.kind.as_str()) {
            document.container_edits.lay(spec).map_err(refuse)?;
            shared.push(&document.kind);
        }
        own.container_edits.lay(spec).map_err(refuse)?;
    }
    Ok(())
}

fn documents(places: &[PathBuf]) -> Result<Vec<(PathBuf, Document)>> {
    let mut all = Vec::new();
    for place in places {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| {
            path.extension()
                .is_some_and(|kind| ["json", "yaml", "yml"].iter().any(|one| kind == *one))
        });
        files.sort();
        for path in files {
            let file = std::fs::File::open(&path).map_err(Error::file("opening", &path))?;
            let mut bytes = Vec::new();
            let read = file.take(LARGEST).read_to_end(&mut bytes);
            read.map_err(Error::file("reading", &path))?;
            let document = serde_saphyr::from_str(&String::from_utf8_lossy(&bytes));
            let document = document.map_err(|error| Error::Device {
                what: "devices".to_owned(),
                path: path.clone(),
                why: error.to_string(),
            })?;
            all.push((path, document));
        }
    }
    Ok(all)
}

/// Refuses what is not among the known fields, unless it is what would be done anyhow.
fn check(others: &BTreeMap<String, Value>, usual: &[(&str, &[Value])]) -> Result<(), String> {
    for (key, value) in others {
        let known = usual.iter().find(|(name, _)| name == key);
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !empty && known.is_none_or(|(_, values)| !values.is_empty() && !values.contains(value)) {
            return Err(format!("{key} {value} is not supported"));
        }
    }
    Ok(())
}

impl Edits {
    fn lay(&self, spec: &mut ContainerSpec) -> Result<(), String> {
        check(&self.others, &[])?;
        spec.process.env.splice(0..0, self.env.iter().cloned());
        spec.process.groups.extend(self.additional_gids.iter().map(ToString::to_string));
        for node in &self.device_nodes {
            spec.isolation.devices.push(node.device()?);
        }
        for mount in &self.mounts {
            check(&mount.others, &[("type", &["bind".into(), "".into()])])?;
            let has = |option: &str| mount.options.iter().any(|one| one == option);
            let skip = ["ro", "rw", "bind", "rbind", "rprivate", "private"];
            let plain = mount.options.iter().filter(|one| !skip.contains(&one.as_str()));
            spec.files.mounts.push(Mount::Bind {
                source: mount.host_path.clone(),
                target: mount.container_path.clone(),
                read_only: has("ro"),
                recursive: !has("bind") || has("rbind"),
                propagation: Propagation::Private,
                options: plain.cloned().collect(),
            });
        }
        Ok(())
    }
}

impl Node {
    fn device(&self) -> Result<runtime::Device, String> {
        // The numbers are those of the machine's device.
        let root = [Value::from(0)];
        check(
            &self.others,
            &[
                ("type", &[]),
                ("major", &[]),
                ("minor", &[]),
                ("fileMode", &[Value::from(0o666)]),
                ("uid", &root),
                ("gid", &root),
            ],
        )?;
        let source = self.host_path.as_ref().unwrap_or(&self.path);
        let stat = rustix::fs::stat(source)
            .map_err(|errno| format!("finding {}: {errno}", source.display()))?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if !kind.is_char_device() && !kind.is_block_device() {
            return Err(format!("{} is not a device", source.display()));
        }
        Ok(runtime::Device {
            source: source.clone(),
            target: self.path.clone(),
            block: kind.is_block_device(),
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
            access: self.permissions.clone().unwrap_or_else(|| "rwm".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn names_and_counts_of_gpus_are_names_of_devices() {
        assert!(is_device_name("vendor.com/net=one") && is_device_name("v/c=a:b"));
        assert!(
            !is_device_name("/dev/null") && !is_device_name("./a/b=c") && !is_device_name("a=b")
        );
        assert_eq!(gpu_devices("all").unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(gpu_devices("2").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        assert_eq!(gpu_devices("\"device=0,GPU-5\"").unwrap()[1], "nvidia.com/gpu=GPU-5");
        assert!(gpu_devices("some").is_err() && gpu_devices("device=").is_err());
    }

    #[test]
    fn edits_are_laid_over_a_container_and_what_is_not_known_is_refused() {
        let text = "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n- name: one\n  containerEdits:\n    \
                    env: [A=1]\n    deviceNodes:\n    - {path: /dev/own, hostPath: /dev/null, \
                    permissions: rw, fileMode: 438}\n    mounts:\n    - {hostPath: /usr, \
                    containerPath: /u, options: [ro, nosuid, bind]}\n    additionalGids: [44]\n";
        let mut spec = ContainerSpec::default();
        document(text).devices[0].container_edits.lay(&mut spec).unwrap();
        assert_eq!(
            (&spec.process.env[..], &spec.process.groups[..]),
            (&["A=1".to_owned()][..], &["44".to_owned()][..])
        );
        let device = &spec.isolation.devices[0];
        assert_eq!((device.major, device.minor, device.access.as_str()), (1, 3, "rw"));
        assert!(
            matches!(&spec.files.mounts[0], Mount::Bind { read_only: true, recursive: false, options, .. } if options == &["nosuid"])
        );
        for (edits, word) in [
            ("{hooks: [{hookName: x, path: /x}]}", "hooks"),
            ("{intelRdt: {}}", "intelRdt"),
            ("{deviceNodes: [{path: /dev/null, uid: 7}]}", "uid 7"),
            ("{deviceNodes: [{path: /dev/none}]}", "/dev/none"),
            ("{mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]}", "type"),
        ] {
            let edits: Edits = serde_saphyr::from_str(edits).unwrap();
            let why = edits.lay(&mut ContainerSpec::default()).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
