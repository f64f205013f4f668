//! Mounts, read strictly: what is not understood is refused by name.

use std::path::{Path, PathBuf};

use runtime::{Files, ImageMount, Mount, Overlay, Propagation, VolumeMount, is_mount_attribute};

use super::SyntaxError;
use super::limit::size;
use crate::{Error, Result};

/// Directories of the machine itself: their owner never changes.
const SYSTEM: &str = "/ /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run \
                      /sbin /srv /sys /tmp /usr /var /var/lib /var/log /var/tmp";

/// Whether an option maps the ids of a mount: `idmap`, or `idmap=uids=LIST;gids=LIST`.
fn is_map(option: &str) -> bool {
    option == "idmap" || option.starts_with("idmap=")
}

/// The fields between commas, each optionally in quotes: `a,"b,c"` (RFC 4180).
///
/// # Errors
/// A quote is not closed, or does not stand where it may.
pub fn fields(text: &str) -> Result<Vec<String>, SyntaxError> {
    let fields = dockerfile::fields(text).map_err(SyntaxError::new)?;
    Ok(fields.into_iter().map(|field| field.text).collect())
}

/// `[SOURCE:]TARGET[:OPTION,…]`: a mount of a path, with option `O` an overlay; a source with
/// option `U` is given to the user besides. A name is that of a volume, and a target alone a volume
/// without one. Relative sources begin in `directory`.
///
/// # Errors
/// [`Error::Syntax`]; [`Error::File`]: the source is not there.
pub fn volume(text: &str, directory: &Path, files: &mut Files) -> Result<()> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => {
            let expected = "expected [HOST-PATH|VOLUME:]CONTAINER-PATH[:OPTIONS]";
            return Err(SyntaxError::new(expected).into());
        }
    };
    if !source.starts_with('/') && !source.starts_with('.') {
        files.volumes.push(named_volume(source, target, options)?);
        return Ok(());
    }
    let source = existing(source, directory)?;
    if options.split(',').any(|option| option == "O") {
        files.overlays.push(overlay(source, target, options)?);
        return Ok(());
    }
    let target = absolute_target(target)?;
    let mut bind = Bind::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        bind.option(option)?;
    }
    Ok(bind.add(source, target, files)?)
}

/// A mount of a path, as its options make it.
#[derive(Debug, Clone, Default)]
struct Bind {
    read_only: bool,
    alone: bool,
    propagation: Propagation,
    given: bool,
    options: Vec<String>,
}

impl Bind {
    fn option(&mut self, option: &str) -> Result<(), SyntaxError> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "bind" | "nonrecursive" => self.alone = true,
            "rbind" => self.alone = false,
            "private" | "rprivate" => self.propagation = Propagation::Private,
            "slave" | "rslave" => self.propagation = Propagation::Slave,
            "shared" | "rshared" => self.propagation = Propagation::Shared,
            "U" => self.given = true,
            option if is_map(option) => self.options.push(option.to_owned()),
            option if is_mount_attribute(option) => self.options.push(option.to_owned()),
            // SELinux labels: nothing to do where SELinux is not enforced, as podman does.
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            other => return Err(SyntaxError::new(format!("option {other:?} is not supported"))),
        }
        Ok(())
    }

    fn add(self, source: PathBuf, target: PathBuf, files: &mut Files) -> Result<(), SyntaxError> {
        let Bind { read_only, alone, propagation, given, options } = self;
        if given {
            let real = source.canonicalize().unwrap_or_else(|_| source.clone());
            if SYSTEM.split(' ').any(|system| Path::new(system) == real) {
                return Err(SyntaxError::new(
                    "U would change the owner of the machine's own files",
                ));
            }
            files.given.push(source.clone());
        }
        let recursive = !alone;
        files.mounts.push(Mount::Bind {
            source,
            target,
            read_only,
            recursive,
            propagation,
            options,
        });
        Ok(())
    }
}

fn named_volume(name: &str, target: &str, options: &str) -> Result<VolumeMount, SyntaxError> {
    let target = absolute_target(target)?;
    let name = Some(name).filter(|name| !name.is_empty()).map(str::to_owned);
    let mut volume = VolumeMount { name, target, ..VolumeMount::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.no_copy = true,
            "copy" => volume.no_copy = false,
            "U" => volume.given = true,
            option if is_map(option) => volume.options.push(option.to_owned()),
            option if is_mount_attribute(option) => volume.options.push(option.to_owned()),
            "z" | "Z" if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            other => {
                return Err(SyntaxError::new(format!(
                    "option {other:?} is not supported for volumes"
                )));
            }
        }
    }
    Ok(volume)
}

