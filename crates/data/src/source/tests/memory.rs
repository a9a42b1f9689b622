//! Large files are read in little memory: a process of its own reads 50 MB and looks at its peak.

use super::super::{Source, SourceOptions};
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType},
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    sync::Arc,
};

/// The variable that says which file the process reads.
const FILE: &str = "WMTP_TEST_LARGE_FILE";
/// Bytes of a file's completions.
const SIZE: usize = 50 << 20;
/// Most growth of the resident memory, in KiB.
const GROWTH: u64 = 20 << 10;
const ROWS: usize = SIZE / 1000;

/// Peak of this process's resident memory in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A completion of about 1,000 bytes.
fn completion(row: usize) -> String {
    let lines = (0..40).map(|line| format!("x{line} = {}\n", (row * 7919 + line * 104_729) % 1_000_003 * 1_000_003));
    let mut text: String = lines.collect();
    text.truncate(1000);
    text
}

fn json_lines(path: &Path) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    for row in 0..ROWS {
        writeln!(
            out,
            "{}",
            serde_json::json!({"prompt": "# x\n", "completion": completion(row)})
        )
        .unwrap();
    }
}

fn json_array(path: &Path) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    for row in 0..ROWS {
        let start = if row == 0 { '[' } else { ',' };
        write!(
            out,
            "{start}{}",
            serde_json::json!({"prompt": "# x\n", "completion": completion(row)})
        )
        .unwrap();
    }
    write!(out, "]").unwrap();
}

/// Two row groups, each with a column that no schema uses and that is as large as the completions.
fn parquet_file(path: &Path) {
    let schema =
        "message m { required binary prompt (UTF8); required binary completion (UTF8); required binary raw (UTF8); }";
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for group in 0..2 {
        let rows = group * ROWS / 2..(group + 1) * ROWS / 2;
        let mut out = writer.next_row_group().unwrap();
        for column in 0..3 {
            let values: Vec<ByteArray> = rows
                .clone()
                .map(|row| match column {
                    0 => ByteArray::from("# x\n"),
                    _ => ByteArray::from(completion(row).into_bytes()),
                })
                .collect();
            let mut written = out.next_column().unwrap().unwrap();
            written
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None)
                .unwrap();
            written.close().unwrap();
        }
        out.close().unwrap();
    }
    writer.close().unwrap();
}

/// Reads the file of the variable; writes one where there is none and reads it in a process of its own.
fn in_little_memory(test: &str, ending: &str, write: fn(&Path)) {
    if let Some(path) = std::env::var_os(FILE) {
        let source = Source::open(Path::new(&path), &SourceOptions::default()).unwrap();
        let before = peak();
        let mut last = String::new();
        let mut rows = 0;
        for record in source.records() {
            last = format!("{:?}", record.unwrap().samples[0].body);
            rows += 1;
        }
        assert_eq!(rows, ROWS);
        assert!(last.contains(&format!("{:?}", completion(ROWS - 1))), "{last}");
        let growth = peak() - before;
        assert!(growth < GROWTH, "{growth} KiB");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("large.{ending}"));
    write(&path);
    assert!(path.metadata().unwrap().len() as usize > SIZE / 4);
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("source::tests::memory::{test}"),
            "--test-threads",
            "1",
        ])
        .env(FILE, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn json_lines_are_read_in_little_memory() {
    in_little_memory("json_lines_are_read_in_little_memory", "jsonl", json_lines);
}

#[test]
fn a_json_array_is_read_in_little_memory() {
    in_little_memory("a_json_array_is_read_in_little_memory", "json", json_array);
}

#[test]
fn parquet_is_read_in_little_memory() {
    in_little_memory("parquet_is_read_in_little_memory", "parquet", parquet_file);
}

/// A page whose header claims 128 MiB, where 12 are there, is refused before they are reserved.
#[test]
fn a_page_of_parquet_may_not_claim_much_more_than_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.parquet");
    let schema = "message m { required binary text (UTF8); }";
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_compression(Compression::SNAPPY);
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let text = [ByteArray::from("x = 1\n".repeat(2 << 20).into_bytes())];
    column.typed::<ByteArrayType>().write_batch(&text, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let rows = |path: &Path| {
        let source = Source::open(path, &SourceOptions::default()).unwrap();
        source
            .records()
            .map(|record| {
                record
                    .map(|record| record.samples.len())
                    .map_err(|error| error.to_string())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&path), [Ok(1)]);

    // The second number of the first header, after the four bytes of the format's name and the page's type.
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[4..7], [0x15, 0, 0x15]);
    assert!(bytes[7..10].iter().all(|byte| *byte >= 128) && bytes[10] < 128);
    bytes[7..11].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
    std::fs::write(&path, bytes).unwrap();
    let expected = "claims to be 134217727 bytes when it is decompressed); take a complete file";
    let found = rows(&path);
    assert!(
        matches!(&found[..], [Err(error)] if error.contains(expected)),
        "{found:?}"
    );
}
