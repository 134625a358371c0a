//! Throttle groups: limits that several nodes share, and whose turn it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::bucket::{Bucket, Rate};
use super::limits::{LimitOptions, Limits, Rates};
use crate::error::{Error, Result};
use crate::options::{Dict, OptionError, Value};

/// What a request does, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// A group.
pub struct ThrottleGroup {
    state: Mutex<State>,
    /// Held by the one request of each direction that waits for the limits; those of other members
    /// queue up in order.
    read_turn: Turn<()>,
    write_turn: Turn<()>,
}

struct State {
    limits: Limits,
    requests: Buckets,
    bytes: Buckets,
    /// When the buckets have leaked last.
    leaked: Instant,
}

#[derive(Clone, Copy, Default)]
struct Buckets {
    total: Bucket,
    read: Bucket,
    write: Bucket,
}

impl Buckets {
    fn leak(&mut self, rates: &Rates, time: Duration) {
        self.total.leak(&rates.total, time);
        self.read.leak(&rates.read, time);
        self.write.leak(&rates.write, time);
    }

    /// The buckets that a request of `direction` fills.
    fn of<'b>(
        &'b mut self,
        rates: &'b Rates,
        direction: Direction,
    ) -> [(&'b mut Bucket, &'b Rate); 2] {
        let own = match direction {
            Direction::Read => (&mut self.read, &rates.read),
            Direction::Write => (&mut self.write, &rates.write),
        };
        [(&mut self.total, &rates.total), own]
    }
}

impl State {
    /// How long a request must wait; if it need not, it is let through.
    fn pass(&mut self, direction: Direction, len: u64, now: Instant) -> Option<Duration> {
        let time = now.saturating_duration_since(self.leaked);
        self.leaked = self.leaked.max(now);
        let Limits { requests, bytes, request_size } = self.limits;
        self.requests.leak(&requests, time);
        self.bytes.leak(&bytes, time);
        let mut buckets = Vec::with_capacity(4);
        let count = count(len, request_size);
        #[expect(clippy::cast_precision_loss, reason = "requests are far below 2^52 bytes")]
        let len = len as f64;
        for (bucket, rate) in self.requests.of(&requests, direction) {
            buckets.push((bucket, rate, count));
        }
        for (bucket, rate) in self.bytes.of(&bytes, direction) {
            buckets.push((bucket, rate, len));
        }
        let wait = buckets.iter().map(|(bucket, rate, _)| bucket.wait(rate)).max();
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Some(wait);
        }
        for (bucket, rate, units) in buckets {
            bucket.fill(rate, units);
        }
        None
    }
}

/// Requests that a request of `len` bytes counts as.
fn count(len: u64, request_size: u64) -> f64 {
    if request_size == 0 || len <= request_size {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "requests are far below 2^52 bytes")]
    let count = len as f64 / request_size as f64;
    count
}

impl ThrottleGroup {
    /// A group with these limits.
    pub fn new(limits: Limits) -> ThrottleGroup {
        ThrottleGroup {
            state: Mutex::new(State {
                limits,
                requests: Buckets::default(),
                bytes: Buckets::default(),
                leaked: Instant::now(),
            }),
            read_turn: Turn::default(),
            write_turn: Turn::default(),
        }
    }

    /// Changes the limits; what went through before is forgotten.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.state.lock();
        state.limits = limits;
        (state.requests, state.bytes) = (Buckets::default(), Buckets::default());
    }

    async fn wait(&self, direction: Direction, len: u64) {
        let turn = match direction {
            Direction::Read => &self.read_turn,
            Direction::Write => &self.write_turn,
        };
        let _turn = turn.lock().await;
        loop {
            let wait = self.state.lock().pass(direction, len, Instant::now());
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait).await;
        }
    }
}

/// A node in a group. Of each member one request in each direction is in the group's queue, so that
/// members take turns however many requests they have.
pub(super) struct Member {
    group: Arc<ThrottleGroup>,
    reads: Turn<()>,
    writes: Turn<()>,
}

impl Member {
    pub(super) fn new(group: Arc<ThrottleGroup>) -> Member {
        Member { group, reads: Turn::default(), writes: Turn::default() }
    }

    /// Waits until a request of `len` bytes may go.
    pub(super) async fn wait(&self, direction: Direction, len: u64) {
        let own = match direction {
            Direction::Read => &self.reads,
            Direction::Write => &self.writes,
        };
        let _first = own.lock().await;
        self.group.wait(direction, len).await;
    }
}

