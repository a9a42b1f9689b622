//! Standard output and standard error that do not take what is written.

use crate::{
    problem::{Outcome, Problem},
    process::Running,
    schedule::Schedule,
    system,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::Path,
    process::{Command, Stdio},
};

/// Where a stream leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Nowhere,
    /// Every write fails.
    Full,
    /// A reader takes some bytes, then goes away.
    Leaves(usize),
}

impl Stream {
    fn open(self) -> io::Result<(Stdio, Option<(io::PipeReader, usize)>)> {
        Ok(match self {
            Self::Nowhere => (Stdio::null(), None),
            Self::Full => (OpenOptions::new().write(true).open("/dev/full")?.into(), None),
            Self::Leaves(after) => {
                let (reader, writer) = io::pipe()?;
                (writer.into(), Some((reader, after)))
            }
        })
    }
}

/// Reads some bytes, then closes its end.
fn read(reader: &mut io::PipeReader, mut left: usize) {
    let mut byte = [0];
    while left > 0 && matches!(reader.read(&mut byte), Ok(1)) {
        left -= 1;
    }
}

/// The run trains to its end without anybody who listens.
pub fn run(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let mut command = schedule.next_command();
    let streams = [
        Stream::Nowhere,
        Stream::Full,
        Stream::Leaves(0),
        Stream::Leaves(40),
        Stream::Leaves(400),
    ];
    let (out, err) = (schedule.one_of(&streams), schedule.one_of(&streams[1..]));
    let place = schedule.log();
    let running = if schedule.chance(0.15) {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        system::close_streams(&mut command);
        Running::start(&mut command, place, true)?
    } else {
        start(&mut command, &place, out, err)?
    };
    let ended = running.wait()?;
    ended.check_sound()?;
    // The summary could not be written, which is an error that nobody hears; the run itself is whole.
    if !ended.is_success() && (out == Stream::Nowhere || ended.status.code() != Some(1)) {
        return Problem::wrong(format!("with {out:?} and {err:?} it ended with {}", ended.status));
    }
    schedule.compare(&[])
}

fn start(command: &mut Command, place: &Path, out: Stream, err: Stream) -> Result<Running, Problem> {
    let failed = |e| Problem::io("making a pipe for", place)(e);
    let mut readers = Vec::new();
    let (stdio, reader) = out.open().map_err(failed)?;
    command.stdout(stdio);
    readers.extend(reader);
    let (stdio, reader) = err.open().map_err(failed)?;
    command.stderr(stdio);
    readers.extend(reader);
    let running = Running::start(command, place.to_owned(), true)?;
    // The command holds the writers' ends until it is dropped, by then the process has copies of its own.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for (mut reader, left) in readers {
        std::thread::spawn(move || read(&mut reader, left));
    }
    let _ = File::create(place);
    Ok(running)
}