fn overlay(source: PathBuf, target: &str, options: &str) -> Result<Overlay, SyntaxError> {
    if let Some(other) = options.split(',').find(|option| *option != "O") {
        return Err(SyntaxError::new(format!("option {other:?} cannot be combined with O")));
    }
    if !source.is_dir() {
        return Err(SyntaxError::new("the source is not a directory"));
    }
    if target == "/" {
        return Err(SyntaxError::new("the path in the container must be below the root"));
    }
    Ok(Overlay { source, target: absolute_target(target)? })
}

/// A path of this machine, absolute.
fn existing(path: &str, directory: &Path) -> Result<PathBuf> {
    let path = absolute(path, directory);
    path.symlink_metadata().map_err(Error::file("finding", &path))?;
    Ok(path)
}

fn absolute(path: &str, directory: &Path) -> PathBuf {
    let path = directory.join(path);
    std::path::absolute(&path).unwrap_or(path)
}

fn absolute_target(target: &str) -> Result<PathBuf, SyntaxError> {
    match target.starts_with('/') {
        true => Ok(PathBuf::from(target)),
        false => Err(SyntaxError::new(format!(
            "the path in the container, {target:?}, must be absolute"
        ))),
    }
}

/// `PATH[:OPTION,…]`: memory at that path.
///
/// # Errors
/// The path is not absolute.
pub fn tmpfs(text: &str) -> Result<Mount, SyntaxError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute_target(target)?;
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned);
    Ok(Mount::Tmpfs { target, options: options.collect() })
}

/// The file of a time zone of this machine, at `/etc/localtime`: its name (`Europe/Berlin`), or
/// `local`.
///
/// # Errors
/// There is no such time zone.
pub fn time_zone(name: &str) -> Result<Mount, SyntaxError> {
    let path = match name {
        "local" => "/etc/localtime".into(),
        name => Path::new("/usr/share/zoneinfo").join(name),
    };
    let inside = !name.split('/').any(|part| part.is_empty() || part == "..");
    let path = path.canonicalize().ok().filter(|path| inside && path.is_file());
    let source = path.ok_or_else(|| {
        SyntaxError::new("there is no such time zone")
            .hinting("/usr/share/zoneinfo of this machine lists the zones")
    })?;
    Ok(Mount::Bind {
        source,
        target: "/etc/localtime".into(),
        read_only: true,
        recursive: false,
        propagation: Propagation::Private,
        options: Vec::new(),
    })
}

/// `type=bind|volume|tmpfs|image|devpts|glob,…`; relative sources begin in `directory`.
///
/// # Errors
/// [`Error::Syntax`] with the unknown type or key; [`Error::File`] and [`Error::Pattern`]: the
/// source is not there.
pub fn mount(text: &str, directory: &Path, files: &mut Files) -> Result<()> {
    mount_of(&fields(text)?, directory, files)
}

/// As [`mount`], with the fields of the text read already.
///
/// # Errors
/// As there.
pub fn mount_of(fields: &[String], directory: &Path, files: &mut Files) -> Result<()> {
    let mut text = MountText { kind: "volume", ..MountText::default() };
    for pair in fields {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        text.field(key, value)?;
    }
    if !["bind", "volume", "tmpfs", "image", "devpts", "glob"].contains(&text.kind) {
        let refused = SyntaxError::new(format!("type {:?} is not supported", text.kind));
        let hint = "supported types are bind, volume, tmpfs, image, devpts and glob";
        return Err(refused.hinting(hint).into());
    }
    if let Some((key, _)) = text.of.iter().find(|(_, kinds)| !kinds.contains(&text.kind)) {
        let why = format!("key {key:?} is not for type={}", text.kind);
        return Err(SyntaxError::new(why).into());
    }
    let target = text.target.ok_or_else(|| SyntaxError::new("it has no target="))?;
    text.add(absolute_target(target)?, directory, files)
}

/// The fields of a mount.
#[derive(Debug, Default)]
struct MountText<'a> {
    kind: &'a str,
    source: Option<&'a str>,
    target: Option<&'a str>,
    bind: Bind,
    no_copy: bool,
    writable: bool,
    /// Options of the file system itself.
    data: Vec<String>,
    /// Keys that only some types have.
    of: Vec<(String, &'static [&'static str])>,
}

