//! Programs of CodeContests that are judged correct there.

use crate::case::Case;

#[test]
fn contest_programs_that_set_their_stack_limit_pass() {
    let case = Case::new("contest-programs");
    let report = case.json(&[
        "eval",
        "contest",
        "--predictions",
        "predictions.jsonl",
        "--tasks",
        "1113_C",
        "--samples",
        "26",
        "--output",
        "runs",
        "--no-verdict-cache",
        "--json",
    ]);
    assert_eq!(report["results"]["passed"], 26, "{report:#}");
}
