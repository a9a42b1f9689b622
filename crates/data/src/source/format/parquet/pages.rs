//! The bytes of a Parquet file, with a bound on what a page may claim.
//!
//! The parquet crate reserves what a page's header says that the page has when it is decompressed. A damaged header
//! can say two gigabytes; a page that is there says at most some dozens of times what it takes in the file.

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result},
    file::reader::{ChunkReader, Length},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
};

/// What any page may claim to have when it is decompressed, in bytes. Writers make pages of 1 MiB.
const PAGE: u64 = 64 << 20;
/// How many times its bytes in the file a larger page may claim.
const RATIO: u64 = 64;
/// Bytes of the footer: the length of the metadata, and the format's name.
const FOOTER: u64 = 8;
/// Structures inside each other in a page's header; the format has three.
const DEPTH: usize = 16;

/// A file whose pages are looked at before they are read.
#[derive(Debug)]
pub(super) struct Pages(pub File);

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Pages {
    type T = Page;

    fn get_read(&self, start: u64) -> Result<Page> {
        Ok(Page {
            bytes: self.0.get_read(start)?,
            // The footer is asked for this way too.
            start: (start + FOOTER != self.len()).then_some(start),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = u64::try_from(length).ok().and_then(|length| start.checked_add(length));
        match end.is_some_and(|end| end <= self.len()) {
            true => self.0.get_bytes(start, length),
            false => Err(ParquetError::General("it ends before its pages do".to_owned())),
        }
    }
}

/// The bytes of a page, its header before them.
#[derive(Debug)]
pub(super) struct Page {
    bytes: BufReader<File>,
    /// Where it begins, until its header was looked at. Some are asked for and never read.
    start: Option<u64>,
}

impl Read for Page {
    /// # Errors
    /// Those of the file; a page header that cannot be read, or that claims more than a page may.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(start) = self.start.take() {
            let page = header(&mut self.bytes)?;
            if page.claimed > PAGE.max(page.stored.saturating_mul(RATIO)) {
                return Err(no(&format!(
                    "a page of {} bytes claims to be {} bytes when it is decompressed",
                    page.stored, page.claimed
                )));
            }
            self.bytes.seek(io::SeekFrom::Start(start))?;
        }
        self.bytes.read(buffer)
    }
}

/// Sizes in the header of a page, in bytes.
#[derive(Debug, Default, PartialEq)]
struct Header {
    /// After decompression.
    claimed: u64,
    /// In the file.
    stored: u64,
}

/// The sizes in a page's header, a structure of Thrift's compact protocol in which they are the fields 2 and 3.
///
/// # Errors
/// An end of the file, and what is no such structure.
fn header(read: &mut impl BufRead) -> io::Result<Header> {
    let mut header = Header::default();
    let mut last = 0;
    while let Some((id, kind)) = field(read, last)? {
        last = id;
        match (id, kind) {
            // A number below zero is refused by the reader of the page.
            (2, 5) => header.claimed = u64::try_from(signed(read)?).unwrap_or(0).max(header.claimed),
            (3, 5) => header.stored = u64::try_from(signed(read)?).unwrap_or(0),
            _ => skip(read, kind, DEPTH)?,
        }
    }
    Ok(header)
}

/// Number and type of the next field after the one with the number `last`; none at the end of the structure.
fn field(read: &mut impl BufRead, last: i64) -> io::Result<Option<(i64, u8)>> {
    let head = byte(read)?;
    Ok(match (head >> 4, head & 15) {
        (_, 0) => None,
        (0, kind) => Some((signed(read)?, kind)),
        (step, kind) => Some((last.wrapping_add(i64::from(step)), kind)),
    })
}

/// Reads past a value of a field's type.
fn skip(read: &mut impl BufRead, kind: u8, depth: usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or_else(|| no("too many levels"))?;
    match kind {
        1 | 2 => Ok(()), // a bool is its type
        3 => bytes(read, 1),
        4..=6 => unsigned(read).map(drop),
        7 => bytes(read, 8),
        8 => {
            let length = unsigned(read)?;
            bytes(read, length)
        }
        9 | 10 => {
            let head = byte(read)?;
            let count = match head >> 4 {
                15 => unsigned(read)?,
                count => u64::from(count),
            };
            (0..count).try_for_each(|_| element(read, head & 15, depth))
        }
        11 => {
            let count = unsigned(read)?;
            let kinds = if count == 0 { 0 } else { byte(read)? };
            (0..count).try_for_each(|_| {
                element(read, kinds >> 4, depth)?;
                element(read, kinds & 15, depth)
            })
        }
        12 => {
            let mut last = 0;
            while let Some((id, kind)) = field(read, last)? {
                last = id;
                skip(read, kind, depth)?;
            }
            Ok(())
        }
        _ => Err(no("a type that Thrift does not have")),
    }
}

/// Reads past an element of a list or a map, where a bool is a byte.
fn element(read: &mut impl BufRead, kind: u8, depth: usize) -> io::Result<()> {
    match kind {
        1 | 2 => bytes(read, 1),
        kind => skip(read, kind, depth),
    }
}

fn bytes(read: &mut impl BufRead, count: u64) -> io::Result<()> {
    match io::copy(&mut read.take(count), &mut io::sink())? == count {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn byte(read: &mut impl BufRead) -> io::Result<u8> {
    let mut byte = [0];
    read.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A number in groups of seven bits, the lowest first.
fn unsigned(read: &mut impl BufRead) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(read)?;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(no("a number that is too long"))
}

/// A number with its sign in the lowest bit.
fn signed(read: &mut impl BufRead) -> io::Result<i64> {
    let value = unsigned(read)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn no(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::{Header, header};

    /// Bytes written by hand after Thrift's compact protocol and parquet-format's `PageHeader`.
    #[test]
    fn sizes_are_read_wherever_they_stand() {
        // 1: i32 0, 2: i32 12, 3: i32 14, 5: struct {1: i32 3, 2: i32 0, 3: i32 3, 4: i32 3}
        let plain = [
            0x15, 0, 0x15, 24, 0x15, 28, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0,
        ];
        let sizes = |bytes: &[u8]| header(&mut &*bytes).map_err(|error| error.to_string());
        assert_eq!(
            sizes(&plain),
            Ok(Header {
                claimed: 12,
                stored: 14
            })
        );
        // 2: i32 2^31 - 1 by its number, after a list of bools, a map, a text and a double; then 2 again, small
        let mut odd = vec![0x19, 0x21, 1, 2, 0x1b, 1, 0x58, 2, 1, b'x', 0x18, 2, b'a', b'b', 0x17];
        odd.extend([0; 8]);
        odd.extend([0x05, 4, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x05, 4, 2, 0]);
        assert_eq!(sizes(&odd).unwrap().claimed, (1 << 31) - 1);
        for (bytes, expected) in [
            (&plain[..9], "failed to fill whole buffer"),
            (&[0x18, 0xff, 0xff, 3, b'x'], "unexpected end of file"),
            (&[0x1d, 0], "a type that Thrift does not have"),
            (
                &[0x15, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0],
                "a number that is too long",
            ),
            (&[0x1c; 40], "too many levels"),
        ] {
            assert_eq!(sizes(bytes), Err(expected.to_owned()));
        }
    }
}
