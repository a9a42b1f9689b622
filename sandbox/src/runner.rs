//! [`Sandbox`]: puts the layers together.

use crate::{
    ExtraFile, Isolation, Limits, Options, Outcome, Pair, PairSide, Policy, Program, Runner, SandboxError,
    bpf::Filter,
    bubblewrap::Bubblewrap,
    files::{FileRules, landlock_version},
    interpreter::Interpreter,
    io_error,
    launch::{Arguments, Fault, LaunchPlan, OwnFilter, ResourceLimit, Started, Step, start},
    probe,
    scratch::{Scratch, sweep},
    starts::{EachStart, Start, direct, filters},
    volume::Volumes,
    watch::{End, Group, Watched, watch, watch_pair},
};
use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Instant,
};

/// Open files a program may have, standard streams included.
const OPEN_FILES: u64 = 64;
/// Tasks that the user may have beyond those at the sandbox's making: a backstop for the time
/// between two looks at the program's threads. The kernel counts all tasks of the user against it,
/// which is why it is wide, and does not bind root.
const MORE_TASKS: u64 = 4096;
/// Runs each program in a process of its own behind the layers of the crate's first page.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) python: Interpreter,
    temp: std::path::PathBuf,
    gate: Gate,
    filters: Option<EachStart<Filter>>,
    volumes: Option<Volumes>,
    user_tasks: u64,
    level: String,
    layers: Vec<String>,
}

/// One way of isolation.
type Attempt = fn(&Options, Interpreter) -> Result<Sandbox, SandboxError>;

/// What keeps a program from the file system, with the arguments of the start.
#[derive(Debug)]
enum Gate {
    Landlock(FileRules, EachStart<Arguments>),
    Bubblewrap(Bubblewrap),
    /// Nothing: unsafe execution on a host without either.
    Open(EachStart<Arguments>),
}

impl Sandbox {
    /// With `python3` of the PATH and all layers.
    ///
    /// # Errors
    /// As [`Sandbox::with`].
    pub fn new() -> Result<Self, SandboxError> {
        Self::with(&Options::default())
    }

    /// Finds the interpreter, and runs a program that tries whether every layer holds (once in the
    /// process for the same options).
    ///
    /// # Errors
    /// [`SandboxError::NoPython`]; [`SandboxError::Layer`] for a layer that the host does not give
    /// or that does not hold, unless `options.policy` is [`Policy::UnsafeExec`].
    pub fn with(options: &Options) -> Result<Self, SandboxError> {
        let python = Interpreter::find(&options.python)?;
        sweep(&options.temp);
        let tries: &[Attempt] = match options.isolation {
            Isolation::Auto => &[Self::behind_landlock, Self::behind_bubblewrap],
            Isolation::Landlock => &[Self::behind_landlock],
            Isolation::Bubblewrap => &[Self::behind_bubblewrap],
        };
        let mut first = None;
        for try_it in tries {
            let made = try_it(options, python.clone()).and_then(|sandbox| sandbox.verified(options));
            match made {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => first = first.or(Some(error)),
            }
        }
        match first {
            Some(SandboxError::Layer { layer, reason, .. }) if options.policy == Policy::UnsafeExec => {
                tracing::warn!(layer, reason, "untrusted programs run without a layer of the sandbox");
                Self::without_missing(options, python)
            }
            Some(error) => Err(error),
            None => Err(SandboxError::Request("no way of isolation was asked for".to_owned())),
        }
    }

    /// Itself if every layer holds: with volumes where the host gives them and programs start on them.
    fn verified(mut self, options: &Options) -> Result<Self, SandboxError> {
        let watched = |error: &dyn std::error::Error| {
            tracing::info!(%error, "programs' directories are watched, because none can be mounted");
        };
        match options.mount.then(Volumes::find) {
            Some(Ok(volumes)) => {
                self.volumes = Some(volumes);
                self.layers.push("tmpfs".into());
                self.level = self.layers.join("+");
                match probe::verify(&self, options) {
                    Ok(()) => return Ok(self),
                    Err(error) => watched(&error),
                }
                self.volumes = None;
                self.layers.pop();
                self.level = self.layers.join("+");
            }
            Some(Err(error)) => watched(&error),
            None => {}
        }
        probe::verify(&self, options)?;
        Ok(self)
    }

