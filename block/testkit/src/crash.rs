//! The states in which a power cut can leave the disks of a [`crate::Recorder`].
//!
//! At any position of the log, what a completed flush covers is on the disk; of the rest any part may
//! be, down to single sectors. States share all pages that they do not change, so that one costs little
//! more than the events that are in question.

use std::collections::HashSet;
use std::fmt;

use crate::disk::Disk;
use crate::rng::Rng;
use crate::value::{SECTOR, sectors};
use crate::volatile::{Event, Record};

/// Which states to make.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides the random choices.
    pub seed: u64,
    /// Random states to make for each epoch between two flushes (fewer if there are not so many).
    pub subsets: u64,
    /// Largest number of torn forms of the last write, at each position.
    pub torn: u64,
}

/// Name of a state within the states of one log and plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateId {
    /// Every event before a position.
    Prefix(usize),
    /// Every event before a position, the last one in part.
    Torn(usize, u64),
    /// Some of the events of the epoch that ends at a position.
    Subset(usize, u64),
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateId::Prefix(position) => write!(f, "{position}"),
            StateId::Torn(position, number) => write!(f, "{position}t{number}"),
            StateId::Subset(position, number) => write!(f, "{position}s{number}"),
        }
    }
}

/// One state after a power cut.
#[derive(Debug)]
pub struct CrashState {
    /// Its name.
    pub id: StateId,
    /// Events from here on have not begun.
    pub position: usize,
    /// Content of each disk.
    pub disks: Vec<Disk>,
    /// What is on the disks of the events that no flush covers, one line each.
    pub events: Vec<String>,
}

/// What becomes of an event that no flush covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Lost,
    Kept,
    /// A random part of its sectors is kept.
    Torn(u64),
}

/// The log of a machine.
#[derive(Debug)]
pub struct CrashLog {
    initial: Vec<Disk>,
    records: Vec<Record>,
    /// For each record, the position from which on it is durable.
    durable_at: Vec<usize>,
}

impl CrashLog {
    pub(crate) fn new(initial: Vec<Disk>, records: Vec<Record>) -> CrashLog {
        let flushes: Vec<_> = records
            .iter()
            .enumerate()
            .filter_map(|(at, r)| match r.event {
                Event::Flush { begun } => Some((at, r.disk, begun)),
                _ => None,
            })
            .collect();
        let durable_at = records
            .iter()
            .enumerate()
            .map(|(at, record)| {
                if matches!(record.event, Event::Flush { .. }) {
                    return at + 1;
                }
                let covering = flushes.iter().find(|(flush, disk, begun)| {
                    *flush > at && *disk == record.disk && *begun > record.done
                });
                covering.map_or(usize::MAX, |(flush, ..)| flush + 1)
            })
            .collect();
        CrashLog { initial, records, durable_at }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was logged.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of flushes.
    pub fn flushes(&self) -> usize {
        self.records.iter().filter(|r| matches!(r.event, Event::Flush { .. })).count()
    }

    /// One line for each event.
    pub fn lines(&self) -> Vec<String> {
        (0..self.records.len()).map(|at| self.line(at)).collect()
    }

    fn line(&self, at: usize) -> String {
        let Record { disk, event, .. } = &self.records[at];
        let what = match event {
            Event::Write { offset, data } => format!("write {offset:#x}+{:#x}", data.len()),
            Event::Zero { offset, len } => format!("zero {offset:#x}+{len:#x}"),
            Event::Discard { offset, len } => format!("discard {offset:#x}+{len:#x}"),
            Event::Resize(size) => format!("resize {size:#x}"),
            Event::Flush { .. } => "flush".to_owned(),
        };
        format!("{at} disk {disk}: {what}")
    }

    fn apply(&self, at: usize, fate: Fate, disks: &mut [Disk]) {
        let Record { disk, event, .. } = &self.records[at];
        let disk = &mut disks[*disk];
        match fate {
            Fate::Lost => {}
            Fate::Kept => event.apply(disk),
            Fate::Torn(seed) => tear(event, &mut Rng::new(seed), disk),
        }
    }

    /// Whether an event can be cut into sectors.
    fn can_tear(&self, at: usize) -> bool {
        match &self.records[at].event {
            Event::Write { data, .. } => data.len() as u64 > SECTOR,
            Event::Zero { len, .. } | Event::Discard { len, .. } => *len > SECTOR,
            Event::Resize(_) | Event::Flush { .. } => false,
        }
    }

    /// Every state of `plan`, in a fixed order: all prefixes with their torn forms, and at the end of
    /// each epoch its random states.
    pub fn states(&self, plan: &Plan) -> impl Iterator<Item = CrashState> {
        let mut epochs = Epochs::new(self);
        let mut live = self.initial.clone();
        (0..=self.records.len()).flat_map(move |position| {
            let mut states = Vec::new();
            if let Some(last) = position.checked_sub(1) {
                self.tear_last(plan, last, &live, &mut states);
                self.apply(last, Fate::Kept, &mut live);
            }
            let id = StateId::Prefix(position);
            states.push(CrashState { id, position, disks: live.clone(), events: Vec::new() });
            let ends_epoch = match self.records.get(position) {
                Some(next) => matches!(next.event, Event::Flush { .. }),
                None => true,
            };
            if ends_epoch {
                epochs.states(plan, position, &mut states);
            }
            states
        })
    }

    /// The torn forms of event `last` after all events before it.
    fn tear_last(&self, plan: &Plan, last: usize, before: &[Disk], states: &mut Vec<CrashState>) {
        if !self.can_tear(last) {
            return;
        }
        for number in 0..plan.torn {
            let seed = Rng::for_part(plan.seed, &[last as u64, number]).bits();
            let mut disks = before.to_vec();
            self.apply(last, Fate::Torn(seed), &mut disks);
            states.push(CrashState {
                id: StateId::Torn(last + 1, number),
                position: last + 1,
                disks,
                events: vec![format!("{} (torn)", self.line(last))],
            });
        }
    }
}

/// Applies the sectors of `event` that `rng` chooses.
fn tear(event: &Event, rng: &mut Rng, disk: &mut Disk) {
    match event {
        Event::Write { offset, data } => {
            for (at, range) in sectors(*offset, data.len()) {
                if rng.chance(50) {
                    disk.write(at, &data[range]);
                }
            }
        }
        Event::Zero { offset, len } | Event::Discard { offset, len } => {
            // Long ranges are torn in at most 64 places, whole sectors each.
            let step = (len / 64).next_multiple_of(SECTOR).max(SECTOR);
            let mut at = *offset;
            while at < offset + len {
                let end = ((at / SECTOR) * SECTOR + step).min(offset + len);
                if rng.chance(50) {
                    let part = match event {
                        Event::Zero { .. } => Event::Zero { offset: at, len: end - at },
                        _ => Event::Discard { offset: at, len: end - at },
                    };
                    part.apply(disk);
                }
                at = end;
            }
        }
        Event::Resize(_) | Event::Flush { .. } => event.apply(disk),
    }
}

/// Makes the random states of one epoch after the other.
struct Epochs<'l> {
    log: &'l CrashLog,
    /// The disks after the first `durable` events, all of which flushes cover.
    base: Vec<Disk>,
    durable: usize,
}

