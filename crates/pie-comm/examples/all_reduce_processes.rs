//! Times all-reduces between processes: `all_reduce_processes [WORLD [CALLS]]`. Build the example `rank` first.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

type Failure = Box<dyn std::error::Error>;

fn line(output: &mut BufReader<ChildStdout>) -> Result<String, Failure> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The medians of all ranks, in their own words.
fn run(world: usize, elements: usize, calls: usize) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe()?.with_file_name("rank");
    let (mut children, mut outputs) = (Vec::new(), Vec::new());
    for rank in 0..world {
        let arguments = [rank, world, elements, calls].map(|number| number.to_string());
        let mut child =
            Command::new(&program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        outputs.push(BufReader::new(child.stdout.take().ok_or("piped")?));
        children.push(child);
    }
    let addresses = outputs.iter_mut().map(line).collect::<Result<Vec<_>, _>>()?.join(" ");
    for child in &mut children {
        writeln!(child.stdin.take().ok_or("piped")?, "{addresses}")?;
    }
    let said = outputs.iter_mut().map(|output| line(output).and_then(|_| line(output)));
    let said = said.collect::<Result<Vec<_>, _>>()?;
    for mut child in children {
        child.wait()?;
    }
    Ok(said)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let world = arguments.next().map_or(Ok(8), |number| number.parse())?;
    let calls = arguments.next().map_or(Ok(300), |number| number.parse())?;
    for kilobytes in [4, 16, 32, 64, 128, 256, 1024, 4096] {
        let said = run(world, kilobytes * 256, calls.min(400_000 / kilobytes))?;
        println!("{kilobytes:>5} KB: rank 0 {}", said.first().ok_or("at least one rank")?);
    }
    Ok(())
}
