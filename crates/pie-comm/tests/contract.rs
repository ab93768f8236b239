//! One contract for every kind of group, against the obvious oracle: add in rank order in one place (C3), with the same
//! calls on all ranks (C1).

mod common;

use common::{CollectiveKind, PATIENT, each, group};
use pie_comm::Collective;
use proptest::prelude::*;

const LENGTHS: [usize; 6] = [0, 1, 7, 1000, 40_000, 1 << 20];

/// Values whose sum depends on the order of adding, the same in every run.
fn values(rank: u32, length: usize) -> Vec<f32> {
    let value = |index: u64| {
        let mixed = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(rank * 7 + 11);
        let scale = [1e-3, 1.0, 1e3, 1e6][(mixed >> 3) as usize % 4];
        ((mixed >> 40) as f32 / 8_388_608.0 - 1.0) * scale
    };
    (0..length as u64).map(value).collect()
}

/// The sum in rank order, bit by bit.
fn oracle_sum(world: u32, length: usize) -> Vec<u32> {
    let mut sum = values(0, length);
    for rank in 1..world {
        sum.iter_mut().zip(values(rank, length)).for_each(|(sum, value)| *sum += value);
    }
    sum.into_iter().map(f32::to_bits).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().copied().map(f32::to_bits).collect()
}

fn check_reduce(comm: &mut dyn Collective, length: usize) {
    let (rank, world) = (comm.member().rank().0, comm.member().world_size().get());
    let mut data = values(rank, length);
    comm.all_reduce_sum(&mut data).expect("all ranks call it");
    assert!(bits(&data) == oracle_sum(world, length), "rank {rank} of {world}, {length} elements");
}

fn check_gather(comm: &mut dyn Collective, part: usize) {
    let (rank, world) = (comm.member().rank().0, comm.member().world_size().get());
    let mut whole = vec![f32::NAN; part * world as usize];
    comm.all_gather(&values(rank, part), &mut whole).expect("all ranks call it");
    let expected: Vec<f32> = (0..world).flat_map(|rank| values(rank, part)).collect();
    assert!(bits(&whole) == bits(&expected), "rank {rank} of {world}, {part} elements each");
}

/// Two groups of each kind do the whole table, twice in each group: oracle, bit identity across ranks, runs, kinds.
#[test]
fn every_kind_in_every_world_adds_gathers_and_meets() {
    let many = [1, 2, 3, 4, 8]
        .into_iter()
        .flat_map(|world| [(CollectiveKind::Threads, world), (CollectiveKind::Tcp, world)]);
    for (kind, world) in [(CollectiveKind::Solo, 1)].into_iter().chain(many) {
        for _ in 0..2 {
            each(group(kind, world, PATIENT), |mut comm| {
                for length in LENGTHS {
                    check_reduce(comm.as_mut(), length);
                    comm.barrier().expect("all ranks call it");
                }
                for part in [0, 7, 4032, 80_000] {
                    check_gather(comm.as_mut(), part);
                    check_reduce(comm.as_mut(), 16);
                }
            });
        }
    }
}

/// All ranks send far more than sockets hold before any of them reads.
#[test]
fn large_messages_at_once_do_not_lock_up() {
    for world in [2, 3] {
        each(group(CollectiveKind::Tcp, world, PATIENT), |mut comm| {
            check_reduce(comm.as_mut(), 16 << 20);
            check_gather(comm.as_mut(), 4 << 20);
        });
    }
}

/// A barrier holds everyone until the last has come.
#[test]
fn a_barrier_waits_for_the_last() {
    use std::sync::atomic::{AtomicU32, Ordering};
    for kind in [CollectiveKind::Threads, CollectiveKind::Tcp] {
        let arrived = AtomicU32::new(0);
        each(group(kind, 3, PATIENT), |mut comm| {
            let delay = u64::from(comm.member().rank().0) * 30;
            std::thread::sleep(std::time::Duration::from_millis(delay));
            arrived.fetch_add(1, Ordering::SeqCst);
            comm.barrier().expect("all ranks call it");
            assert_eq!(arrived.load(Ordering::SeqCst), 3, "{kind:?}");
        });
    }
}

/// What no group can take is refused by all kinds alike, and the group goes on.
#[test]
fn a_wrong_length_is_refused_and_harms_nothing() {
    for (kind, world) in [(CollectiveKind::Solo, 1), (CollectiveKind::Threads, 2), (CollectiveKind::Tcp, 2)] {
        each(group(kind, world, PATIENT), |mut comm| {
            for length in [0, 1, 3 * world as usize + 1] {
                let refused = comm.all_gather(&[1.0; 3], &mut vec![0.0; length]).expect_err("a wrong length");
                assert_eq!(refused.code(), "COMM_TENSOR", "{kind:?}");
            }
            check_reduce(comm.as_mut(), 10);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Any sequence of calls, over one group of each kind.
    #[test]
    fn any_sequence_of_calls(
        world in 1u32..6,
        calls in prop::collection::vec((0u8..3, 0usize..30_000), 1..12),
    ) {
        for kind in [CollectiveKind::Threads, CollectiveKind::Tcp] {
            each(group(kind, world, PATIENT), |mut comm| {
                for (call, size) in &calls {
                    match call {
                        0 => check_reduce(comm.as_mut(), *size),
                        1 => check_gather(comm.as_mut(), *size),
                        _ => comm.barrier().expect("all ranks call it"),
                    }
                }
            });
        }
    }
}
