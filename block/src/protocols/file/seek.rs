//! Where a file has data and where holes: `SEEK_DATA` and `SEEK_HOLE`, asked as rarely as possible.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::engine::File;

/// A system that takes longer for a query gets the next ones from the thread pool: network file
/// systems ask their server, others write dirty data out first.
const SLOW: Duration = Duration::from_millis(2);

/// A run of bytes from the offset asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Length in bytes, at least 1.
    pub(super) len: u64,
    /// Whether there is data, or a hole.
    pub(super) data: bool,
}

#[derive(Default)]
struct Cache {
    /// Last extent of data found: first byte and end. Holes are not kept, as every write may fill
    /// one; data only goes away by what calls [`Extents::forget`], or by other processes, and then
    /// calling it data is still correct.
    data: Option<(u64, u64)>,
    /// Counts calls of [`Extents::forget`], so that no answer from before is kept.
    generation: u64,
}

/// The data extents of one file.
#[derive(Default)]
pub(super) struct Extents {
    cache: Mutex<Cache>,
    slow: AtomicBool,
}

impl Extents {
    /// Drops what is known, because data has been deallocated or is about to be.
    pub(super) fn forget(&self) {
        let mut cache = self.cache.lock();
        cache.data = None;
        cache.generation += 1;
    }

    /// The run at `offset`, cut at `end`, of a file of `size` bytes. `offset < end <= size`.
    pub(super) async fn query(&self, file: &File, offset: u64, end: u64) -> io::Result<Run> {
        let generation = {
            let cache = self.cache.lock();
            if let Some((first, last)) = cache.data
                && (first..last).contains(&offset)
            {
                return Ok(Run { len: last.min(end) - offset, data: true });
            }
            cache.generation
        };
        let (run_end, data) = if self.slow.load(Ordering::Relaxed) {
            file.run_blocking(move |fd| seek(fd, offset)).await?
        } else {
            let start = Instant::now();
            let run = seek(file, offset)?;
            if start.elapsed() > SLOW {
                self.slow.store(true, Ordering::Relaxed);
            }
            run
        };
        if data {
            let mut cache = self.cache.lock();
            if cache.generation == generation {
                cache.data = Some((offset, run_end));
            }
        }
        Ok(Run { len: run_end.min(end).max(offset + 1) - offset, data })
    }
}

/// End of the run at `offset`, and whether it is data. A file system that does not know calls
/// everything data.
fn seek(fd: impl AsFd, offset: u64) -> io::Result<(u64, bool)> {
    match rustix::fs::seek(&fd, SeekFrom::Data(offset)) {
        // No data behind the offset.
        Err(Errno::NXIO) => return Ok((u64::MAX, false)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((u64::MAX, true)),
        Err(e) => return Err(e.into()),
        Ok(data) if data > offset => return Ok((data, false)),
        Ok(_) => {}
    }
    match rustix::fs::seek(&fd, SeekFrom::Hole(offset)) {
        Ok(hole) if hole > offset => Ok((hole, true)),
        // The data went away in between; saying data is always correct.
        Ok(_) | Err(Errno::NXIO) => Ok((offset + 1, true)),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineConfig, FileOptions, block_on};
    use std::os::unix::fs::FileExt;

    #[test]
    fn runs_alternate_and_follow_changes() {
        let raw = tempfile::tempfile().unwrap();
        raw.set_len(1 << 20).unwrap();
        raw.write_all_at(&vec![1; 65_536], 262_144).unwrap();
        let file = File::new(raw.try_clone().unwrap().into(), FileOptions::default());
        let extents = Extents::default();
        block_on(&EngineConfig::default(), async {
            let query = |at| extents.query(&file, at, 1 << 20);
            assert_eq!(query(0).await.unwrap(), Run { len: 262_144, data: false });
            assert_eq!(query(262_144).await.unwrap(), Run { len: 65_536, data: true });
            assert_eq!(query(300_000).await.unwrap(), Run { len: 27_680, data: true });
            let rest = (1 << 20) - 327_680;
            assert_eq!(query(327_680).await.unwrap(), Run { len: rest, data: false });
            raw.write_all_at(&[1; 4096], 0).unwrap();
            assert_eq!(query(0).await.unwrap(), Run { len: 4096, data: true });
            raw.set_len(0).unwrap();
            raw.set_len(1 << 20).unwrap();
            extents.forget();
            assert_eq!(query(0).await.unwrap(), Run { len: 1 << 20, data: false });
        })
        .unwrap();
    }
}
