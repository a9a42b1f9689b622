//! Objects become blobs: in parts, several at the same time, from where the last try broke off.
//!
//! A download lies in a directory of its own until it is whole: the bytes at their places, and a line
//! for every part that arrived, with the hash of what was written. A part that is found there is
//! hashed again before it counts. In the end the whole is hashed, flushed and renamed.

use super::layout::{Layout, cache_error, write_json};
use crate::{
    StorageError, Transfer, etag,
    fs::{Lock, sync_dir},
    listing::{Listing, Object},
    remote::{Broken, Remote},
    run::FileHash,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// Bytes of a part.
const PART: u64 = 8 << 20;
/// Objects whose locks are held at the same time.
const BATCH: usize = 32;

/// The blobs of all objects, in their order. Of two processes that want the same object one fetches
/// it and the other waits.
pub(crate) fn blobs(
    layout: &Layout,
    remote: &Remote,
    listing: &Listing,
    progress: &mut dyn FnMut(&Transfer),
) -> Result<Vec<FileHash>, Broken> {
    layout.prepare()?;
    let total = listing.objects.iter().map(|o| o.size).sum::<Option<u64>>();
    let mut meter = Meter {
        transfer: Transfer {
            file: String::new(),
            done: 0,
            total,
        },
        progress,
    };
    // Sorted, so that two processes never wait for each other in a ring.
    let mut wanted: BTreeMap<String, &Object> = BTreeMap::new();
    for object in &listing.objects {
        let key = Layout::key(remote, object);
        let again = wanted.insert(key.clone(), object).is_some();
        if again || layout.have(&key, object).is_some() {
            meter.add(&object.name, object.size.unwrap_or(0));
            if !again {
                wanted.remove(&key);
            }
        }
    }
    let wanted: Vec<(String, &Object)> = wanted.into_iter().collect();
    for batch in wanted.chunks(BATCH) {
        fetch(layout, remote, listing, batch, &mut meter)?;
    }
    let of = |object: &Object| {
        let key = Layout::key(remote, object);
        layout.have(&key, object).ok_or_else(|| {
            let blobs = layout.blobs();
            Broken::Final(cache_error(&blobs, &io::Error::other("a file in it disappeared")))
        })
    };
    listing.objects.iter().map(of).collect()
}

struct Meter<'a> {
    transfer: Transfer,
    progress: &'a mut dyn FnMut(&Transfer),
}

impl Meter<'_> {
    fn add(&mut self, file: &str, bytes: u64) {
        if self.transfer.file != file {
            self.transfer.file = file.to_owned();
        }
        self.transfer.done += bytes;
        (self.progress)(&self.transfer);
    }
}

/// Fetches what of the batch is not here once its locks are held.
fn fetch(
    layout: &Layout,
    remote: &Remote,
    listing: &Listing,
    batch: &[(String, &Object)],
    meter: &mut Meter<'_>,
) -> Result<(), Broken> {
    let mut locks = Vec::new();
    for (key, _) in batch {
        let path = layout.partial_lock(key);
        locks.push(Lock::exclusive(&path).map_err(|e| cache_error(&path, &e))?);
    }
    let mut wrong: Option<StorageError> = None;
    for _ in 0..=remote.config.retries {
        let mut jobs = Vec::new();
        for (key, object) in batch {
            if layout.have(key, object).is_some() {
                // With the time of waiting somebody else has fetched it.
                if wrong.is_none() {
                    meter.add(&object.name, object.size.unwrap_or(0));
                }
                continue;
            }
            jobs.push(Job::open(layout.partial(key), key, object, listing.about(object))?);
        }
        if jobs.is_empty() {
            break;
        }
        if wrong.is_none() {
            for job in &jobs {
                meter.add(&job.object.name, job.bytes_here());
            }
        }
        let first = wrong.is_none();
        run(remote, &jobs, &mut |job, bytes| {
            // The second time through is no progress.
            meter.add(&job.object.name, if first { bytes } else { 0 });
        })?;
        wrong = None;
        for job in &jobs {
            match job.finish(layout, remote) {
                Err(Broken::Again(error)) => wrong = Some(error),
                done => done?,
            }
        }
        if wrong.is_none() {
            break;
        }
    }
    if let Some(error) = wrong {
        return Err(Broken::Final(error));
    }
    for lock in locks {
        // Best effort: an empty file is all that would stay.
        let _ = lock.remove();
    }
    Ok(())
}

