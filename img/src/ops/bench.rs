//! `bench`: a stream of requests at a fixed depth.

use std::cell::Cell;
use std::time::{Duration, Instant};

use cairn_block::driver::WriteFlags;
use cairn_block::graph::Backend;
use cairn_block::{IoBuf, IoBufMut};
use futures_util::future::try_join_all;

use crate::error::Result;

/// Requests to send.
#[derive(Clone, Debug)]
pub struct BenchRequest {
    /// How many.
    pub count: u64,
    /// How many at a time.
    pub depth: u64,
    /// Bytes of each.
    pub length: usize,
    /// Offset of the first.
    pub offset: u64,
    /// Distance from one to the next; beyond the end it goes on from the beginning.
    pub step: u64,
    /// Writes; `None` for reads.
    pub write: Option<BenchWrite>,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct BenchWrite {
    /// The byte to write.
    pub pattern: u8,
    /// Requests from one flush to the next.
    pub flush_interval: Option<u64>,
    /// Requests in flight are waited for before a flush.
    pub drain: bool,
}

/// Where the next request goes.
struct Course {
    /// Requests that were sent.
    sent: Cell<u64>,
    offset: Cell<u64>,
    step: u64,
    /// Offsets stay below this.
    room: u64,
}

impl Course {
    fn new(request: &BenchRequest, size: u64) -> Course {
        let room = size.saturating_sub(request.length as u64);
        let offset = Cell::new(request.offset);
        Course { sent: Cell::new(0), offset, step: request.step, room }
    }

    /// Number (from 1) and offset of the next request, unless `limit` were sent.
    fn next(&self, limit: u64) -> Option<(u64, u64)> {
        let number = self.sent.get();
        if number >= limit {
            return None;
        }
        self.sent.set(number + 1);
        let offset = self.offset.get();
        let next = offset.saturating_add(self.step);
        self.offset.set(if self.room == 0 { 0 } else { next % self.room });
        Some((number + 1, offset))
    }
}

/// Sends the requests and returns how long that took.
pub async fn bench(image: &Backend, request: &BenchRequest) -> Result<Duration> {
    let course = Course::new(request, image.size());
    let start = Instant::now();
    match &request.write {
        None => read(image, request, &course).await?,
        Some(write) => {
            let data = {
                let mut data = IoBufMut::new(request.length);
                data.fill(write.pattern);
                data.freeze()
            };
            match write.flush_interval.filter(|_| write.drain) {
                None => write_until(image, request, write, &course, &data, request.count).await?,
                Some(interval) => {
                    let mut sent = 0;
                    while sent < request.count {
                        sent = request.count.min(sent + interval);
                        write_until(image, request, write, &course, &data, sent).await?;
                        image.flush().await?;
                    }
                }
            }
        }
    }
    Ok(start.elapsed())
}

async fn read(image: &Backend, request: &BenchRequest, course: &Course) -> Result<()> {
    let lane = || async {
        let mut buf = IoBufMut::new(request.length);
        while let Some((_, offset)) = course.next(request.count) {
            buf = image.read(offset, buf).await?;
        }
        Ok(())
    };
    try_join_all((0..request.depth).map(|_| lane())).await.map(drop)
}

/// Writes until `limit` requests were sent in total, and waits for all of them.
async fn write_until(
    image: &Backend,
    request: &BenchRequest,
    write: &BenchWrite,
    course: &Course,
    data: &IoBuf,
    limit: u64,
) -> Result<()> {
    let interval = write.flush_interval.filter(|_| !write.drain);
    let lane = || async {
        while let Some((number, offset)) = course.next(limit) {
            image.write(offset, data.clone(), WriteFlags::empty()).await?;
            if interval.is_some_and(|interval| number.is_multiple_of(interval)) {
                image.flush().await?;
            }
        }
        Ok(())
    };
    try_join_all((0..request.depth).map(|_| lane())).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_step_and_wrap_so_that_requests_fit() {
        let request = BenchRequest {
            count: 5,
            depth: 1,
            length: 4096,
            offset: 4096,
            step: 8192,
            write: None,
        };
        let course = Course::new(&request, 16384);
        let offsets: Vec<_> = std::iter::from_fn(|| course.next(5)).collect();
        assert_eq!(offsets, [(1, 4096), (2, 0), (3, 8192), (4, 4096), (5, 0)]);
        assert!(offsets.iter().all(|(_, offset)| offset + 4096 <= 16384));
    }
}
