//! What control groups leave of the memory. A container's limit is one of these, and where it is reached the kernel ends
//! whom it likes of those in the group, however much the host has left.
//!
//! Of version 2 (Documentation/admin-guide/cgroup-v2.rst of the kernel) and of version 1 (cgroup-v1/memory.rst), which
//! hosts have by turns or, with different controllers, at once.

use std::fs::read_to_string;
use std::path::{Component, Path, PathBuf};

/// What a group with a limit has left.
#[derive(Debug, PartialEq)]
pub(super) struct Room {
    /// Bytes until the limit is reached, if the cache of files gives way.
    pub(super) left: u64,
    /// The file that has the limit.
    pub(super) limit: PathBuf,
}

/// A way of telling, and the names for it.
#[derive(Debug, PartialEq)]
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// What begins the lines of `memory.stat` that count the cache, of the group and those within it.
    cache: [&'static str; 2],
}

static V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: ["total_active_file ", "total_inactive_file "],
};
static V2: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    cache: ["active_file ", "inactive_file "],
};

/// Where a group of this process is seen, and from where on groups are seen at all.
#[derive(Debug, PartialEq)]
struct Place {
    version: &'static Version,
    group: PathBuf,
    mount: PathBuf,
}

/// The least that a group of this process, or one around it, has left; none without a limit, or where none is to be seen.
pub(super) fn tightest() -> Option<Room> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let mounts = read_to_string("/proc/self/mountinfo").ok()?;
    let rooms = places(&groups, &mounts).into_iter().flat_map(|place| {
        let rooms = around(&place).map(|directory| room(place.version, directory));
        rooms.flatten().collect::<Vec<_>>()
    });
    rooms.min_by_key(|room| room.left)
}

/// Where /proc/self/cgroup (cgroups(7)) and /proc/self/mountinfo (proc_pid_mountinfo(5)) say that groups of this process
/// are, of those that may have a limit of memory.
fn places(groups: &str, mounts: &str) -> Vec<Place> {
    let of_mount = |line: &str| {
        let (place, of_what) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let mut fields = of_what.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let version = match kind {
            "cgroup2" => &V2,
            "cgroup" if options.split(',').any(|option| option == "memory") => &V1,
            _ => return None,
        };
        let path = groups.lines().find_map(|line| own(line, version))?;
        // What is mounted may be a part of the hierarchy, as in containers without a namespace for it; and this
        // process may have been taken out of what its namespace has.
        let within = Path::new(path).strip_prefix(root).ok()?;
        let is_plain = within.components().all(|part| matches!(part, Component::Normal(_)));
        let mount = PathBuf::from(mount);
        is_plain.then(|| Place { version, group: mount.join(within), mount })
    };
    mounts.lines().filter_map(of_mount).collect()
}

/// The path of this process's group, if the line is of the hierarchy that has the memory of that version.
fn own<'a>(line: &'a str, version: &Version) -> Option<&'a str> {
    let (number, line) = line.split_once(':')?;
    let (controllers, path) = line.split_once(':')?;
    let is_it = match *version == V2 {
        true => number == "0" && controllers.is_empty(),
        false => controllers.split(',').any(|controller| controller == "memory"),
    };
    is_it.then_some(path)
}

/// The group and all around it: each has its limit, and all of them hold.
fn around(place: &Place) -> impl Iterator<Item = &Path> {
    place.group.ancestors().take_while(|directory| directory.starts_with(&place.mount))
}

/// The file system's root group has no such files, nor has a group whose memory nobody counts.
fn room(version: &Version, directory: &Path) -> Option<Room> {
    let read = |name| read_to_string(directory.join(name)).ok();
    let cache = read("memory.stat").unwrap_or_default();
    let left = left(version, &read(version.limit)?, &read(version.usage)?, &cache)?;
    Some(Room { left, limit: directory.join(version.limit) })
}

