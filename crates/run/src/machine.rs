//! The machine that a run is on, as far as the system tells: for the record, not for decisions.

use serde::{Deserialize, Serialize};

/// What a reader of figures of speed wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Operating system and instruction set: `linux x86_64`.
    pub os: String,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Threads that the system gives this process.
    pub cores: usize,
    /// Physical memory in bytes.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        Self {
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory(),
        }
    }
}

/// Bytes that a process here may use at most: physical memory, or less where a control group (a
/// container) limits it. None where the system does not say.
pub fn memory_limit() -> Option<u64> {
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    // A group without a limit says `max`.
    let limit = limit.and_then(|text| text.trim().parse().ok());
    [memory(), limit].into_iter().flatten().min()
}

/// The process's largest resident size so far in bytes, where the system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn memory() -> Option<u64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The first `name: value` of a file of the kernel's.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_its_memory_and_cores() {
        let machine = Machine::here();
        assert!(machine.cores >= 1 && machine.os.starts_with("linux "));
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 26), "{machine:?}");
    }
}
