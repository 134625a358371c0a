//! The engine's promises, with the ring and with the pool.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::fs::FallocateFlags;

use super::*;
use crate::buf::{IoBuf, IoBufMut};

const BLOCK: usize = 4096;

/// Settings for both ways, without inline calls, so that the way itself is tested.
fn configs() -> Vec<EngineConfig> {
    let base = EngineConfig { inline_limit: 0, ..EngineConfig::default() };
    let mut configs = vec![EngineConfig { mode: Mode::Threads, ..base.clone() }];
    let uring = EngineConfig { mode: Mode::Auto, ..base };
    if block_on(&uring, async { active_mode() }).unwrap() == ActiveMode::Uring {
        configs.push(uring.clone());
        configs.push(EngineConfig { queue_depth: 1, ..uring });
    }
    configs
}

fn temporary(options: FileOptions) -> File {
    File::new(OwnedFd::from(tempfile::tempfile().unwrap()), options)
}

fn pattern(block: u64, generation: u64) -> IoBuf {
    let mut buf = IoBufMut::zeroed(BLOCK);
    for (i, word) in buf.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(block << 32 ^ generation << 16 ^ i as u64).to_le_bytes());
    }
    buf.freeze()
}

async fn read_all(file: &File, offset: u64, len: usize) -> IoBufMut {
    let (n, buf) = file.read_at(offset, IoBufMut::zeroed(len)).await.unwrap();
    assert_eq!(n, len);
    buf
}

#[test]
fn random_reads_see_the_writes_at_depth() {
    for config in configs() {
        block_on(&config, async {
            let file = temporary(FileOptions::default());
            let mut seed = 1_u64;
            let mut generations = HashMap::new();
            for generation in 1..=5 {
                // Every block once, in a random order, all in flight.
                let mut blocks: Vec<u64> = (0..300).collect();
                for i in (1..blocks.len()).rev() {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let j = usize::try_from(seed >> 33).unwrap() % (i + 1);
                    blocks.swap(i, j);
                }
                blocks.truncate(200);
                let writes = blocks.iter().map(|&b| {
                    generations.insert(b, generation);
                    file.write_at(b * BLOCK as u64, pattern(b, generation), b % 7 == 0)
                });
                for result in join_all(writes).await {
                    result.unwrap();
                }
                let written = blocks.iter().map(|&b| {
                    let generation = generations[&b];
                    let file = &file;
                    async move {
                        let buf = read_all(file, b * BLOCK as u64, BLOCK).await;
                        assert!(*buf == *pattern(b, generation), "block {b}");
                    }
                });
                written.collect::<FuturesUnordered<_>>().collect::<()>().await;
            }
            file.data_sync().await.unwrap();
        })
        .unwrap();
    }
}

#[test]
fn reads_stop_at_the_end_of_the_file() {
    for mut config in configs() {
        for inline_limit in [0, 1 << 20] {
            config.inline_limit = inline_limit;
            block_on(&config, async {
                let file = temporary(FileOptions::default());
                file.write_at(0, IoBuf::copy_of(b"0123456789"), false).await.unwrap();
                let (n, buf) = file.read_at(4, IoBufMut::zeroed(100)).await.unwrap();
                assert_eq!((n, &buf[..n]), (6, &b"456789"[..]));
                let (n, buf) = file.read_at(10, IoBufMut::zeroed(100)).await.unwrap();
                assert_eq!((n, buf.len()), (0, 100));
                file.set_len(5).await.unwrap();
                let (n, _) = file.read_at(0, IoBufMut::zeroed(100)).await.unwrap();
                assert_eq!(n, 5);
            })
            .unwrap();
        }
    }
}

#[test]
fn errors_of_the_system_reach_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, [1; 10]).unwrap();
    for config in configs() {
        block_on(&config, async {
            let read_only = OpenOptions::new().read(true).open(&path).unwrap();
            let file = File::new(read_only.into(), FileOptions::default());
            let error = file.write_at(0, IoBuf::zeroed(10), false).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            let error = file.allocate(FallocateFlags::empty(), 0, 10).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let full = File::new(full.into(), FileOptions::default());
            let error = full.write_at(0, IoBuf::zeroed(10), false).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
            // The ring survives it.
            read_all(&file, 0, 10).await;
        })
        .unwrap();
    }
}

