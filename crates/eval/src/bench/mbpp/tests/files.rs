use crate::bench::mbpp::{self, load, pairs, prompt, training};
use std::{fs, path::Path};
use wmtp_data::{DataConfig, DataError, PromptStyle, Tokenizer};

fn micro() -> Tokenizer {
    Tokenizer::builtin_micro().unwrap()
}

/// A directory with the built-in file after `edit` of its lines.
fn edited(edit: impl Fn(&mut Vec<String>)) -> tempfile::TempDir {
    let mut lines: Vec<String> = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mbpp/mbpp.jsonl"))
        .lines()
        .map(str::to_owned)
        .collect();
    edit(&mut lines);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mbpp.jsonl"), lines.join("\n")).unwrap();
    dir
}

fn failure(dir: &Path) -> String {
    load(dir.to_str().unwrap()).unwrap_err().to_string()
}

#[test]
fn the_built_in_file_and_a_directory_with_it_give_the_same_974_problems() {
    let problems = load("builtin:mbpp").unwrap();
    assert_eq!(problems.len(), 974);
    assert!(problems.iter().zip(1..).all(|(p, id)| p.task_id == id));
    assert!(problems.iter().all(|p| !p.code.contains('\r')));
    let dir = edited(|_| {});
    assert_eq!(load(dir.path().to_str().unwrap()).unwrap(), problems);
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let dir = edited(|lines| {
        lines.drain(4..7);
        lines.remove(9);
    });
    assert!(
        failure(dir.path()).contains("lacks the task ids 5-7, 13;"),
        "{}",
        failure(dir.path())
    );
    let dir = edited(|lines| lines[2] = lines[2].replace("\"code\"", "\"kode\""));
    let message = failure(dir.path());
    assert!(
        message.contains("mbpp.jsonl, line 3") && message.contains("missing field `code`"),
        "{message}"
    );
    let dir = edited(|lines| lines.push(lines[41].clone()));
    assert!(failure(dir.path()).contains("line 975: task_id 42 is there a second time"));
    let dir = edited(|lines| lines[0] = lines[0].replace("\"task_id\": 1,", "\"task_id\": 1001,"));
    assert!(failure(dir.path()).contains("line 1: task_id 1001 is not one of"));
    let dir = edited(|lines| lines[0].truncate(100));
    assert!(failure(dir.path()).contains("line 1: not a row of this file"));
    let empty = tempfile::tempdir().unwrap();
    let message = failure(empty.path());
    assert!(
        message.contains("cannot read") && message.contains("mbpp.jsonl"),
        "{message}"
    );
    let message = load("builtin:mbqq").unwrap_err().to_string();
    assert!(
        message.contains("`mbqq`") && message.contains("builtin:mbpp"),
        "{message}"
    );
}

#[test]
fn prompts_are_the_contracts_text() {
    let problems = load("builtin:mbpp").unwrap();
    let text = |id: u32, style| prompt(&problems, &problems[id as usize - 1], style, &micro()).unwrap();
    let open = "You are an expert Python programmer, and here is your task: Write a python function to remove first and \
                last occurrence of a given character from the string. Your code should pass these tests:\n\n\
                assert remove_Occ(\"hello\",\"l\") == \"heo\"\n\
                assert remove_Occ(\"abcda\",\"a\") == \"bcd\"\n\
                assert remove_Occ(\"PHP\",\"P\") == \"H\"\n[BEGIN]\n";
    assert_eq!(text(11, PromptStyle::ZeroShot), open);
    let few = text(11, PromptStyle::FewShot);
    let second = "You are an expert Python programmer, and here is your task: Write a function to find the similar \
                  elements from the given two tuple lists. Your code should pass these tests:\n\n\
                  assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n\
                  assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)\n\
                  assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)\n[BEGIN]\n\
                  def similar_elements(test_tup1, test_tup2):\n  res = tuple(set(test_tup1) & set(test_tup2))\n  \
                  return (res) \n[DONE]\n\nYou are an expert";
    assert!(few.starts_with(second), "{few}");
    assert!(few.ends_with(&format!("[DONE]\n\n{open}")));
    assert_eq!(few.matches("[BEGIN]\n").count(), 4);
    assert_eq!(few.matches("\n[DONE]\n\n").count(), 3);
    let chat = text(11, PromptStyle::Chat);
    assert!(
        chat.starts_with("### user\nYou are an expert") && chat.ends_with("== \"H\"\n### assistant\n"),
        "{chat}"
    );
    assert!(!chat.contains("[BEGIN]"));
}

