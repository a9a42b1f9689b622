//! From records of any source to a training and a validation set.

use super::{
    CacheEvent, Copies, DataConfig, DataError, Dataset, DatasetReport, EvaluationProblem, Example, PromptStyle,
    Rendering, Splits, TokenCache, TokenReport, Tokenized, Tokenizer,
    collect::Collector,
    decontaminate::{self, Index, TextOverlap},
    example::{Spelling, spelled},
    source,
    stream::{Preparation, Prepared, ProblemHash},
    text,
    token_cache::{Building, Reports, key},
};
use std::collections::{BTreeMap, HashMap};

/// Which samples are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What a model learns to write: samples without a label, and those that are right (a reward above 0.5).
    Right,
    /// What a critic learns from: samples with a label or reward.
    Labelled,
}

/// A source, and whether it is held out whatever its problems are.
pub struct Rows<'a> {
    /// Its records. They are read a second time where no problem falls into `data.valid_share` by its hash.
    pub source: &'a dyn source::Dataset,
    /// It is a validation split.
    pub held_out: bool,
    /// How much of it an epoch holds, relative to all of it.
    pub weight: f64,
    /// Samples that copy an evaluation problem are left out whatever `data.copies` says.
    pub without_copies: bool,
}

/// Training and validation set of these sources and of `texts` (training only).
///
/// Where no source has a validation split, `data.valid_share` of the problems are held out, at least one. Which
/// ones depends on the problems alone, so that a row stays on its side when others are added.
///
/// With `cache`, documents that are too large for memory are on disk, and a later call with the same data and
/// settings finds them there.
///
/// # Errors
/// A row that can't be read or rendered, a reward outside 0 to 1, evaluation problems in the training set, a
/// document too long if that is refused, nothing left to train on or to hold out, or a cache that can't be
/// written.
pub fn splits(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    evaluation: &[EvaluationProblem],
    texts: &[Example],
    sources: &[Rows<'_>],
    wanted: Wanted,
    cache: Option<&TokenCache<'_>>,
) -> Result<Splits, DataError> {
    let cache = match cache {
        Some(cache) => {
            let key = key(config, tokenizer, evaluation, texts, sources, wanted, &cache.hashes())?;
            if let Some(splits) = cache.open(&key, config)? {
                return Ok(splits);
            }
            Some((cache, key))
        }
        None => None,
    };
    let task = Task {
        config,
        tokenizer,
        evaluation,
        texts,
        sources,
        wanted,
        cache: cache.as_ref().map(|(cache, key)| (*cache, key.as_str())),
    };
    let own_split = sources.iter().any(|source| source.held_out);
    let mut outcome = task.read(if own_split { Holding::Source } else { Holding::Share })?;
    if let Outcome::NoneHeldOut { least } = outcome {
        outcome = task.read(Holding::Least(least))?;
    }
    match (outcome, cache) {
        (Outcome::Memory(splits), _) => Ok(*splits),
        (Outcome::Disk | Outcome::NoneHeldOut { .. }, Some((cache, key))) => {
            let opened = cache.open(&key, config)?;
            opened.ok_or_else(|| cache.unusable(&key))
        }
        // Not without a cache.
        (Outcome::Disk | Outcome::NoneHeldOut { .. }, None) => Err(nothing("data", 0, wanted)),
    }
}

/// What is read, and how.
struct Task<'a> {
    config: &'a DataConfig,
    tokenizer: &'a Tokenizer,
    evaluation: &'a [EvaluationProblem],
    texts: &'a [Example],
    sources: &'a [Rows<'a>],
    wanted: Wanted,
    cache: Option<(&'a TokenCache<'a>, &'a str)>,
}

/// Which problems are held out of sources that are not.
#[derive(Clone, Copy, Debug)]
enum Holding {
    /// None: a source is.
    Source,
    /// `data.valid_share` of them.
    Share,
    /// The one with this number.
    Least(f64),
}

/// Where the documents are.
enum Outcome {
    Memory(Box<Splits>),
    /// In the cache.
    Disk,
    /// All problems are above `data.valid_share`; the least is held out then.
    NoneHeldOut {
        least: f64,
    },
}

/// A uniform number below 1 for each problem, from its hash.
fn unit(hash: &ProblemHash) -> f64 {
    let first = hash.first_chunk::<8>().copied().unwrap_or_default();
    u64::from_be_bytes(first) as f64 / 2f64.powi(64)
}

