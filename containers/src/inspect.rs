//! What a container is made of, as docker's `inspect` has it.

use std::collections::BTreeMap;

use image::{ContainerConfig, Digest, Image, Platform};
use network::Protocol;
use runtime::{Mount, Propagation};
use serde_json::{Map, Value, json};

use crate::volume::Volumes;
use crate::{Container, Result};

impl Container {
    /// The program and its surroundings: docker's `Config`. `image` is the name to show.
    pub fn config_document(&self, image: &str) -> Value {
        config(self, image)
    }

    /// Its mounts: docker's `Mounts`.
    ///
    /// # Errors
    /// A volume cannot be read.
    pub fn mount_documents(&self) -> Result<Vec<Value>> {
        mounts(self)
    }

    /// The image it was made of, as long as the store has it.
    fn image(&self) -> Option<Image> {
        let descriptor = self.row().image.as_ref()?;
        self.store().image(descriptor, &Platform::host()).ok()
    }

    /// The id of the image it was made of, as lists of images show it.
    pub fn image_id(&self) -> Option<Digest> {
        self.image().map(|image| image.id())
    }

    /// Bytes of the image it was made of, as its manifest has them; 0 where the image is gone.
    pub fn image_size(&self) -> u64 {
        self.image().map_or(0, |image| image.size())
    }

    /// What is mounted in it, as lists show it: names of volumes, and paths of the machine.
    pub fn mounted(&self) -> Vec<String> {
        let record = self.record();
        let mut all: Vec<String> =
            record.volumes.iter().map(|mounted| mounted.volume.clone()).collect();
        all.extend(record.spec.files.mounts.iter().filter_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(source.display().to_string()),
            Mount::Tmpfs { .. } | Mount::Devpts { .. } => None,
        }));
        all
    }

    /// The ports that its image or `--expose` name; those published are among them.
    pub fn exposed(&self) -> Vec<(u16, Protocol)> {
        let base = of_image(self);
        let wanted = &self.record().spec.network;
        let texts = base.exposed_ports.keys().chain(&wanted.expose);
        let mut ports: Vec<_> =
            texts.filter_map(|text| network::exposed(text).ok()).flatten().collect();
        let asked = wanted.publish.iter().filter_map(|text| network::ports(text).ok()).flatten();
        ports.extend(asked.map(|port| (port.container, port.protocol)));
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// What its image says; nothing where the image is gone.
fn of_image(container: &Container) -> ContainerConfig {
    container.image().map(|image| image.config().config.clone()).unwrap_or_default()
}

/// The image's environment and that asked for together.
fn environment(container: &Container, base: &ContainerConfig) -> Vec<String> {
    let process = &container.record().spec.process;
    let named = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let kept = base
        .env
        .iter()
        .filter(|line| !process.unset_all && !process.unset_env.contains(&named(line)));
    let mut env: BTreeMap<String, &String> = kept.map(|line| (named(line), line)).collect();
    env.extend(process.env.iter().map(|line| (named(line), line)));
    env.into_values().cloned().collect()
}

/// The health check, under the names of docker; nothing where there is none.
fn health(container: &Container, base: &ContainerConfig) -> Value {
    let wanted = &container.record().spec.lifecycle.health;
    if wanted.off {
        return json!({"Test": ["NONE"]});
    }
    let shell = Some(&base.shell[..]).filter(|shell| !shell.is_empty());
    let Some(check) = wanted.check(base.healthcheck.as_ref(), shell) else { return Value::Null };
    let of_image = || base.healthcheck.as_ref().map(|check| check.test.clone());
    json!({
        "Test": wanted.test.clone().or_else(of_image), "Interval": check.interval,
        "Timeout": check.timeout, "StartPeriod": check.start_period,
        "StartInterval": check.start_interval, "Retries": check.retries,
    })
}

/// The program and its surroundings, the image's and those asked for together.
fn config(container: &Container, image: &str) -> Value {
    let (record, base) = (container.record(), of_image(container));
    let (process, lifecycle) = (&record.spec.process, &record.spec.lifecycle);
    let mut labels = base.labels.clone();
    labels.extend(lifecycle.labels.clone());
    let command = match (&process.entrypoint, &process.command[..]) {
        (None, []) => base.cmd.clone(),
        (Some(_), []) => None,
        (_, given) => Some(given.to_vec()),
    };
    let ports: Map<String, Value> = container
        .exposed()
        .into_iter()
        .map(|(port, protocol)| (format!("{port}/{}", protocol.as_str()), json!({})))
        .collect();
    json!({
        "Image": image, "Cmd": command,
        "Entrypoint": process.entrypoint.as_ref().or(base.entrypoint.as_ref()),
        "Env": environment(container, &base),
        "User": process.user.as_ref().unwrap_or(&base.user),
        "WorkingDir": process.working_dir.as_ref().unwrap_or(&base.working_dir),
        "Labels": labels, "Tty": process.terminal, "OpenStdin": process.interactive,
        "AttachStdin": process.interactive, "AttachStdout": true, "AttachStderr": true,
        "StdinOnce": process.interactive,
        "ExposedPorts": ports, "Volumes": base.volumes, "OnBuild": base.on_build,
        "Hostname": record.spec.network.hostname.as_deref().unwrap_or(&container.id()[..12]),
        "Domainname": record.spec.network.domainname.as_deref().unwrap_or_default(),
        "Healthcheck": health(container, &base),
        "Annotations": record.spec.isolation.annotations,
        "StopSignal": record.stop_signal().to_string(), "StopTimeout": lifecycle.stop_timeout,
        "Timeout": lifecycle.timeout, "SdNotifyMode": lifecycle.notify,
        "Umask": format!("{:04o}", process.umask.unwrap_or(0o022)),
    })
}

/// Of the kernel's words for a bind mount, the one that docker shows.
fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
        Propagation::Shared => "rshared",
    }
}

