//! A part of a file as the body of a request: read while it is sent, and counted.

use futures_core::Stream;
use std::{
    io::{self, Seek, SeekFrom},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read at once.
const CHUNK: u64 = 256 << 10;

/// The bytes `start..start + length` of a file.
pub(super) struct Piece {
    file: tokio::fs::File,
    left: u64,
    buffer: Vec<u8>,
    sent: Arc<AtomicU64>,
}

impl Piece {
    /// `sent` grows by the number of bytes that were taken.
    pub fn open(path: &Path, start: u64, length: u64, sent: Arc<AtomicU64>) -> io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Self {
            file: tokio::fs::File::from_std(file),
            left: length,
            buffer: Vec::new(),
            sent,
        })
    }
}

impl Stream for Piece {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        this.buffer.resize(this.left.min(CHUNK) as usize, 0);
        let mut buffer = ReadBuf::new(&mut this.buffer);
        if let Err(error) = ready!(Pin::new(&mut this.file).poll_read(context, &mut buffer)) {
            return Poll::Ready(Some(Err(error)));
        }
        let read = buffer.filled().len();
        if read == 0 {
            let shorter = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent");
            return Poll::Ready(Some(Err(shorter)));
        }
        this.left -= read as u64;
        this.sent.fetch_add(read as u64, Ordering::Relaxed);
        this.buffer.truncate(read);
        Poll::Ready(Some(Ok(std::mem::take(&mut this.buffer))))
    }
}
