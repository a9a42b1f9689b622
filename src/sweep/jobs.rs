//! One command per line for a cluster's job array.

use super::arm::Sweep;

/// A command line that a POSIX shell splits into exactly these arguments.
pub fn shell_line(args: &[String]) -> String {
    args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ")
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

/// A line for every arm: this program with the sweep's arguments and `--arm`. Each may be restarted after a
/// kill and skips finished work.
pub fn job_lines(sweep: &Sweep, program: &str, reading: &[String]) -> Vec<String> {
    let start = [program.to_owned(), "sweep".into()];
    let line = |name: &String| {
        let arm = ["--arm".to_owned(), name.clone()];
        let args: Vec<String> = start.iter().chain(reading).chain(&arm).cloned().collect();
        shell_line(&args)
    };
    sweep.arms.iter().map(|arm| line(&arm.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_takes_a_line_apart_into_the_same_arguments() {
        let args: Vec<String> = [
            "plain",
            "",
            "two words",
            "it's",
            "'",
            "$HOME `id` \"x\" \\ !",
            "train.lora={rank: 16}",
            "a;b|c&d>e<f*g?h[i]j~k#l\nm",
            "ä=ö",
            "--set",
        ]
        .map(str::to_owned)
        .into();
        let script = format!("printf '%s\\0' {}", shell_line(&args));
        let output = Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("a POSIX shell");
        let back: Vec<&str> = std::str::from_utf8(&output.stdout)
            .unwrap()
            .split_terminator('\0')
            .collect();
        assert_eq!(back, args);
    }
}