#[test]
fn dropped_requests_neither_lose_buffers_nor_overtake_later_ones() {
    for config in configs() {
        let file = temporary(FileOptions::default());
        block_on(&config, async {
            for round in 0..20 {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                for block in 0..50 {
                    let offset = block * BLOCK as u64;
                    let mut write = pin!(file.write_at(offset, pattern(block, 1), false));
                    let mut read = pin!(file.read_at(offset, IoBufMut::new(BLOCK)));
                    let _ = write.as_mut().poll(&mut cx);
                    let _ = read.as_mut().poll(&mut cx);
                }
                let later =
                    (0..50).map(|b| file.write_at(b * BLOCK as u64, pattern(b, round), false));
                for result in join_all(later).await {
                    result.unwrap();
                }
                for block in 0..50 {
                    let buf = read_all(&file, block * BLOCK as u64, BLOCK).await;
                    assert!(*buf == *pattern(block, round), "block {block} in round {round}");
                }
            }
        })
        .unwrap();
    }
}

#[test]
fn requests_in_flight_survive_the_end_of_their_thread() {
    for config in configs() {
        let file = temporary(FileOptions::default());
        block_on(&config, async {
            let file = file.clone();
            for block in 0..100 {
                let file = file.clone();
                spawn_local(async move {
                    file.write_at(block * BLOCK as u64, pattern(block, 3), false).await
                });
            }
            // Let the tasks start, and leave before they are done.
            tokio::task::yield_now().await;
        })
        .unwrap();
        block_on(&config, async {
            for block in 0..100 {
                let (n, buf) =
                    file.read_at(block * BLOCK as u64, IoBufMut::zeroed(BLOCK)).await.unwrap();
                let done = *buf == *pattern(block, 3);
                assert!(n == 0 || done || crate::buf::is_zero(&buf), "block {block} is torn");
            }
        })
        .unwrap();
    }
}

#[test]
fn a_request_outlives_its_runtime() {
    for config in configs() {
        let file = temporary(FileOptions::default());
        let mut write = Box::pin(file.write_at(0, pattern(9, 9), false));
        block_on(&config, async {
            let first = std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
            assert!(matches!(first, Poll::Pending | Poll::Ready(Ok(()))));
        })
        .unwrap();
        drop(write);
        block_on(&config, async {
            assert!(*read_all(&file, 0, BLOCK).await == *pattern(9, 9));
        })
        .unwrap();
    }
}

#[test]
fn many_threads_share_a_file() {
    for config in configs() {
        let file = temporary(FileOptions::default());
        let threads: Vec<_> =
            (0..4).map(|i| IoThread::spawn(&format!("io-{i}"), config.clone()).unwrap()).collect();
        let runs: Vec<_> = threads
            .iter()
            .zip(0_u64..)
            .map(|(thread, i)| {
                let file = file.clone();
                thread.run(move || async move {
                    let mine = move |k: u64| (k * 4 + i) * BLOCK as u64;
                    join_all((0..100).map(|k| file.write_at(mine(k), pattern(k, i), false))).await;
                    for k in 0..100 {
                        assert!(*read_all(&file, mine(k), BLOCK).await == *pattern(k, i));
                    }
                    i
                })
            })
            .collect();
        let sum: u64 = block_on(&config, join_all(runs)).unwrap().into_iter().sum();
        assert_eq!(sum, 6);
        for thread in threads {
            thread.join();
        }
    }
}

#[test]
fn a_panic_on_another_thread_reaches_the_waiter() {
    let thread = IoThread::spawn("io", EngineConfig::default()).unwrap();
    for in_closure in [true, false] {
        let run = thread.run(move || {
            assert!(!in_closure, "in the closure");
            async { panic!("in the future") }
        });
        let result = block_on(&EngineConfig::default(), AssertUnwindSafe(run).catch_unwind());
        assert!(result.unwrap().is_err());
    }
    let value = block_on(&EngineConfig::default(), thread.run(|| async { 7 }));
    assert_eq!(value.unwrap(), 7);
    let blocking = run_blocking(|| panic!("in the pool"));
    let result = catch_unwind(AssertUnwindSafe(|| block_on(&EngineConfig::default(), blocking)));
    assert!(result.is_err());
}