#[test]
fn labelled_solutions_are_those_of_the_file() {
    let solutions = pairs::load("builtin:mbpp").unwrap();
    assert_eq!(solutions.len(), 4700);
    assert_eq!(solutions.iter().filter(|s| s.is_correct).count(), 1974);
    assert!(solutions.iter().all(|s| !s.code.contains('\r')));
    let problems = load("builtin:mbpp").unwrap();
    let wanted = |id| mbpp::within(id, (601, 603));
    let examples = pairs::examples(&solutions, &problems, wanted, PromptStyle::ZeroShot, &micro()).unwrap();
    assert_eq!(examples[0].name, "mbpp/601/0-reference");
    assert!(examples[0].response.ends_with("\n[DONE]"));
    assert!(examples.iter().zip(0..).all(|(e, i)| e.sample == i));
    assert!(examples.iter().any(|e| e.reward == Some(0.0)) && examples.iter().any(|e| e.reward == Some(1.0)));
}

#[test]
fn the_critic_learns_from_matched_pairs() {
    let solutions = pairs::load_labelled("builtin:mbpp").unwrap();
    assert_eq!(solutions.len(), 2 * 5447);
    for pair in solutions.chunks(2) {
        assert_eq!((pair[0].is_correct, pair[1].is_correct), (true, false));
        assert_eq!(pair[0].task_id, pair[1].task_id);
    }
    let splits = training::solutions(&DataConfig::default(), &micro()).unwrap();
    let named = |name: &str| {
        let mut documents = splits.train.documents().map(|document| document.unwrap());
        documents.find(|d| d.name == name).map(|d| d.reward)
    };
    assert_eq!(named("mbpp/603/0-right"), Some(Some(1.0)));
    assert_eq!(named("mbpp/603/1-wrong"), Some(Some(0.0)));

    // A directory has them under their own name; without that file its labelled solutions are taken.
    let dir = tempfile::tempdir().unwrap();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mbpp");
    let source = dir.path().display().to_string();
    assert!(pairs::load_labelled_if_present(&source).unwrap().is_empty());
    std::fs::copy(format!("{data}/mbpp_pairs.jsonl"), dir.path().join("mbpp_pairs.jsonl")).unwrap();
    assert_eq!(pairs::load_labelled(&source).unwrap().len(), 4700);
    std::fs::copy(
        format!("{data}/mbpp_matched.jsonl.gz"),
        dir.path().join("mbpp_matched.jsonl.gz"),
    )
    .unwrap();
    assert_eq!(pairs::load_labelled(&source).unwrap(), solutions);
}

#[test]
fn the_default_splits_are_whole_and_known() {
    let config = DataConfig::default();
    let splits = training::problems(&config, &micro()).unwrap();
    let kept = splits.train.report();
    assert_eq!(kept.documents + kept.dropped.len(), 374 - config.exclude_tasks.len());
    assert!(splits.train.documents().all(|d| d.unwrap().reward == Some(1.0)));
    let held = splits.valid.report();
    assert_eq!(held.documents + held.dropped.len(), 90);
    assert_eq!(splits.overlap.checked, 374 - config.exclude_tasks.len());
    assert_eq!(splits.overlap.copies, 0);
    assert!(splits.overlap.partial > 0);
    let again = training::problems(&config, &micro()).unwrap();
    assert_eq!(splits.train.hash(), again.train.hash());
    assert_ne!(splits.train.hash(), splits.valid.hash());
    assert!(training::solutions(&config, &micro()).unwrap().train.len() > 1500);
}

