//! A writer of uncompressed zip archives, as far as PyTorch's files need one.
//!
//! Entries are written one after another without seeking back. Sizes and offsets above 4 GiB go into
//! zip64 fields. Data starts at multiples of 64 bytes, so that a mapped file can be used in place.
//! Layout: PKWARE's APPNOTE 6.3.

use std::io::{self, Write};

/// Where an entry's data starts: at a multiple of this.
const ALIGNMENT: u64 = 64;
/// Version 4.5 of the format has zip64.
const VERSION: u16 = 45;
/// 1980-01-01, the first date that zip knows: equal contents give equal archives.
const DATE: u16 = 0x21;

/// An archive being written.
pub(crate) struct ZipWriter<'a> {
    out: &'a mut dyn Write,
    offset: u64,
    entries: Vec<Entry>,
    /// Values from here on do not fit their 32-bit fields.
    limit: u64,
}

struct Entry {
    name: String,
    crc: u32,
    size: u64,
    offset: u64,
}

impl<'a> ZipWriter<'a> {
    /// An archive written to `out`.
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self::with_limit(out, u64::from(u32::MAX))
    }

    /// As [`ZipWriter::new`] with another bound above which zip64 fields are used.
    pub(crate) fn with_limit(out: &'a mut dyn Write, limit: u64) -> Self {
        Self {
            out,
            offset: 0,
            entries: Vec::new(),
            limit,
        }
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let entry = Entry {
            name: name.to_owned(),
            crc: crc32(data),
            size: data.len() as u64,
            offset: self.offset,
        };
        let mut extra = Vec::new();
        if entry.size >= self.limit {
            push_extra(
                &mut extra,
                1,
                &[entry.size.to_le_bytes(), entry.size.to_le_bytes()].concat(),
            );
        }
        // The padding is an extra field of its own, under the identifier that PyTorch uses: "FB".
        let unpadded = self.offset + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = (ALIGNMENT - unpadded % ALIGNMENT) % ALIGNMENT;
        push_extra(&mut extra, 0x4246, &vec![b'Z'; padding as usize]);

        let mut header = Vec::with_capacity(128);
        header.extend(0x0403_4b50u32.to_le_bytes());
        push_common(&mut header, &entry, self.limit);
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(extra);
        self.write(&header)?;
        self.write(data)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the central directory, which ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let start = self.offset;
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            let mut extra = Vec::new();
            let mut wide = Vec::new();
            if entry.size >= self.limit {
                wide.extend(entry.size.to_le_bytes());
                wide.extend(entry.size.to_le_bytes());
            }
            if entry.offset >= self.limit {
                wide.extend(entry.offset.to_le_bytes());
            }
            if !wide.is_empty() {
                push_extra(&mut extra, 1, &wide);
            }
            let mut header = Vec::with_capacity(128);
            header.extend(0x0201_4b50u32.to_le_bytes());
            header.extend(VERSION.to_le_bytes());
            push_common(&mut header, entry, self.limit);
            header.extend((extra.len() as u16).to_le_bytes());
            // Comment length, disk, internal and external attributes.
            header.extend([0; 10]);
            header.extend(narrow(entry.offset, self.limit).to_le_bytes());
            header.extend(entry.name.as_bytes());
            header.extend(extra);
            self.write(&header)?;
        }
        self.end(start, self.offset - start, entries.len() as u64)
    }

    fn end(&mut self, start: u64, size: u64, count: u64) -> io::Result<()> {
        let mut end = Vec::with_capacity(128);
        if start >= self.limit || size >= self.limit || count >= u64::from(u16::MAX) {
            end.extend(0x0606_4b50u32.to_le_bytes());
            end.extend(44u64.to_le_bytes());
            end.extend([VERSION.to_le_bytes(), VERSION.to_le_bytes()].concat());
            // Number of this disk and of the directory's.
            end.extend([0; 8]);
            for value in [count, count, size, start] {
                end.extend(value.to_le_bytes());
            }
            end.extend(0x0706_4b50u32.to_le_bytes());
            end.extend([0; 4]);
            end.extend((start + size).to_le_bytes());
            end.extend(1u32.to_le_bytes());
        }
        end.extend(0x0605_4b50u32.to_le_bytes());
        end.extend([0; 4]);
        let short = count.min(u64::from(u16::MAX)) as u16;
        end.extend([short.to_le_bytes(), short.to_le_bytes()].concat());
        end.extend(narrow(size, self.limit).to_le_bytes());
        end.extend(narrow(start, self.limit).to_le_bytes());
        end.extend([0; 2]);
        self.write(&end)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The 32-bit field for a value: all ones where the value is in a zip64 field instead.
fn narrow(value: u64, limit: u64) -> u32 {
    if value >= limit { u32::MAX } else { value as u32 }
}

fn push_extra(extra: &mut Vec<u8>, id: u16, data: &[u8]) {
    extra.extend(id.to_le_bytes());
    extra.extend((data.len() as u16).to_le_bytes());
    extra.extend(data);
}

/// What local and central headers share, up to the length of the name.
fn push_common(header: &mut Vec<u8>, entry: &Entry, limit: u64) {
    // Version needed, flags, method (stored), time.
    for field in [VERSION, 0, 0, 0, DATE] {
        header.extend(field.to_le_bytes());
    }
    header.extend(entry.crc.to_le_bytes());
    let size = narrow(entry.size, limit).to_le_bytes();
    header.extend([size, size].concat());
    header.extend((entry.name.len() as u16).to_le_bytes());
}

/// Zip's checksum: the CRC-32 of ISO 3309, reflected, eight bytes at a time.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    let (blocks, rest) = data.as_chunks::<8>();
    let mut crc = u32::MAX;
    for block in blocks {
        let word = u64::from_le_bytes(*block) ^ u64::from(crc);
        crc = (0..8).fold(0, |sum, i| sum ^ TABLES[7 - i][(word >> (8 * i)) as usize & 0xff]);
    }
    for byte in rest {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

/// `TABLES[n][b]`: what byte `b` adds to the checksum when `n` more bytes follow it in a block.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}
