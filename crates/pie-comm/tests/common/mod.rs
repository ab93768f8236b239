//! Groups of every kind, with the ranks as threads of the test.
#![allow(dead_code, reason = "each test file uses a part")]

use pie_comm::{
    Collective, Deadlines, Member, Solo, TcpGroup, TcpListening, TcpMesh, ThreadGroup, WorldSize,
};
use std::net::SocketAddr;
use std::time::Duration;

/// What carries a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectiveKind {
    Solo,
    Threads,
    Tcp,
}

/// A deadline that only a test about deadlines should meet.
pub const PATIENT: Duration = Duration::from_secs(60);

pub fn options(deadline: Duration) -> Deadlines {
    Deadlines { deadline, form_deadline: Duration::from_secs(20) }
}

pub fn listen(world: u32) -> (Vec<TcpListening>, Vec<SocketAddr>) {
    let listening: Vec<_> = (0..world).map(|_| TcpMesh::bind("127.0.0.1:0").expect("a free port")).collect();
    let addresses = listening.iter().map(TcpListening::local_address).collect();
    (listening, addresses)
}

/// Runs something for each member, at once, and returns the results in rank order.
pub fn each<T: Send, R: Send>(items: Vec<T>, run: impl Fn(T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || run(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

pub fn tcp_on(
    listening: &[TcpListening],
    addresses: &[SocketAddr],
    epoch: u64,
    deadline: Duration,
) -> Vec<TcpGroup> {
    let world_size = WorldSize::new(listening.len() as u32).expect("a world size");
    let members: Vec<_> = Member::all(world_size).zip(listening).collect();
    each(members, |(member, listening)| {
        listening.form(member, addresses, epoch, options(deadline)).expect("all ranks are there")
    })
}

pub fn tcp(world: u32, deadline: Duration) -> Vec<TcpGroup> {
    let (listening, addresses) = listen(world);
    tcp_on(&listening, &addresses, 1, deadline)
}

/// The members of a group of a kind, in rank order.
pub fn group(kind: CollectiveKind, world: u32, deadline: Duration) -> Vec<Box<dyn Collective>> {
    fn boxed<C: Collective + 'static>(members: Vec<C>) -> Vec<Box<dyn Collective>> {
        members.into_iter().map(|member| Box::new(member) as Box<dyn Collective>).collect()
    }
    match kind {
        CollectiveKind::Solo => boxed(vec![Solo::new()]),
        CollectiveKind::Threads => boxed(ThreadGroup::with_deadline(world, deadline).expect("a world size")),
        CollectiveKind::Tcp => boxed(tcp(world, deadline)),
    }
}
