//! Whether tests are Python: compiled by the interpreter that runs them.

use super::{
    EvalError, Judge,
    sandbox::{Program, Status},
};
use serde_json::json;

/// Compiles lists of pieces of code: prints [list, piece, what is wrong] for the first that is no Python.
const COMPILER: &str = r#"
import json, sys
for number, pieces in enumerate(json.load(sys.stdin)):
    for place, piece in enumerate(pieces):
        try:
            compile(piece, "test", "exec")
        except (SyntaxError, ValueError) as error:
            print(json.dumps([number, place, str(error)]))
            sys.exit()
print("null")
"#;
/// Bytes of code that one program compiles: it has to fit into the program's memory and time.
const MOST_BYTES: usize = 1 << 20;

/// A piece of code that is no Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotPython {
    /// Index of its list.
    pub list: usize,
    /// Index in its list.
    pub piece: usize,
    /// What the compiler says.
    pub why: String,
}

/// The first piece that does not compile, of lists of pieces; they are the tests of `what`.
///
/// # Errors
/// A sandbox that fails, or in which the compiler does not end.
pub(super) fn first_that_is_not_python<T: AsRef<str>>(
    what: &str,
    lists: &[Vec<T>],
    judge: &Judge<'_>,
) -> Result<Option<NotPython>, EvalError> {
    let mut begun = 0;
    while begun < lists.len() {
        let mut bytes = 0;
        let rest = lists.get(begun..).unwrap_or_default();
        let size = |list: &Vec<T>| list.iter().map(|piece| piece.as_ref().len()).sum::<usize>();
        // At least one, however large.
        let count = rest.iter().take_while(|list| {
            bytes += size(list);
            bytes <= MOST_BYTES
        });
        let count = count.count().max(1);
        let slab = rest.get(..count).unwrap_or_default();
        let pieces: Vec<Vec<&str>> = slab
            .iter()
            .map(|list| list.iter().map(AsRef::as_ref).collect())
            .collect();
        if let Some(found) = compile(what, &pieces, judge)? {
            return Ok(Some(NotPython {
                list: begun + found.list,
                ..found
            }));
        }
        begun += count;
    }
    Ok(None)
}

fn compile(what: &str, lists: &[Vec<&str>], judge: &Judge<'_>) -> Result<Option<NotPython>, EvalError> {
    let stdin = json!(lists).to_string();
    let program = Program {
        source: COMPILER,
        stdin: stdin.as_bytes(),
    };
    let outcome = judge.runner.run(&program, judge.limits)?;
    if outcome.status != Status::Exit(0) {
        return Err(EvalError::Request(format!(
            "the tests of {what} could not be compiled ({:?}): {}",
            outcome.status,
            String::from_utf8_lossy(&outcome.stderr).trim_end()
        )));
    }
    let found: Option<(usize, usize, String)> = serde_json::from_slice(&outcome.stdout)
        .map_err(|error| EvalError::Request(format!("compiling the tests of {what} said: {error}")))?;
    Ok(found.map(|(list, piece, why)| NotPython { list, piece, why }))
}
