//! The hot path of a group: all-reduces of one row (4 KB) to many (1 MB), the ranks as threads of one process.
//! `examples/all_reduce_processes.rs` does the same with processes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pie_comm::{Collective, Deadlines, Member, TcpListening, TcpMesh, ThreadGroup, WorldSize};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn threads(world: u32) -> Vec<Box<dyn Collective>> {
    let members = ThreadGroup::new(world).expect("a world size");
    members.into_iter().map(|member| Box::new(member) as Box<dyn Collective>).collect()
}

fn tcp(world: u32) -> Vec<Box<dyn Collective>> {
    let listening: Vec<_> = (0..world).map(|_| TcpMesh::bind("127.0.0.1:0").expect("a free port")).collect();
    let addresses: Vec<SocketAddr> = listening.iter().map(TcpListening::local_address).collect();
    let members = Member::all(WorldSize::new(world).expect("a world size"));
    std::thread::scope(|scope| {
        let addresses = &addresses;
        let form = |(member, listening): (Member, TcpListening)| {
            scope.spawn(move || {
                listening.form(member, addresses, 1, Deadlines::default()).expect("all are there")
            })
        };
        let forming: Vec<_> = members.zip(listening).map(form).collect();
        let joined = forming.into_iter().map(|thread| thread.join().expect("no panic"));
        joined.map(|group| Box::new(group) as Box<dyn Collective>).collect()
    })
}

/// All ranks make so many calls; the time that rank 0 takes for them.
fn time(members: &mut [Box<dyn Collective>], elements: usize, calls: u64) -> Duration {
    let (sender, times) = mpsc::channel();
    std::thread::scope(|scope| {
        for member in members {
            let sender = sender.clone();
            scope.spawn(move || {
                let mut data = vec![1.0f32; elements];
                member.all_reduce_sum(&mut data).expect("all are there");
                let start = Instant::now();
                for _ in 0..calls {
                    member.all_reduce_sum(&mut data).expect("all are there");
                }
                sender.send(start.elapsed()).expect("it is read below");
            });
        }
    });
    times.recv().expect("a rank has finished")
}

type Make = fn(u32) -> Vec<Box<dyn Collective>>;

fn all_reduce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("all_reduce");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let kinds: [(&str, Make); 2] = [("threads", threads), ("tcp", tcp)];
    for (kind, make) in kinds {
        for world in [2, 8] {
            let mut members = make(world);
            for kilobytes in [4, 64, 1024] {
                group.throughput(Throughput::Bytes(kilobytes * 1024));
                let id = BenchmarkId::new(format!("{kind}/{world}"), format!("{kilobytes}KB"));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|calls| time(&mut members, kilobytes as usize * 256, calls))
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, all_reduce);
criterion_main!(benches);
