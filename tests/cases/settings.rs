//! Settings files as other tools write them.

use crate::case::Case;

/// `wmtp inspect recipe` of one file of the case: the resolved recipe.
fn recipe(file: &str) -> serde_json::Value {
    let case = Case::new("settings");
    case.json(&["inspect", "recipe", "baseline", "--recipe", file, "--json"])["recipe"].clone()
}

fn refused(file: &str) -> String {
    Case::new("settings").refused(2, &["inspect", "recipe", "baseline", "--recipe", file])
}

#[test]
fn whole_numbers_may_have_a_point_or_an_exponent() {
    assert_eq!(recipe("epochs-float.yaml")["train"]["epochs"], 2);
    assert_eq!(recipe("int-as-float.yaml")["data"]["seq_len"], 256);
    assert_eq!(recipe("sci-lr-plus.yaml")["train"]["steps"], 1000);
    let said = refused("epochs-frac.yaml");
    assert!(
        said.contains("`train.epochs`") && said.contains("found the number 0.5"),
        "{said}"
    );
}

#[test]
fn merge_keys_are_merged() {
    let merged = recipe("merge-key.yaml");
    assert_eq!(
        (&merged["optim"]["lr"], &merged["optim"]["eps"]),
        (&0.5.into(), &0.25.into())
    );
    // `model` has no `name`: the key is named as what it is, not as `<<`.
    let said = refused("merge-anchor.yaml");
    assert!(said.contains("unknown key `model.name`"), "{said}");
}

#[test]
fn escaped_surrogate_pairs_are_one_character() {
    assert_eq!(recipe("json-surrogate.yaml")["run"]["tags"][0], "emoji😀");
}

#[test]
fn an_unknown_key_names_what_the_section_has() {
    let said = refused("typo.yaml");
    assert!(said.contains("did you mean `optim.lr`?"), "{said}");
    let said = refused("case.yaml");
    assert!(said.contains("did you mean `optim`?"), "{said}");
    let case = Case::new("settings");
    let set = |text: &str| case.refused(2, &["inspect", "recipe", "baseline", "--set", text]);
    assert!(set("optim.LR=1").contains("did you mean `optim.lr`?"));
    let said = set("devices.count=4");
    assert!(said.contains("`devices` has `backend`"), "{said}");
    let said = set("data.format=json");
    assert!(
        said.contains("`data` has `source`") || said.contains("did you mean"),
        "{said}"
    );
}

/// Every file of the case is taken, or refused in a sentence with key or file and line.
#[test]
fn every_file_is_taken_or_refused_with_its_place() {
    let case = Case::new("settings");
    for entry in std::fs::read_dir(case.dir()).expect("the case") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if !name.ends_with(".yaml") {
            continue;
        }
        let output = case.run(&["inspect", "recipe", "baseline", "--recipe", &name]);
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {}
            Some(2) => assert!(said.starts_with("error: ") && said.contains(&name), "{name}: {said}"),
            code => panic!("{name}: exit code {code:?}: {said}"),
        }
    }
}

#[test]
fn a_tag_without_a_name_is_refused_before_the_run() {
    let case = Case::new("mlflow-tags");
    let said = case.refused(2, &["train", "baseline", "--recipe", "oddtags.yaml", "--dry-run"]);
    assert!(said.contains("`run.tags` must hold tags with a name"), "{said}");
    let said = case.refused(2, &["train", "baseline", "--tags", "=1", "--dry-run"]);
    assert!(said.contains("`run.tags`"), "{said}");
}
