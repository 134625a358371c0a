//! Runs a workload on an image while a model and the positions of a log follow.

use std::fmt;

use cairn_block::driver::{Resize, WriteFlags};
use cairn_block::graph::Backend;
use cairn_block::{Error, Result};
use futures_util::future::{LocalBoxFuture, join_all};

use crate::model::{Effect, Knowledge, Model};
use crate::value::Value;
use crate::workload::{Op, Workload};

/// An image that can be opened for writing, again and again.
pub trait Reopen {
    /// Opens it.
    fn open(&self) -> LocalBoxFuture<'_, Result<Backend>>;

    /// Whether a discard may show what lies below, as in qcow2 of version 2.
    fn discard_bares(&self) -> bool {
        false
    }

    /// Number of events logged on the disks below; a test without a log leaves it at 0.
    fn position(&self) -> usize {
        0
    }
}

/// An operation that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its number in the workload.
    pub number: usize,
    /// The operation.
    pub op: Op,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {} ({}) failed: {}", self.number, self.op, self.error)
    }
}

/// A workload that ran, as far as it came.
#[derive(Debug)]
pub struct Run {
    /// The disk as it should be; one step or two for each operation that changes it.
    pub model: Model,
    /// Position of the log at which each step began.
    starts: Vec<usize>,
    /// Positions of the log at which all steps before a number were durable.
    flushed: Vec<(usize, usize)>,
}

impl Run {
    /// What is known of the steps when the power went at `position`.
    pub fn known(&self, position: usize) -> Knowledge {
        let durable = self.flushed.iter().filter(|(_, at)| *at <= position);
        Knowledge {
            durable: durable.map(|(steps, _)| *steps).max().unwrap_or(0),
            begun: self.starts.iter().filter(|start| **start < position).count(),
        }
    }

    fn note(&mut self, position: usize) {
        self.starts.resize(self.model.steps(), position);
    }

    fn durable(&mut self, position: usize) {
        self.flushed.push((self.model.steps(), position));
    }
}

/// Opens `image`, runs `workload` on it and closes it. `model` describes the image at first.
pub async fn run(image: &dyn Reopen, workload: &Workload, model: Model) -> Result<Run, Failure> {
    let mut run = Run { model, starts: Vec::new(), flushed: Vec::new() };
    let at_end = |number| move |error| Failure { number, op: Op::Reopen, error };
    let mut disk = image.open().await.map_err(at_end(0))?;
    for (number, op) in workload.ops.iter().enumerate() {
        let failure = |error| Failure { number, op: op.clone(), error };
        let requests = match op {
            Op::Parallel(ops) => ops.clone(),
            op => vec![op.clone()],
        };
        let effects: Vec<_> =
            requests.iter().filter_map(|request| effect(request, image.discard_bares())).collect();
        if !effects.is_empty() {
            run.model.step(&effects);
        }
        if let Op::Resize(size) = op {
            run.model.resize(*size);
        }
        run.note(image.position());
        match op {
            Op::Reopen => {
                disk.close().await.map_err(failure)?;
                run.durable(image.position());
                disk = image.open().await.map_err(failure)?;
                continue;
            }
            Op::Flush => {
                disk.flush().await.map_err(failure)?;
                run.durable(image.position());
                continue;
            }
            _ => {}
        }
        let results = join_all(requests.iter().map(|request| perform(&disk, request))).await;
        results.into_iter().collect::<Result<()>>().map_err(failure)?;
        if matches!(op, Op::Write { fua: true, .. }) {
            run.durable(image.position());
        }
    }
    disk.close().await.map_err(at_end(workload.ops.len()))?;
    run.durable(image.position());
    Ok(run)
}

/// The range and effect of a data request.
pub fn effect(op: &Op, bares: bool) -> Option<(std::ops::Range<u64>, Effect)> {
    match *op {
        Op::Write { offset, len, tag, .. } | Op::Compressed { offset, len, tag } => {
            Some((offset..offset + len, Effect::set(Value::Tag(tag))))
        }
        Op::Zero { offset, len, .. } => Some((offset..offset + len, Effect::set(Value::Zero))),
        Op::Discard { offset, len } => Some((offset..offset + len, Effect::discard(bares))),
        Op::Parallel(_) | Op::Flush | Op::Resize(_) | Op::Reopen => None,
    }
}

/// Sends one request to `disk`.
///
/// # Panics
/// On what is no single request: `Parallel` and `Reopen`.
pub async fn perform(disk: &Backend, op: &Op) -> Result<()> {
    match *op {
        Op::Write { offset, len, tag, fua } => {
            let flags = if fua { WriteFlags::FUA } else { WriteFlags::empty() };
            disk.write(offset, Value::Tag(tag).buffer(offset, len), flags).await
        }
        Op::Compressed { offset, len, tag } => {
            disk.write_compressed(offset, Value::Tag(tag).buffer(offset, len)).await
        }
        Op::Zero { offset, len, unmap } => {
            let flags = if unmap { WriteFlags::MAY_UNMAP } else { WriteFlags::empty() };
            disk.write_zeroes(offset, len, flags).await
        }
        Op::Discard { offset, len } => disk.discard(offset, len).await,
        Op::Resize(size) => disk.resize(size, Resize { exact: true, ..Resize::default() }).await,
        Op::Flush => disk.flush().await,
        Op::Parallel(_) | Op::Reopen => panic!("{op} is not one request"),
    }
}
