//! A bounded pool of judges between where answers come from and where results go.
//!
//! Answers are handed over as they come, and wait if the judges are behind: a model does not run
//! ahead of them without bound. The first failure ends the run; what was judged by then is written.

use super::{
    Progress, Source,
    jobs::Job,
    part::{Part, SampleLine},
    report::Counts,
    times::{TimeShares, Times},
};
use crate::{
    Answer, Benchmark, EvalError, EvalRequest, GenerationRequest, Generator, Judge, Verdict,
    lengths::{self, PROMPT_TOO_LONG},
};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

/// Answers that may wait for each judge: enough that none is idle while a batch is generated.
const WAITING: usize = 4;
/// Samples that a generator receives at once: enough to keep its batches full, few enough for their prompts
/// to fit in memory.
const SLAB: usize = 8192;

/// Where results go: the part file, the counts, the progress callback.
pub(super) struct Sink<'a> {
    part: Part,
    groups: Vec<Counts>,
    far: Progress,
    progress: &'a mut (dyn FnMut(&Progress) + Send),
    failure: Option<EvalError>,
}

impl<'a> Sink<'a> {
    /// With what an earlier process has judged.
    pub fn open(
        request: &EvalRequest,
        jobs: &[Job],
        progress: &'a mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Self, EvalError> {
        let mut groups = vec![Counts::default(); request.temperatures.len().max(1)];
        let mut far = Progress {
            total: jobs.len(),
            ..Progress::default()
        };
        let part = Part::open(&request.output, jobs, &request.temperatures, |index, sample| {
            far.resumed += 1;
            far.done += 1;
            far.passed += usize::from(sample.passed);
            count(&mut groups, jobs.get(index), sample)
        })?;
        if far.resumed > 0 {
            progress(&far);
        }
        Ok(Self {
            part,
            groups,
            far,
            progress,
            failure: None,
        })
    }

    fn record(&mut self, index: usize, job: &Job, sample: &SampleLine) -> Result<(), EvalError> {
        self.part.append(index, sample)?;
        count(&mut self.groups, Some(job), sample)?;
        self.far.done += 1;
        self.far.passed += usize::from(sample.passed);
        self.far.tokens += sample.tokens;
        (self.progress)(&self.far);
        Ok(())
    }

    pub fn into_parts(self) -> (Part, Vec<Counts>, Progress) {
        (self.part, self.groups, self.far)
    }
}

fn count(groups: &mut [Counts], job: Option<&Job>, sample: &SampleLine) -> Result<(), EvalError> {
    match job.and_then(|job| Some((job.task, groups.get_mut(job.group)?))) {
        Some((task, counts)) => counts.add(task, sample),
        None => Ok(()),
    }
}

/// An answer on its way to a judge.
struct Arrived {
    index: usize,
    /// The completion or program.
    text: String,
    program: bool,
    /// The whole of an assistant's answer, if the text is a part of it.
    answer: Option<String>,
    tokens: usize,
}

