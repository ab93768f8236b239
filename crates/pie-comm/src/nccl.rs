//! Groups over NCCL: sums and gathers between GPUs, inside the compute stream.
//!
//! NCCL by itself neither names a rank that died nor ends a call that waits for it. So a group over NCCL keeps the group over
//! TCP that formed it: the unique id travels over it, votes do, and while this rank waits for its stream it watches the
//! control connections. A peer that dies, leaves or stays silent ends the communicator (`ncclCommAbort`) with the same errors
//! as any other group.

use crate::{Call, Collective, CommError, Member, Operation, TcpGroup};
use cudarc::driver::{CudaEvent, CudaStream};
use cudarc::nccl::result::{self, NcclStatus};
use cudarc::nccl::sys::{self, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Collectives of f32 numbers in device memory. They are enqueued on the group's stream; what fails is told by
/// [`DeviceCollective::wait`].
pub trait DeviceCollective {
    /// Enqueues: sums `numbers` numbers at a device address over all ranks, in place. The same bits on every rank.
    ///
    /// # Errors
    /// See [`CommError`]; the group is over then.
    ///
    /// # Safety
    /// The address is of that many f32 of this rank's GPU, which live until the stream has come past the call.
    unsafe fn all_reduce_sum(&mut self, address: u64, numbers: usize) -> Result<(), CommError>;

    /// Enqueues: puts `numbers` numbers of every rank, from `part`, into `whole`, in rank order.
    ///
    /// # Errors
    /// See [`CommError`]; the group is over then.
    ///
    /// # Safety
    /// As above; `whole` is `world size * numbers` long.
    unsafe fn all_gather(&mut self, part: u64, whole: u64, numbers: usize) -> Result<(), CommError>;

    /// Returns when everything on the stream is done (C2): or when a peer is lost, or the deadline is over.
    ///
    /// # Errors
    /// See [`CommError`]; the group is over then, and nothing of it waits in the stream any more.
    fn wait(&mut self) -> Result<(), CommError>;
}

/// A rank of a group over NCCL.
pub struct NcclGroup {
    tcp: TcpGroup,
    handle: Handle,
    stream: Arc<CudaStream>,
    done: CudaEvent,
    deadline: Duration,
    calls: u64,
}

/// A communicator; ended at the latest when it is dropped.
struct Handle(ncclComm_t);

// SAFETY: NCCL allows calls on a communicator from any thread, one at a time; a handle has one owner.
unsafe impl Send for Handle {}

/// How often peers are looked at while the stream runs.
const WATCH: Duration = Duration::from_millis(1);
/// For ranks to say that they are there, once the deadline is over.
const ROLL_CALL: Duration = Duration::from_secs(1);

impl NcclGroup {
    /// Turns a formed group into one whose sums run on the GPUs; rank 0 makes the unique id of this epoch. A call that is not
    /// done `deadline` after this rank waits for it ends the group.
    ///
    /// # Errors
    /// [`CommError::Gpu`] without NCCL, and for two ranks on one GPU, which NCCL refuses; peers that fail meanwhile.
    pub fn form(mut tcp: TcpGroup, stream: Arc<CudaStream>, deadline: Duration) -> Result<Self, CommError> {
        let form = Call { operation: Operation::Form, sequence: 0, elements: 0 };
        // SAFETY: it only looks whether the library can be loaded.
        if !unsafe { sys::is_culib_present() } {
            let problem = "libnccl.so is not found: install NCCL, or take --collectives tcp".to_owned();
            return Err(tcp.end(CommError::Gpu { call: form, problem }));
        }
        let member = tcp.member();
        let id = shared_id(&mut tcp)?;
        let done = stream.context().new_event(None);
        let done = done.map_err(|error| CommError::Gpu { call: form, problem: format!("{error:?}") })?;
        let mut handle = std::ptr::null_mut();
        let mut config = non_blocking();
        // The context belongs to a thread; NCCL asks for that of the caller.
        let begun = stream.context().bind_to_thread().map_err(|error| format!("{error:?}")).and_then(|()| {
            let (ranks, rank) = (member.world_size().get().cast_signed(), member.rank().0.cast_signed());
            // SAFETY: the pointers are to values on this stack frame, and NCCL copies what it keeps of them.
            let begun = unsafe { result::comm_init_rank_config(&mut handle, ranks, id, rank, &mut config) };
            begun.map(drop).map_err(|error| said(error.0))
        });
        let mut group = Self { tcp, handle: Handle(handle), stream, done, deadline, calls: 0 };
        match begun {
            Ok(()) => group.until_ready(form)?,
            Err(problem) => return Err(group.end(CommError::Gpu { call: form, problem })),
        }
        Ok(group)
    }

    /// Waits until a call that NCCL goes on with in the background is taken.
    fn until_ready(&mut self, call: Call) -> Result<(), CommError> {
        let until = Instant::now() + self.deadline;
        loop {
            match self.state() {
                ncclResult_t::ncclSuccess => return Ok(()),
                ncclResult_t::ncclInProgress => self.look_around(call, until)?,
                failed => return Err(self.end(CommError::Gpu { call, problem: said(failed) })),
            }
            std::thread::sleep(WATCH);
        }
    }

    /// What NCCL says of itself.
    fn state(&self) -> ncclResult_t {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: the communicator lives as long as its handle, and the pointer is to this stack frame.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.handle.0, &mut state) };
        if asked == ncclResult_t::ncclSuccess { state } else { asked }
    }

    /// Ends the group if a peer has ended it, or time is up.
    fn look_around(&mut self, call: Call, until: Instant) -> Result<(), CommError> {
        if let Err(error) = self.tcp.watch() {
            return Err(self.end(error));
        }
        if Instant::now() < until {
            return Ok(());
        }
        // Nothing waits on the GPU any more; now it shows who is silent.
        self.handle.abort();
        let error = match self.tcp.roll_call(ROLL_CALL) {
            Err(error) => error,
            Ok(()) => {
                let problem = format!("NCCL was not done after {:?}, though all ranks answer", self.deadline);
                CommError::Gpu { call, problem }
            }
        };
        Err(self.end(error))
    }

    fn end(&mut self, error: CommError) -> CommError {
        self.handle.abort();
        self.tcp.end(error)
    }

    fn next_call(&mut self, operation: Operation, numbers: usize) -> Call {
        self.calls += 1;
        Call { operation, sequence: self.calls, elements: numbers as u64 }
    }

    fn taken(&mut self, call: Call, status: Result<NcclStatus, result::NcclError>) -> Result<(), CommError> {
        match status {
            Ok(NcclStatus::InProgress) => self.until_ready(call),
            Ok(_) => Ok(()),
            Err(error) => Err(self.end(CommError::Gpu { call, problem: said(error.0) })),
        }
    }

    fn check_alive(&self, call: Call) -> Result<(), CommError> {
        if !self.handle.0.is_null() {
            return Ok(());
        }
        Err(CommError::Gpu { call, problem: "the communicator has ended".to_owned() })
    }
}

