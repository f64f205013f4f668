//! Where registries.conf, registries.d and the chosen short names are.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::paths::{Paths, is_meant};

impl Paths {
    /// The registries.conf files, later ones winning: the file, and the files of the directory that
    /// extend it. `file` and `directory` take the place of the user's and the machine's.
    ///
    /// # Errors
    /// [`Error::Read`]: `file`, `directory` or the user's file cannot be read.
    pub fn registries_conf(
        &self,
        file: Option<&Path>,
        directory: Option<&Path>,
    ) -> Result<Vec<PathBuf>> {
        let user = self.config().join("containers/registries.conf");
        let machine = PathBuf::from("/etc/containers/registries.conf");
        let main = match file {
            Some(file) => self.there(file)?,
            None if is_meant(&user) => self.there(&user)?,
            None => machine.clone(),
        };
        let beside = |file: &Path| file.with_extension("conf.d");
        let directories = match directory {
            Some(directory) => vec![self.there(directory)?],
            None => vec![beside(&machine), beside(&user)],
        };
        let mut files = vec![main];
        for directory in directories {
            files.extend(listed(&directory, "conf")?);
        }
        Ok(files)
    }

    /// The files of registries.d, by name: as with skopeo, a user's directory replaces the
    /// machine's. `directory` takes the place of both.
    ///
    /// # Errors
    /// [`Error::Read`]: the directory cannot be read.
    pub fn registries_d(&self, directory: Option<&Path>) -> Result<Vec<PathBuf>> {
        let user = self.config().join("containers/registries.d");
        let directory = match directory {
            Some(directory) => self.there(directory)?,
            None if is_meant(&user) => self.there(&user)?,
            None => PathBuf::from("/etc/containers/registries.d"),
        };
        listed(&directory, "yaml")
    }

    /// Where signatures lie of registries that registries.d says nothing about.
    pub fn signatures(&self) -> PathBuf {
        match self.rootless {
            true => self.data().join("containers/sigstore"),
            false => PathBuf::from("/var/lib/containers/sigstore"),
        }
    }

    /// Where choices of short names are kept.
    pub fn short_names(&self) -> PathBuf {
        if let Some(file) = &self.chosen_names {
            return file.clone();
        }
        let name = "containers/short-name-aliases.conf";
        match self.rootless {
            false => Path::new("/var/cache").join(name),
            true => self.cache().join(name),
        }
    }

    fn there(&self, path: &Path) -> Result<PathBuf> {
        let read = path.metadata();
        read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(self.environment.absolute(path))
    }
}

/// The files of a directory with this extension, by name.
fn listed(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: directory.to_owned(), source }),
    };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    #[test]
    fn a_users_directory_replaces_the_machines_and_a_named_one_both() {
        let home = tempfile::tempdir().unwrap();
        let variables = [("HOME".into(), home.path().into())];
        let paths = Paths::new(Environment::new(variables, home.path()), true);
        let user = home.path().join(".config/containers/registries.d");
        std::fs::create_dir_all(&user).unwrap();
        for name in ["b.yaml", "a.yaml", "c.txt"] {
            std::fs::write(user.join(name), "").unwrap();
        }
        assert_eq!(paths.registries_d(None).unwrap(), [user.join("a.yaml"), user.join("b.yaml")]);
        let named = home.path().join("named");
        let refused = paths.registries_d(Some(&named)).unwrap_err();
        assert!(refused.to_string().ends_with("named"), "{refused}");
        std::fs::create_dir(&named).unwrap();
        assert!(paths.registries_d(Some(&named)).unwrap().is_empty());
    }

    #[test]
    fn a_dangling_registries_conf_of_the_user_is_not_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let variables = [("XDG_CONFIG_HOME".into(), home.path().into())];
        let paths = Paths::new(Environment::new(variables, home.path()), true);
        std::fs::create_dir(home.path().join("containers")).unwrap();
        let user = home.path().join("containers/registries.conf");
        std::os::unix::fs::symlink("nowhere", &user).unwrap();
        assert!(paths.registries_conf(None, None).is_err());
        std::fs::remove_file(&user).unwrap();
        std::fs::write(&user, "").unwrap();
        assert_eq!(paths.registries_conf(None, None).unwrap()[0], user);
    }
}