/// The groups of a graph by their IDs.
#[derive(Default)]
pub struct ThrottleGroups(Mutex<HashMap<String, Arc<ThrottleGroup>>>);

impl ThrottleGroups {
    /// Adds a group; fails if the ID is taken.
    pub fn add(&self, id: &str, group: ThrottleGroup) -> Result<()> {
        let mut groups = self.0.lock();
        if groups.contains_key(id) {
            return Err(name_error(id, "exists already"));
        }
        groups.insert(id.to_owned(), Arc::new(group));
        Ok(())
    }

    /// The group called `id`.
    pub fn find(&self, id: &str) -> Result<Arc<ThrottleGroup>> {
        let found = self.0.lock().get(id).cloned();
        found.ok_or_else(|| {
            name_error(id, "does not exist; define it with --object throttle-group,id=…")
        })
    }
}

fn name_error(id: &str, problem: &'static str) -> Error {
    Error::Name { what: "throttle group", name: id.to_owned(), problem }
}

/// Adds the group that the `options` of an object `throttle-group` describe: `limits` with
/// [`LimitOptions`], or these with an `x-` before their names.
pub fn create(groups: &ThrottleGroups, id: &str, mut options: Dict) -> Result<()> {
    let mut limits = match options.remove("limits") {
        Some(Value::Dict(limits)) => limits,
        Some(other) => return Err(OptionError::invalid("limits", &other, "a group").into()),
        None => Dict::new(),
    };
    for desc in LimitOptions::TABLE {
        if let Some(value) = options.remove(&format!("x-{}", desc.name)) {
            limits.insert(desc.name, value);
        }
    }
    let owner = "object type 'throttle-group'";
    crate::options::reject_leftovers(&options, owner, &[])?;
    groups.add(id, ThrottleGroup::new(LimitOptions::parse(limits, owner)?.limits()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse_keyval;

    fn group(text: &str) -> ThrottleGroup {
        let options = LimitOptions::parse(parse_keyval(text, None).expect(text), "test");
        ThrottleGroup::new(options.expect(text).limits().expect(text))
    }

    /// Whether each of `requests` may go at its time, in milliseconds.
    fn passes(group: &ThrottleGroup, requests: &[(u64, Direction, u64)]) -> Vec<bool> {
        let start = group.state.lock().leaked;
        requests
            .iter()
            .map(|(millis, direction, len)| {
                let now = start + Duration::from_millis(*millis);
                group.state.lock().pass(*direction, *len, now).is_none()
            })
            .collect()
    }

    #[test]
    fn totals_count_both_directions_and_parts_one() {
        use Direction::{Read, Write};
        let total = group("iops-total=10");
        assert_eq!(
            passes(&total, &[(0, Read, 1), (0, Write, 1), (0, Read, 1), (100, Read, 1)]),
            [true, true, false, true]
        );
        let writes = group("iops-write=10");
        assert_eq!(
            passes(&writes, &[(0, Write, 1), (0, Write, 1), (0, Write, 1), (0, Read, 1)]),
            [true, true, false, true]
        );
    }

    #[test]
    fn long_requests_count_as_several() {
        use Direction::Read;
        let group = group("iops-total=10,iops-size=4096");
        assert_eq!(
            passes(&group, &[(0, Read, 8 * 4096), (600, Read, 1), (700, Read, 1)]),
            [true, false, true]
        );
    }

    #[test]
    fn bytes_are_limited() {
        use Direction::Read;
        let group = group("bps-read=1000");
        assert_eq!(
            passes(&group, &[(0, Read, 1000), (800, Read, 1000), (900, Read, 1000)]),
            [true, false, true]
        );
    }

    #[test]
    fn objects_become_groups() {
        let groups = ThrottleGroups::default();
        let object = |text: &str| crate::options::expand(parse_keyval(text, None).expect(text));
        let text = "limits.iops-total=100,x-bps-read=5";
        create(&groups, "g", object(text).expect(text)).expect("valid");
        assert!(groups.find("g").is_ok() && groups.find("h").is_err());
        assert!(create(&groups, "g", Dict::new()).is_err());
        for text in ["limits=1", "foo=1", "limits.foo=1"] {
            assert!(create(&groups, "x", object(text).expect(text)).is_err(), "{text}");
        }
    }
}