/// Bytes of an object that a listing may state: each of its parts is written down before it is fetched.
const MOST_BYTES: u64 = 1 << 44;

/// One download.
struct Job<'a> {
    object: &'a Object,
    about: String,
    key: &'a str,
    dir: PathBuf,
    /// Ranges still to fetch; None: the whole of an object of unknown size.
    missing: Vec<(usize, Option<Range<u64>>)>,
    here: u64,
}

impl<'a> Job<'a> {
    /// Finds out what is here already.
    fn open(dir: PathBuf, key: &'a str, object: &'a Object, about: String) -> Result<Self, StorageError> {
        fs::create_dir_all(&dir).map_err(|e| cache_error(&dir, &e))?;
        let mut job = Self {
            object,
            about,
            key,
            dir,
            missing: Vec::new(),
            here: 0,
        };
        let data = job.data();
        let prepare = || -> io::Result<File> {
            if let Some(size) = object.size.filter(|size| *size > MOST_BYTES) {
                return Err(io::Error::other(format!(
                    "its server says that it has {size} bytes, which no file has"
                )));
            }
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&data)?;
            file.set_len(object.size.unwrap_or(0))?;
            Ok(file)
        };
        let mut file = prepare().map_err(|e| cache_error(&data, &e))?;
        let Some(size) = object.size else {
            job.missing.push((0, None));
            return Ok(job);
        };
        let arrived = job.journal();
        for index in 0..usize::try_from(size.div_ceil(PART)).unwrap_or(usize::MAX) {
            let start = index as u64 * PART;
            let range = start..(start + PART).min(size);
            let written = arrived.get(&index).map(String::as_str);
            if written.is_some() && hash_range(&mut file, &range).ok().as_deref() == written {
                job.here += range.end - range.start;
            } else {
                job.missing.push((index, Some(range)));
            }
        }
        Ok(job)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn bytes_here(&self) -> u64 {
        self.here
    }

    /// Hashes of the parts that arrived. A line that was cut off by a kill is no line.
    fn journal(&self) -> BTreeMap<usize, String> {
        let text = fs::read_to_string(self.dir.join("parts")).unwrap_or_default();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n')?.split_once(' '))
            .filter_map(|(index, hash)| Some((index.parse().ok()?, hash.to_owned())))
            .collect()
    }

    /// Fetches one part and writes it down.
    fn part(
        &self,
        remote: &Remote,
        index: usize,
        range: Option<Range<u64>>,
        stop: &AtomicBool,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), Broken> {
        let data = self.data();
        let io = |e: io::Error| cache_error(&data, &e);
        let start = range.as_ref().map_or(0, |range| range.start);
        let mut reported = 0;
        let hash = remote.patiently(|| {
            let mut file = OpenOptions::new().write(true).open(&data).map_err(io)?;
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            let mut hash = Sha256::new();
            let mut bytes = 0;
            let mut write = |piece: &[u8]| {
                if stop.load(Ordering::Relaxed) {
                    return Err(remote.network("fetching", &self.about, "another part failed"));
                }
                file.write_all(piece).map_err(io)?;
                hash.update(piece);
                bytes += piece.len() as u64;
                if bytes > reported {
                    arrived(bytes - reported);
                    reported = bytes;
                }
                Ok(())
            };
            remote.read(
                &self.object.path,
                &self.about,
                range.clone(),
                self.object.etag.as_deref(),
                &mut write,
            )?;
            match &range {
                Some(range) if bytes != range.end - range.start => Err(Broken::Again(remote.network(
                    "fetching",
                    &self.about,
                    &format!(
                        "{bytes} bytes arrived instead of {}, try again",
                        range.end - range.start
                    ),
                ))),
                Some(_) => Ok(hex::encode(hash.finalize())),
                None => {
                    // A longer try may have gone before.
                    file.set_len(bytes).map_err(io)?;
                    Ok(hex::encode(hash.finalize()))
                }
            }
        })?;
        let path = self.dir.join("parts");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{index} {hash}\n").as_bytes()))
            .map_err(|e| cache_error(&path, &e))?;
        Ok(())
    }

