//! Ranks as processes, one of which is killed in the middle of a collective (C2).

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Ranks(Vec<(Child, BufReader<ChildStdout>)>);

impl Drop for Ranks {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Cargo builds examples before it runs tests, beside the folder of the tests.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("deps is inside the profile's folder");
    profile.join("examples/rank")
}

fn start(world: usize, elements: usize, calls: usize) -> Ranks {
    let spawn = |rank: usize| {
        let arguments = [rank, world, elements, calls].map(|number| number.to_string());
        let mut command = Command::new(example());
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example is built, as `cargo test` does unless told --test");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        (child, output)
    };
    let mut ranks = Ranks((0..world).map(spawn).collect());
    let addresses: Vec<_> = (0..world).map(|rank| ranks.line(rank)).collect();
    for (child, _) in &mut ranks.0 {
        let mut input = child.stdin.take().expect("piped");
        writeln!(input, "{}", addresses.join(" ")).expect("the rank reads it");
    }
    (0..world).for_each(|rank| assert_eq!(ranks.line(rank), "formed"));
    ranks
}

impl Ranks {
    fn line(&mut self, rank: usize) -> String {
        let mut line = String::new();
        self.0[rank].1.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }
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
