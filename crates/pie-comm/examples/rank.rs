//! One rank as a process: `rank INDEX WORLD ELEMENTS CALLS [CALLS-TO-WARM-UP]`. Prints its address, reads the addresses
//! of all ranks, in rank order, from one line of standard input, makes the calls, and prints `done MICROSECONDS` (the
//! median of a call) or `failed CODE message`. `all_reduce_processes` and the test of killed processes run it.

use pie_comm::{Collective, Deadlines, Member, TcpGroup, TcpMesh};
use std::io::Write;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| -> Result<u32, Failure> {
        Ok(arguments.get(index).ok_or("rank INDEX WORLD ELEMENTS CALLS")?.parse()?)
    };
    let (member, elements, calls) = (Member::new(number(0)?, number(1)?)?, number(2)?, number(3)?);
    let listening = TcpMesh::bind("127.0.0.1:0")?;
    println!("{}", listening.local_address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let peers: Vec<&str> = line.split_whitespace().collect();
    let options = Deadlines { deadline: Duration::from_secs(20), form_deadline: Duration::from_secs(20) };
    let mut group = listening.form(member, &peers, 1, options)?;
    println!("formed");
    match reduce(&mut group, elements as usize, calls as usize) {
        Ok(median) => println!("done {:.1}", median.as_secs_f64() * 1e6),
        Err(error) => println!("failed {} {error}", error.code()),
    }
    std::io::stdout().flush()?;
    Ok(())
}

fn reduce(group: &mut TcpGroup, elements: usize, calls: usize) -> Result<Duration, pie_comm::CommError> {
    let mut data = vec![0.0f32; elements];
    let mut times = Vec::new();
    for _ in 0..calls {
        let start = Instant::now();
        group.all_reduce_sum(&mut data)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}