/// The cache of files counts as free, as it does in what the host has available.
fn left(version: &Version, limit: &str, usage: &str, stat: &str) -> Option<u64> {
    // Version 2 says `max` where there is none, version 1 the largest number of pages.
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let count = |line: &str| {
        let value = version.cache.iter().find_map(|name| line.strip_prefix(name))?;
        value.trim().parse::<u64>().ok()
    };
    let cache = stat.lines().filter_map(count).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(usage.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a host with version 2 alone, and of one with both.
    const UNIFIED: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                           30 22 0:27 / /proc rw - proc proc rw\n";
    const HYBRID: &str = "31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
                          32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                          33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                          34 31 0:31 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n";

    fn place(version: &'static Version, mount: &str, group: &str) -> Place {
        Place { version, group: group.into(), mount: mount.into() }
    }

    #[test]
    fn the_group_of_this_process_is_found_in_either_version() {
        assert_eq!(
            places("0::/system.slice/dsrlb.service\n", UNIFIED),
            [place(&V2, "/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/dsrlb.service")]
        );
        let both = "9:name=systemd:/a\n4:memory:/lxc/b\n3:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(
            places(both, HYBRID),
            [
                place(&V2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/d"),
                place(&V1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/lxc/b"),
            ]
        );
        // A name may have any character but a newline.
        let [of] = &places("5:hugetlb,memory:/a:b\n", HYBRID)[..] else { panic!("not one") };
        assert_eq!(of.group, Path::new("/sys/fs/cgroup/memory/a:b"));
        assert_eq!(places("", UNIFIED), []);
        assert_eq!(places("0::/\n", ""), []);
        assert_eq!(places("nonsense\n0::/\n", "nonsense - cgroup2\n"), []);
    }

    /// Docker with version 1: the host's paths, and a mount of the container's own part.
    #[test]
    fn a_container_sees_its_own_part_of_the_hierarchy() {
        let mounts =
            "40 39 0:31 /docker/c0 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n";
        let of = |path: &str| places(&format!("4:memory:{path}\n"), mounts);
        let mount = "/sys/fs/cgroup/memory";
        assert_eq!(of("/docker/c0"), [place(&V1, mount, mount)]);
        assert_eq!(of("/docker/c0/a"), [place(&V1, mount, "/sys/fs/cgroup/memory/a")]);
        // Nothing is known of groups that are not in it: of others' limits nobody is to be told.
        assert_eq!(of("/docker/c1"), []);
        assert_eq!(of("/docker/c00"), []);
        assert_eq!(places("0::/../other\n", UNIFIED), []);
    }

    #[test]
    fn all_groups_from_there_to_the_mount_are_looked_at() {
        let place = place(&V2, "/sys/fs/cgroup", "/sys/fs/cgroup/a/b");
        let all: Vec<_> = around(&place).collect();
        assert_eq!(
            all,
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"].map(Path::new)
        );
    }

    #[test]
    fn what_is_left_is_the_limit_less_what_is_used_but_the_cache() {
        let stat = "anon 5000\nactive_file 300\nactive_anon 7\ninactive_file 30\n";
        assert_eq!(left(&V2, "100000\n", "6000\n", stat), Some(100_000 - 6000 + 330));
        assert_eq!(left(&V2, "max\n", "6000\n", stat), None);
        assert_eq!(left(&V2, "100000\n", "6000\n", ""), Some(94_000));
        // A limit may be set below what is used.
        assert_eq!(left(&V2, "4096\n", "6000\n", ""), Some(0));
        assert_eq!(left(&V2, "4096\n", "100\n", stat), Some(4096));
        let stat =
            "active_file 1\ninactive_file 2\ntotal_active_file 300\ntotal_inactive_file 30\n";
        assert_eq!(left(&V1, "100000\n", "6000\n", stat), Some(94_330));
        let unlimited = left(&V1, "9223372036854771712\n", "6000\n", stat);
        assert!(unlimited.is_some_and(|left| left > 1 << 62), "{unlimited:?}");
    }

    #[test]
    fn files_are_read_where_they_are() {
        let directory = std::env::temp_dir().join(format!("dsrlb-groups-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(room(&V2, &directory), None);
        for (name, text) in [("memory.max", "5000\n"), ("memory.current", "100\n")] {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let found = room(&V2, &directory);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, Some(Room { left: 4900, limit: directory.join("memory.max") }));
    }
}
