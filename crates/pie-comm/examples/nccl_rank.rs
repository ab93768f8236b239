//! One rank on a GPU as a process: `nccl_rank INDEX WORLD ELEMENTS CALLS`. As the example `rank`, with sums over NCCL of
//! numbers in device memory; PIE_GPU names the GPU, that of the rank's index if not given. After the first call it prints
//! `summed NUMBER`, at the end `done` or `failed CODE message`.

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use pie_comm::{CommError, Deadlines, DeviceCollective, Member, NcclGroup, TcpMesh};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

const DEADLINE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| -> Result<u32, Failure> {
        Ok(arguments.get(index).ok_or("nccl_rank INDEX WORLD ELEMENTS CALLS")?.parse()?)
    };
    let (member, elements, calls) = (Member::new(number(0)?, number(1)?)?, number(2)? as usize, number(3)?);
    let listening = TcpMesh::bind("127.0.0.1:0")?;
    println!("{}", listening.local_address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let peers: Vec<&str> = line.split_whitespace().collect();
    let gpu = std::env::var("PIE_GPU").map_or(Ok(member.rank().index()), |number| number.parse())?;
    let context = CudaContext::new(gpu)?;
    let stream = context.new_stream()?;
    let numbers = stream.clone_htod(&vec![member.rank().0 as f32 + 0.5; elements])?;
    let options = Deadlines { deadline: DEADLINE, form_deadline: Duration::from_secs(20) };
    let tcp = listening.form(member, &peers, 1, options)?;
    let sums = NcclGroup::form(tcp, stream.clone(), DEADLINE)
        .and_then(|mut group| sum(&mut group, &stream, &numbers, calls));
    match sums {
        Ok(()) => println!("done"),
        Err(error) => println!("failed {} {error}", error.code()),
    }
    std::io::stdout().flush()?;
    Ok(())
}

fn sum(
    group: &mut NcclGroup,
    stream: &Arc<CudaStream>,
    numbers: &CudaSlice<f32>,
    calls: u32,
) -> Result<(), CommError> {
    for call in 0..calls {
        // SAFETY: the numbers live in `main`, and are as many as the slice says.
        unsafe { group.all_reduce_sum(numbers.device_ptr(stream).0, numbers.len())? };
        group.wait()?;
        if call == 0 {
            let sums = stream.clone_dtoh(numbers).unwrap_or_default();
            let equal = sums.iter().all(|sum| Some(sum) == sums.first());
            println!("summed {}", if equal { sums[0] } else { f32::NAN });
        }
    }
    Ok(())
}