impl DeviceCollective for NcclGroup {
    unsafe fn all_reduce_sum(&mut self, address: u64, numbers: usize) -> Result<(), CommError> {
        let call = self.next_call(Operation::AllReduceSum, numbers);
        self.check_alive(call)?;
        let (pointer, stream) = (address as *mut std::ffi::c_void, self.stream.cu_stream().cast());
        let (kind, sum) = (ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum);
        // SAFETY: the caller answers for the address; the communicator and the stream are alive.
        let status =
            unsafe { result::all_reduce(pointer, pointer, numbers, kind, sum, self.handle.0, stream) };
        self.taken(call, status)
    }

    unsafe fn all_gather(&mut self, part: u64, whole: u64, numbers: usize) -> Result<(), CommError> {
        let call = self.next_call(Operation::AllGather, numbers);
        self.check_alive(call)?;
        let (from, to) = (part as *const std::ffi::c_void, whole as *mut std::ffi::c_void);
        let (kind, stream) = (ncclDataType_t::ncclFloat32, self.stream.cu_stream().cast());
        // SAFETY: as above.
        let status = unsafe { result::all_gather(from, to, numbers, kind, self.handle.0, stream) };
        self.taken(call, status)
    }

    fn wait(&mut self) -> Result<(), CommError> {
        let call = Call { operation: Operation::Compute, sequence: self.calls, elements: 0 };
        self.check_alive(call)?;
        let failed = |error| CommError::Gpu { call, problem: format!("{error:?}") };
        if let Err(error) = self.done.record(&self.stream) {
            return Err(self.end(failed(error)));
        }
        let (until, mut look) = (Instant::now() + self.deadline, Instant::now() + WATCH);
        loop {
            match self.done.try_is_complete() {
                Ok(true) => break,
                Ok(false) => std::thread::yield_now(),
                Err(error) => return Err(self.end(failed(error))),
            }
            if Instant::now() < look {
                continue;
            }
            look = Instant::now() + WATCH;
            self.look_around(call, until)?;
            match self.state() {
                ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => {}
                error => return Err(self.end(CommError::Gpu { call, problem: said(error) })),
            }
        }
        Ok(())
    }
}