/// Judges every job that the sink does not have yet; where the time went.
pub(super) fn judge_all(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    jobs: &[Job],
    source: &mut Source<'_>,
    judge: &Judge<'_>,
    sink: &mut Sink<'_>,
) -> Result<TimeShares, EvalError> {
    let mut pending: Vec<usize> = (0..jobs.len()).filter(|&index| !sink.part.has(index)).collect();
    if let Source::Generator(generator) = source {
        fail_too_long(benchmark, request, jobs, &**generator, &mut pending, sink)?;
    }
    if pending.is_empty() {
        return Ok(TimeShares::default());
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let judges = request.judges.unwrap_or(cores).clamp(1, pending.len());
    let tasks: BTreeSet<u32> = pending
        .iter()
        .filter_map(|&index| jobs.get(index))
        .map(|job| job.task)
        .collect();
    benchmark.prepare(&tasks.into_iter().collect::<Vec<_>>(), judge, judges)?;
    let (sink, times) = (Mutex::new(sink), Times::new());
    let (sender, receiver) = sync_channel(judges * WAITING);
    let receiver = Mutex::new(receiver);
    let work = Work {
        benchmark,
        request,
        jobs,
        judge,
        sink: &sink,
        times: &times,
    };
    let fed = thread::scope(|scope| {
        for _ in 0..judges {
            scope.spawn(|| work.take(&receiver));
        }
        // The sender goes with this closure, which ends the judges.
        let sender = sender;
        match source {
            Source::Generator(generator) => pending
                .chunks(SLAB)
                .try_for_each(|slab| work.draw(slab, &mut **generator, &sender)),
            Source::Given(given) => pending.iter().try_for_each(|&index| {
                let job = jobs.get(index);
                let Some(answer) = job.and_then(|job| given.of(job.task).get(job.sample)) else {
                    return Ok(());
                };
                work.hand_over(
                    &sender,
                    Arrived {
                        index,
                        text: answer.text.clone(),
                        program: answer.program,
                        answer: None,
                        tokens: 0,
                    },
                )
            }),
        }
    });
    // The judges' failure is the cause, that of feeding them its consequence.
    match lock(&sink).failure.take() {
        Some(failure) => Err(failure),
        None => fed.map(|()| times.shares(judges)),
    }
}

/// Takes the jobs whose prompt is longer than the model takes out of `pending`, and records them as
/// failed. Refuses if the request says so.
fn fail_too_long(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    jobs: &[Job],
    generator: &dyn Generator,
    pending: &mut Vec<usize>,
    sink: &mut Sink<'_>,
) -> Result<(), EvalError> {
    let long = lengths::too_long(benchmark, &request.tasks, generator, request.too_long)?;
    let is_long = |index: &usize| jobs.get(*index).is_some_and(|job| long.contains(&job.task));
    let (failed, rest): (Vec<usize>, Vec<usize>) = pending.iter().copied().partition(is_long);
    *pending = rest;
    for index in failed {
        let Some(job) = jobs.get(index) else { continue };
        let verdict = Verdict::Error(PROMPT_TOO_LONG.into());
        let sample = SampleLine {
            task_id: job.task_id.to_string(),
            completion: Some(String::new()),
            solution: None,
            passed: false,
            result: verdict.to_string(),
            verified: false,
            reason: None,
            seed: Some(job.seed),
            temperature: request.temperatures.get(job.group).copied(),
            sample: job.sample,
            exact: false,
            tokens: 0,
            base_result: None,
            plus_result: None,
            tests_passed: None,
            tests_run: None,
            first_failed: None,
            answer: None,
        };
        sink.record(index, job, &sample)?;
    }
    Ok(())
}

struct Work<'a, 's> {
    benchmark: &'a dyn Benchmark,
    request: &'a EvalRequest,
    jobs: &'a [Job],
    judge: &'a Judge<'a>,
    sink: &'a Mutex<&'a mut Sink<'s>>,
    times: &'a Times,
}

impl Work<'_, '_> {
    /// Asks the generator for these jobs.
    fn draw(
        &self,
        slab: &[usize],
        generator: &mut dyn Generator,
        sender: &SyncSender<Arrived>,
    ) -> Result<(), EvalError> {
        let mut requests = Vec::with_capacity(slab.len());
        for job in slab.iter().filter_map(|&index| self.jobs.get(index)) {
            requests.push(GenerationRequest {
                prompt: self.benchmark.prompt(job.task)?.to_owned(),
                seed: job.seed,
                temperature: self.request.temperatures.get(job.group).copied().unwrap_or(0.0),
            });
        }
        let stop = self.benchmark.stop();
        let mut missing: Vec<bool> = vec![true; requests.len()];
        let mut handed = |place: usize, completion: crate::Completion| {
            match missing.get_mut(place) {
                Some(missing) if *missing => *missing = false,
                _ => {
                    return Err(EvalError::Generate(format!(
                        "an answer to request {place} came unasked or twice"
                    )));
                }
            }
            let text = stop.cut(&completion.text);
            let task = slab
                .get(place)
                .and_then(|&index| self.jobs.get(index))
                .map(|job| job.task);
            let part = self.benchmark.completion(task.unwrap_or_default(), text);
            self.hand_over(
                sender,
                Arrived {
                    index: slab.get(place).copied().unwrap_or_default(),
                    answer: (part.trim() != text.trim()).then(|| text.to_owned()),
                    text: part,
                    program: false,
                    tokens: completion.tokens,
                },
            )
        };
        self.times
            .drawing(|| generator.generate(&requests, &stop, &mut handed))?;
        match missing.iter().filter(|missing| **missing).count() {
            0 => Ok(()),
            lost => Err(EvalError::Generate(format!(
                "{} completions came back for {} prompts",
                requests.len() - lost,
                requests.len()
            ))),
        }
    }

    /// Waits until a judge has room.
    fn hand_over(&self, sender: &SyncSender<Arrived>, arrived: Arrived) -> Result<(), EvalError> {
        let over = || EvalError::Generate("the run has ended".into());
        if lock(self.sink).failure.is_some() {
            return Err(over());
        }
        let sent = match sender.try_send(arrived) {
            // Given, not drawn.
            Err(TrySendError::Full(arrived)) if self.request.temperatures.is_empty() => sender.send(arrived).is_ok(),
            Err(TrySendError::Full(arrived)) => self.times.waiting(|| sender.send(arrived).is_ok()),
            sent => sent.is_ok(),
        };
        if sent { Ok(()) } else { Err(over()) }
    }

    /// A judge: takes answers until no more come. After a failure it still takes them, so that the sender is
    /// not blocked and learns of the failure.
    fn take(&self, receiver: &Mutex<Receiver<Arrived>>) {
        loop {
            let next = lock(receiver).recv();
            let Ok(arrived) = next else { return };
            if lock(self.sink).failure.is_some() {
                continue;
            }
            let done = self.times.judging(|| self.judged(arrived));
            if let Err(failure) = done {
                lock(self.sink).failure.get_or_insert(failure);
            }
        }
    }

    fn judged(&self, arrived: Arrived) -> Result<(), EvalError> {
        let Some(job) = self.jobs.get(arrived.index) else {
            return Ok(());
        };
        let answer = match arrived.program {
            true => Answer::Program(&arrived.text),
            false => Answer::Completion(&arrived.text),
        };
        let judgement = self.benchmark.judge(job.task, answer, self.judge)?;
        let exact = self.benchmark.is_reference(job.task, answer)?;
        let drawn = !self.request.temperatures.is_empty();
        let verified = judgement.verified();
        let (tests, stages) = (judgement.tests, judgement.stages);
        let (completion, solution) = match arrived.program {
            true => (None, Some(arrived.text)),
            false => (Some(arrived.text), None),
        };
        let sample = SampleLine {
            task_id: job.task_id.to_string(),
            completion,
            solution,
            passed: judgement.verdict.passed(),
            result: judgement.verdict.to_string(),
            verified,
            reason: judgement.unverified,
            seed: drawn.then_some(job.seed),
            temperature: self.request.temperatures.get(job.group).copied(),
            sample: job.sample,
            exact,
            tokens: arrived.tokens,
            base_result: stages.as_ref().map(|stages| stages.base.to_string()),
            plus_result: stages.map(|stages| stages.plus.to_string()),
            tests_passed: tests.as_ref().map(|tests| tests.passed),
            tests_run: tests.as_ref().map(|tests| tests.run),
            first_failed: tests.and_then(|tests| tests.first_failed),
            answer: arrived.answer,
        };
        lock(self.sink).record(arrived.index, job, &sample)
    }
}

/// The lock of a judge that panicked is taken over: its thread's scope tells of the panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
