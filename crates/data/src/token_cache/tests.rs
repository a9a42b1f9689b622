//! A cache gives what memory gives, and nothing else: not after damage, an interruption, or a change.

use super::*;
use crate::{
    Body, EvaluationProblem, Place, Record, Rows, Sample, Sources, StepShape, Tokenized, Tokenizer, TooLong, Wanted,
    splits,
};
use std::{cell::RefCell, collections::BTreeMap, fs::OpenOptions, io::Write, path::PathBuf};
use wmtp_base::fs::entries;

/// Rows that are there, with this content hash.
struct Fixed {
    records: Vec<Record>,
    hash: &'static str,
}

impl crate::source::Dataset for Fixed {
    fn name(&self) -> &str {
        "fixed.jsonl"
    }

    fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_> {
        Box::new(self.records.iter().cloned().map(Ok))
    }

    fn hash(&self) -> Result<String, DataError> {
        Ok(self.hash.into())
    }
}

/// Rows of all kinds: with and without rewards and weights, long ones, texts, repeated prompts.
fn rows(count: usize) -> Fixed {
    let record = |row: usize| {
        let completion = format!("def f{row}(x):\n    return {}\n", "x + ".repeat(row % 90) + "1");
        let body = match row % 7 {
            6 => Body::Text(completion.repeat(4)),
            _ => Body::Completion {
                prompt: format!("# task {}\n", row / 2),
                completion,
            },
        };
        let sample = Sample {
            reward: row.is_multiple_of(3).then_some(1.0),
            weight: if row.is_multiple_of(5) { 0.5 } else { 1.0 },
            ..Sample::new(body)
        };
        Record {
            place: Place {
                file: "é.jsonl".into(),
                row: row + 1,
            },
            schema: "test",
            task_id: None,
            samples: vec![sample],
            tests: None,
            language: None,
        }
    };
    Fixed {
        records: (0..count).map(record).collect(),
        hash: "content 1",
    }
}

fn config() -> DataConfig {
    DataConfig {
        source: Sources::from("fixed.jsonl"),
        seq_len: 128,
        valid_share: 0.2,
        too_long: TooLong::Cut,
        ..DataConfig::default()
    }
}

fn problems() -> Vec<EvaluationProblem> {
    vec![EvaluationProblem {
        name: "bench/1".into(),
        task: "# task 12\n def f25(x): return x + x + x + x".into(),
        code: "print(1)".into(),
    }]
}

/// What happened, with the split.
type Outcome = (Result<Splits, DataError>, Vec<String>);

struct Trial {
    rows: Fixed,
    config: DataConfig,
    evaluation: Vec<EvaluationProblem>,
    wanted: Wanted,
    weight: f64,
    tokenizer: Tokenizer,
}

impl Trial {
    fn new(count: usize) -> Self {
        Self {
            rows: rows(count),
            config: config(),
            evaluation: problems(),
            wanted: Wanted::Right,
            weight: 1.0,
            tokenizer: Tokenizer::builtin_micro().unwrap(),
        }
    }

    fn splits(&self, cache: Option<&TokenCache<'_>>) -> Result<Splits, DataError> {
        let rows = Rows {
            source: &self.rows,
            held_out: false,
            weight: self.weight,
            without_copies: false,
        };
        splits(
            &self.config,
            &self.tokenizer,
            &self.evaluation,
            &[],
            &[rows],
            self.wanted,
            cache,
        )
    }

    /// With a cache in `dir` that takes everything, and the events apart from progress.
    fn cached(&self, dir: &Path) -> Outcome {
        let events = RefCell::new(Vec::new());
        let report = |event: CacheEvent<'_>| match event {
            CacheEvent::Tokenized { .. } => {}
            CacheEvent::Begun(_) => events.borrow_mut().push("begun".to_owned()),
            CacheEvent::Waiting(_) => events.borrow_mut().push("waiting".to_owned()),
            CacheEvent::Damaged { problem, .. } => events.borrow_mut().push(problem.to_owned()),
        };
        let splits = self.splits(Some(&TokenCache::below(dir, &report).with_memory(0)));
        (splits, events.into_inner())
    }

    fn on_disk(&self, dir: &Path) -> (Splits, Vec<String>) {
        let (splits, events) = self.cached(dir);
        let splits = splits.unwrap();
        assert!(splits.train.on_disk() && splits.valid.on_disk());
        (splits, events)
    }
}

fn all(data: &Dataset) -> Vec<Tokenized> {
    data.documents()
        .map(|document| document.unwrap().into_owned())
        .collect()
}

