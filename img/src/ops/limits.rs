//! The sizes and alignments that requests to a node must or should keep, with those of the nodes below.

use cairn_block::driver::Limits;
use cairn_block::graph::Node;

/// Most memory segments of one request.
pub const MAX_SEGMENTS: u32 = 1024;

/// The limits of `node`: what holds for a transfer below it holds for one through it as well.
pub fn limits(node: &Node) -> Limits {
    node.children().iter().fold(node.driver().limits(), |own, edge| {
        let below = limits(&edge.node());
        Limits {
            min_mem_alignment: own.min_mem_alignment.max(below.min_mem_alignment),
            opt_mem_alignment: own.opt_mem_alignment.max(below.opt_mem_alignment),
            max_transfer: least(own.max_transfer, below.max_transfer),
            opt_transfer: own.opt_transfer.max(below.opt_transfer),
            ..own
        }
    })
}

/// The smaller of two maxima, of which 0 means none.
fn least(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, only) | (only, 0) => only,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_maximum_is_larger_than_any() {
        assert_eq!((least(0, 0), least(0, 5), least(7, 0), least(7, 5)), (0, 5, 7, 5));
    }
}