impl Collective for NcclGroup {
    fn member(&self) -> Member {
        self.tcp.member()
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        self.tcp.all_reduce_sum(data)
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        self.tcp.all_gather(part, whole)
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.tcp.barrier()
    }

    fn on_device(&mut self) -> Option<&mut dyn DeviceCollective> {
        Some(self)
    }
}

impl Handle {
    /// Ends the communicator: what waits in it on the GPU gives up.
    fn abort(&mut self) {
        let handle = std::mem::replace(&mut self.0, std::ptr::null_mut());
        if handle.is_null() {
            return;
        }
        // SAFETY: the handle was made by NCCL and is forgotten here.
        if let Err(error) = unsafe { result::comm_abort(handle) } {
            tracing::warn!(problem = said(error.0), "a communicator could not be ended");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort();
    }
}

/// The unique id that rank 0 makes, on all ranks. It travels as numbers from 0 to 255.
fn shared_id(tcp: &mut TcpGroup) -> Result<sys::ncclUniqueId, CommError> {
    const BYTES: usize = 128;
    let mut part = [-1.0; BYTES];
    if tcp.member().rank().0 == 0
        && let Ok(id) = result::get_uniqueid()
    {
        part = id.internal.map(|byte| f32::from(byte.cast_unsigned()));
    }
    let mut whole = vec![0.0; BYTES * tcp.member().world_size().get() as usize];
    tcp.all_gather(&part, &mut whole)?;
    if whole[0] < 0.0 {
        let call = Call { operation: Operation::Form, sequence: 0, elements: 0 };
        let problem = "rank 0 cannot make a unique id: see NCCL_DEBUG=INFO in its log".to_owned();
        return Err(tcp.end(CommError::Gpu { call, problem }));
    }
    let mut internal = [0; BYTES];
    for (byte, number) in internal.iter_mut().zip(&whole) {
        *byte = (*number as u8).cast_signed();
    }
    Ok(sys::ncclUniqueId { internal })
}

/// Calls return at once, and say later how they went: so that forming a group can be given up.
fn non_blocking() -> sys::ncclConfig_t {
    // Of nccl.h: what a library of a later version recognizes a configuration of this version by.
    const MAGIC: u32 = 0xcafe_beef;
    const VERSION: u32 = 2 * 10_000 + 25 * 100;
    const UNDEFINED: i32 = i32::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: std::ptr::null(),
        splitShare: UNDEFINED,
    }
}

fn said(error: ncclResult_t) -> String {
    match error {
        ncclResult_t::ncclInvalidUsage => {
            "NCCL: invalid usage; two ranks on one GPU need --collectives tcp".to_owned()
        }
        other => format!("NCCL: {other:?}; NCCL_DEBUG=INFO says more"),
    }
}
