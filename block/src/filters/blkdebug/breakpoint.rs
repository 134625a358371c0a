//! Breakpoints: requests that stop at an event until they are let go on.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{BlkDebug, Filtered};
use crate::event::Event;
use crate::graph::Node;

/// The breakpoints of one node.
#[derive(Default)]
pub struct Breakpoints {
    state: Mutex<State>,
    /// Something in `state` has changed.
    changed: Notify,
    watcher: Mutex<Option<Watcher>>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakNotice {
    /// It has stopped.
    Stopped,
    /// It goes on.
    Resumed,
}

/// Who is told of what happens to requests, with their names.
pub type Watcher = Arc<dyn Fn(BreakNotice, &str) + Send + Sync>;

#[derive(Default)]
struct State {
    /// Where the next request is to stop, and what it is called then.
    set: Vec<(Event, String)>,
    /// Requests that have stopped, oldest first: a number and the name.
    stopped: Vec<(u64, String)>,
    next: u64,
    resumed: HashSet<u64>,
}

impl Breakpoints {
    /// Tells `watcher` of requests that stop and go on, and nobody else any more.
    pub fn watch(&self, watcher: Watcher) {
        *self.watcher.lock() = Some(watcher);
    }

    fn tell(&self, notice: BreakNotice, tag: &str) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher(notice, tag);
        }
    }

    /// Makes the next request that passes `event` stop, and calls it `tag`.
    pub fn set(&self, event: Event, tag: &str) {
        self.state.lock().set.push((event, tag.to_owned()));
    }

    /// Lets the oldest request called `tag` go on. Returns whether there was one.
    pub fn resume(&self, tag: &str) -> bool {
        let mut state = self.state.lock();
        let Some(at) = state.stopped.iter().position(|(_, name)| name == tag) else {
            return false;
        };
        let (number, _) = state.stopped.remove(at);
        state.resumed.insert(number);
        drop(state);
        self.tell(BreakNotice::Resumed, tag);
        self.changed.notify_waiters();
        true
    }

    /// Forgets the breakpoints called `tag` and lets the requests of that name go on. Returns whether
    /// there were breakpoints that no request had come to.
    pub fn remove(&self, tag: &str) -> bool {
        let found = {
            let mut state = self.state.lock();
            let before = state.set.len();
            state.set.retain(|(_, name)| name != tag);
            before != state.set.len()
        };
        while self.resume(tag) {}
        found
    }

    /// Whether a request called `tag` has stopped.
    pub fn is_stopped(&self, tag: &str) -> bool {
        self.state.lock().stopped.iter().any(|(_, name)| name == tag)
    }

    /// Waits until a request called `tag` has stopped.
    pub async fn wait(&self, tag: &str) {
        loop {
            let changed = self.changed.notified();
            if self.is_stopped(tag) {
                return;
            }
            changed.await;
        }
    }

    /// A request passes `event`; it stops if there is a breakpoint.
    pub(super) async fn pass(&self, event: Event) {
        while let Some(stop) = self.stop(event) {
            self.tell(BreakNotice::Stopped, &stop.tag);
            self.changed.notify_waiters();
            loop {
                let changed = self.changed.notified();
                if self.state.lock().resumed.remove(&stop.number) {
                    break;
                }
                changed.await;
            }
        }
    }

    /// Takes a breakpoint for `event` and makes a stopped request of it.
    fn stop(&self, event: Event) -> Option<Stop<'_>> {
        let mut state = self.state.lock();
        let at = state.set.iter().position(|(set, _)| *set == event)?;
        let (_, tag) = state.set.remove(at);
        let number = state.next;
        state.next += 1;
        state.stopped.push((number, tag.clone()));
        Some(Stop { owner: self, number, tag })
    }
}

/// A request that has stopped. Dropped with its request, it leaves no trace.
struct Stop<'b> {
    owner: &'b Breakpoints,
    number: u64,
    tag: String,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let mut state = self.owner.state.lock();
        state.stopped.retain(|(number, _)| *number != self.number);
        state.resumed.remove(&self.number);
    }
}

/// The breakpoints of the first `blkdebug` node on the way from `node` down along the children that
/// decide names.
pub fn breakpoints(node: &Arc<Node>) -> Option<Arc<Breakpoints>> {
    let mut node = Arc::clone(node);
    loop {
        if let Some(Filtered(driver)) = node.driver().as_any().downcast_ref::<Filtered<BlkDebug>>()
        {
            return Some(Arc::clone(&driver.breakpoints));
        }
        let below = node.primary()?.node();
        node = below;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn requests_stop_and_go_on() {
        let points = Breakpoints::default();
        points.set(Event::WriteAio, "A");
        points.pass(Event::ReadAio).await;
        let mut request = std::pin::pin!(points.pass(Event::WriteAio));
        assert!(!points.is_stopped("A"));
        assert!(poll!(request.as_mut()).is_pending());
        points.wait("A").await;
        // A breakpoint stops one request.
        points.pass(Event::WriteAio).await;
        assert!(!points.resume("B"));
        assert!(poll!(request.as_mut()).is_pending());
        assert!(points.resume("A"));
        request.await;
        assert!(!points.resume("A"));
    }

    #[tokio::test]
    async fn two_breakpoints_stop_a_request_twice() {
        let points = Breakpoints::default();
        points.set(Event::CowRead, "A");
        points.set(Event::CowRead, "B");
        let mut request = std::pin::pin!(points.pass(Event::CowRead));
        assert!(poll!(request.as_mut()).is_pending());
        assert!(points.resume("A"));
        assert!(poll!(request.as_mut()).is_pending());
        assert!(points.is_stopped("B") && !points.remove("B"));
        request.await;
        points.set(Event::CowRead, "C");
        assert!(points.remove("C") && !points.remove("C"));
    }

    #[tokio::test]
    async fn a_dropped_request_is_forgotten() {
        let points = Breakpoints::default();
        points.set(Event::CowRead, "A");
        {
            let mut request = std::pin::pin!(points.pass(Event::CowRead));
            assert!(poll!(request.as_mut()).is_pending());
        }
        assert!(!points.is_stopped("A") && !points.remove("A"));
    }
}
