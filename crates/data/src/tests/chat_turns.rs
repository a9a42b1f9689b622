//! What is trained of a conversation: turns of the assistant, by templates of other forms than the published ones.

use super::chat_masks::{conversation, tokenizer};
use crate::{Choice, Conversation, SpecialInText, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

const CHATML: &str = include_str!("fixtures/chat/templates/chatml.jinja");
const MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

fn chatml(template: &str) -> Tokenizer {
    tokenizer("gpt2", &MARKS, template)
}

fn talk(contents: &[&str]) -> Value {
    let roles = ["user", "assistant"].iter().cycle();
    let messages = contents
        .iter()
        .zip(roles)
        .map(|(content, role)| json!({"role": role, "content": content}));
    json!({"messages": messages.collect::<Vec<_>>()})
}

/// The texts of the runs of trained tokens.
fn trained(found: &Conversation) -> Vec<String> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, (_, (begin, end))) in found
        .trained
        .iter()
        .zip(&found.offsets)
        .enumerate()
        .filter(|(_, (t, _))| **t)
    {
        match runs.last_mut() {
            Some(last) if at > 0 && found.trained[at - 1] => last.1 = *end,
            _ => runs.push((*begin, *end)),
        }
    }
    let text = |(begin, end): (usize, usize)| found.text.chars().skip(begin).take(end - begin).collect();
    runs.into_iter().map(text).collect()
}

fn turns(template: &str, given: &Value) -> Vec<String> {
    trained(&conversation(&chatml(template), given).unwrap())
}

fn problem(template: &str, given: &Value) -> String {
    conversation(&chatml(template), given).unwrap_err().to_string()
}

/// Each turn is found by rendering all messages before it.
#[test]
fn a_conversation_of_thousands_of_turns_is_refused() {
    let given = talk(&["x"; 2002]);
    let said = problem(CHATML, &given);
    assert!(said.contains("has 2002 messages, of which 1001 are trained"), "{said}");
    let blocks = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
    let said = conversation(&chatml(blocks), &given).map_or_else(|error| error.to_string(), |_| String::new());
    assert!(!said.contains("too many to find"), "{said}");
}

#[test]
fn the_header_is_not_trained_and_the_end_of_a_turn_is() {
    let found = conversation(&chatml(CHATML), &talk(&["a", "one", "b", "two"])).unwrap();
    assert_eq!(trained(&found), ["one<|im_end|>\n", "two<|im_end|>\n"]);
    let of = |message: usize| {
        let tokens = found
            .tokens
            .iter()
            .zip(&found.message_of)
            .filter(|(_, of)| **of == Some(message));
        tokens.map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let texts: Vec<String> = (0..4)
        .map(|message| chatml(CHATML).decode(&of(message)).unwrap())
        .collect();
    assert_eq!(texts[0], "<|im_start|>user\na<|im_end|>\n");
    assert_eq!(texts[3], "<|im_start|>assistant\ntwo<|im_end|>\n");
}

#[test]
fn a_content_is_found_in_its_own_message() {
    let tokenizer = chatml(&CHATML.replace("message['content'] +", "message['content'] | trim +"));
    let found = conversation(&tokenizer, &talk(&["世 one", " 世 one\n", "b", "two two"])).unwrap();
    let place = |message, content: &str| {
        let range = found.content_range(message, content)?;
        let before: String = found.text.chars().take(range.start).collect();
        let text: String = found.text.chars().skip(range.start).take(range.len()).collect();
        Some((before.matches("<|im_start|>").count(), text))
    };
    assert_eq!(place(0, "世 one"), Some((1, "世 one".into())));
    assert_eq!(place(1, " 世 one\n"), Some((2, "世 one".into())));
    assert_eq!(place(3, "two two"), Some((4, "two two".into())));
    for (message, content) in [(3, "two"), (3, "one"), (3, " "), (4, "two two")] {
        assert_eq!(place(message, content), None, "{message}, {content}");
    }
}

/// The end of a turn is the end of the loop's iteration, not that of a shorter conversation.
#[test]
fn an_end_that_is_written_only_between_messages_is_trained() {
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}\
                    {% if not loop.last %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}\
                    {% if add_generation_prompt %}{{ '<|im_end|>\\n<|im_start|>assistant\\n' }}{% endif %}";
    assert_eq!(
        turns(template, &talk(&["a", "one", "b", "two"])),
        ["one<|im_end|>\n", "two"]
    );
}

