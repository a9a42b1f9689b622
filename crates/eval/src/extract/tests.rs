use super::*;

const CODE: &str = "def f(x):\n    return x\n";

fn taken(answer: &str) -> String {
    program(answer, &["f"])
}

#[test]
fn the_one_block_of_an_answer_is_its_program() {
    for answer in [
        format!("```python\n{CODE}```"),
        format!("Sure:\n```python\n{CODE}```\nDone"),
        format!("```\n{CODE}```"),
        format!("``` python\n{CODE}```"),
        format!("```py\n{CODE}"),
        format!("````python\n{CODE}````"),
        format!("~~~python\n{CODE}~~~\nDone"),
        format!("```{{.python}}\n{CODE}```"),
        format!("```Python3\n{CODE}```"),
        format!("```python\n{CODE}```\nLike this:\n```python\nprint(f(1))\n```"),
        format!("[PYTHON]\n{CODE}[/PYTHON]\nDone"),
        format!("[PYTHON]\n```python\n{CODE}```\n[/PYTHON]"),
        format!("```python\r\n{}```\r\n", CODE.replace('\n', "\r\n")),
    ] {
        assert_eq!(taken(&answer), CODE, "{answer}");
    }
}

#[test]
fn what_is_not_the_answer_is_passed_over() {
    for answer in [
        // Three backticks inside a line.
        format!("Call ```f``` so:\n```python\n{CODE}```"),
        // Another language first; output of a program; a comment alone.
        format!("```bash\npip install x\n```\nThen:\n```python\n{CODE}```"),
        format!("```\n$ ls\n```\n```\n{CODE}```"),
        format!("```python\n# to do\n```\n```python\n{CODE}```"),
        format!("```python\nprint(f(1))\n```\nwith\n```python\n{CODE}```"),
        format!("```text\ndef is a keyword\n```\n~~~\n{CODE}~~~"),
        // Drafts.
        format!("<think>\n```python\ndef f(x):\n    return 0\n```\n</think>\n```python\n{CODE}```"),
        format!("I try def f\n</think>\n\n```python\n{CODE}```"),
        // A closing fence that nothing opened.
        format!("{CODE}```"),
        format!("{CODE}```\nThis returns it."),
        format!("Here:\n{CODE}```\nThis returns it."),
    ] {
        assert_eq!(taken(&answer), CODE, "{answer}");
    }
}

#[test]
fn a_block_in_a_list_loses_the_indentation_of_its_fence_only() {
    let indented = |by: &str| CODE.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
    for answer in [
        format!("1. So:\n   ```python\n{}   ```", indented("   ")),
        format!("- ```python\n{}  ```\n", indented("  ")),
        format!("10) ```python\n{}    ```\n", indented("    ")),
        format!("\t```python\n{}\t```\n", indented("\t")),
    ] {
        assert_eq!(taken(&answer), CODE, "{answer}");
    }
    // A body that continues a prompt keeps its own.
    assert_eq!(taken("```python\n    return x\n```"), "    return x\n");
}

#[test]
fn a_fence_inside_a_docstring_does_not_end_the_block() {
    for indentation in ["    ", "", "  "] {
        let code = format!(
            "def g():\n    \"\"\"So:\n{indentation}```\n{indentation}g()\n{indentation}```\n    \"\"\"\n{CODE}"
        );
        assert_eq!(taken(&format!("```python\n{code}```\nDone.")), code, "{indentation:?}");
    }
}

#[test]
fn code_without_a_fence_ends_where_prose_begins() {
    let code = "import re\n\n\ndef f(x):\n    '''It's x.\nAnd more.'''\n    return x\n\n\nLIMIT = 3\n";
    for answer in [
        format!("Here is the function:\n\n{code}\nThis function doesn't do much."),
        format!("Use it from the list:\n{code}"),
        format!("{code}\n\nExplanation: it is x"),
        code.to_owned(),
    ] {
        assert_eq!(taken(&answer), code, "{answer}");
    }
    assert_eq!(
        taken("x = 1\ndef f(x):\n    return x\n"),
        "x = 1\ndef f(x):\n    return x\n"
    );
}

#[test]
fn an_answer_without_a_program_stays_as_it_is() {
    for answer in [
        "",
        "I can't do that.",
        "x = 1",
        "    return x\n",
        "import the module and call it.",
    ] {
        assert_eq!(taken(answer), answer);
    }
    assert_eq!(taken("<think>\ndef f(x):\n    return x\n"), "");
}

#[test]
fn without_a_function_asked_for_the_first_python_block_is_taken() {
    let answer = "```sh\nls\n```\n```\nn = int(input())\n```\n```python\nprint(input())\n```";
    assert_eq!(program(answer, &[]), "print(input())\n");
    assert_eq!(
        program("```\nn = int(input())\n```\n```\nthe output is 3\n```", &[]),
        "n = int(input())\n"
    );
}

/// Many fences, unclosed strings and brackets: neither a crash nor much time.
#[test]
fn hostile_answers_end() {
    for answer in [
        "```\n".repeat(20_000),
        "```python\n".repeat(20_000),
        "```python\n\"\"\"\n".repeat(5_000),
        "(".repeat(100_000),
        "def f(\n".repeat(20_000),
        "'".repeat(100_001),
        "\\".repeat(100_001),
        "<think>".repeat(10_000),
        "- ".repeat(50_000),
        "\u{feff}```é\n```\u{2028}".repeat(1000),
        "[PYTHON]\n".repeat(2000),
    ] {
        let _ = program(&answer, &["f"]);
    }
}
