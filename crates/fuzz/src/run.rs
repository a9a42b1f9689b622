//! The loop: an input, an execution, what was seen.
//!
//! Before each execution its input and the counts so far are written to the file `running` in the scratch directory,
//! so that they outlive a process that is aborted.

use crate::{
    Outcome, Scratch, Target,
    mutate::Source,
    random::Random,
    watch::{self, MEMORY, measured},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Most inputs that are kept because the answer to them was new.
const KEPT: usize = 400;
/// Longest of them.
const LONGEST_KEPT: usize = 8 << 10;
/// Inputs that take longer are not kept: all that is made of them would take as long.
const QUICK: Duration = Duration::from_millis(5);
/// An execution that takes longer is kept to be looked at, though it is no finding.
const SLOW: Duration = Duration::from_secs(1);

/// Which executions are made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of all random numbers.
    pub seed: u64,
    /// The first one's number.
    pub from: u64,
    /// How many.
    pub executions: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Executions begun.
    pub executions: u64,
    /// Inputs that the parser took.
    pub accepted: u64,
    /// Different reasons for which it did not take others.
    pub reasons: u64,
    /// The most bytes that an execution added.
    pub peak: u64,
    /// The longest execution, in microseconds.
    pub longest: u64,
    /// Panics, and executions that took too much memory and gave it back.
    pub findings: u64,
}

/// Bytes of [`Counts`] and of a length in the file `running`.
const HEAD: usize = 7 * 8;

impl Counts {
    fn numbers(&self) -> [u64; 6] {
        [
            self.executions,
            self.accepted,
            self.reasons,
            self.peak,
            self.longest,
            self.findings,
        ]
    }

    /// Those of several processes, one after the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            executions: self.executions + other.executions,
            accepted: self.accepted + other.accepted,
            reasons: self.reasons.max(other.reasons),
            peak: self.peak.max(other.peak),
            longest: self.longest.max(other.longest),
            findings: self.findings + other.findings,
        }
    }

    /// The share of inputs that the parser took, in percent.
    pub fn accepted_percent(&self) -> f64 {
        100.0 * self.accepted as f64 / self.executions.max(1) as f64
    }
}

/// The name of the file in the scratch directory.
pub const RUNNING: &str = "running";

/// The counts and the input that a process left in the file `running`.
///
/// # Errors
/// There is none, or it was cut.
pub fn left(path: &Path) -> io::Result<(Counts, Vec<u8>)> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().take(7).map(|n| u64::from_le_bytes(*n)).collect();
    let [executions, accepted, reasons, peak, longest, findings, length] = numbers[..] else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let counts = Counts {
        executions,
        accepted,
        reasons,
        peak,
        longest,
        findings,
    };
    let end = usize::try_from(length).unwrap_or(0).saturating_add(HEAD);
    Ok((counts, bytes.get(HEAD..end).unwrap_or_default().to_vec()))
}

/// Runs a target with files in `scratch`; a finding's input and what was said go into `findings`.
///
/// # Errors
/// What the file system says.
pub fn run(target: &'static Target, plan: Plan, scratch: &Path, findings: &Path) -> io::Result<Counts> {
    let path = scratch.to_owned();
    let findings = findings.to_owned();
    let thread = thread::Builder::new()
        .stack_size(target.stack)
        .name(target.name.to_owned())
        .spawn(move || {
            watch::start();
            Loop::new(target, plan, &path, findings)?.run()
        })?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the loop itself panicked")))
}

/// Runs a target on one input, without the loop's care: to see a finding again.
///
/// # Errors
/// It panicked, or what the file system says.
pub fn replay(target: &'static Target, input: Vec<u8>, scratch: &Scratch) -> io::Result<Outcome> {
    let path = scratch.path().join("work");
    fs::create_dir_all(&path)?;
    let thread = thread::Builder::new()
        .stack_size(target.stack)
        .spawn(move || (target.open)(&path)(&input))?;
    thread.join().map_err(|_| io::Error::other("it panicked"))
}

struct Loop {
    target: &'static Target,
    plan: Plan,
    running: File,
    run: crate::Run,
    known: Vec<Vec<u8>>,
    /// How many of the known inputs are not kept ones.
    begun: usize,
    reasons: BTreeSet<u64>,
    /// Places of panics, and memory: each is kept once.
    seen: BTreeSet<String>,
    counts: Counts,
    findings: PathBuf,
}

