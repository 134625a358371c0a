//! What `bench` prints.

use std::fmt::Write as _;
use std::time::Duration;

use crate::ops::bench::BenchRequest;

/// The line before the run; with flushes there are two.
pub fn start(request: &BenchRequest) -> String {
    let BenchRequest { count, depth, length, offset, step, write } = request;
    let kind = if write.is_some() { "write" } else { "read" };
    let mut text = format!(
        "Sending {count} {kind} requests, {length} bytes each, {depth} in parallel (starting at \
         offset {offset}, step size {step})\n"
    );
    if let Some(interval) = write.as_ref().and_then(|write| write.flush_interval) {
        let _ = writeln!(text, "Sending flush every {interval} requests");
    }
    text
}

/// The line after the run.
pub fn end(elapsed: Duration) -> String {
    format!("Run completed in {:.3} seconds.\n", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bench::BenchWrite;

    #[test]
    fn lines_of_a_run() {
        let mut request = BenchRequest {
            count: 100,
            depth: 64,
            length: 4096,
            offset: 0,
            step: 4096,
            write: None,
        };
        assert_eq!(
            start(&request),
            "Sending 100 read requests, 4096 bytes each, 64 in parallel (starting at offset 0, step \
             size 4096)\n"
        );
        request.write = Some(BenchWrite { pattern: 0, flush_interval: Some(64), drain: true });
        assert_eq!(
            start(&request),
            "Sending 100 write requests, 4096 bytes each, 64 in parallel (starting at offset 0, \
             step size 4096)\nSending flush every 64 requests\n"
        );
        assert_eq!(end(Duration::from_millis(4)), "Run completed in 0.004 seconds.\n");
    }
}
