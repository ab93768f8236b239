//! What happens when a rank is out of step (C1), silent or dead (C2): the same error on all ranks, in time, for good.

mod common;

use common::{CollectiveKind, PATIENT, each, group, listen, options, tcp_on};
use pie_comm::{Collective, CollectiveCall, CommError, Loss, Member, Operation, Rank, Refusal, TcpMesh};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const KINDS: [CollectiveKind; 2] = [CollectiveKind::Threads, CollectiveKind::Tcp];
/// Small ones go through rank 0, large ones directly: both must name the culprit.
const LENGTHS: [usize; 2] = [100, 200_000];
const DEADLINE: Duration = Duration::from_millis(200);
/// Of scheduling, on a machine that does other things too.
const SLACK: Duration = Duration::from_millis(400);

fn reduce(comm: &mut dyn Collective, length: usize) -> Result<(), CommError> {
    comm.all_reduce_sum(&mut vec![1.0; length])
}

/// The group is over: the first reason again, at once, whatever is called.
fn check_dead(comm: &mut dyn Collective, reason: &CommError) {
    let start = Instant::now();
    assert_eq!(reduce(comm, 3).as_ref(), Err(reason));
    assert_eq!(comm.barrier().as_ref(), Err(reason));
    assert!(start.elapsed() < SLACK);
}

#[test]
fn ranks_that_are_out_of_step_learn_both_sides() {
    // Each rank but the odd one makes the first call, the odd one the second.
    type Act = fn(&mut dyn Collective) -> Result<(), CommError>;
    let ways: [(Act, Act); 4] = [
        (|comm| reduce(comm, 100), |comm| comm.barrier()),
        (|comm| reduce(comm, 100), |comm| reduce(comm, 101)),
        (|comm| reduce(comm, 200_000), |comm| reduce(comm, 10)),
        (|comm| reduce(comm, 8), |comm| comm.all_gather(&[1.0; 8], &mut [0.0; 24])),
    ];
    for (kind, odd) in [(CollectiveKind::Threads, 1), (CollectiveKind::Tcp, 0), (CollectiveKind::Tcp, 2)] {
        for (common, other) in ways {
            each(group(kind, 3, PATIENT), |mut comm| {
                reduce(comm.as_mut(), 5).expect("in step so far");
                let is_odd = comm.member().rank() == Rank(odd);
                let error = if is_odd { other(comm.as_mut()) } else { common(comm.as_mut()) }
                    .expect_err("out of step");
                let CommError::OutOfStep { rank, call, peer, peer_call } = &error else {
                    panic!("{kind:?}: {error}")
                };
                assert!([*rank, *peer].contains(&Rank(odd)) && rank != peer, "{kind:?}: {error}");
                assert!(call != peer_call && call.sequence == peer_call.sequence, "{kind:?}: {error}");
                check_dead(comm.as_mut(), &error);
            });
        }
    }
}

#[test]
fn a_silent_rank_is_named_within_the_deadline() {
    for (kind, silent, length) in KINDS.into_iter().flat_map(|kind| {
        [0, 2].into_iter().flat_map(move |silent| LENGTHS.map(|length| (kind, silent, length)))
    }) {
        let what = format!("{kind:?}, silent rank {silent}, {length} elements");
        each(group(kind, 4, DEADLINE), |mut comm| {
            reduce(comm.as_mut(), length).expect("all are there");
            let is_silent = comm.member().rank() == Rank(silent);
            if is_silent {
                std::thread::sleep(2 * DEADLINE);
            } else if comm.member().rank() == Rank(3) {
                // Not all ranks come at once, and the last one's deadline does not end first.
                std::thread::sleep(DEADLINE / 4);
            }
            let start = Instant::now();
            // What the others had sent may be enough for the silent one to complete this call, but never the next.
            let again = if is_silent { 2 } else { 1 };
            let error = (0..again).find_map(|_| reduce(comm.as_mut(), length).err()).expect("one is silent");
            let waited = start.elapsed();
            let CommError::Deadline { waiting_for, .. } = &error else { panic!("{what}: {error}") };
            assert_eq!(waiting_for, &[Rank(silent)], "{what}, on rank {}", comm.member().rank());
            assert!(waited < DEADLINE + SLACK, "{what}: {waited:?}");
            assert!(is_silent || waited > DEADLINE / 4, "{what}: {waited:?}");
            check_dead(comm.as_mut(), &error);
        });
    }
}

#[test]
fn a_rank_that_leaves_is_named_at_once() {
    for (kind, leaver, length) in KINDS.into_iter().flat_map(|kind| {
        [0, 2].into_iter().flat_map(move |leaver| LENGTHS.map(|length| (kind, leaver, length)))
    }) {
        each(group(kind, 4, PATIENT), |mut comm| {
            reduce(comm.as_mut(), length).expect("all are there");
            if comm.member().rank() == Rank(leaver) {
                std::thread::sleep(Duration::from_millis(20));
                return;
            }
            let start = Instant::now();
            let error = reduce(comm.as_mut(), length).expect_err("one has left");
            let expected =
                CollectiveCall { operation: Operation::AllReduceSum, sequence: 1, elements: length as u64 };
            let CommError::PeerLost { rank, call, how } = &error else { panic!("{kind:?}: {error}") };
            assert_eq!(
                (*rank, *how, call.operation),
                (Rank(leaver), Loss::Left, expected.operation),
                "{kind:?}: {error}"
            );
            assert!(start.elapsed() < SLACK, "{kind:?}: at once, not after {:?}", start.elapsed());
            check_dead(comm.as_mut(), &error);
        });
    }
}