impl Task<'_> {
    /// Reads all sources once.
    fn read(&self, holding: Holding) -> Result<Outcome, DataError> {
        let share = self.config.valid_share;
        let held_out = |hash: &ProblemHash| match holding {
            Holding::Source => false,
            Holding::Share => unit(hash) < share,
            Holding::Least(least) => unit(hash) == least,
        };
        let preparation = Preparation {
            config: self.config,
            rendering: Rendering::new(self.config, self.tokenizer),
            spelling: Spelling::of(self.tokenizer),
            index: Index::of(self.evaluation),
            wanted: self.wanted,
            held_out: &held_out,
        };
        let mut sides = Sides::new(self)?;
        for source in self.sources {
            let without_copies = source.without_copies || self.config.copies == Copies::Drop;
            let (mut rows, of) = (0, source.source.len_hint());
            preparation.each(source, &mut |chunk| {
                rows += chunk.len();
                for row in chunk {
                    sides.unwanted += row.unwanted;
                    for sample in row.samples {
                        let is_copy = sample.known.as_ref().is_some_and(|known| known.overlap.is_copy());
                        match without_copies && is_copy {
                            true => sides.overlap += TextOverlap::left_out(),
                            false => sides.push(sample)?,
                        }
                    }
                }
                if let Some((cache, _)) = self.cache {
                    let tokens = sides.tokens;
                    cache.say(CacheEvent::Tokenized { rows, of, tokens });
                    if cache.is_stopped() {
                        return Err(DataError::Stopped);
                    }
                }
                sides.spill()?;
                Ok(!sides.ready)
            })?;
            if sides.ready {
                return Ok(Outcome::Disk);
            }
            if !source.held_out {
                sides.train.end_part(source.weight);
            }
        }
        if sides.problems.is_empty() {
            return Err(nothing(&self.names(), sides.unwanted, self.wanted));
        }
        if let (Holding::Share, 0) = (holding, sides.held_out) {
            return Ok(Outcome::NoneHeldOut { least: sides.least });
        }
        self.finish(sides, &preparation)
    }

    /// Adds `data.text` and makes the sets.
    fn finish(&self, mut sides: Sides<'_>, preparation: &Preparation<'_>) -> Result<Outcome, DataError> {
        let sizes = [("training data", &sides.train), ("validation data", &sides.valid)];
        if let Some((what, _)) = sizes.into_iter().find(|(_, side)| side.pushed() == 0) {
            return Err(DataError::Empty {
                what: what.into(),
                why: format!(
                    "`{}` has {} problem(s); at least one is trained on and one held out, so give rows with two different prompts",
                    self.names(),
                    sides.problems.len()
                ),
            });
        }
        let (config, texts) = (self.config, self.texts);
        let mut overlap = sides.overlap.report();
        overlap += preparation.index.compare_texts(texts);
        let overlap = decontaminate::refuse_copies(overlap, config.i_know_this_trains_on_evaluation_data)?;
        let mut counts = preparation.spelling.named(sides.spelled);
        for (token, count) in spelled(texts, self.tokenizer)? {
            *counts.entry(token).or_default() += count;
        }
        let read = text::tokenized(texts, self.tokenizer, config.seq_len, sides.train.pushed())?;
        for document in read.documents {
            sides.train.push(document)?;
        }
        sides.train.end_part(1.0);
        sides.valid.end_part(1.0);
        let mut tokens = TokenReport::new(self.tokenizer, counts, sides.short, sides.tail_tokens);
        tokens.texts_too_short = sides.short_texts;
        let (Some(building), Some((cache, key))) = (sides.building, self.cache) else {
            return Ok(Outcome::Memory(Box::new(Splits {
                train: Dataset::of(sides.train.finish()?, config.seq_len, config.pack),
                valid: Dataset::of(sides.valid.finish()?, config.seq_len, config.pack),
                overlap,
                tokens,
            })));
        };
        let written = (sides.train.finish_on_disk()?, sides.valid.finish_on_disk()?);
        let (Some(train), Some(valid)) = written else {
            return Err(cache.unusable(key));
        };
        let names = self.sources.iter().filter(|source| !source.held_out);
        let names = names.map(|source| source.source.name().to_owned()).collect();
        building.finish(
            names,
            self.tokenizer.vocab_size(),
            [train, valid],
            Reports { overlap, tokens },
        )?;
        Ok(Outcome::Disk)
    }

    /// The sources as messages name them.
    fn names(&self) -> String {
        let names: Vec<&str> = self.sources.iter().map(|source| source.source.name()).collect();
        names.join("`, `")
    }
}

