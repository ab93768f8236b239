//! Ranks as processes, one of which is killed in the middle of a collective (C2).

#[path = "common/processes.rs"]
mod processes;

use processes::Ranks;
use std::time::{Duration, Instant};

fn start(world: usize, elements: usize, calls: usize) -> Ranks {
    let mut ranks = processes::start("rank", world, elements, calls);
    (0..world).for_each(|rank| assert_eq!(ranks.line(rank), "formed"));
    ranks
}

#[test]
fn processes_reduce_together() {
    let mut ranks = start(4, 1000, 50);
    for rank in 0..4 {
        let line = ranks.line(rank);
        assert!(line.starts_with("done "), "rank {rank}: {line}");
    }
}

/// Whatever the route, and whether the killed one is running or stopped in the middle, all others name it at once.
#[test]
fn a_killed_process_is_named_by_all_others() {
    for (killed, elements) in [(2, 1000), (0, 1000), (1, 1 << 22), (3, 1 << 22)] {
        let mut ranks = start(4, elements, 10_000_000);
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        ranks.0[killed].0.kill().expect("it runs");
        for rank in (0..4).filter(|rank| *rank != killed) {
            let line = ranks.line(rank);
            let expected =
                format!("failed COMM_PEER_LOST rank {killed} is gone in all-reduce of {elements} elements");
            assert!(line.starts_with(&expected), "rank {rank}, {killed} was killed: {line}");
        }
        assert!(start.elapsed() < Duration::from_secs(2), "at once, not after {:?}", start.elapsed());
    }
}