    fn behind_landlock(options: &Options, python: Interpreter) -> Result<Self, SandboxError> {
        let version = landlock_version().map_err(|error| layer("landlock", &error))?;
        let files = FileRules::new(version, &python, &options.readable)?;
        let arguments = direct(&python)?;
        let filters = filters(&arguments, version >= 3)?;
        let layers = vec![format!("landlock-{version}"), "seccomp".into(), "rlimits".into()];
        Ok(Self::assemble(
            options,
            python,
            Gate::Landlock(files, arguments),
            Some(filters),
            layers,
        ))
    }

    fn behind_bubblewrap(options: &Options, python: Interpreter) -> Result<Self, SandboxError> {
        let bubblewrap = Bubblewrap::find(&python, &options.readable)?;
        let filters = EachStart::new(|_| bubblewrap.filter())?;
        let layers = ["bubblewrap", "seccomp", "rlimits"].map(String::from).to_vec();
        Ok(Self::assemble(
            options,
            python,
            Gate::Bubblewrap(bubblewrap),
            Some(filters),
            layers,
        ))
    }

    /// Tries the layers one by one and leaves out what does not work.
    fn without_missing(options: &Options, python: Interpreter) -> Result<Self, SandboxError> {
        let mut missing = Vec::new();
        let mut layers = Vec::new();
        let arguments = direct(&python)?;
        let version = landlock_version().unwrap_or(0);
        let own_filters = filters(&arguments, version >= 3).ok();
        let mut gate = Gate::Open(arguments);
        let nothing = |gate| Self::assemble(options, python.clone(), gate, None, Vec::new());
        if version > 0 {
            let files = FileRules::new(version, &python, &options.readable)?;
            let trial = nothing(Gate::Landlock(files, direct(&python)?));
            if probe::holds(&trial, "landlock")? {
                layers.push(format!("landlock-{version}"));
                gate = match (gate, trial.gate) {
                    (Gate::Open(arguments), Gate::Landlock(files, _)) => Gate::Landlock(files, arguments),
                    (gate, _) => gate,
                };
            }
        }
        if layers.is_empty() {
            missing.push("landlock");
        }
        let mut sandbox = nothing(gate);
        sandbox.filters = own_filters;
        if probe::holds(&sandbox, "seccomp")? {
            layers.push("seccomp".into());
        } else {
            sandbox.filters = None;
            missing.push("seccomp");
        }
        layers.push("rlimits".into());
        sandbox.level = layers.join("+");
        if !missing.is_empty() {
            sandbox.level = format!("unsafe: {}, without {}", sandbox.level, missing.join(" and "));
        }
        sandbox.layers = layers;
        Ok(sandbox)
    }

    fn assemble(
        options: &Options,
        python: Interpreter,
        gate: Gate,
        filters: Option<EachStart<Filter>>,
        layers: Vec<String>,
    ) -> Self {
        Self {
            python,
            temp: options.temp.clone(),
            gate,
            filters,
            volumes: None,
            user_tasks: user_tasks(),
            level: layers.join("+"),
            layers,
        }
    }