#[test]
fn test_ids_overlapping_ranges_and_nothing_at_all_are_refused() {
    let message = |edit: &dyn Fn(&mut DataConfig)| {
        let mut config = DataConfig::default();
        edit(&mut config);
        training::problems(&config, &micro()).unwrap_err().to_string()
    };
    assert!(
        message(&|c| c.train_tasks = (500, 974))
            .contains("`data.train_tasks` is 500-974 and overlaps MBPP's test ids 11..510")
    );
    assert!(message(&|c| c.valid_tasks = (100, 120)).contains("`data.valid_tasks`"));
    assert!(message(&|c| c.train_tasks = (550, 974)).contains("must not overlap data.train_tasks"));
    assert!(message(&|c| c.train_tasks = (974, 601)).contains("`data.train_tasks` is 974-601"));
    assert!(message(&|c| c.seq_len = 16).contains("all 369 documents are longer than data.seq_len = 16"));
    assert!(message(&|c| c.seq_len = 1).contains("`data.seq_len` is 1"));
    assert!(message(&|c| c.exclude_tasks = (601..=974).collect()).contains("no training data"));
    assert!(matches!(
        training::problems(
            &DataConfig {
                exclude_tasks: vec![],
                ..Default::default()
            },
            &micro()
        ),
        Err(DataError::Contaminated { .. })
    ));
}

#[test]
fn text_is_cut_into_rows_without_loss_and_trained_but_for_first_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("b");
    for folder in [inner.clone(), dir.path().join("site-packages")] {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("x.py"), "def x(n):\r\n    return n + 1\r\n".repeat(40)).unwrap();
    }
    std::fs::write(dir.path().join("a.py"), "value = 1\n".repeat(20)).unwrap();
    std::fs::write(dir.path().join("latin.py"), b"# caf\xe9\n").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not Python").unwrap();
    let tokenizer = micro();
    let plain = DataConfig {
        seq_len: 256,
        ..DataConfig::default()
    };
    let config = DataConfig {
        text: vec![dir.path().display().to_string()],
        ..plain.clone()
    };
    let without = training::problems(&plain, &tokenizer).unwrap();
    let with = training::problems(&config, &tokenizer).unwrap();
    let texts = with.train.documents().skip(without.train.len());
    let texts: Vec<_> = texts.map(|document| document.unwrap()).collect();
    let of = |name: &str| -> Vec<u32> {
        let pieces = texts.iter().filter(|d| d.name.starts_with(name));
        pieces.flat_map(|d| d.tokens.clone()).collect()
    };
    assert!(
        texts
            .iter()
            .all(|d| d.name.starts_with("text/a.py#") || d.name.starts_with("text/b/x.py#"))
    );
    assert!(texts.iter().all(|d| d.prompt_len == 1 && d.tokens.len() <= 256));
    let mut tokens = of("text/b/x.py#");
    // The end may be too short a document to be kept.
    tokens.pop_if(|last| *last == tokenizer.eos_id());
    let written = tokenizer.decode(&tokens).unwrap();
    let whole = "def x(n):\n    return n + 1\n".repeat(40);
    assert!(whole.starts_with(&written), "{written}");
    assert!(written.len() + 8 * 10 > whole.len());
    // The same order and the same cuts each time.
    assert_eq!(
        with.train.hash(),
        training::problems(&config, &tokenizer).unwrap().train.hash()
    );
    assert_ne!(with.train.hash(), without.train.hash());
}

#[test]
fn text_that_is_not_there_or_holds_no_program_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = micro();
    let error = |path: &std::path::Path| {
        let config = DataConfig {
            text: vec![path.display().to_string()],
            ..DataConfig::default()
        };
        training::problems(&config, &tokenizer).unwrap_err().to_string()
    };
    assert!(error(dir.path()).contains("it holds no *.py file"));
    assert!(error(&dir.path().join("absent")).contains("absent"));
}
