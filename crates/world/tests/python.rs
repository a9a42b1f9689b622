//! Python as an independent oracle: a default world's programs are run (`check_world.py`).

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};
use wmtp_world::{Task, World, WorldConfig};

/// Pipes the world to the script; what it prints, or why it refuses.
fn checked(world: &World) -> Result<serde_json::Value, String> {
    let mut rows = String::new();
    for (tasks, held_out) in [(&world.training, false), (&world.held_out, true)] {
        for task in tasks {
            rows += &format!("{}\n", row(task, held_out));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_world.py");
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let mut stdin = python.stdin.take().expect("a pipe");
    // The script stops reading at the first task that it refuses.
    let writer = thread::spawn(move || drop(stdin.write_all(rows.as_bytes())));
    let output = python.wait_with_output().expect("the script ends");
    writer.join().expect("the writer ends");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("counts")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn row(task: &Task, held_out: bool) -> serde_json::Value {
    let mut row = serde_json::to_value(task).expect("JSON");
    row["prompt"] = task.prompt().into();
    row["held_out"] = held_out.into();
    row
}

#[test]
fn python_agrees_about_every_program_of_the_default_world() {
    let world = World::new(&WorldConfig::default());
    let counts = checked(&world).unwrap();
    assert_eq!(counts["training"], 5000);
    assert_eq!(counts["held_out"], 90);
    assert_eq!(counts["combinations"], 453);
    assert_eq!(counts["held_out_combinations"], 50);
    let tasks = || world.training.iter().chain(&world.held_out);
    assert_eq!(counts["right"], tasks().map(|task| task.right.len()).sum::<usize>());
    assert_eq!(counts["wrong"], tasks().map(|task| task.wrong.len()).sum::<usize>());
}

/// The test of the test: a program with the wrong label is found, whichever label it is.
#[test]
fn python_finds_a_wrong_label() {
    let small = WorldConfig {
        training: 3,
        held_out: 1,
        ..WorldConfig::default()
    };
    let mut world = World::new(&small);
    world.training[2].right[0].code = world.training[2].wrong[0].code.clone();
    assert!(checked(&world).unwrap_err().contains("a right program fails"));
    let mut world = World::new(&small);
    world.held_out[0].wrong[0].code = world.held_out[0].right[0].code.clone();
    assert!(checked(&world).unwrap_err().contains("a wrong program passes"));
}