#[test]
fn a_template_that_counts_its_messages_works_by_prefixes() {
    let template = "{% for i in range(messages|length) %}{{ messages[i].role + ':' + messages[i].content + '\\n' }}\
                    {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    assert_eq!(turns(template, &talk(&["a", "one", "b", "two"])), ["one\n", "two\n"]);
    let changing = template.replace("'\\n'", "('!' if loop.last else '') + '\\n'");
    let problem = problem(&changing, &talk(&["a", "one", "b", "two"]));
    assert!(
        problem.contains("chat template of ") && problem.contains("the turn of message 2 is not found: "),
        "{problem}"
    );
    assert!(
        problem.contains("found: `!\\n` differs from the whole conversation, `\\nassistant:one"),
        "{problem}"
    );
}

/// The prompt ends in `<think>`, which the template does not write into turns.
#[test]
fn only_the_part_of_the_prompt_that_is_written_is_the_header() {
    let template = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ '[assistant]<think>\\n' }}{% endif %}";
    for content in ["one", "<b>one", "<thinking>", "", "世"] {
        assert_eq!(
            turns(template, &talk(&["a", content])),
            [format!("{content}<|im_end|>")]
        );
    }
    // With the whole prompt in the text, the model reads it before it writes.
    assert_eq!(turns(template, &talk(&["a", "<think>\nhm"])), ["hm<|im_end|>"]);
    let other = template.replace("'[assistant]<think>\\n'", "'Answer: '");
    let problem = problem(&other, &talk(&["a", "one"]));
    assert!(
        problem.contains("`Answer: ` differs from what it writes for the message, `[assistant]one<|im_end|>`"),
        "{problem}"
    );
}

/// Some templates prompt after messages of the user only.
#[test]
fn the_header_is_not_trained_where_the_template_would_not_prompt() {
    let template = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}\
                    {% if loop.last and m.role == 'user' and add_generation_prompt %}[assistant]{% endif %}{% endfor %}";
    let mut given = talk(&["a", "one", "b", "two"]);
    given["messages"][2] = json!({"role": "assistant", "content": "more"});
    assert_eq!(
        turns(template, &given),
        ["one<|im_end|>", "more<|im_end|>", "two<|im_end|>"]
    );
}

