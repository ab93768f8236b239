//! Ranks as processes: an example of this crate for each.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

pub struct Ranks(pub Vec<(Child, BufReader<ChildStdout>)>);

impl Drop for Ranks {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Cargo builds examples before it runs tests, beside the folder of the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("deps is inside the profile's folder");
    profile.join("examples").join(name)
}

/// Starts all ranks, and tells them of each other.
pub fn start(name: &str, world: usize, elements: usize, calls: usize) -> Ranks {
    start_with(name, world, elements, calls, &[])
}

/// The same, with variables of the environment.
pub fn start_with(
    name: &str,
    world: usize,
    elements: usize,
    calls: usize,
    variables: &[(&str, &str)],
) -> Ranks {
    let spawn = |rank: usize| {
        let arguments = [rank, world, elements, calls].map(|number| number.to_string());
        let mut command = Command::new(example(name));
        let mut child = command
            .args(arguments)
            .envs(variables.iter().copied())
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
    ranks
}

impl Ranks {
    /// The next line that a rank says.
    pub fn line(&mut self, rank: usize) -> String {
        let mut line = String::new();
        self.0[rank].1.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }
}
