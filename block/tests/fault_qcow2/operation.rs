//! One operation, done with each fault at each request.

use std::time::Duration;

use cairn_block::Result;
use cairn_block::driver::{Driver, Prealloc, Repair, Resize};
use cairn_block::graph::Backend;
use cairn_testkit::qcow2::{Layout, boxed};
use cairn_testkit::{
    Announce, Disk, Fault, Faults, Faulty, Knowledge, Memory, Model, Op, Profile, Watchdog,
    Workload, effect, perform,
};
use futures_util::future::join_all;

/// Longest time that one run may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Requests to an image, and what is known of the image then.
pub(crate) struct Progress {
    pub(crate) model: Model,
    /// Steps that a successful flush made durable.
    pub(crate) durable: usize,
}

impl Progress {
    pub(crate) fn new(model: Model) -> Progress {
        Progress { durable: model.steps(), model }
    }

    /// Sends requests all at once.
    pub(crate) async fn send(&mut self, image: &Backend, ops: &[Op]) -> Result<()> {
        let results = join_all(ops.iter().map(|op| perform(image, op))).await;
        let mut effects = Vec::new();
        for (op, result) in ops.iter().zip(&results) {
            if let Some((range, done)) = effect(op, false) {
                let effect = if result.is_ok() { done } else { done.uncertain() };
                effects.push((range, effect));
            }
        }
        self.model.step(&effects);
        let results: Result<()> = results.into_iter().collect();
        if results.is_ok() && ops.contains(&Op::Flush) {
            self.durable = self.model.steps();
        }
        results
    }

    pub(crate) async fn resize(
        &mut self,
        image: &Backend,
        size: u64,
        prealloc: Prealloc,
    ) -> Result<()> {
        let result = image.resize(size, Resize { exact: true, prealloc, zero_new: false }).await;
        match result {
            Ok(()) => self.model.resize(size),
            Err(_) => self.model.fail_resize(size),
        }
        result
    }

    pub(crate) async fn flush(&mut self, image: &Backend) -> Result<()> {
        self.send(image, &[Op::Flush]).await
    }

    fn known(&self) -> Knowledge {
        Knowledge { durable: self.durable, begun: self.model.steps() }
    }

    /// What an open image must show: all that succeeded.
    fn live(&self) -> Knowledge {
        self.model.all_done()
    }
}

/// Runs a workload; reopening is left out.
pub(crate) async fn run_ops(
    image: &Backend,
    progress: &mut Progress,
    seed: u64,
    profile: &Profile,
) -> Result<()> {
    for op in Workload::generate(seed, profile).ops {
        match op {
            Op::Parallel(ops) => progress.send(image, &ops).await?,
            Op::Reopen => progress.flush(image).await?,
            op => progress.send(image, &[op]).await?,
        }
    }
    progress.flush(image).await
}

/// An operation on an image, and what it starts from.
pub(crate) struct Operation<A> {
    pub(crate) layout: Layout,
    pub(crate) disks: Vec<Disk>,
    pub(crate) model: Model,
    /// The operation itself.
    pub(crate) act: A,
    /// It can be done twice on one image.
    pub(crate) repeatable: bool,
    /// The image has corruptions until the operation succeeds.
    pub(crate) damaged: bool,
    /// Opening the image for writing corrects what a failure left.
    pub(crate) recovers: bool,
}

impl<A: AsyncFn(&Backend, &mut Progress, &Faults) -> Result<()>> Operation<A> {
    /// An operation that can be repeated, on a sound image with these disks and this content.
    pub(crate) fn new(layout: Layout, (disks, model): (Vec<Disk>, Model), act: A) -> Operation<A> {
        Operation { layout, disks, model, act, repeatable: true, damaged: false, recovers: false }
    }

