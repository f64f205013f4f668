//! Where on this machine cgroups are, and where in them this process is. Pure.

use std::path::{Path, PathBuf};

/// One mounted hierarchy, and this process's directory in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its controllers; for the unified tree the kernel lists them elsewhere.
    pub(crate) controllers: Vec<String>,
    pub(crate) unified: bool,
    /// The mount point.
    pub(crate) top: PathBuf,
    /// This process's directory, at or below the mount point.
    pub(crate) own: PathBuf,
}

/// The hierarchies of `/proc/self/cgroup`: their controllers, `name=…`, or nothing for the
/// unified one.
pub(crate) fn hierarchies(lines: &str) -> Vec<&str> {
    lines.lines().filter_map(|line| line.split(':').nth(1)).collect()
}

/// Puts `/proc/self/cgroup` and `/proc/self/mountinfo` together.
pub(crate) fn find(cgroup: &str, mountinfo: &str) -> Vec<Hierarchy> {
    cgroup.lines().filter_map(|line| find_one(line, mountinfo)).collect()
}

fn find_one(line: &str, mountinfo: &str) -> Option<Hierarchy> {
    let mut fields = line.splitn(3, ':');
    let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
    let unified = names.is_empty();
    let controllers: Vec<String> =
        names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let (root, top) = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let fits = match (unified, kind) {
            (true, "cgroup2") => true,
            (false, "cgroup") => {
                controllers.iter().all(|name| options.split(',').any(|option| option == name))
            }
            _ => false,
        };
        let mut left = left.split(' ').skip(3);
        fits.then_some((left.next()?, unescape(left.next()?)))
    })?;
    let inside = Path::new(path).strip_prefix(root).ok()?;
    if path.contains("/..") {
        return None;
    }
    let own = top.join(inside);
    Some(Hierarchy { controllers, unified, top, own })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(code, 8) {
            Ok(byte) => plain.push(char::from(byte)),
            Err(_) => plain.push_str(code),
        }
        plain.push_str(rest);
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_trees() {
        let check = |cgroup: &str, mountinfo: &str, expected: &[(&str, &str, &str)]| {
            let found = find(cgroup, mountinfo);
            let found: Vec<_> = found
                .iter()
                .map(|one| {
                    (
                        one.controllers.join(","),
                        one.top.to_str().unwrap(),
                        one.own.to_str().unwrap(),
                    )
                })
                .collect();
            let found: Vec<_> =
                found.iter().map(|(names, top, own)| (names.as_str(), *top, *own)).collect();
            assert_eq!(found, expected);
        };
        let unified =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        check(
            "0::/user.slice/a.scope\n",
            unified,
            &[("", "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/a.scope")],
        );
        let hybrid = "41 40 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            42 40 0:31 /outer /sys/fs/cgroup/me\\040mory rw - cgroup none rw,memory\n\
            43 40 0:32 / /sys/fs/cgroup/unified rw - cgroup2 none rw";
        check(
            "3:cpu,cpuacct:/x\n2:memory:/outer/y\n1:name=systemd:/\n0::/z\n",
            hybrid,
            &[
                ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/x"),
                ("memory", "/sys/fs/cgroup/me mory", "/sys/fs/cgroup/me mory/y"),
                ("", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/z"),
            ],
        );
        // Outside of what is mounted, or of the namespace.
        check("2:memory:/other\n", hybrid, &[]);
        check("0::/../x\n", unified, &[]);
        check("junk\n::\n", "junk - \n", &[]);
    }
}