    /// Like [`Runner::run`], with `files` in the working directory.
    ///
    /// # Errors
    /// As [`Runner::run`], and [`SandboxError::Request`] for a name that is no plain file name.
    pub fn run_with_files(
        &self,
        program: &Program<'_>,
        files: &[ExtraFile<'_>],
        limits: &Limits,
    ) -> Result<Outcome, SandboxError> {
        let scratch = self.scratch(program.source, files, limits)?;
        let stdin = match program.stdin {
            [] => File::open("/dev/null").map(OwnedFd::from),
            bytes => sealed_file(bytes),
        }
        .map_err(io_error("write standard input"))?;
        let [(out, out_end), (err, err_end)] = [pipe()?, pipe()?];
        let started = Instant::now();
        let group = self.group(Start::Usual, &scratch, [stdin, out_end, err_end], limits)?;
        let program = self.watched(group, [Some(out), Some(err)], &scratch, limits, started)?;
        let end = watch(program).map_err(io_error("watch the program"))?;
        Ok(self.outcome(end, limits, started))
    }

    fn scratch(&self, source: &str, files: &[ExtraFile<'_>], limits: &Limits) -> Result<Scratch, SandboxError> {
        let volumes = self.volumes.as_ref().map(|volumes| (volumes, limits));
        Scratch::new(&self.temp, source, files, volumes)
    }

    /// Starts a program, and closes the descriptors that are its streams now.
    fn group(
        &self,
        start: Start,
        scratch: &Scratch,
        streams: [OwnedFd; 3],
        limits: &Limits,
    ) -> Result<Group, SandboxError> {
        let [stdin, out, err] = &streams;
        let child = self.start(start, scratch, [stdin.as_fd(), out.as_fd(), err.as_fd()], limits)?;
        let generations = if matches!(self.gate, Gate::Bubblewrap(_)) { 2 } else { 0 };
        let group = Group::new(child, generations);
        // Where memory runs out the program goes first; best effort.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", group.pid()), "1000");
        Ok(group)
    }

    fn watched<'a>(
        &self,
        group: Group,
        pipes: [Option<OwnedFd>; 2],
        scratch: &'a Scratch,
        limits: &'a Limits,
        started: Instant,
    ) -> Result<Watched<'a>, SandboxError> {
        Watched::new(group, pipes, scratch, limits, started).map_err(io_error("watch the program"))
    }

