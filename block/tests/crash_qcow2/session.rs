//! An image on which commands run, and what is known of it meanwhile.

use cairn_block::dirty_bitmap::BitmapChange;
use cairn_block::driver::{Amendment, CompactWatch, WriteFlags};
use cairn_block::graph::Backend;
use cairn_block::options::Dict;
use cairn_block::snapshot::{NewSnapshot, SnapshotKey};
use cairn_testkit::{Effect, Knowledge, Model, Reopen, Value};

use crate::survey::{Demand, Image, Survey, read_all};

/// An open image, and what is known of it at each position of the log.
pub(crate) struct Session<'i> {
    image: &'i Image,
    pub(crate) open: Backend,
    model: Model,
    /// Positions at which steps had begun, and at which they were durable: (position, steps).
    begun: Vec<(usize, usize)>,
    durable: Vec<(usize, usize)>,
    /// Snapshots that were created, and what they hold.
    snapshots: Vec<(&'static str, Vec<u8>)>,
    /// What the disk held when the bitmap `record` was created.
    recorded: Option<Vec<u8>>,
}

impl<'i> Session<'i> {
    /// Opens the new image `image`.
    pub(crate) async fn begin(image: &'i Image) -> Session<'i> {
        Session {
            image,
            open: image.open().await.unwrap(),
            model: image.layout.model(),
            begun: Vec::new(),
            durable: Vec::new(),
            snapshots: Vec::new(),
            recorded: None,
        }
    }

    /// Writes `tag` to a range and flushes.
    pub(crate) async fn write(&mut self, offset: u64, len: u64, tag: u32) {
        self.model.step(&[(offset..offset + len, Effect::set(Value::Tag(tag)))]);
        self.begun.push((self.image.position(), self.model.steps()));
        let data = Value::Tag(tag).buffer(offset, len);
        self.open.write(offset, data, WriteFlags::empty()).await.unwrap();
        self.open.flush().await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    /// Creates a snapshot.
    pub(crate) async fn create(&mut self, name: &'static str) {
        self.snapshots.push((name, read_all(&self.open).await.unwrap()));
        let new = NewSnapshot { name: name.to_owned(), ..NewSnapshot::default() };
        self.open.graph().create_snapshot(&self.open.node(), new).await.unwrap();
    }

    /// Goes back to a snapshot, which undoes `ranges`.
    pub(crate) async fn apply(&mut self, name: &str, ranges: &[(u64, u64, Value)]) {
        let effects: Vec<_> = ranges
            .iter()
            .map(|&(offset, len, value)| (offset..offset + len, Effect::set(value)))
            .collect();
        self.model.step(&effects);
        self.begun.push((self.image.position(), self.model.steps()));
        let key = SnapshotKey::IdOrName(name.to_owned());
        self.open.graph().apply_snapshot(&self.open.node(), key).await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    /// Deletes a snapshot.
    pub(crate) async fn delete(&self, name: &str) {
        let key = SnapshotKey::IdOrName(name.to_owned());
        self.open.graph().delete_snapshot(&self.open.node(), key).await.unwrap();
    }

    /// Creates the bitmap `record`, which must know of every change from now on.
    pub(crate) async fn record(&mut self) {
        self.recorded = Some(read_all(&self.open).await.unwrap());
        let add = BitmapChange::Add { granularity_bits: Some(9), enabled: true };
        self.bitmap("record", add).await;
    }

    /// Changes a bitmap.
    pub(crate) async fn bitmap(&self, name: &str, change: BitmapChange) {
        self.open.graph().change_bitmap(&self.open.node(), name, change).await.unwrap();
    }

    /// Amends the image.
    pub(crate) async fn amend(&self, options: &[(&'static str, &str)]) {
        let mut dict = Dict::new();
        for (name, value) in options {
            dict.insert(*name, *value);
        }
        self.open.node().driver().amend(self.open.graph(), Amendment::new(dict)).await.unwrap();
    }

    /// Closes the image and opens it again.
    pub(crate) async fn reopen(self) -> Self {
        self.open.close().await.unwrap();
        let open = self.image.open().await.unwrap();
        Session { open, ..self }
    }

    /// Zeroes a range, gives its storage up, and flushes.
    pub(crate) async fn drop_data(&mut self, offset: u64, len: u64) {
        self.model.step(&[(offset..offset + len, Effect::set(Value::Zero))]);
        self.begun.push((self.image.position(), self.model.steps()));
        self.open.write_zeroes(offset, len, WriteFlags::MAY_UNMAP).await.unwrap();
        self.open.flush().await.unwrap();
        self.durable.push((self.image.position(), self.model.steps()));
    }

    /// Compacts the image. Returns the bytes moved.
    pub(crate) async fn compact(&self, watch: &dyn CompactWatch) -> u64 {
        self.open.graph().compact(&self.open.node(), watch).await.unwrap().moved
    }

    /// Closes the image and looks at all states, of which there must be `least`.
    pub(crate) async fn judge(self, demand: Demand, seed: u64, least: usize) {
        self.judge_by(&|_| demand, seed, least).await;
    }

    /// The same with a demand that depends on the position of the log.
    pub(crate) async fn judge_by(self, demand: &dyn Fn(usize) -> Demand, seed: u64, least: usize) {
        self.open.close().await.unwrap();
        let last = |marks: &[(usize, usize)], position: usize, inclusive: bool| {
            let reached = |at: usize| if inclusive { at <= position } else { at < position };
            marks.iter().filter(|(at, _)| reached(*at)).map(|(_, steps)| *steps).max()
        };
        let known = |position| Knowledge {
            durable: last(&self.durable, position, true).unwrap_or(0),
            begun: last(&self.begun, position, false).unwrap_or(0),
        };
        let survey = Survey {
            name: self.image.layout.name,
            layout: self.image.layout,
            log: self.image.machine.log(),
            model: &self.model,
            known: &known,
            demand,
            snapshots: &self.snapshots,
            recorded: self.recorded.as_deref(),
        };
        survey.judge(seed, least).await;
    }
}
