//! Rows against what other programs read: Parquet's against pyarrow's.

use super::{DataFile, Kind};
use crate::DataError;
use ::parquet::{
    data_type::{ByteArray, ByteArrayType, Int96Type},
    file::writer::SerializedFileWriter,
    schema::parser::parse_message_type,
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

fn rows(path: &Path) -> Result<Vec<Value>, DataError> {
    let file = DataFile::open(path, false)?;
    let rows = file.rows(&|_| true)?;
    rows.map(|row| row.map(|row| Value::Object(row.values))).collect()
}

#[test]
fn nested_parquet_is_what_pyarrow_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nested");
    let expected: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("rows.json")).unwrap()).unwrap();
    assert_eq!(expected.len(), 60);
    for name in ["none", "snappy", "gzip", "lz4", "zstd"] {
        let found = rows(&folder.join(name).with_extension("parquet")).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn only_wanted_columns_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/nested");
    let file = DataFile::open(&folder.join("snappy.parquet"), false).unwrap();
    let row = file.rows(&|column| column == "id").unwrap().next().unwrap().unwrap();
    assert_eq!(Value::Object(row.values), json!({"id": 0}));
    assert_eq!(row.unread.len(), 15);
    assert!(row.unread.contains(&"messages".to_owned()));
}

#[test]
fn the_content_decides_the_format() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, kind) in [
        ("rows", "\n {\"a\": 1}", Kind::JsonLines),
        ("rows.txt", "{\"a\": 1}", Kind::JsonLines),
        ("rows.bin", "[{\"a\": 1}]", Kind::JsonArray),
        ("rows.jsonl", "[{\"a\": 1}]", Kind::JsonArray),
        ("rows.jsonl", "oops", Kind::JsonLines),
        ("dict.py", "{\"a\": 1}", Kind::Text),
        ("list.py", "[{1}, {2}]", Kind::Text),
        ("page.md", "[![badge](x)](y)", Kind::Text),
        ("LICENSE", "Permission is granted", Kind::Text),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert_eq!(DataFile::open(&path, false).unwrap().kind, kind, "{name}: {content}");
    }
}

#[test]
fn an_array_is_divided_at_the_commas_between_elements() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    let elements = json!([{"a": "],\"\\"}, {"a": [{"b": "}"}, []]}, {}, {"ä": "{"}]);
    std::fs::write(&path, serde_json::to_string_pretty(&elements).unwrap()).unwrap();
    assert_eq!(Value::Array(rows(&path).unwrap()), elements);
    let wrong = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let message = rows(&path).unwrap_err().to_string();
        message.replace(&path.display().to_string(), "FILE")
    };
    assert_eq!(
        wrong("[{}, {} {}]"),
        "FILE, row 2: invalid JSON at line 1, column 9: trailing characters; correct it"
    );
    assert_eq!(
        wrong("[{}]\n{}"),
        "FILE, row 1: invalid JSON at line 2, column 1: something after the closing bracket; write a list of objects"
    );
    assert_eq!(
        wrong("[{},\n\n{\"a\":\n tru}]"),
        "FILE, row 2: invalid JSON at line 4, column 5: expected ident; correct it"
    );
}

#[test]
fn a_long_text_is_cut_after_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.txt");
    let text: String = (0..1_200_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&path, &text).unwrap();
    let found = rows(&path).unwrap();
    let pieces: Vec<&str> = found.iter().map(|row| row["text"].as_str().unwrap()).collect();
    assert_eq!((pieces.len(), text.len()), (56, 14_488_890));
    assert!(
        pieces
            .iter()
            .all(|piece| piece.ends_with('\n') && piece.len() <= 256 << 10)
    );
    assert_eq!(pieces.concat(), text);
    // No line ends: cut before a character, not inside of one.
    std::fs::write(&path, "ä".repeat(5_000_000)).unwrap();
    let found = rows(&path).unwrap();
    let lengths: Vec<usize> = found
        .iter()
        .map(|row| row["text"].as_str().unwrap().chars().count())
        .collect();
    assert_eq!(lengths.iter().sum::<usize>(), 5_000_000);
}

#[test]
fn parquet_of_bytes_is_refused_where_a_text_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bytes.parquet");
    let schema = Arc::new(parse_message_type("message m { required binary text; optional int96 label; }").unwrap());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(&path).unwrap(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let bytes = ByteArray::from(vec![0xff_u8, 0x00]);
    column
        .typed::<ByteArrayType>()
        .write_batch(&[bytes], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&[], Some(&[0]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let file = DataFile::open(&path, false).unwrap();
    let shown = |error: DataError| error.to_string().replace(&path.display().to_string(), "FILE");
    let error = file
        .rows(&|column| column == "text")
        .unwrap()
        .next()
        .unwrap()
        .unwrap_err();
    assert_eq!(
        shown(error),
        "`FILE` has bytes that are not UTF-8 in column `text`, at row 1 or soon after; save it as text"
    );
    assert_eq!(
        shown(file.rows(&|_| true).err().unwrap()),
        "`FILE` column `label` has the type INT96, which is not read; convert it to text or numbers"
    );
}
