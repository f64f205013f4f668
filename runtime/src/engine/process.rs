//! Further processes of a container, described by what they have other than its first one.

use std::path::PathBuf;

use oci_spec::runtime::{Capability, Process};

/// What a further process has other than the container's own.
#[derive(Debug, Clone, Default)]
pub struct ProcessChanges {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// More variables, as `NAME=value`.
    pub env: Vec<String>,
    /// Whether it and what it starts gain no privileges.
    pub no_new_privileges: bool,
    /// Its user and group; it has no supplementary groups then.
    pub user: Option<(u32, u32)>,
    /// Its supplementary groups, if there are any.
    pub groups: Vec<u32>,
    /// More capabilities.
    pub capabilities: Vec<Capability>,
}

impl ProcessChanges {
    /// Makes the changes to the container's own process.
    #[must_use]
    pub fn apply(self, mut process: Process) -> Process {
        process.set_args(Some(self.command)).set_terminal(Some(self.terminal));
        if let Some(cwd) = self.cwd {
            process.set_cwd(cwd);
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(self.env);
        process.set_env(Some(env));
        if self.no_new_privileges {
            process.set_no_new_privileges(Some(true));
        }
        let mut user = process.user().clone();
        if let Some((uid, gid)) = self.user {
            user.set_uid(uid).set_gid(gid).set_additional_gids(None);
        }
        if !self.groups.is_empty() {
            user.set_additional_gids(Some(self.groups));
        }
        process.set_user(user);
        add_capabilities(&mut process, &self.capabilities);
        process
    }
}

fn add_capabilities(process: &mut Process, more: &[Capability]) {
    if more.is_empty() {
        return;
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let all = [sets.bounding().clone(), sets.effective().clone(), sets.permitted().clone()];
    let [bounding, effective, permitted] = all.map(|set| {
        let mut set = set.unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    });
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays() {
        let mut process = Process::default();
        process.set_cwd("/srv".into()).set_env(Some(vec!["A=1".to_owned()]));
        let changes = ProcessChanges {
            command: vec!["sh".to_owned()],
            env: vec!["B=2".to_owned()],
            user: Some((7, 8)),
            groups: vec![9],
            capabilities: vec![Capability::NetRaw],
            ..ProcessChanges::default()
        };
        let changed = changes.apply(process.clone());
        assert_eq!(changed.cwd(), process.cwd());
        assert_eq!(changed.env().clone().unwrap(), ["A=1", "B=2"]);
        assert_eq!((changed.user().uid(), changed.user().gid()), (7, 8));
        assert_eq!(changed.user().additional_gids().clone().unwrap(), [9]);
        let sets = changed.capabilities().clone().unwrap();
        assert!(sets.effective().clone().unwrap().contains(&Capability::NetRaw));
        assert_eq!(changed.no_new_privileges(), process.no_new_privileges());
    }
}