    /// Runs the operation with each fault at each index. Returns the number of runs.
    pub(crate) async fn at_every_index(&self) -> usize {
        let watchdog = Watchdog::start(PATIENCE);
        let mut runs = 0;
        for fault in Fault::ALL {
            let mut index = 0;
            loop {
                let run = format!("{}, {fault:?} at request {index}", self.layout.name);
                watchdog.step(&run);
                let _announce = Announce(run);
                runs += 1;
                if !self.run(fault, index).await {
                    break;
                }
                index += 1;
            }
        }
        println!("{}: {runs} runs", self.layout.name);
        runs
    }

    /// Runs the operation with one fault, and looks at what it leaves. Returns whether it came so far.
    async fn run(&self, fault: Fault, index: u64) -> bool {
        let faults = Faults::default();
        let memory: Vec<_> = self.disks.iter().cloned().map(Memory::new).collect();
        let mut progress = Progress::new(self.model.clone());
        faults.arm(fault.rule(index));
        let outcome = self.attempt(fault, &faults, &memory, &mut progress).await;
        faults.disarm();
        let fired = faults.fired_kinds();
        let reported = outcome.is_err() || !fired.must_be_reported();
        assert!(reported, "an error of {fired:?} was not reported");
        if let Err(error) = &outcome {
            assert!(faults.fired() > 0, "failed without a fault: {error}");
        }
        self.examine(&memory, &progress, outcome.is_err() && self.damaged).await;
        if self.repeatable {
            let devices = faulty(&memory, &faults);
            let image = self.layout.open(devices, false).await.expect("opens for writing again");
            (self.act)(&image, &mut progress, &faults).await.expect("succeeds without faults");
            image.close().await.expect("closes without faults");
            progress.durable = progress.model.steps();
            self.examine(&memory, &progress, false).await;
        }
        faults.fired() > 0
    }

    /// Opens the image, runs the operation and closes it, with faults. The first error is returned.
    async fn attempt(
        &self,
        fault: Fault,
        faults: &Faults,
        memory: &[Memory],
        progress: &mut Progress,
    ) -> Result<()> {
        let image = self.layout.open(faulty(memory, faults), false).await?;
        let outcome = (self.act)(&image, progress, faults).await;
        if outcome.is_err() && !fault.until_close {
            faults.disarm();
            // An image may refuse all service after an error, but not show other data.
            if let Ok(wrong) = progress.model.verify(&image, progress.live()).await
                && let Some(mismatch) = wrong.first()
            {
                panic!("after {outcome:?} the open image is wrong: {mismatch}");
            }
            if image.flush().await.is_ok() {
                progress.durable = progress.model.steps();
            }
        }
        let closed = image.close().await;
        if outcome.is_ok() && closed.is_ok() {
            progress.durable = progress.model.steps();
        }
        outcome.and(closed)
    }

    async fn examine(&self, memory: &[Memory], progress: &Progress, damaged: bool) {
        let known = progress.known();
        if self.layout.is_lazy() || self.recovers {
            let image = self.layout.open(boxed(memory), false).await.expect("opens to be repaired");
            image.close().await.expect("closes");
        }
        let disks: Vec<_> = memory.iter().map(Memory::disk).collect();
        let image = self.layout.look(&disks).await.expect("opens again");
        let report = image.node().driver().check(Repair::empty()).await.expect("can be checked");
        assert_eq!(report.check_errors, 0, "{:?}", report.details);
        assert!(damaged || report.corruptions == 0, "{:?}", report.details);
        let sizes = progress.model.sizes(known);
        assert!(sizes.contains(&image.size()), "size {}, not of {sizes:?}", image.size());
        let wrong = progress.model.verify(&image, known).await.expect("can be read");
        assert!(wrong.is_empty(), "{known:?}: {}", wrong[0]);
    }
}

/// Devices with these disks, whose requests `faults` may make fail.
pub(crate) fn faulty(memory: &[Memory], faults: &Faults) -> Vec<Box<dyn Driver>> {
    let wrap = |device| Box::new(Faulty::new(device, faults.clone())) as _;
    boxed(memory).into_iter().map(wrap).collect()
}