    /// The whole, checked, becomes a blob. Again: it was wrong and has been thrown away.
    fn finish(&self, layout: &Layout, remote: &Remote) -> Result<(), Broken> {
        let data = self.data();
        let io = |e: io::Error| cache_error(&data, &e);
        let found = FileHash::of(&data).map_err(io)?;
        let seen = self.dir.join("seen");
        let twice = fs::read_to_string(&seen).is_ok_and(|hash| hash == found.sha256);
        let confirmed = match (&self.object.sha256, &self.object.etag) {
            (Some(expected), _) => *expected == found.sha256,
            // An ETag that is no hash of the bytes may be none at all. Then, where nothing else
            // protects them on the way, the same bytes have to arrive twice.
            (None, Some(etag)) => {
                twice || remote.endpoint.starts_with("https://") || etag::confirms(etag, &data).map_err(io)?
            }
            (None, None) => true,
        };
        if !confirmed || self.object.size.is_some_and(|size| size != found.bytes) {
            fs::remove_dir_all(&self.dir)
                .and_then(|()| fs::create_dir(&self.dir))
                .and_then(|()| fs::write(&seen, &found.sha256))
                .map_err(|e| cache_error(&self.dir, &e))?;
            let hash = if self.object.sha256.is_some() {
                "SHA-256"
            } else {
                "ETag"
            };
            return Err(Broken::Again(StorageError::Damaged {
                endpoint: remote.endpoint.clone(),
                uri: self.about.clone(),
                problem: format!("its size or {hash} is not the listed one, however often it is fetched"),
            }));
        }
        let blob = layout.blob(&found.sha256);
        File::open(&data)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&data, &blob))
            .and_then(|()| sync_dir(&layout.blobs()))
            .map_err(|e| cache_error(&blob, &e))?;
        if self.object.sha256.is_none() {
            write_json(&layout.known().join(self.key), &found)?;
        }
        fs::remove_dir_all(&self.dir).map_err(|e| cache_error(&self.dir, &e))?;
        Ok(())
    }
}

/// Workers take one part after the other until all have arrived or one has failed for good.
fn run(remote: &Remote, jobs: &[Job<'_>], arrived: &mut dyn FnMut(&Job<'_>, u64)) -> Result<(), Broken> {
    let parts: Vec<(&Job<'_>, usize, Option<Range<u64>>)> = jobs
        .iter()
        .flat_map(|job| {
            job.missing
                .iter()
                .map(move |(index, range)| (job, *index, range.clone()))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let workers = remote.config.parallel.clamp(1, parts.len().max(1));
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                let sender = sender.clone();
                let (parts, next, stop) = (&parts, &next, &stop);
                scope.spawn(move || {
                    while let Some((job, index, range)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut tell = |bytes| {
                            // The receiver outlives the workers.
                            let _ = sender.send((*job, bytes));
                        };
                        if let Err(broken) = job.part(remote, *index, range.clone(), stop, &mut tell) {
                            // What comes after the first failure only says that it was stopped.
                            return if stop.swap(true, Ordering::Relaxed) {
                                Ok(())
                            } else {
                                Err(broken)
                            };
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        drop(sender);
        for (job, bytes) in receiver {
            arrived(job, bytes);
        }
        for handle in handles {
            match handle.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

fn hash_range(file: &mut File, range: &Range<u64>) -> io::Result<String> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut hash = Sha256::new();
    io::copy(&mut file.take(range.end - range.start), &mut Hasher(&mut hash))?;
    Ok(hex::encode(hash.finalize()))
}

struct Hasher<'a>(&'a mut Sha256);

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_no_file_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let of_size = |size: u64| Object {
            name: "train.jsonl".into(),
            path: "p".into(),
            size: Some(size),
            sha256: None,
            etag: None,
        };
        for size in [(1 << 44) + 1, i64::MAX as u64, u64::MAX] {
            let object = of_size(size);
            let opened = Job::open(dir.path().join("job"), "k", &object, "about".into());
            let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(&format!("says that it has {size} bytes")), "{error}");
        }
        let object = of_size(5);
        let job = Job::open(dir.path().join("job"), "k", &object, "about".into())
            .ok()
            .unwrap();
        assert_eq!(job.missing, [(0, Some(0..5))]);
    }
}