impl<'l> Epochs<'l> {
    fn new(log: &'l CrashLog) -> Epochs<'l> {
        Epochs { log, base: log.initial.clone(), durable: 0 }
    }

    /// The random states of the epoch that ends before event `end`.
    fn states(&mut self, plan: &Plan, end: usize, states: &mut Vec<CrashState>) {
        let log = self.log;
        while self.durable < end && log.durable_at[self.durable] <= end {
            log.apply(self.durable, Fate::Kept, &mut self.base);
            self.durable += 1;
        }
        let open: Vec<_> = (self.durable..end).filter(|&at| log.durable_at[at] > end).collect();
        if open.is_empty() {
            return;
        }
        let mut rng = Rng::for_part(plan.seed, &[end as u64]);
        let mut seen = HashSet::new();
        // All events kept is a prefix, and so made already.
        seen.insert(vec![Fate::Kept; open.len()]);
        for number in 0..plan.subsets {
            let fresh = (0..8).map(|_| self.choose(&open, &mut rng)).find(|f| !seen.contains(f));
            let Some(fates) = fresh else { continue };
            let mut disks = self.base.clone();
            let mut events = Vec::new();
            // No event after the last one that is kept has begun, nor any flush still under way.
            let mut position = self.durable;
            for at in self.durable..end {
                let fate = match open.binary_search(&at) {
                    Ok(index) => fates[index],
                    Err(_) => Fate::Kept,
                };
                if fate != Fate::Lost {
                    position = at + 1;
                    log.apply(at, fate, &mut disks);
                    if log.durable_at[at] > end {
                        let how = if fate == Fate::Kept { "" } else { " (torn)" };
                        events.push(format!("{}{how}", log.line(at)));
                    }
                }
            }
            seen.insert(fates);
            let id = StateId::Subset(end, number);
            states.push(CrashState { id, position, disks, events });
        }
    }

    /// A fate for each of the events `open`, in one of several styles.
    fn choose(&self, open: &[usize], rng: &mut Rng) -> Vec<Fate> {
        let chosen = rng.below(open.len() as u64);
        let style = rng.below(5);
        let fate = |(index, &at): (usize, &usize)| {
            let is_chosen = index as u64 == chosen;
            let wanted = match style {
                // Each by chance; all but one; one alone; torn by chance; most, with one torn.
                0 => (rng.chance(50), false),
                1 => (!is_chosen, false),
                2 => (is_chosen, false),
                3 => (rng.chance(67), rng.chance(50)),
                _ => (is_chosen || rng.chance(85), is_chosen),
            };
            match wanted {
                (false, _) => Fate::Lost,
                (true, true) if self.log.can_tear(at) => Fate::Torn(rng.bits()),
                (true, _) => Fate::Kept,
            }
        };
        open.iter().enumerate().map(fate).collect()
    }
}
