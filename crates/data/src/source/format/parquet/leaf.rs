//! A primitive column: its values as JSON, with definition and repetition levels.

use parquet::{
    basic::{ConvertedType, LogicalType, Type as Physical},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    schema::types::ColumnDescPtr,
};
use serde_json::{Number, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A column and the batch of it that is decoded.
pub(super) struct Leaf {
    index: usize,
    descr: ColumnDescPtr,
    reader: Option<ColumnReader>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    values: std::vec::IntoIter<Value>,
    /// The next entry of the levels.
    at: usize,
    /// Entries of the batch.
    entries: usize,
}

impl Leaf {
    /// The column `index` of the file.
    ///
    /// # Errors
    /// A type that is not read.
    pub fn new(index: usize, descr: ColumnDescPtr) -> Result<Self, String> {
        match descr.physical_type() {
            Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => Err(format!(
                "has the type {}, which is not read; convert it to text or numbers",
                descr.physical_type()
            )),
            _ => Ok(Self {
                index,
                descr,
                reader: None,
                definitions: Vec::new(),
                repetitions: Vec::new(),
                values: Vec::new().into_iter(),
                at: 0,
                entries: 0,
            }),
        }
    }

    /// Its number in the file.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Takes the column of the next row group.
    pub fn begin(&mut self, reader: ColumnReader) {
        self.reader = Some(reader);
        self.entries = 0;
        self.at = 0;
    }

    /// Decodes `rows` rows.
    ///
    /// # Errors
    /// Damaged or too few values, text that is not UTF-8.
    pub fn fill(&mut self, rows: usize) -> Result<(), String> {
        // The decoders assert what damaged pages can break.
        let filled = catch_unwind(AssertUnwindSafe(|| self.decode(rows)));
        filled.unwrap_or_else(|_| Err(format!("column `{}` cannot be decoded", self.descr.path().string())))
    }

    fn decode(&mut self, rows: usize) -> Result<(), String> {
        let reader = self.reader.take();
        let unsigned = matches!(
            self.descr.converted_type(),
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        ) || matches!(
            self.descr.logical_type_ref(),
            Some(LogicalType::Integer(kind)) if !kind.is_signed
        );
        self.reader = match reader {
            None => return Err("a row group has too few columns".into()),
            Some(ColumnReader::BoolColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value| Ok(Value::Bool(value)))?;
                Some(ColumnReader::BoolColumnReader(reader))
            }
            Some(ColumnReader::Int32ColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value| {
                    Ok(match unsigned {
                        true => value.cast_unsigned().into(),
                        false => value.into(),
                    })
                })?;
                Some(ColumnReader::Int32ColumnReader(reader))
            }
            Some(ColumnReader::Int64ColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value| {
                    Ok(match unsigned {
                        true => value.cast_unsigned().into(),
                        false => value.into(),
                    })
                })?;
                Some(ColumnReader::Int64ColumnReader(reader))
            }
            Some(ColumnReader::FloatColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value| Ok(number(f64::from(value))))?;
                Some(ColumnReader::FloatColumnReader(reader))
            }
            Some(ColumnReader::DoubleColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value| Ok(number(value)))?;
                Some(ColumnReader::DoubleColumnReader(reader))
            }
            Some(ColumnReader::ByteArrayColumnReader(mut reader)) => {
                self.read(&mut reader, rows, |value: ByteArray| {
                    let text = String::from_utf8(value.data().to_vec());
                    text.map(Value::String).map_err(|_| "a text is not UTF-8".into())
                })?;
                Some(ColumnReader::ByteArrayColumnReader(reader))
            }
            Some(_) => return Err("a column has a type that is not read".into()),
        };
        Ok(())
    }

    fn read<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        to_json: impl Fn(T::T) -> Result<Value, String>,
    ) -> Result<(), String> {
        self.definitions.clear();
        self.repetitions.clear();
        let mut values = Vec::new();
        let has_definitions = self.descr.max_def_level() > 0;
        let has_repetitions = self.descr.max_rep_level() > 0;
        let (records, _, levels) = reader
            .read_records(
                rows,
                has_definitions.then_some(&mut self.definitions),
                has_repetitions.then_some(&mut self.repetitions),
                &mut values,
            )
            .map_err(|error| error.to_string())?;
        if records != rows {
            return Err(format!("column `{}` has too few rows", self.descr.path().string()));
        }
        self.entries = levels;
        self.at = 0;
        let path = || format!("column `{}`", self.descr.path().string());
        let values: Result<Vec<Value>, String> = values
            .into_iter()
            .map(|value| to_json(value).map_err(|problem| format!("{}: {problem}", path())))
            .collect();
        self.values = values?.into_iter();
        Ok(())
    }

    /// Definition level of the next entry; none after the batch.
    pub fn definition(&self) -> Option<i16> {
        match self.definitions.get(self.at) {
            Some(level) => Some(*level),
            None => (self.at < self.entries && self.definitions.is_empty()).then_some(0),
        }
    }

    /// Repetition level of the next entry; none after the batch.
    pub fn repetition(&self) -> Option<i16> {
        self.repetitions.get(self.at).copied()
    }

    /// The next entry: its value, or null where it is not defined.
    pub fn take(&mut self) -> Result<Value, String> {
        let short = || "a column has too few values".to_owned();
        let level = self.definition().ok_or_else(short)?;
        self.at += 1;
        match level < self.descr.max_def_level() {
            true => Ok(Value::Null),
            false => self.values.next().ok_or_else(short),
        }
    }
}

/// A number that is not finite becomes a text, which no column of numbers accepts: JSON has none.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}
