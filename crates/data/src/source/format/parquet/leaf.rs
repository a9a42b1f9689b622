//! A primitive column: its values as JSON, with definition and repetition levels.

use super::fault::{Fault, guarded};
use parquet::{
    basic::{ConvertedType, LogicalType, Type as Physical},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    schema::types::ColumnDescPtr,
};
use serde_json::{Number, Value};
use std::collections::VecDeque;

/// Times in a row that a reader may give nothing although its column has more: once for each empty page.
const EMPTY_PAGES: usize = 64;

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Damaged(problem)
    }
}

/// A column and those of its entries that are decoded and not taken.
pub(super) struct Leaf {
    index: usize,
    descr: ColumnDescPtr,
    reader: Option<ColumnReader>,
    definitions: VecDeque<i16>,
    repetitions: VecDeque<i16>,
    values: VecDeque<Value>,
    /// Entries of the row group that are not decoded.
    unread: usize,
    /// Decoded entries with which a row begins.
    begun: usize,
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
                definitions: VecDeque::new(),
                repetitions: VecDeque::new(),
                values: VecDeque::new(),
                unread: 0,
                begun: 0,
            }),
        }
    }

    /// Its number in the file.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Takes the column of the next row group, which has this many entries.
    pub fn begin(&mut self, reader: ColumnReader, entries: i64) {
        self.reader = Some(reader);
        self.unread = usize::try_from(entries).unwrap_or(0);
        self.definitions.clear();
        self.repetitions.clear();
        self.values.clear();
        self.begun = 0;
    }

    /// Decodes entries until this many rows are complete: the next one has begun, or the group ends.
    ///
    /// # Errors
    /// Damaged or too few values, text that is not UTF-8.
    pub fn fill(&mut self, rows: usize) -> Result<(), Fault> {
        let repeated = usize::from(self.descr.max_rep_level() > 0);
        let mut empty = 0;
        while self.begun < rows + repeated && self.unread > 0 && empty < EMPTY_PAGES {
            let before = self.unread;
            guarded(|| self.decode(rows)).map_err(|fault| {
                let path = self.descr.path().string();
                match fault {
                    Fault::Damaged(problem) => Fault::Damaged(format!("column `{path}`: {problem}")),
                    Fault::NotText(_) => Fault::NotText(path),
                }
            })?;
            // A reader stops at an empty page, and some writers write those.
            empty = if self.unread == before { empty + 1 } else { 0 };
        }
        match self.begun < rows {
            true => Err(format!("column `{}` has too few rows", self.descr.path().string()).into()),
            false => Ok(()),
        }
    }

    fn decode(&mut self, rows: usize) -> Result<(), Fault> {
        let reader = self.reader.take();
        let unsigned = matches!(
            self.descr.converted_type(),
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        ) || matches!(
            self.descr.logical_type_ref(),
            Some(LogicalType::Integer(kind)) if !kind.is_signed
        );
        self.reader = match reader {
            None => return Err(Fault::Damaged("a row group lacks it".into())),
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
                    text.map(Value::String).map_err(|_| Fault::NotText(String::new()))
                })?;
                Some(ColumnReader::ByteArrayColumnReader(reader))
            }
            Some(_) => return Err(Fault::Damaged("its type is not that of the schema".into())),
        };
        Ok(())
    }

    fn read<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        to_json: impl Fn(T::T) -> Result<Value, Fault>,
    ) -> Result<(), Fault> {
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let defined = self.descr.max_def_level() > 0;
        let repeated = self.descr.max_rep_level() > 0;
        let (_, _, entries) = reader.read_records(
            rows,
            defined.then_some(&mut definitions),
            repeated.then_some(&mut repetitions),
            &mut values,
        )?;
        if !defined {
            definitions.resize(entries, 0);
        }
        self.unread = self.unread.saturating_sub(entries);
        self.begun += match repeated {
            true => repetitions.iter().filter(|level| **level == 0).count(),
            false => entries,
        };
        self.definitions.extend(definitions);
        self.repetitions.extend(repetitions);
        for value in values {
            self.values.push_back(to_json(value)?);
        }
        Ok(())
    }

    /// Definition level of the next entry; none where nothing is decoded.
    pub fn definition(&self) -> Option<i16> {
        self.definitions.front().copied()
    }

    /// Repetition level of the next entry; none where nothing is decoded.
    pub fn repetition(&self) -> Option<i16> {
        self.repetitions.front().copied()
    }

    /// The next entry: its value, or null where it is not defined.
    ///
    /// # Errors
    /// No entry.
    pub fn take(&mut self) -> Result<Value, String> {
        let short = || "a column has too few values".to_owned();
        let level = self.definitions.pop_front().ok_or_else(short)?;
        if self.repetitions.pop_front().unwrap_or(0) == 0 {
            self.begun = self.begun.saturating_sub(1);
        }
        match level < self.descr.max_def_level() {
            true => Ok(Value::Null),
            false => self.values.pop_front().ok_or_else(short),
        }
    }
}

/// A number that is not finite becomes a text, which no column of numbers accepts: JSON has none.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}
