//! Groups over NCCL: right sums, and never a hang (C2). Ranks are processes with a GPU each; the emulated one is given several.
#![cfg(feature = "cuda")]

#[path = "common/processes.rs"]
mod processes;

use processes::{Ranks, start};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);

fn check_sums(ranks: &mut Ranks, world: usize) {
    let sum: f32 = (0..world).map(|rank| rank as f32 + 0.5).sum();
    (0..world).for_each(|rank| assert_eq!(ranks.line(rank), format!("summed {sum}")));
}

fn check_worlds(worlds: &[usize]) {
    for world in worlds {
        for elements in [1, 7168, 500_000] {
            let mut ranks = start("nccl_rank", *world, elements, 3);
            check_sums(&mut ranks, *world);
            (0..*world).for_each(|rank| assert_eq!(ranks.line(rank), "done"));
        }
    }
}

#[test]
fn one_rank_alone_sums() {
    check_worlds(&[1]);
}

#[test]
fn several_ranks_sum() {
    check_worlds(&[2, 4]);
}

#[test]
fn a_rank_that_is_killed_in_a_sum_is_named_by_all_others() {
    let mut ranks = start("nccl_rank", 3, 100_000, 10_000_000);
    check_sums(&mut ranks, 3);
    let killed = Instant::now();
    ranks.0[1].0.kill().expect("it runs");
    for rank in [0, 2] {
        let line = ranks.line(rank);
        assert!(line.starts_with("failed COMM_PEER_LOST rank 1 is gone"), "rank {rank}: {line}");
    }
    assert!(killed.elapsed() < LIMIT, "after {:?}", killed.elapsed());
}

#[test]
fn a_rank_that_is_silent_is_named_by_all_others() {
    let mut ranks = start("nccl_rank", 3, 100_000, 10_000_000);
    check_sums(&mut ranks, 3);
    let stopped = Instant::now();
    let signal = Command::new("kill").args(["-STOP", &ranks.0[2].0.id().to_string()]).status();
    assert!(signal.expect("kill is there").success());
    for rank in [0, 1] {
        let line = ranks.line(rank);
        let named = line.starts_with("failed COMM_DEADLINE") && line.contains("waiting for rank 2;");
        assert!(named, "rank {rank}: {line}");
    }
    assert!(stopped.elapsed() < LIMIT, "after {:?}", stopped.elapsed());
}

/// NCCL refuses it; the error says what to do.
#[test]
fn two_ranks_on_one_gpu_are_told_of_tcp() {
    let mut ranks = processes::start_with("nccl_rank", 2, 10, 1, &[("PIE_GPU", "0")]);
    for rank in [0, 1] {
        let line = ranks.line(rank);
        assert!(
            line.starts_with("failed COMM_GPU") && line.contains("--collectives tcp"),
            "rank {rank}: {line}"
        );
    }
}