/// Problems' numbers by their hashes. In parts, because a table that grows needs the old place and one twice as
/// large at once: of millions of problems that is more than everything else that is held, of a part next to nothing.
struct Problems {
    /// One for each last byte.
    parts: [HashMap<ProblemHash, u32>; 256],
    count: u32,
}

impl Problems {
    fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| HashMap::new()),
            count: 0,
        }
    }

    /// The problem's number: the next one where it is new.
    fn number(&mut self, hash: ProblemHash) -> u32 {
        // The last byte: the first ones decide what is held out.
        let [.., last] = hash;
        *self.parts[usize::from(last)].entry(hash).or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    fn len(&self) -> usize {
        self.count as usize
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Both sides of the split while they are read.
struct Sides<'a> {
    task: &'a Task<'a>,
    train: Collector,
    valid: Collector,
    /// Problems' numbers by their hashes, in the order in which they occur first.
    problems: Problems,
    /// Samples that are held out.
    held_out: usize,
    /// The least number of a problem.
    least: f64,
    /// Samples left out because of their label, or because they have none.
    unwanted: usize,
    overlap: TextOverlap,
    spelled: BTreeMap<u32, usize>,
    /// Texts too short for a document: the first ones, and how many.
    short: Vec<(String, usize)>,
    short_texts: usize,
    tail_tokens: usize,
    tokens: u64,
    /// The cache, once the documents are on disk.
    building: Option<Building>,
    /// Another process has made the cache.
    ready: bool,
}

impl<'a> Sides<'a> {
    fn new(task: &'a Task<'a>) -> Result<Self, DataError> {
        let side = || Collector::new(task.config.seq_len, task.config.too_long);
        Ok(Self {
            task,
            train: side()?,
            valid: side()?,
            problems: Problems::new(),
            held_out: 0,
            least: f64::INFINITY,
            unwanted: 0,
            overlap: TextOverlap::default(),
            spelled: BTreeMap::new(),
            short: Vec::new(),
            short_texts: 0,
            tail_tokens: 0,
            tokens: 0,
            building: None,
            ready: false,
        })
    }

    fn push(&mut self, sample: Prepared) -> Result<(), DataError> {
        let problem = self.problems.number(sample.problem);
        self.least = self.least.min(unit(&sample.problem));
        self.held_out += usize::from(sample.held_out);
        let side = if sample.held_out {
            &mut self.valid
        } else {
            &mut self.train
        };
        for document in sample.documents {
            self.tokens += document.tokens.len() as u64;
            side.push(Tokenized {
                sample: side.pushed(),
                problem,
                ..document
            })?;
        }
        if let Some(known) = sample.known {
            self.overlap += known.overlap;
            self.short_texts += usize::from(known.short.is_some());
            if self.short.len() < DatasetReport::NAMED {
                self.short.extend(known.short);
            }
            self.tail_tokens += known.tail_tokens;
            for (id, count) in known.spelled {
                *self.spelled.entry(id).or_default() += count;
            }
        }
        Ok(())
    }

    /// Moves the documents to disk where they have become too large for memory.
    fn spill(&mut self) -> Result<(), DataError> {
        let Some((cache, key)) = self.task.cache else {
            return Ok(());
        };
        if self.ready || self.building.is_some() || self.train.bytes() + self.valid.bytes() <= cache.memory() {
            return Ok(());
        }
        match cache.begin(key)? {
            Some(building) => {
                let [train, valid] = building.writers(self.task.tokenizer.vocab_size())?;
                self.building = Some(building);
                self.train.move_to(train)?;
                self.valid.move_to(valid)
            }
            None => {
                self.ready = true;
                Ok(())
            }
        }
    }
}

impl Rendering {
    /// As the recipe's section `data` says.
    pub fn new(config: &DataConfig, tokenizer: &Tokenizer) -> Self {
        Self {
            plain: tokenizer.clone(),
            chat: tokenizer.clone().for_chat(),
            instructions_as_chat: config.prompt == PromptStyle::Chat,
            train_on: config.train_on,
            seq_len: config.seq_len,
        }
    }
}

/// Why nothing is left.
fn nothing(names: &str, unwanted: usize, wanted: Wanted) -> DataError {
    let why = match (wanted, unwanted) {
        (_, 0) => format!("`{names}` has no rows; check `data.source` and `data.split`"),
        (Wanted::Labelled, _) => format!(
            "no row of `{names}` has a label, and the critic learns from labels: give `label`, `reward`, `chosen` and `rejected`, or train the baseline"
        ),
        (Wanted::Right, n) => format!("all {n} samples of `{names}` are labelled as wrong; give right ones"),
    };
    DataError::Empty {
        what: "training data".into(),
        why,
    }
}