    fn outcome(&self, end: End, limits: &Limits, started: Instant) -> Outcome {
        let status = match self.gate {
            Gate::Bubblewrap(_) => Bubblewrap::status(end.status, end.cpu >= limits.cpu),
            _ => end.status,
        };
        let [stdout, stderr] = end.outputs;
        Outcome {
            status,
            breach: end.breach,
            stdout,
            stderr,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    fn start(
        &self,
        way: Start,
        scratch: &Scratch,
        streams: [BorrowedFd<'_>; 3],
        limits: &Limits,
    ) -> Result<Started, SandboxError> {
        let limits = self.resource_limits(limits);
        let volume = scratch.attach(self.volumes.as_ref());
        let filter = self.filters.as_ref().map(|filters| filters.of(way));
        let mut plan = LaunchPlan {
            arguments: match &self.gate {
                Gate::Landlock(_, arguments) | Gate::Open(arguments) => arguments.of(way),
                Gate::Bubblewrap(bubblewrap) => {
                    let code = filter.map_or(&[][..], |filter| &filter.code);
                    let started = bubblewrap.start(way, (scratch, volume), streams, &limits, code);
                    return started.map_err(said);
                }
            },
            streams,
            directory: scratch.directory(),
            volume,
            limits: &limits,
            ruleset: None,
            filter: filter.map(|filter| OwnFilter {
                code: filter.code.clone(),
                pid_at: &filter.pid_at,
            }),
            without_capabilities: true,
            kept: &[],
        };
        match &self.gate {
            Gate::Landlock(files, _) => {
                let ruleset = files.with_directory(scratch.directory());
                let ruleset = ruleset.map_err(|error| layer("landlock", &error))?;
                plan.ruleset = Some(ruleset.as_fd());
                start(&mut plan).map_err(said)
            }
            _ => start(&mut plan).map_err(said),
        }
    }

    fn resource_limits(&self, limits: &Limits) -> [ResourceLimit; 12] {
        let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
        let tasks = self.user_tasks + MORE_TASKS;
        [
            // At the soft limit comes SIGXCPU, which can be caught; a second later SIGKILL.
            (libc::RLIMIT_CPU, cpu, cpu + 1),
            (libc::RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
            (libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
            (libc::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
            (libc::RLIMIT_NPROC, tasks, tasks),
            // The same for every caller. A program that recurses deeply may ask for more, as contest
            // solutions do; what a stack grows counts against the address space, which is limited.
            (libc::RLIMIT_STACK, 8 << 20, libc::RLIM_INFINITY),
            // 1 and not 0: with 0 a dump still goes to a program that the system may have named.
            (libc::RLIMIT_CORE, 1, 1),
            (libc::RLIMIT_MEMLOCK, 0, 0),
            (libc::RLIMIT_MSGQUEUE, 0, 0),
            (libc::RLIMIT_SIGPENDING, 1024, 1024),
            (libc::RLIMIT_NICE, 0, 0),
            (libc::RLIMIT_RTPRIO, 0, 0),
        ]
    }
}

impl Runner for Sandbox {
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError> {
        self.run_with_files(program, &[], limits)
    }

    fn run_pair(&self, pair: &Pair<'_>, limits: &Limits) -> Result<[Outcome; 2], SandboxError> {
        let scratch = |side: &PairSide<'_>| self.scratch(side.source, side.files, limits);
        let scratches = [scratch(&pair.first)?, scratch(&pair.second)?];
        let [(to_second, from_first), (to_first, from_second)] = [pipe()?, pipe()?];
        let [(first_err, first_err_end), (second_err, second_err_end)] = [pipe()?, pipe()?];
        let started = Instant::now();
        let [first, second] = &scratches;
        // No process has more than its own three descriptors: all of them close where a program is started.
        let first_group = self.group(Start::Bare, first, [to_first, from_first, first_err_end], limits)?;
        let second_group = self.group(Start::Bare, second, [to_second, from_second, second_err_end], limits)?;
        let first = self.watched(first_group, [None, Some(first_err)], first, limits, started)?;
        let second = self.watched(second_group, [None, Some(second_err)], second, limits, started)?;
        let ends = watch_pair(first, second).map_err(io_error("watch the programs"))?;
        Ok(ends.map(|end| self.outcome(end, limits, started)))
    }

    fn level(&self) -> &str {
        &self.level
    }

    fn layers(&self) -> &[String] {
        &self.layers
    }

    fn python(&self) -> &str {
        &self.python.version
    }
}

/// The error for a layer that the host does not give.
pub(crate) fn layer(layer: &'static str, error: &io::Error) -> SandboxError {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => format!("the kernel, or a container's filter, does not know it ({error})"),
        Some(libc::EOPNOTSUPP) => format!("the kernel has it but it was turned off at boot ({error})"),
        _ => error.to_string(),
    };
    SandboxError::Layer {
        layer,
        reason,
        advice: match layer {
            "landlock" => {
                "use Linux 5.13 or newer with landlock among the boot option `lsm=`, let the container's \
                 system-call filter pass landlock_*, or install bubblewrap where user namespaces are allowed"
            }
            "bubblewrap" => "install bubblewrap and allow user namespaces, or use Landlock",
            "seccomp" => "use Linux on x86-64 or arm64 with seccomp filters, and a container that allows them",
            _ => "ask for it where the process is started",
        },
    }
}

/// The error for a failed start.
fn said(fault: Fault) -> SandboxError {
    match fault.step {
        Step::Landlock => layer("landlock", &fault.error),
        Step::Seccomp => layer("seccomp", &fault.error),
        Step::Limits => layer("rlimits", &fault.error),
        Step::Privileges => layer("no-new-privileges", &fault.error),
        Step::Process => io_error("start a process")(fault.error),
        Step::Volume => io_error("mount a program's directory")(fault.error),
        Step::Exec => io_error("start the interpreter")(fault.error),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    let pair = io::pipe().map_err(io_error("make a pipe"))?;
    Ok((pair.0.into(), pair.1.into()))
}

/// A regular file in memory with `bytes`, at its start, that nobody can change.
pub(crate) fn sealed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: a name that ends with a zero; the descriptor is new and ours alone.
    let mut file = unsafe {
        match libc::memfd_create(c"stdin".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) {
            -1 => return Err(io::Error::last_os_error()),
            fd => File::from_raw_fd(fd),
        }
    };
    file.write_all(bytes)?;
    io::Seek::rewind(&mut file)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: an open descriptor and a plain value.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file.into()),
    }
}

/// Tasks of the caller's user at this moment.
fn user_tasks() -> u64 {
    // SAFETY: no arguments, cannot fail.
    let user = unsafe { libc::getuid() };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == user))
        .filter_map(|entry| std::fs::read_dir(entry.path().join("task")).ok())
        .map(|tasks| tasks.count() as u64)
        .sum()
}