/// Leaving after the last call disturbs nobody who is still in it.
#[test]
fn leaving_after_the_last_call_is_no_loss() {
    for kind in KINDS {
        for length in LENGTHS {
            for _ in 0..20 {
                each(group(kind, 4, PATIENT), |mut comm| {
                    reduce(comm.as_mut(), length).expect("all took part")
                });
            }
        }
    }
}

#[test]
fn strangers_and_old_epochs_are_refused_and_the_group_forms() {
    let (listening, addresses) = listen(3);
    drop(tcp_on(&listening, &addresses, 5, PATIENT));
    let http = b"GET / HTTP/1.1\r\nHost: a-stranger-who-says-more-than-a-hello-has\r\n\r\n";
    let mut stranger = TcpStream::connect(addresses[0]).expect("the port is open");
    stranger.write_all(http).expect("it is read by nobody yet");
    let _silent = TcpStream::connect(addresses[0]).expect("the port is open");
    std::thread::scope(|scope| {
        // Rank 2 as it was in epoch 5, from another process, while the group forms epoch 6.
        let old = scope.spawn(|| {
            let elsewhere = TcpMesh::bind("127.0.0.1:0").expect("a free port");
            let member = Member::new(2, 3).expect("a member");
            elsewhere.form(member, &addresses, 5, options(PATIENT)).expect_err("epoch 5 is over")
        });
        std::thread::sleep(Duration::from_millis(50));
        let groups = tcp_on(&listening, &addresses, 6, PATIENT);
        let refusal = Refusal::Epoch { asked: 5, current: 6 };
        let error = old.join().expect("no panic");
        assert!(matches!(error, CommError::Refused { refusal: said, .. } if said == refusal), "{error}");
        let sums = each(groups, |mut group| {
            let mut data = [1.0];
            group.all_reduce_sum(&mut data).map(|()| data[0])
        });
        assert_eq!(sums, [Ok(3.0), Ok(3.0), Ok(3.0)]);
    });
    stranger.set_read_timeout(Some(SLACK)).expect("a socket");
    assert!(matches!(stranger.read(&mut [0; 8]), Ok(0) | Err(_)), "no answer for a stranger");
}

/// A rank that still forms the old epoch gives it up when it meets the new one, and then joins that.
#[test]
fn a_newer_epoch_ends_the_forming_of_an_older_one() {
    let (listening, addresses) = listen(2);
    let start = Instant::now();
    let sums = each(listening.into_iter().zip(0..).collect(), |(listening, rank)| {
        let member = Member::new(rank, 2).expect("a member");
        if rank == 0 {
            let error = listening
                .form(member, &addresses, 1, options(PATIENT))
                .expect_err("nobody else is in epoch 1");
            let refusal = Refusal::Epoch { asked: 1, current: 2 };
            assert_eq!(error, CommError::Refused { by: Rank(1), refusal });
        }
        let mut group = listening.form(member, &addresses, 2, options(PATIENT)).expect("both are in epoch 2");
        let mut data = [1.0];
        group.all_reduce_sum(&mut data).map(|()| data[0])
    });
    assert_eq!(sums, [Ok(2.0), Ok(2.0)]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn forming_names_the_ranks_that_do_not_come() {
    let (listening, addresses) = listen(3);
    let hurried = pie_comm::Deadlines { form_deadline: DEADLINE, ..options(PATIENT) };
    let ranks: Vec<_> = listening.iter().zip(0..).filter(|(_, rank)| *rank != 1).collect();
    let start = Instant::now();
    let errors = each(ranks, |(listening, rank)| {
        let member = Member::new(rank, 3).expect("a member");
        listening.form(member, &addresses, 1, hurried).expect_err("rank 1 does not come")
    });
    assert!(start.elapsed() < DEADLINE + SLACK);
    let named = |error: &CommError| matches!(error, CommError::Deadline { waiting_for, .. } if waiting_for == &[Rank(1)]);
    // Whoever gives up first is gone for the other.
    let gone = |error: &CommError| matches!(error, CommError::PeerLost { rank: Rank(0 | 2), .. });
    assert!(errors.iter().any(named) && errors.iter().all(|error| named(error) || gone(error)), "{errors:?}");
}

#[test]
fn ranks_that_are_mixed_up_are_refused() {
    let (listening, mut addresses) = listen(3);
    let member = |rank, world| Member::new(rank, world).expect("a member");
    let short = listening[1]
        .form(member(1, 3), &addresses[..2], 1, options(PATIENT))
        .expect_err("one address is missing");
    assert_eq!(short.code(), "COMM_PEERS");
    addresses.swap(0, 1);
    let hurried = pie_comm::Deadlines { form_deadline: 10 * DEADLINE, ..options(PATIENT) };
    let ranks: Vec<_> = listening.iter().zip(0..).collect();
    let errors = each(ranks, |(listening, rank)| {
        listening.form(member(rank, 3), &addresses, 1, hurried).expect_err("the addresses are mixed up")
    });
    assert!(
        matches!(errors[2], CommError::Refused { by: Rank(0 | 1), refusal: Refusal::Misplaced }),
        "{errors:?}"
    );
    assert_eq!(Member::new(3, 3).expect_err("ranks count from 0").code(), "COMM_MEMBER");
    assert_eq!(
        [0, 65].map(|world| Member::new(0, world).expect_err("no such world").code()),
        ["COMM_WORLD_SIZE"; 2]
    );
}
