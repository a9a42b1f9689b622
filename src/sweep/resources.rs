//! Free memory and cores of this machine, and how many arms fit.

use std::path::Path;

/// Available memory in bytes: the kernel's `MemAvailable`, or less if a control group (a container) limits
/// it. None if the system doesn't report it.
pub fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = available_in(&text)?;
    Some(match group_room(Path::new("/sys/fs/cgroup")) {
        Some(room) => available.min(room),
        None => available,
    })
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Memory that a control group (version 2) has left; its page cache counts as used.
fn group_room(dir: &Path) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

/// Cores of this process.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Number of arms at the same time: at most one per core, and as many as fit into nine tenths of the free
/// memory. 1 if a figure is missing.
pub fn arms_at_once(arms: usize, cores: usize, free: Option<u64>, largest: Option<u64>) -> usize {
    let by_memory = match (free, largest) {
        (Some(free), Some(largest)) if largest > 0 => (free / 10 * 9 / largest) as usize,
        _ => 1,
    };
    by_memory.min(cores).min(arms).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(available_in(text), Some(8_192_000_000));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_group_without_a_limit_sets_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.current"), "400\n").unwrap();
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(group_room(dir.path()), None);
        std::fs::write(dir.path().join("memory.max"), "1000\n").unwrap();
        assert_eq!(group_room(dir.path()), Some(600));
    }

    #[test]
    fn memory_cores_and_arms_bound_how_many_run() {
        const GIB: u64 = 1 << 30;
        assert_eq!(arms_at_once(12, 8, Some(10 * GIB), Some(2 * GIB)), 4);
        assert_eq!(arms_at_once(12, 2, Some(100 * GIB), Some(2 * GIB)), 2);
        assert_eq!(arms_at_once(3, 8, Some(100 * GIB), Some(2 * GIB)), 3);
        assert_eq!(arms_at_once(12, 8, Some(GIB), Some(2 * GIB)), 1, "one has to try");
        assert_eq!(arms_at_once(12, 8, None, Some(2 * GIB)), 1);
        assert_eq!(arms_at_once(12, 8, Some(GIB), None), 1);
    }
}