impl<'a> MountText<'a> {
    fn field(&mut self, key: &'a str, value: &'a str) -> Result<(), SyntaxError> {
        const PATHS: &[&str] = &["bind", "volume", "glob"];
        const MADE: &[&str] = &["tmpfs", "devpts"];
        let mut only = |kinds| self.of.push((key.to_owned(), kinds));
        match key {
            "type" => self.kind = value,
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.bind.read_only = flag(value)?,
            "readwrite" | "rw" => {
                self.writable = flag(value)?;
                self.bind.read_only = !self.writable;
            }
            "volume-nocopy" => {
                only(&["volume"]);
                self.no_copy = flag(value)?;
            }
            "bind-nonrecursive" => {
                only(&["bind", "glob"]);
                self.bind.alone = flag(value)?;
            }
            "bind-propagation" => {
                only(&["bind", "glob"]);
                let known = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
                if !known.contains(&value) {
                    return Err(SyntaxError::new(format!("propagation {value:?} is not known")));
                }
                self.bind.option(value)?;
            }
            "U" | "chown" => {
                only(&["bind", "volume"]);
                self.bind.given = flag(value)?;
            }
            "idmap" => {
                only(PATHS);
                let option =
                    if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
                self.bind.options.push(option);
            }
            "tmpfs-size" => {
                only(&["tmpfs"]);
                self.data.push(format!("size={}", size(value)?));
            }
            "tmpfs-mode" => {
                only(&["tmpfs"]);
                self.data.push(format!("mode={value}"));
            }
            "uid" | "gid" | "mode" | "max" => {
                only(if key == "mode" { MADE } else { &["devpts"] });
                self.data.push(format!("{key}={value}"));
            }
            key if is_mount_attribute(key) && value.is_empty() => {
                only(PATHS);
                self.bind.options.push(key.to_owned());
            }
            other => return Err(SyntaxError::new(format!("key {other:?} is not supported"))),
        }
        Ok(())
    }

    fn add(self, target: PathBuf, directory: &Path, files: &mut Files) -> Result<()> {
        let MountText { kind, source, bind, no_copy, writable, mut data, .. } = self;
        match (kind, source) {
            ("bind", Some(source)) => bind.add(existing(source, directory)?, target, files)?,
            ("glob", Some(pattern)) => {
                globbed(&absolute(pattern, directory), &target, &bind, files)?;
            }
            ("image", Some(image)) if !image.is_empty() => {
                let image = image.to_owned();
                files.images.push(ImageMount { image, target, writable, found: None });
            }
            ("bind" | "glob" | "image", _) => {
                return Err(SyntaxError::new(format!("type={kind} needs source=")).into());
            }
            ("volume", source) => {
                let name = source.filter(|name| !name.is_empty()).map(str::to_owned);
                if name.as_ref().is_some_and(|name| name.contains('/')) {
                    let why = "a volume is named without '/'; type=bind mounts a path";
                    return Err(SyntaxError::new(why).into());
                }
                let Bind { read_only, given, options, .. } = bind;
                let volume = VolumeMount { name, target, read_only, no_copy, options, given };
                files.volumes.push(volume);
            }
            (_, Some(_)) => {
                return Err(SyntaxError::new(format!("type={kind} takes no source=")).into());
            }
            (_, None) => {
                data.extend(bind.read_only.then(|| "ro".to_owned()));
                files.mounts.push(match kind {
                    "devpts" => Mount::Devpts { target, options: data },
                    _ => Mount::Tmpfs { target, options: data },
                });
            }
        }
        Ok(())
    }
}

/// Mounts every path that a pattern names, under its own name in the target.
fn globbed(pattern: &Path, target: &Path, bind: &Bind, files: &mut Files) -> Result<()> {
    for path in crate::matching(pattern)? {
        let target = target.join(path.file_name().unwrap_or_default());
        bind.clone().add(path, target, files)?;
    }
    Ok(())
}

