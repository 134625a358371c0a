//! What this machine can do at best with the bytes of an image, for `cargo xtask bench`.
//!
//! `limits copy FILE…` copies the data once from the page cache; `limits deflate|inflate|zstd|unzstd FILE`
//! runs a codec over 64 KiB clusters on all cores; `limits reads FILE COUNT STEP` reads single blocks;
//! `limits warm` touches most of the free memory. Each prints the seconds that the work itself took.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::Decompressor;
use rustix::fs::{SeekFrom, seek};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CLUSTER: usize = 64 * 1024;
/// Clusters that are in memory at a time: 16 MiB.
const BATCH: usize = 256;
/// Of so many batches one goes through a codec; the others are assumed to take as long.
const SAMPLE: usize = 8;
const BLOCK: u64 = 4096;
/// qcow2 compresses with a window of 4 KiB and without a header.
const WINDOW_BITS: u8 = 12;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(time) => {
            println!("{}", time.as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("limits: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<Duration> {
    match args {
        ["copy", files @ ..] => copy(files),
        ["deflate", file] => codec(file, deflate, None),
        ["inflate", file] => codec(file, deflate, Some(inflate)),
        ["zstd", file] => codec(file, zstd, None),
        ["unzstd", file] => codec(file, zstd, Some(unzstd)),
        ["reads", file, count, step] => reads(file, count.parse()?, step.parse()?),
        ["warm"] => warm(),
        _ => Err("unknown arguments; see the head of the source".into()),
    }
}

/// Reads the data of `files` once into one buffer.
fn copy(files: &[&str]) -> Result<Duration> {
    let mut buffer = vec![1; 1 << 20];
    let started = Instant::now();
    for file in files {
        let file = File::open(file)?;
        for_data(&file, buffer.len(), |offset, len| {
            Ok(file.read_exact_at(&mut buffer[..len], offset)?)
        })?;
    }
    Ok(started.elapsed())
}

/// Calls `each` with offset and length of every piece of data, at most `piece` bytes at a time.
fn for_data(
    file: &File,
    piece: usize,
    mut each: impl FnMut(u64, usize) -> Result<()>,
) -> Result<()> {
    let size = file.metadata()?.len();
    let mut offset = 0;
    while offset < size {
        let start = match seek(file, SeekFrom::Data(offset)) {
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        offset = start;
        while offset < end {
            let len = piece.min(usize::try_from(end - offset)?);
            each(offset, len)?;
            offset += len as u64;
        }
    }
    Ok(())
}

/// Turns a cluster into another form.
type Transform = fn(&[u8]) -> Result<Vec<u8>>;

/// Time of the last transform given over all data of `file` and on all cores, as a sample of the data
/// says.
fn codec(file: &str, encode: Transform, decode: Option<Transform>) -> Result<Duration> {
    let file = File::open(file)?;
    let mut places: Vec<(u64, usize)> = Vec::new();
    for_data(&file, CLUSTER, |offset, len| {
        places.push((offset, len));
        Ok(())
    })?;
    let mut total = Duration::ZERO;
    let mut sampled = 0;
    for places in places.chunks(BATCH).step_by(SAMPLE) {
        let mut batch = vec![vec![0; CLUSTER]; places.len()];
        for (cluster, &(offset, len)) in batch.iter_mut().zip(places) {
            file.read_exact_at(&mut cluster[..len], offset)?;
        }
        let started = Instant::now();
        let encoded = on_all_cores(&batch, encode)?;
        let encoding = started.elapsed();
        total += match decode {
            None => encoding,
            Some(decode) => {
                let started = Instant::now();
                on_all_cores(&encoded, decode)?;
                started.elapsed()
            }
        };
        sampled += batch.len();
    }
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 places")]
    let share = places.len() as f64 / sampled.max(1) as f64;
    Ok(total.mul_f64(share))
}

fn on_all_cores(clusters: &[Vec<u8>], transform: Transform) -> Result<Vec<Vec<u8>>> {
    let cores = thread::available_parallelism()?.get();
    let share = clusters.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = clusters
            .chunks(share)
            .map(|part| {
                scope.spawn(move || part.iter().map(|c| transform(c)).collect::<Result<Vec<_>>>())
            })
            .collect();
        let mut all = Vec::with_capacity(clusters.len());
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a codec thread panicked")??);
        }
        Ok(all)
    })
}

fn deflate(cluster: &[u8]) -> Result<Vec<u8>> {
    let mut output = Vec::with_capacity(CLUSTER + 1024);
    let mut stream = Compress::new_with_window_bits(Compression::default(), false, WINDOW_BITS);
    match stream.compress_vec(cluster, &mut output, FlushCompress::Finish)? {
        Status::StreamEnd => Ok(output),
        _ => Err("a cluster does not fit when compressed".into()),
    }
}

fn inflate(packed: &[u8]) -> Result<Vec<u8>> {
    let mut output = vec![0; CLUSTER];
    Decompressor::new().deflate_decompress(packed, &mut output)?;
    Ok(output)
}

fn zstd(cluster: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::bulk::compress(cluster, zstd::DEFAULT_COMPRESSION_LEVEL)?)
}

fn unzstd(packed: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::bulk::decompress(packed, CLUSTER)?)
}

/// Reads `count` blocks, each `step` bytes behind the last one, around the end of the file.
fn reads(file: &str, count: u64, step: u64) -> Result<Duration> {
    let file = File::open(file)?;
    let size = file.metadata()?.len();
    let mut block = vec![0; usize::try_from(BLOCK)?];
    let mut offset = 0;
    let started = Instant::now();
    for _ in 0..count {
        file.read_exact_at(&mut block, offset.min(size.saturating_sub(BLOCK)))?;
        offset = (offset + step) % size;
    }
    Ok(started.elapsed())
}

/// Writes to most of the memory that is available, once.
fn warm() -> Result<Duration> {
    let available = available_memory()?;
    let bytes = usize::try_from(available / 10 * 7)?;
    let started = Instant::now();
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes)?;
    memory.resize(bytes, 1_u8);
    std::hint::black_box(&memory);
    Ok(started.elapsed())
}

/// Bytes that the kernel says could be used without swapping.
fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 =
        kib.ok_or_else(|| io::Error::other("no MemAvailable in /proc/meminfo"))?.parse()?;
    Ok(kib * 1024)
}
