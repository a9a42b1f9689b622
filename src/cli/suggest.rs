//! Values that shell completions offer for flags that take any text: devices, and keys of settings.
//!
//! The parsers accept every text, so that the reader of the value reports the error.

use crate::{device::Backend, settings::setting_keys};
use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};
use std::{ffi::OsStr, sync::LazyLock};

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
