//! What may become of a disk's content when several tasks write to it at once.

use std::ops::Range;

use crate::model::{Effect, Mismatch};
use crate::range_map::RangeMap;
use crate::value::sectors;

/// The requests of one task, made one after the other.
#[derive(Clone, Debug)]
pub struct TaskLog(RangeMap<Option<Effect>>);

impl Default for TaskLog {
    fn default() -> TaskLog {
        TaskLog(RangeMap::new(None))
    }
}

impl TaskLog {
    /// Adds a request.
    pub fn add(&mut self, range: Range<u64>, effect: &Effect) {
        self.0.update(range, |run| match run {
            Some(before) => before.then(effect),
            None => *run = Some(effect.clone()),
        });
    }

    /// Compares the content `after` concurrent tasks with the one `before`: where none wrote, nothing
    /// may have changed; where several did, the last request of any of them may be the last of all.
    pub fn compare(tasks: &[TaskLog], before: &[u8], after: &[u8]) -> Option<Mismatch> {
        assert_eq!(before.len(), after.len(), "the size changed");
        let mut merged = RangeMap::new(None);
        for (range, effect) in tasks.iter().flat_map(|task| task.0.runs(0..u64::MAX)) {
            if let Some(effect) = effect {
                merged.update(range, |run: &mut Option<Effect>| match run {
                    Some(other) => other.or(effect),
                    None => *run = Some(effect.clone()),
                });
            }
        }
        let mut at = 0;
        for (range, effect) in merged.runs(0..after.len() as u64) {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            for (offset, piece) in sectors(range.start, len) {
                let piece = at + piece.start..at + piece.end;
                let (old, new) = (&before[piece.clone()], &after[piece]);
                let legal = match effect {
                    Some(effect) => effect.explains(offset, old, new),
                    None => old == new,
                };
                if !legal {
                    return Some(Mismatch {
                        offset,
                        found: new.iter().copied().take(16).collect(),
                        legal: effect.iter().flat_map(Effect::values).copied().collect(),
                        steps: Vec::new(),
                    });
                }
            }
            at += len;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    fn content(parts: &[(Range<usize>, Value)]) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        for (range, value) in parts {
            value.fill(range.start as u64, &mut bytes[range.clone()]);
        }
        bytes
    }

    #[test]
    fn of_two_tasks_either_may_be_last_but_each_keeps_its_order() {
        use Value::Tag;
        let mut tasks = [TaskLog::default(), TaskLog::default()];
        tasks[0].add(0..1024, &Effect::set(Tag(1)));
        tasks[0].add(0..512, &Effect::set(Tag(2)));
        tasks[1].add(0..1024, &Effect::set(Tag(3)));
        let before = content(&[(1024..2048, Tag(9))]);
        let legal = |parts: &[_]| TaskLog::compare(&tasks, &before, &content(parts)).is_none();
        assert!(legal(&[(0..512, Tag(2)), (512..1024, Tag(3)), (1024..2048, Tag(9))]));
        assert!(legal(&[(0..1024, Tag(3)), (1024..2048, Tag(9))]));
        assert!(!legal(&[(0..1024, Tag(1)), (1024..2048, Tag(9))]));
        assert!(!legal(&[(0..1024, Tag(3)), (1024..2048, Tag(8))]));
    }
}