fn flag(value: &str) -> Result<bool, SyntaxError> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(SyntaxError::new(format!("{other:?} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str, files: &mut Files) -> Result<()> {
        super::mount(text, Path::new("/"), files)
    }

    fn volume(text: &str, files: &mut Files) -> Result<()> {
        super::volume(text, Path::new("/"), files)
    }

    fn misread(read: &Result<()>) -> bool {
        matches!(read, Err(Error::Syntax(_)))
    }

    #[test]
    fn fields_may_stand_in_quotes() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(fields(text).unwrap(), expected, "{text}");
        };
        check("", &[""]);
        check("a=1,b=2", &["a=1", "b=2"]);
        check("\"src=/a,b\",dst=/x", &["src=/a,b", "dst=/x"]);
        check("\"a=say \"\"hi\"\"\",b", &["a=say \"hi\"", "b"]);
        check("a,,b,", &["a", "", "b", ""]);
        assert!(fields("\"a,b").is_err() && fields("a\nb").is_err());
        let place = tempfile::tempdir().unwrap();
        let odd = place.path().join("with,comma");
        std::fs::create_dir(&odd).unwrap();
        let mut files = Files::default();
        mount(&format!("type=bind,\"source={}\",target=/x", odd.display()), &mut files).unwrap();
        assert!(matches!(&files.mounts[0], Mount::Bind { source, .. } if *source == odd));
    }

    #[test]
    fn mounts_are_read_and_what_is_not_known_is_refused() {
        let mut files = Files::default();
        mount("type=bind,src=/tmp,dst=/x,ro", &mut files).unwrap();
        assert!(matches!(files.mounts[0], Mount::Bind { read_only: true, recursive: true, .. }));
        mount("type=tmpfs,target=/x,tmpfs-size=1m", &mut files).unwrap();
        assert!(matches!(files.mounts[1], Mount::Tmpfs { .. }));
        mount("type=volume,src=data,dst=/x,volume-nocopy", &mut files).unwrap();
        mount("dst=/y,readonly", &mut files).unwrap();
        assert!(files.volumes[0].no_copy && files.volumes[0].name.as_deref() == Some("data"));
        assert!(files.volumes[1].read_only && files.volumes[1].name.is_none());
        for text in [
            "type=bind,dst=/x",
            "type=tmpfs,dst=x",
            "type=volume,src=/data,dst=/x",
            "type=bind,src=/tmp,dst=/x,zap=1",
            "src=data",
        ] {
            assert!(misread(&mount(text, &mut files)), "{text}");
        }
        let mut files = Files::default();
        volume("/tmp:/x:ro", &mut files).unwrap();
        assert!(matches!(files.mounts[..], [Mount::Bind { read_only: true, .. }]));
        assert!(files.given.is_empty());
        let place = tempfile::tempdir().unwrap();
        volume(&format!("{}:/x:ro,U", place.path().display()), &mut files).unwrap();
        assert_eq!(files.given, [place.path()]);
        volume("data:/x:nocopy", &mut files).unwrap();
        volume("/data", &mut files).unwrap();
        assert_eq!(files.volumes.len(), 2);
        for text in [
            "data",
            "data:/x:O",
            "a:b:c:d",
            "/tmp:x",
            "/tmp:/x:frob",
            "/tmp:/x:U",
            "/var/../etc:/x:U",
        ] {
            assert!(misread(&volume(text, &mut files)), "{text}");
        }
    }

    #[test]
    fn every_type_of_mount_has_its_own_keys() {
        let place = tempfile::tempdir().unwrap();
        for name in ["a.conf", "b.conf", ".hidden.conf", "other"] {
            std::fs::write(place.path().join(name), name).unwrap();
        }
        let mut files = Files::default();
        let glob = format!("type=glob,src={}/*.conf,dst=/etc/x,ro", place.path().display());
        mount(&glob, &mut files).unwrap();
        let targets: Vec<&Path> = files.mounts.iter().map(Mount::target).collect();
        assert_eq!(targets, [Path::new("/etc/x/a.conf"), Path::new("/etc/x/b.conf")]);
        mount("type=devpts,dst=/p,uid=1,mode=0600,max=5", &mut files).unwrap();
        assert!(matches!(&files.mounts[2], Mount::Devpts { options, .. } if options.len() == 3));
        mount("type=image,src=app,dst=/i,rw", &mut files).unwrap();
        assert!(files.images[0].writable && files.images[0].image == "app");
        mount("type=volume,src=v,dst=/v,U,noexec", &mut files).unwrap();
        assert!(files.volumes[0].given && files.volumes[0].options == ["noexec"]);
        volume("/tmp:/t:noexec,nosuid", &mut files).unwrap();
        assert!(matches!(&files.mounts[3], Mount::Bind { options, .. } if options.len() == 2));
        for text in [
            "type=glob,src=/nowhere/*,dst=/x",
            "type=glob,src=/*/x,dst=/x",
            "type=image,dst=/x",
            "type=bind,src=/tmp,dst=/x,tmpfs-size=1m",
            "type=tmpfs,dst=/x,U",
            "type=volume,dst=/x,bind-propagation=shared",
            "type=tmpfs,dst=/x,idmap",
        ] {
            assert!(mount(text, &mut files).is_err(), "{text}");
        }
        volume("/tmp:/t:idmap=uids=0-5-1;gids=0-5-1", &mut files).unwrap();
        mount("type=bind,src=/tmp,dst=/x,idmap", &mut files).unwrap();
        let [.., one, two] = &files.mounts[..] else { panic!("there are two") };
        for (mount, expected) in [(one, "idmap=uids=0-5-1;gids=0-5-1"), (two, "idmap")] {
            assert!(matches!(mount, Mount::Bind { options, .. } if options == &[expected]));
        }
    }
}