fn same(a: &Splits, b: &Splits) {
    for (a, b) in [(&a.train, &b.train), (&a.valid, &b.valid)] {
        assert_eq!(all(a), all(b));
        assert_eq!((a.hash(), a.report()), (b.hash(), b.report()));
        assert!(a.lengths().eq(b.lengths()));
        let shape = StepShape {
            micro_batch: 2,
            accumulate: 3,
        };
        let steps = |data: &Dataset| {
            let epochs = [
                data.epoch(3, 1, shape),
                data.epoch_by_problem(3, 1, 5, 2, 0),
                data.in_order(4),
            ];
            epochs.map(|epoch| {
                (0..epoch.len())
                    .map(|step| epoch.step(step).unwrap())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(steps(a), steps(b));
    }
    assert_eq!(a.tokens, b.tokens);
    assert_eq!(a.overlap, b.overlap);
}

/// The cache's directory, of which there is one.
fn only(dir: &Path) -> PathBuf {
    let dirs = entries(&dir.join("tokens"))
        .unwrap()
        .into_iter()
        .filter(|path| path.is_dir());
    let dirs: Vec<_> = dirs.collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs[0].clone()
}

#[test]
fn a_cache_gives_what_memory_gives() {
    for (wanted, weight) in [(Wanted::Right, 1.0), (Wanted::Right, 1.5), (Wanted::Labelled, 1.0)] {
        let dir = tempfile::tempdir().unwrap();
        let trial = Trial {
            wanted,
            weight,
            ..Trial::new(400)
        };
        let memory = trial.splits(None).unwrap();
        assert!(!memory.train.on_disk() && memory.train.len() > 50 && memory.valid.len() > 10);
        let (made, events) = trial.on_disk(dir.path());
        assert_eq!(events, ["begun"]);
        same(&memory, &made);
        let (found, events) = trial.on_disk(dir.path());
        assert!(events.is_empty());
        same(&memory, &found);
    }
}

#[test]
fn documents_that_fit_into_memory_stay_there() {
    let dir = tempfile::tempdir().unwrap();
    let trial = Trial::new(400);
    let splits = |bytes| {
        let cache = TokenCache::below(dir.path(), &|_| {}).with_memory(bytes);
        trial.splits(Some(&cache)).unwrap()
    };
    assert!(!splits(TokenCache::MEMORY).train.on_disk());
    assert!(!dir.path().join("tokens").exists());
    assert!(splits(1000).train.on_disk());
    // Once there, it is used whatever the limit is.
    assert!(splits(TokenCache::MEMORY).train.on_disk());
}

#[test]
fn of_a_few_problems_one_is_held_out_on_disk_as_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(12);
    trial.config.valid_share = 1e-9;
    let memory = trial.splits(None).unwrap();
    let (disk, events) = trial.on_disk(dir.path());
    assert!(memory.valid.len() <= 2);
    // The first reading found nothing to hold out; what it had written is gone.
    assert_eq!(events, ["begun", "begun"]);
    same(&memory, &disk);
    only(dir.path());
}

/// Changes what decides the documents.
type Change = &'static dyn Fn(&mut Trial);

#[test]
fn everything_that_decides_the_documents_has_a_cache_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let changes: [(&str, Change); 13] = [
        ("nothing", &|_| {}),
        ("content", &|t| t.rows.hash = "content 2"),
        ("seq_len", &|t| t.config.seq_len = 127),
        ("too_long", &|t| t.config.too_long = TooLong::Drop),
        ("train_on", &|t| t.config.train_on = crate::TrainOn::Last),
        ("prompt", &|t| t.config.prompt = crate::PromptStyle::FewShot),
        ("columns", &|t| {
            t.config.columns = BTreeMap::from([("prompt".into(), "q".into())])
        }),
        ("languages", &|t| t.config.languages = vec!["python".into()]),
        ("max_rows", &|t| t.config.max_rows = Some(500)),
        ("valid_share", &|t| t.config.valid_share = 0.21),
        ("wanted", &|t| t.wanted = Wanted::Labelled),
        ("evaluation", &|t| t.evaluation[0].task.push('x')),
        ("tokenizer", &|t| {
            let choice = crate::Choice {
                special_tokens: crate::SpecialTokens::Never,
                ..t.tokenizer.choice()
            };
            t.tokenizer = t
                .tokenizer
                .clone()
                .with_choice(choice)
                .unwrap()
                .for_model(1024)
                .unwrap();
        }),
    ];
    for (number, (name, change)) in (1..).zip(changes) {
        let mut trial = Trial::new(60);
        change(&mut trial);
        assert_eq!(trial.on_disk(dir.path()).1, ["begun"], "{name}");
        assert!(trial.on_disk(dir.path()).1.is_empty(), "{name}");
        let keys = TokenDir::below(dir.path()).keys().unwrap();
        assert_eq!(keys.len(), number, "{name}");
    }
    // Rows and packing do not: the documents are the same.
    let mut trial = Trial::new(60);
    trial.config.pack = false;
    assert!(trial.on_disk(dir.path()).1.is_empty());
}

#[test]
fn a_damaged_cache_is_made_anew_and_says_so() {
    let trial = Trial::new(60);
    let memory = trial.splits(None).unwrap();
    let damage = |name: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let dir = tempfile::tempdir().unwrap();
        drop(trial.on_disk(dir.path()));
        let file = only(dir.path()).join(name);
        let mut bytes = fs::read(&file).unwrap();
        edit(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let (anew, mut events) = trial.on_disk(dir.path());
        same(&memory, &anew);
        drop(anew);
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events.remove(1), "begun");
        assert!(trial.on_disk(dir.path()).1.is_empty());
        events.remove(0)
    };
    let shorter: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes.truncate(bytes.len() - 1);
    let changed: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes[70] ^= 1;
    assert!(damage("train.data", shorter).contains("bytes in train.data, not"));
    assert!(damage("valid.data", &|bytes| bytes.push(0)).contains("bytes in valid.data, not"));
    assert!(damage("train.index", shorter).contains("bytes in train.index, not"));
    assert!(damage("valid.index", changed).contains("damaged valid.index"));
    // Two records that changed places have right checksums of their own.
    let swapped = |bytes: &mut Vec<u8>| bytes.rotate_left(56);
    assert!(damage("train.index", &swapped).contains("damaged train.index"));
    assert!(damage("meta.json", shorter).contains("damaged meta.json"));
    let renamed = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(bytes.clone())
            .unwrap()
            .replacen("fixed.jsonl", "other.jsonl", 1);
        *bytes = text.into_bytes();
    };
    assert!(damage("meta.json", &renamed).contains("changed meta.json"));
    let older = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(bytes.clone())
            .unwrap()
            .replacen("\"format\": 1", "\"format\": 0", 1);
        *bytes = text.into_bytes();
    };
    assert!(damage("meta.json", &older).contains("meta.json"));
}

