//! `wmtp completions`: a completion script for a shell; and the values that it offers for flags that take any
//! text, devices and keys of settings. Their parsers accept every text, so that the reader of the value
//! reports the error.

use super::{Cli, Failure, Output};
use crate::{device::Backend, settings::setting_keys};
use clap::{
    Arg, Command, CommandFactory, Error,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};
use serde_json::json;
use std::{ffi::OsStr, sync::LazyLock};

/// `wmtp completions SHELL`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell.
    shell: clap_complete::Shell,
}

/// Prints the script; with `--json` inside a document.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wmtp", &mut script);
    let script = String::from_utf8_lossy(&script);
    output.result(&json!({"shell": args.shell.to_string(), "script": script}), &script)
}

/// `KEY.PATH=VALUE`: every key of config and recipe.
#[derive(Clone, Copy, Debug)]
pub struct Setting;

static KEYS: LazyLock<Vec<String>> =
    LazyLock::new(|| setting_keys().into_iter().map(|key| format!("{key}=")).collect());

impl TypedValueParser for Setting {
    type Value = String;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(KEYS.iter().map(|key| PossibleValue::new(key.as_str()))))
    }
}

/// The name of a device: `auto` and the backends.
#[derive(Clone, Copy, Debug)]
pub struct DeviceName;

impl TypedValueParser for DeviceName {
    type Value = String;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Backend::ALL.into_iter().map(Backend::name);
        Some(Box::new(std::iter::once("auto").chain(names).map(PossibleValue::new)))
    }
}
