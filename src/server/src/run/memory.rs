//! The memory that the process may use, and what it uses.
//!
//! In a control group with a limit both are the group's, because the kernel kills by what the group has:
//! sockets' buffers are in it, and whatever else runs there. File pages that nobody has touched lately are
//! taken out: the kernel drops those first. Without one the limit is what was configured, else the machine's
//! memory, and what counts is the process's own, the only one that turning calls away can lower.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokenroute_domain::load::memory::Pressure;
use tokenroute_proxy::governor::Governor;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Groups in groups, looked at from the innermost out.
const DEPTH_MAX: usize = 32;
/// Where control groups are, of version 2 and of version 1.
const ROOTS: [(&str, Version); 2] = [
    (
        "/sys/fs/cgroup",
        Version { limit: "memory.max", used: "memory.current", cache: "inactive_file" },
    ),
    (
        "/sys/fs/cgroup/memory",
        Version {
            limit: "memory.limit_in_bytes",
            used: "memory.usage_in_bytes",
            cache: "total_inactive_file",
        },
    ),
];

/// What a group's files are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with the file pages that are dropped first.
    cache: &'static str,
}

/// A limit, and where it is read what counts for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) limit: u64,
    /// The group with this limit; none: the process alone.
    group: Option<(PathBuf, Version)>,
}

impl Memory {
    /// The limit that this process runs under; `configured` takes its place.
    pub(super) fn find(configured: Option<u64>) -> Self {
        if let Some(limit) = configured {
            return Self { limit, group: None };
        }
        let machine = meminfo(&read(Path::new("/proc/meminfo")), "MemTotal:");
        let groups = read(Path::new("/proc/self/cgroup"));
        let found = ROOTS.iter().find_map(|(root, version)| {
            tightest(Path::new(root), *version, &groups).filter(|found| found.limit < machine)
        });
        found.unwrap_or(Self { limit: machine, group: None })
    }

    /// Bytes in use, if they can be read.
    pub(super) fn used(&self) -> Option<u64> {
        match &self.group {
            None => resident(&read(Path::new("/proc/self/statm"))),
            Some((group, version)) => {
                let used: u64 = read(&group.join(version.used)).trim().parse().ok()?;
                let stat = read(&group.join("memory.stat"));
                let cache = stat.lines().find_map(|line| {
                    line.strip_prefix(version.cache)?.strip_prefix(' ')?.parse().ok()
                });
                Some(used.saturating_sub(cache.unwrap_or(0)))
            }
        }
    }

    /// Tells the governor, again and again.
    pub(super) async fn watch(self, governor: Governor) {
        loop {
            self.tell(&governor);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells the governor once, and the log what has changed.
    pub(super) fn tell(&self, governor: &Governor) {
        let Some(used) = self.used() else { return };
        let limit = self.limit;
        match governor.set_memory(used, limit) {
            None => {}
            Some(Pressure::Normal) => {
                tracing::info!(used, limit, "there is memory for calls again");
            }
            Some(Pressure::Shedding) => {
                tracing::warn!(used, limit, "little memory is left: calls are turned away");
            }
            Some(Pressure::Refusing) => {
                tracing::warn!(used, limit, "next to no memory is left: nobody may connect");
            }
        }
    }
}

/// The group that has the lowest limit of those that the process is in.
fn tightest(root: &Path, version: Version, groups: &str) -> Option<Memory> {
    let limit_of = |group: &Path| read(&group.join(version.limit)).trim().parse::<u64>().ok();
    let groups = paths(root, groups).into_iter();
    let limited = groups.filter_map(|group| Some((limit_of(&group)?, group)));
    let (limit, group) = limited.min_by_key(|(limit, _)| *limit)?;
    Some(Memory { limit, group: Some((group, version)) })
}

/// The folders of the process's group and of those around it, as `/proc/self/cgroup` names it: by the
/// controller, or in version 2 by none.
fn paths(root: &Path, groups: &str) -> Vec<PathBuf> {
    let own = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let named = controllers.split(',').any(|one| one == "memory") || controllers.is_empty();
        named.then(|| root.join(path.trim_start_matches('/')))
    });
    // A container may see its own group as the root, whatever it is called outside.
    let own = own.collect::<Vec<_>>().into_iter().find(|path| path.is_dir());
    let own = own.unwrap_or_else(|| root.to_owned());
    let around = own.ancestors().take_while(|path| path.starts_with(root));
    around.take(DEPTH_MAX).map(Path::to_owned).collect()
}

/// Resident memory by `/proc/self/statm`, in bytes.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page)
}

/// A line of `/proc/meminfo`, in bytes; no bound if it is not there.
fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1_024))
}

/// A small file of the kernel's; empty if it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Version = ROOTS[0].1;
    const ONE: Version = ROOTS[1].1;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_limit_around_counts() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "", &[]);
        group(root.path(), "slice", &[("memory.max", "1000\n"), ("memory.current", "900\n")]);
        group(root.path(), "slice/unit", &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        group(root.path(), "slice", &[("memory.stat", "anon 1\ninactive_file 150\nfile 300\n")]);
        let found = tightest(root.path(), TWO, "0::/slice/unit\n").unwrap();
        assert_eq!((found.limit, found.used()), (1_000, Some(750)));
    }

    #[test]
    fn version_one_is_read_too() {
        let root = tempfile::tempdir().unwrap();
        let files = [("memory.limit_in_bytes", "70\n"), ("memory.usage_in_bytes", "60\n")];
        group(root.path(), "box", &files);
        group(root.path(), "box", &[("memory.stat", "inactive_file 1\ntotal_inactive_file 20\n")]);
        let found = tightest(root.path(), ONE, "5:cpu:/\n4:cpuset,memory:/box\n").unwrap();
        assert_eq!((found.limit, found.used()), (70, Some(40)));
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "", &[("memory.max", "500"), ("memory.current", "90")]);
        let found = tightest(root.path(), TWO, "0::/docker/0123\n").unwrap();
        // Without a statistic all of it counts.
        assert_eq!((found.limit, found.used()), (500, Some(90)));
        assert_eq!(tightest(&root.path().join("none"), TWO, "0::/\n"), None);
    }

    #[test]
    fn without_a_group_it_is_the_process() {
        let found = Memory::find(Some(1 << 40));
        assert_eq!(found.limit, 1 << 40);
        assert!(found.used().unwrap() > 1 << 20, "a test takes more than a megabyte");
        assert!(Memory::find(None).limit > 1 << 20);
    }
}