#[test]
fn work_given_to_a_thread_is_finished_after_its_handle_is_gone() {
    let file = temporary(FileOptions::default());
    let thread = IoThread::spawn("io", EngineConfig::default()).unwrap();
    let on_thread = file.clone();
    let run = thread.run(|| async move {
        tokio::task::yield_now().await;
        on_thread.write_at(0, pattern(1, 1), false).await.unwrap();
    });
    drop(thread);
    block_on(&EngineConfig::default(), run).unwrap();
}

#[test]
fn a_pool_without_threads_works_inline() {
    let config =
        EngineConfig { mode: Mode::Threads, pool: Pool::new(0), ..EngineConfig::default() };
    block_on(&config, async {
        assert_eq!(active_mode(), ActiveMode::Threads);
        let file = temporary(FileOptions { aio: Aio::Threads, ..FileOptions::default() });
        file.write_at(0, pattern(1, 1), true).await.unwrap();
        assert!(*read_all(&file, 0, BLOCK).await == *pattern(1, 1));
    })
    .unwrap();
}

#[test]
fn cached_reads_leave_room_for_other_tasks() {
    block_on(&EngineConfig::default(), async {
        let file = temporary(FileOptions::default());
        file.write_at(0, pattern(1, 1), false).await.unwrap();
        let other = spawn_local(async {});
        let mut reads = 0;
        while !other.is_finished() {
            read_all(&file, 0, BLOCK).await;
            reads += 1;
            assert!(reads < 100_000, "the other task starves");
        }
    })
    .unwrap();
}

#[test]
fn copies_stay_in_the_kernel() {
    for config in configs() {
        block_on(&config, async {
            let (from, to) = (temporary(FileOptions::default()), temporary(FileOptions::default()));
            from.write_at(BLOCK as u64, pattern(4, 4), false).await.unwrap();
            let n = to.copy_from(0, &from, BLOCK as u64, 3 * BLOCK as u64).await.unwrap();
            assert_eq!(n, BLOCK as u64);
            assert!(*read_all(&to, 0, BLOCK).await == *pattern(4, 4));
            assert_eq!(to.copy_from(0, &from, 5 * BLOCK as u64, 10).await.unwrap(), 0);
        })
        .unwrap();
    }
}

/// Makes `io_uring_enter` fail with `EPERM` on this thread from now on.
fn refuse_io_uring_enter() {
    const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let number = u32::try_from(libc::SYS_io_uring_enter).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let step = |code, jt, jf, k| {
        let code = u16::try_from(code).unwrap();
        libc::sock_filter { code, jt, jf, k }
    };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, number),
        step(RETURN, 0, 0, refused),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: both calls change nothing but what this thread may do, and the kernel copies the program,
    // which lives until then.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
}

#[test]
fn requests_take_another_way_when_the_ring_comes_to_be_refused() {
    let config = EngineConfig {
        inline_limit: 0,
        queue_depth: 4,
        pool: Pool::new(2),
        ..EngineConfig::default()
    };
    // The filter stays with its thread.
    let thread = std::thread::spawn(move || {
        block_on(&config, async {
            if active_mode() != ActiveMode::Uring {
                return;
            }
            let file = temporary(FileOptions::default());
            let strict = temporary(FileOptions { aio: Aio::IoUring, ..FileOptions::default() });
            strict.write_at(0, pattern(0, 1), false).await.unwrap();
            refuse_io_uring_enter();
            // More than the queue takes, and one that nobody waits for.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut dropped = Box::pin(file.write_at(0, pattern(0, 9), false));
            assert!(dropped.as_mut().poll(&mut cx).is_pending());
            let refused = strict.write_at(0, pattern(0, 2), false);
            let writes = (0..50).map(|b| file.write_at(b * BLOCK as u64, pattern(b, 1), false));
            let (refused, written) = futures_util::join!(refused, join_all(writes));
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
            for result in written {
                result.unwrap();
            }
            drop(dropped);
            for block in 1..50 {
                let buf = read_all(&file, block * BLOCK as u64, BLOCK).await;
                assert!(*buf == *pattern(block, 1), "block {block}");
            }
            assert_eq!(active_mode(), ActiveMode::Threads);
        })
        .unwrap();
    });
    assert!(thread.join().is_ok());
}