impl Loop {
    fn new(target: &'static Target, plan: Plan, scratch: &Path, findings: PathBuf) -> io::Result<Self> {
        let work = scratch.join("work");
        fs::create_dir_all(&work)?;
        let mut known = (target.seeds)();
        known.extend(corpus(target.name)?);
        Ok(Self {
            target,
            plan,
            running: File::create(scratch.join(RUNNING))?,
            run: (target.open)(&work),
            begun: known.len(),
            known,
            reasons: BTreeSet::new(),
            seen: BTreeSet::new(),
            counts: Counts::default(),
            findings,
        })
    }

    fn run(mut self) -> io::Result<Counts> {
        for number in self.plan.from..self.plan.from.saturating_add(self.plan.executions) {
            // First all known inputs as they are.
            let as_it_is = usize::try_from(number).ok().and_then(|n| self.known.get(n)).cloned();
            let input = match as_it_is.filter(|_| number < self.begun as u64) {
                Some(input) => input,
                None => {
                    let source = Source {
                        shape: self.target.shape,
                        words: self.target.words,
                        known: &self.known,
                        begun: self.begun,
                    };
                    source.input(&mut Random::of(self.plan.seed, self.target.name, number))
                }
            };
            self.execution(&input)?;
        }
        self.note(&[])?;
        Ok(self.counts)
    }

    fn execution(&mut self, input: &[u8]) -> io::Result<()> {
        self.counts.executions += 1;
        self.note(input)?;
        let run = &mut self.run;
        let (taken, outcome) = measured(|| run(input));
        self.counts.peak = self.counts.peak.max(taken.bytes as u64);
        if taken.time > SLOW && micros(taken.time) > self.counts.longest {
            save(
                &self.findings,
                self.target.name,
                "longest",
                &format!("{:?}", taken.time),
                input,
            )?;
        }
        self.counts.longest = self.counts.longest.max(micros(taken.time));
        if taken.bytes > MEMORY {
            let mib = taken.bytes >> 20;
            self.finding("memory", "memory", &format!("{mib} MiB"), input)?;
        }
        let kept = match outcome {
            Ok(Outcome::Accepted) => {
                self.counts.accepted += 1;
                // A few of those that are taken: changes of them get further.
                self.counts.accepted.is_power_of_two()
            }
            Ok(Outcome::Refused(reason)) => self.reasons.insert(reason),
            Err(said) => {
                let place = said.lines().next().unwrap_or_default().to_owned();
                self.finding("panic", &place, &said, input)?;
                false
            }
        };
        self.counts.reasons = self.reasons.len() as u64;
        if kept && input.len() <= LONGEST_KEPT && taken.time < QUICK {
            self.keep(input);
        }
        Ok(())
    }

    fn keep(&mut self, input: &[u8]) {
        if self.known.len() < self.begun + KEPT {
            self.known.push(input.to_vec());
        } else {
            let at = self.begun + usize::try_from(self.counts.executions).unwrap_or(0) % KEPT;
            if let Some(known) = self.known.get_mut(at) {
                *known = input.to_vec();
            }
        }
    }

    /// Writes the counts and the input of the execution that begins.
    fn note(&self, input: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD + input.len());
        let numbers = self.counts.numbers();
        bytes.extend(
            numbers
                .into_iter()
                .chain([input.len() as u64])
                .flat_map(u64::to_le_bytes),
        );
        bytes.extend(input);
        self.running.write_all_at(&bytes, 0)
    }

    fn finding(&mut self, kind: &str, place: &str, said: &str, input: &[u8]) -> io::Result<()> {
        self.counts.findings += 1;
        if self.seen.insert(place.to_owned()) {
            save(&self.findings, self.target.name, kind, said, input)?;
        }
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Keeps the input of a finding and what was said; the path of the input.
///
/// # Errors
/// What the file system says.
pub fn save(findings: &Path, target: &str, kind: &str, said: &str, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(findings)?;
    let name = format!("{target}-{kind}-{:08x}", crc32fast::hash(input));
    let path = findings.join(&name);
    fs::write(findings.join(format!("{name}.txt")), said)?;
    fs::write(&path, input)?;
    Ok(path)
}

/// The inputs of a target's directory in `corpus`, in the order of their names; none where it has none.
fn corpus(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let files = wmtp_base::fs::entries(&dir)?;
    files.into_iter().map(fs::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_leaves_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RUNNING);
        let numbers = [3u64, 1, 2, 400, 5, 0, 4];
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .chain(*b"textand more")
            .collect();
        fs::write(&path, bytes).unwrap();
        let (counts, input) = left(&path).unwrap();
        assert_eq!(input, b"text");
        assert_eq!((counts.executions, counts.accepted, counts.peak), (3, 1, 400));
        fs::write(&path, b"short").unwrap();
        assert!(left(&path).is_err());
    }
}
