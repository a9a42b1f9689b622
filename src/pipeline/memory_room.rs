//! The memory that this process can still have, compared with what a run needs before it begins: a run that can't
//! have it would end in its middle, killed or without an allocation.

use super::PipelineError;
use crate::{run, text::gib};

/// What the system leaves this process, in bytes; None where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Of the limit of its address space (`ulimit -v`); None also without a limit.
    pub address_space: Option<u64>,
    /// Of the machine's memory: free, or held by caches that give way.
    pub free: Option<u64>,
    /// What it has already.
    pub resident: u64,
}

impl Room {
    /// Here and now.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let room = Self::of(
            &read("/proc/self/limits"),
            &read("/proc/self/status"),
            &read("/proc/meminfo"),
        );
        // A container's limit is below the machine's memory.
        let limit = run::memory_limit().map(|limit| limit.saturating_sub(room.resident));
        Self {
            free: [room.free, limit].into_iter().flatten().min(),
            ..room
        }
    }

    /// From the texts of the kernel's files.
    fn of(limits: &str, status: &str, meminfo: &str) -> Self {
        let kib = |text: &str, name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
        // `unlimited` is no number.
        let limit: Option<u64> = limit.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let mapped = kib(status, "VmSize:").unwrap_or(0);
        Self {
            address_space: limit.map(|limit| limit.saturating_sub(mapped)),
            free: kib(meminfo, "MemAvailable:"),
            resident: kib(status, "VmRSS:").unwrap_or(0),
        }
    }

    /// Compares with the estimated peak of a run in bytes. The sentence is a warning: estimates are within a tenth,
    /// and other programs may give memory back.
    ///
    /// # Errors
    /// The limit of the address space rules the run out.
    pub fn check(&self, peak: u64) -> Result<Option<String>, PipelineError> {
        let more = peak.saturating_sub(self.resident);
        if let Some(left) = self.address_space.filter(|left| more > *left) {
            return Err(PipelineError::Setting(format!(
                "the run needs about {:.2} GiB more memory, and the limit of this process (`ulimit -v`) leaves {:.2} GiB: raise it, or lower `batching.micro_batch` or `data.seq_len`",
                gib(more),
                gib(left)
            )));
        }
        Ok(self.free.filter(|free| more > *free).map(|free| {
            format!(
                "the run needs about {:.2} GiB more memory and {:.2} GiB are free: the system may kill it; stop other programs, or lower `batching.micro_batch` or `data.seq_len`",
                gib(more),
                gib(free)
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max address space         1073741824           unlimited            bytes     \n";
    const STATUS: &str = "Name:\twmtp\nVmSize:\t  524288 kB\nVmRSS:\t  102400 kB\n";
    const MEMINFO: &str = "MemTotal:       24000000 kB\nMemAvailable:    2097152 kB\n";
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_kernels_files_are_read() {
        let room = Room::of(LIMITS, STATUS, MEMINFO);
        assert_eq!(room.address_space, Some(GIB / 2));
        assert_eq!((room.free, room.resident), (Some(2 * GIB), 100 << 20));
        let unlimited = LIMITS.replace("1073741824 ", "unlimited");
        assert_eq!(Room::of(&unlimited, STATUS, MEMINFO).address_space, None);
        assert_eq!(Room::of("", "", ""), Room::default());
    }

    #[test]
    fn a_run_that_cannot_have_its_memory_is_refused_and_one_that_may_not_is_warned() {
        let room = Room::of(LIMITS, STATUS, MEMINFO);
        assert_eq!(room.check(GIB / 2).unwrap(), None);
        let error = room.check(GIB).unwrap_err().to_string();
        assert!(
            error.contains("needs about 0.90 GiB more memory") && error.contains("leaves 0.50 GiB"),
            "{error}"
        );
        let free = Room {
            address_space: None,
            ..room
        };
        assert_eq!(free.check(2 * GIB).unwrap(), None);
        let warning = free.check(4 * GIB).unwrap().unwrap();
        assert!(
            warning.contains("3.90 GiB more memory and 2.00 GiB are free"),
            "{warning}"
        );
    }
}