#[test]
fn a_conversation_may_begin_with_the_assistant() {
    let given = json!({"messages": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi"}]});
    assert_eq!(turns(CHATML, &given), ["Hello.<|im_end|>\n"]);
    // These write a system message first and an end of text last.
    let smollm = include_str!("fixtures/chat/templates/smollm-2.jinja");
    assert_eq!(turns(smollm, &given), ["Hello.<|im_end|>\n"]);
    let phi = include_str!("fixtures/chat/templates/phi-3.jinja");
    assert_eq!(turns(phi, &given), ["Hello.<|end|>\n"]);
}

#[test]
fn a_message_of_another_role_with_a_weight_is_trained_whole() {
    let mut given = talk(&["a", "one", "b", "two"]);
    given["messages"][2]["train"] = true.into();
    given["messages"][3]["weight"] = 0.into();
    let found = conversation(&chatml(CHATML), &given).unwrap();
    assert_eq!(trained(&found), ["one<|im_end|>\n<|im_start|>user\nb<|im_end|>\n"]);
    given["messages"][2]["weight"] = 0.5.into();
    let found = conversation(&chatml(CHATML), &given).unwrap();
    for (at, trained) in found.trained.iter().enumerate() {
        let wanted = match (trained, found.message_of[at]) {
            (false, _) => 0.0,
            (true, Some(2)) => 0.5,
            (true, _) => 1.0,
        };
        assert_eq!(found.weights[at], wanted, "{at}");
    }
    given["trained_from"] = 3.into();
    assert!(problem(CHATML, &given).contains("no message is trained"));
}

#[test]
fn all_leaves_out_messages_with_weight_0_or_train_false() {
    let mut given = talk(&["a", "one", "b", "two"]);
    given["train_on"] = "all".into();
    given["messages"][0]["train"] = false.into();
    given["messages"][3]["weight"] = 0.into();
    let found = turns(CHATML, &given);
    assert_eq!(
        found,
        ["<|im_start|>assistant\none<|im_end|>\n<|im_start|>user\nb<|im_end|>\n"]
    );
    given["trained_from"] = 2.into();
    assert_eq!(turns(CHATML, &given), ["<|im_start|>user\nb<|im_end|>\n"]);
}

#[test]
fn a_mask_that_is_a_mistake_is_an_error_with_the_text() {
    let users = json!({"messages": [{"role": "user", "content": "a\nb"}]});
    let text = problem(CHATML, &users);
    assert!(
        text.contains("no message is trained") && text.ends_with("rendered: `<|im_start|>user\\na\\nb<|im_end|>\\n`"),
        "{text}"
    );
    let silent =
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% generation %}{% endgeneration %}{% endfor %}";
    let text = problem(silent, &talk(&["a", "one"]));
    assert!(
        text.contains("the template writes nothing for the messages that are trained"),
        "{text}"
    );
    let everything = "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}";
    let text = problem(everything, &talk(&["a", &"one ".repeat(500)]));
    assert!(
        text.contains("every token is trained, also those of messages that must not be"),
        "{text}"
    );
    assert!(text.contains(" … ") && text.len() < 800, "{text}");
    let buffered = "{% macro turn(m) %}{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}\
                    {% for m in messages %}{{ turn(m) }}{% endfor %}";
    let text = problem(buffered, &talk(&["a", "one"]));
    assert!(text.contains("a `{% generation %}` block stands in a macro"), "{text}");
}

#[test]
fn wrong_fields_are_named_with_their_message() {
    let mut given = talk(&["a", "one"]);
    for (field, value, expected) in [
        (
            "weight",
            json!(-1),
            "message 2 has the `weight` `-1`; give a finite number of at least 0",
        ),
        ("weight", json!("1"), "message 2 has the `weight` `\"1\"`"),
        ("weight", json!(1e300), "message 2 has the `weight` `1e+300`"),
        ("train", json!(1), "message 2 has `train: 1`; give true or false"),
    ] {
        given["messages"][1] = json!({"role": "assistant", "content": "one"});
        given["messages"][1][field] = value;
        let text = problem(CHATML, &given);
        assert!(text.contains(expected), "{text}");
    }
    let text = problem(CHATML, &json!({"messages": []}));
    assert!(text.contains("the conversation has no messages"), "{text}");
    let mut given = talk(&["a", "one"]);
    given["tools"] = json!({"name": "f"});
    let text = problem(CHATML, &given);
    assert!(text.contains("the tools must be a list of JSON schemas"), "{text}");
    let text = problem("{{ raise_exception('no ' + messages[0].role) }}", &talk(&["a", "one"]));
    assert!(text.contains("line 1: no user"), "{text}");
}

/// Special tokens are those of the template, whatever is chosen for other texts.
#[test]
fn special_tokens_are_parsed_and_not_doubled() {
    let template = format!("{{{{ bos_token }}}}{CHATML}");
    let (with, without) = (chatml(&template), chatml(CHATML));
    let given = talk(&["a", "one"]);
    let bos = with.encode("<|endoftext|>").unwrap();
    let wanted = conversation(&with, &given).unwrap().tokens;
    assert_eq!(wanted[..1], bos);
    assert_eq!(conversation(&without, &given).unwrap().tokens, wanted[1..]);
    let choice = Choice {
        special_tokens: SpecialTokens::Always,
        special_in_text: SpecialInText::Plain,
    };
    for tokenizer in [with, without] {
        let found = conversation(&tokenizer.with_choice(choice).unwrap(), &given).unwrap();
        assert_eq!(found.tokens, wanted);
        assert_eq!(
            (found.trained[0], found.weights[0], found.message_of[0]),
            (false, 0.0, None)
        );
        assert_eq!(trained(&found), ["one<|im_end|>\n"]);
    }
}

/// `chat_template` may be a list of named templates, of which transformers takes `tool_use` with tools.
#[test]
fn tools_choose_the_template_that_is_named_for_them() {
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::builtin_micro().unwrap().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = json!([
        {"name": "tool_use", "template": "{% for m in messages %}{{ tools|length }}{{ m.role }}:{{ m.content }};{% endfor %}"},
        {"name": "default", "template": "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"}
    ]);
    std::fs::write(path, config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let mut given = talk(&["a", "one"]);
    assert_eq!(conversation(&tokenizer, &given).unwrap().text, "user:a;assistant:one;");
    given["tools"] = json!([{"name": "f"}]);
    assert_eq!(
        conversation(&tokenizer, &given).unwrap().text,
        "1user:a;1assistant:one;"
    );
}

/// A text with pieces that a template writes, too.
fn content() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<|im_end|>\n".to_owned()),
        Just("<|im_start|>assistant\n".to_owned()),
        Just(" \n".to_owned()),
        any::<String>(),
        "[a-z ]{0,9}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn messages() -> impl Strategy<Value = Vec<(&'static str, String, Option<f32>)>> {
    let role = prop::sample::select(vec!["user", "assistant", "system", "tool"]);
    let weight = prop_oneof![3 => Just(None), 1 => (0.0..2.0f32).prop_map(Some), 1 => Just(Some(0.0))];
    prop::collection::vec((role, content(), weight), 0..6)
}

proptest! {
    /// ChatML: the trained tokens are the contents of the assistant and the ends of its turns, nothing else.
    #[test]
    fn trained_tokens_are_what_the_assistant_wrote(messages in messages(), train_on in 0..3usize, from in 0..3usize) {
        static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| chatml(CHATML));
        let given: Vec<Value> = messages.iter().map(|(role, content, weight)| {
            let mut message = json!({"role": role, "content": content});
            // A message of another role with a weight is trained whole.
            if *role == "assistant" {
                message["weight"] = json!(weight);
            }
            message
        }).collect();
        let train_on = ["assistant", "last", "all"][train_on];
        let given = json!({"messages": given, "train_on": train_on, "trained_from": from});
        let Ok(found) = conversation(&TOKENIZER, &given) else { return Ok(()) };
        let lengths = [found.trained.len(), found.weights.len(), found.message_of.len(), found.offsets.len()];
        prop_assert_eq!(lengths, [found.tokens.len(); 4]);
        if train_on == "all" {
            return Ok(());
        }
        let runs: Vec<(usize, String)> = messages.iter().enumerate()
            .map(|(index, _)| {
                let tokens = (0..found.tokens.len())
                    .filter(|at| found.trained[*at] && found.message_of[*at] == Some(index));
                let tokens: Vec<u32> = tokens.map(|at| found.tokens[at]).collect();
                (index, TOKENIZER.decode(&tokens).unwrap())
            })
            .filter(|(_, text)| !text.is_empty())
            .collect();
        prop_assert!(!runs.is_empty());
        for (index, text) in runs {
            let (role, content, weight) = &messages[index];
            prop_assert_eq!(*role, "assistant");
            prop_assert!(index >= from && *weight != Some(0.0));
            // A token that begins in the header (a line break and what follows) belongs to the turn.
            let wanted = format!("{content}<|im_end|>\n");
            prop_assert!(text == wanted || text.trim_start() == wanted.trim_start(), "{:?} {:?}", text, wanted);
        }
    }

    /// Any template that renders gives a mask or an error, for any messages.
    #[test]
    fn no_conversation_panics(messages in messages(), template in 0..4usize) {
        static TOKENIZERS: LazyLock<[Tokenizer; 4]> = LazyLock::new(|| [
            include_str!("fixtures/chat/templates/qwen-3.jinja"),
            include_str!("fixtures/chat/templates/deepseek-v3.jinja"),
            include_str!("fixtures/chat/templates/smollm-3.jinja"),
            include_str!("fixtures/chat/templates/mistral-v0.3.jinja"),
        ].map(chatml));
        let given = messages.iter().map(|(role, content, _)| json!({"role": role, "content": content}));
        let _ = conversation(&TOKENIZERS[template], &json!({"messages": given.collect::<Vec<_>>()}));
    }
}