#[test]
fn a_document_damaged_while_it_is_used_is_an_error_and_the_cache_is_not_used_again() {
    let trial = Trial::new(60);
    let dir = tempfile::tempdir().unwrap();
    let (open, _) = trial.on_disk(dir.path());
    let file = only(dir.path()).join("train.data");
    let mut bytes = fs::read(&file).unwrap();
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    // In place: the open file is the same.
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
    let errors: Vec<String> = (0..open.train.len())
        .filter_map(|index| open.train.document(index).err())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("is damaged at document") && errors[0].contains("made anew"));
    let shape = StepShape {
        micro_batch: 1,
        accumulate: 1,
    };
    let failed = open.train.epoch(0, 0, shape).batches().filter(Result::is_err).count();
    assert_eq!(failed, 1);
    // Held by this process, it can't be replaced; once it is free, it is.
    let (refused, _) = trial.cached(dir.path());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is damaged, and a process uses it"), "{refused}");
    drop(open);
    let (anew, events) = trial.on_disk(dir.path());
    assert_eq!(events, ["has no meta.json", "begun"]);
    same(&trial.splits(None).unwrap(), &anew);
}

#[test]
fn what_is_interrupted_or_refused_leaves_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(60);
    // A row in the middle that is refused, after the writing began.
    let last = trial.rows.records.len() - 1;
    trial.rows.records[last].samples[0].reward = Some(7.0);
    assert!(trial.cached(dir.path()).0.is_err());
    trial.rows.records[last].samples[0].reward = None;
    trial.config.too_long = TooLong::Refuse;
    trial.config.seq_len = 16;
    assert!(trial.cached(dir.path()).0.unwrap_err().to_string().contains("raise it"));
    let tokens = dir.path().join("tokens");
    let left = || entries(&tokens).map(|paths| paths.into_iter().filter(|path| path.is_dir()).count());
    assert_eq!(left().unwrap_or_default(), 0);
    // Asked to stop after the first chunk.
    let trial = Trial::new(60);
    let stopped = TokenCache::below(dir.path(), &|_| {})
        .with_memory(0)
        .with_stop(&|| true);
    assert!(matches!(trial.splits(Some(&stopped)), Err(DataError::Stopped)));
    assert_eq!(left().unwrap_or_default(), 0);
    // A process that was killed leaves a directory that nobody reads and the next one replaces.
    let trial = Trial::new(60);
    drop(trial.on_disk(dir.path()));
    let complete = only(dir.path());
    let key = complete.file_name().unwrap().to_str().unwrap();
    let partial = TokenDir::below(dir.path()).partial(key);
    fs::rename(&complete, &partial).unwrap();
    fs::write(partial.join("train.data"), "half").unwrap();
    let (anew, events) = trial.on_disk(dir.path());
    assert_eq!(events, ["begun"]);
    same(&trial.splits(None).unwrap(), &anew);
    assert_eq!(left().unwrap(), 1);
}

#[test]
fn two_that_begin_at_once_make_one_cache() {
    let dir = tempfile::tempdir().unwrap();
    let trials: Vec<Trial> = (0..4).map(|_| Trial::new(300)).collect();
    let outcomes: Vec<(String, Vec<String>)> = std::thread::scope(|scope| {
        let threads = trials.iter().map(|trial| {
            scope.spawn(|| {
                let (splits, events) = trial.on_disk(dir.path());
                (splits.train.hash().to_owned(), events)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let begun = outcomes
        .iter()
        .flat_map(|(_, events)| events)
        .filter(|event| *event == "begun");
    assert_eq!(begun.count(), 1, "{outcomes:?}");
    let memory = trials[0].splits(None).unwrap();
    assert!(outcomes.iter().all(|(hash, _)| hash == memory.train.hash()));
    only(dir.path());
}