fn mounts(container: &Container) -> Result<Vec<Value>> {
    let volumes = Volumes::new(container.store().clone());
    let mut all = Vec::new();
    for mounted in &container.record().volumes {
        let source = volumes.find(&mounted.volume)?.map(|volume| volume.path);
        all.push(json!({
            "Type": "volume", "Name": mounted.volume, "Source": source, "Driver": "local",
            "Destination": mounted.target, "Mode": mounted.options.join(","),
            "Options": mounted.options, "RW": !mounted.read_only, "Propagation": "",
        }));
    }
    for mount in &container.record().spec.files.mounts {
        all.push(match mount {
            Mount::Bind { source, target, read_only, options, propagation: kind, .. } => json!({
                "Type": "bind", "Source": source, "Destination": target,
                "Mode": options.join(","), "Options": options, "RW": !read_only,
                "Propagation": propagation(*kind),
            }),
            Mount::Devpts { target, options } => json!({
                "Type": "devpts", "Source": "", "Destination": target,
                "Mode": options.join(","), "Options": options, "RW": true, "Propagation": "",
            }),
            Mount::Tmpfs { target, options } => json!({
                "Type": "tmpfs", "Source": "", "Destination": target, "Mode": options.join(","),
                "Options": options, "RW": !options.iter().any(|option| option == "ro"),
                "Propagation": "",
            }),
        });
    }
    let files = &container.record().spec.files;
    all.extend(files.overlays.iter().map(|overlay| {
        json!({
            "Type": "overlay", "Source": overlay.source, "Destination": overlay.target,
            "Mode": "", "RW": true, "Propagation": "",
        })
    }));
    all.extend(files.images.iter().map(|mount| {
        json!({
            "Type": "image", "Source": mount.image, "Destination": mount.target,
            "Mode": "", "RW": mount.writable, "Propagation": "",
        })
    }));
    Ok(all)
}
