//! Preference pairs in their spellings.

use super::{assistant, chats, read, user, wrong};
use crate::Body;
use serde_json::{Value, json};

/// Both conversations: the shared context, then the two answers.
fn pair(row: Value) -> (Value, [Value; 2]) {
    let record = read(row);
    let rewards: Vec<Option<f32>> = record.samples.iter().map(|sample| sample.reward).collect();
    assert_eq!(rewards, [Some(1.0), Some(0.0)]);
    let found = chats(&record);
    let split = |(messages, from): &(Value, usize)| {
        let messages = messages.as_array().unwrap();
        (json!(messages[..*from]), json!(messages[*from..]))
    };
    let ((a, chosen), (b, rejected)) = (split(&found[0]), split(&found[1]));
    assert_eq!(a, b);
    (a, [chosen, rejected])
}

#[test]
fn spellings_of_one_pair_are_equal() {
    let expected = (
        json!([user("q")]),
        [json!([assistant("good")]), json!([assistant("bad")])],
    );
    let (good, bad) = (assistant("good"), assistant("bad"));
    let whole = |answer: &Value| json!([user("q"), answer]);
    for row in [
        json!({"messages": [user("q")], "chosen": good, "rejected": bad}),
        json!({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}),
        json!({"messages": [user("q")], "chosen": "good", "rejected": "bad"}),
        json!({"messages": [user("q")], "chosen": [good], "rejected": [bad]}),
        json!({"chosen": whole(&good), "rejected": whole(&bad)}),
        json!({"chosen_messages": whole(&good), "rejected_messages": whole(&bad)}),
        json!({"prompt": [user("q")], "chosen": [good], "rejected": [bad]}),
        json!({"prompt": "q", "chosen": [good], "rejected": [bad]}),
        // The prompt once more as text, as UltraFeedback has it; `messages` is the chosen conversation.
        json!({"prompt": "q", "chosen": whole(&good), "rejected": whole(&bad), "messages": whole(&good), "score_chosen": 9}),
    ] {
        assert_eq!(pair(row.clone()), expected, "{row}");
    }
}

#[test]
fn conversations_are_divided_where_they_differ() {
    let shared = [user("q"), assistant("a"), user("r")];
    let whole = |answer: &str| json!([shared[0], shared[1], shared[2], assistant(answer)]);
    let (context, answers) = pair(json!({"chosen": whole("x"), "rejected": whole("y"), "system": "s"}));
    assert_eq!(
        context,
        json!([{"role": "system", "content": "s"}, shared[0], shared[1], shared[2]])
    );
    assert_eq!(answers, [json!([assistant("x")]), json!([assistant("y")])]);
    // Equal conversations: the last message is the answer.
    let (context, answers) = pair(json!({"chosen": whole("x"), "rejected": whole("x")}));
    assert_eq!((context.as_array().unwrap().len(), &answers[0]), (3, &answers[1]));
}

#[test]
fn texts_have_a_prompt_or_an_instruction() {
    let record = read(json!({"prompt": "p", "chosen": "x", "rejected": "y", "weight": 2}));
    let completion = |text: &str| Body::Completion {
        prompt: "p".into(),
        completion: text.into(),
    };
    assert_eq!(record.samples[0].body, completion("x"));
    assert_eq!(
        (&record.samples[1].body, record.samples[1].weight),
        (&completion("y"), 2.0)
    );
    let record = read(json!({"instruction": "i", "input": "n", "chosen": "x", "rejected": "y"}));
    let Body::Instruction(instruction) = &record.samples[1].body else {
        panic!("{record:?}")
    };
    assert_eq!(
        (
            instruction.instruction.as_str(),
            instruction.input.as_str(),
            instruction.output.as_str()
        ),
        ("i", "n", "y")
    );
}

#[test]
fn the_words_that_two_texts_share_are_their_prompt() {
    for (chosen, rejected, prompt, answers) in [
        (
            "The sky is blue.",
            "The sky is green.",
            "The sky is",
            [" blue.", " green."],
        ),
        // Never within a word.
        ("It is bad.", "It is better.", "It is", [" bad.", " better."]),
        ("It is", "It is good", "It", [" is", " is good"]),
        ("Q: a?\n\nA: yes", "Q: a?\n\nA: no", "Q: a?\n\nA:", [" yes", " no"]),
        ("a\n\nb", "a\n\nc", "a", ["\n\nb", "\n\nc"]),
        ("größer als das", "größer als ß", "größer als", [" das", " ß"]),
    ] {
        let record = read(json!({"chosen": chosen, "rejected": rejected}));
        assert_eq!(record.schema, "chosen-rejected");
        for (sample, (answer, reward)) in record.samples.iter().zip(answers.into_iter().zip([1.0, 0.0])) {
            let body = Body::Completion {
                prompt: prompt.into(),
                completion: answer.into(),
            };
            assert_eq!((&sample.body, sample.reward), (&body, Some(reward)), "{chosen}");
        }
    }
    for (chosen, rejected) in [("yes", "no"), ("better", "bet"), (" a", " b"), ("ä b", "ö b")] {
        assert_eq!(
            wrong(json!({"chosen": chosen, "rejected": rejected})),
            "column `chosen`: has no prompt, and `rejected` does not begin with the same word; add a column `prompt`"
        );
    }
}

#[test]
fn pairs_that_are_none_are_refused() {
    for (row, expected) in [
        (
            json!({"prompt": "p", "chosen": "x", "rejected": [assistant("y")]}),
            "column `rejected`: found the list `[{\"role\":\"assistant\",\"content\":\"y\"}]`, give the same kind as `chosen`",
        ),
        (
            json!({"prompt": "p", "chosen": 1, "rejected": 2}),
            "column `chosen`: found the number `1`, give a text, a message or a list of messages",
        ),
        (
            json!({"prompt": "p", "chosen": "x", "rejected": ""}),
            "column `rejected`: is empty, so nothing is trained; remove the row or fill it",
        ),
        (
            json!({"chosen": assistant("x"), "rejected": assistant("y")}),
            "column `chosen`: has nothing before the answer; add `messages` or `prompt`, or write whole conversations",
        ),
        (
            json!({"chosen": [user("q"), user("r")], "rejected": [user("q"), assistant("y")]}),
            "column `chosen`: has no assistant turn, so nothing is trained; add a message of the role `assistant`",
        ),
        (
            json!({"prompt": "p", "chosen": "x"}),
            "no schema has the columns `prompt`, `chosen`; map them by `data.columns`, such as `{prompt: question, completion: answer}`",
        ),
        (
            json!({"prompt": "p", "chosen": "x", "rejected": "y", "spans": []}),
            "column `spans`: are for one completion, but the row has several; write a row for each",
        ),
    ] {
        assert_eq!(wrong(row.clone()), expected, "{row}");
    }
}
