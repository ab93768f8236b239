//! Groups over NCCL: sums and gathers between GPUs, inside the compute stream.
//!
//! NCCL by itself neither names a rank that died nor ends a call that waits for it. So a group over NCCL keeps the group over
//! TCP that formed it: the unique id travels over it, votes do, and while this rank waits for its stream it watches the
//! control connections. A peer that dies, leaves or stays silent ends the communicator (`ncclCommAbort`) with the same errors
//! as any other group.

use crate::{Collective, CollectiveCall, CommError, Member, Operation, TcpGroup};
use begin::{FORM, NcclCommunicator, Watchdog, begin, said, shared_id};
use cudarc::driver::{CudaEvent, CudaStream};
use cudarc::nccl::result::{self, NcclStatus};
use cudarc::nccl::sys::{self, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclResult_t};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod begin;

/// Collectives of f32 numbers in device memory. They are enqueued on the group's stream; what fails is told by
/// [`DeviceCollective::wait`].
pub trait DeviceCollective {
    /// A number that no other group of this process has: a captured sum is of its group, and must not outlive it.
    fn group(&self) -> NonZeroU64;

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
    handle: NcclCommunicator,
    stream: Arc<CudaStream>,
    done: CudaEvent,
    deadline: Duration,
    calls: u64,
    watchdog: Watchdog,
    number: NonZeroU64,
}

/// Groups that were formed so far.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// How often peers are looked at while the stream runs.
const WATCH: Duration = Duration::from_millis(1);
/// A peer that left, or died, after it had its part in a pass: the pass still ends, in this time.
const FAREWELL: Duration = Duration::from_millis(100);
/// For ranks to say that they are there, once the deadline is over.
const ROLL_CALL: Duration = Duration::from_secs(1);

impl NcclGroup {
    /// Turns a formed group into one whose sums run on the GPUs; rank 0 makes the unique id of this epoch. A pass that is not
    /// done `deadline` after this rank waits for it ends the group.
    ///
    /// # Errors
    /// [`CommError::Gpu`] without NCCL, and for two ranks on one GPU, which NCCL refuses; peers that fail meanwhile.
    pub fn form(mut tcp: TcpGroup, stream: Arc<CudaStream>, deadline: Duration) -> Result<Self, CommError> {
        // SAFETY: it only looks whether the library can be loaded.
        if !unsafe { sys::is_culib_present() } {
            let problem = "libnccl.so is not found: install NCCL, or take --collectives tcp".to_owned();
            return Err(tcp.end(CommError::Gpu { call: FORM, problem }));
        }
        let id = shared_id(&mut tcp)?;
        let failed = |error| CommError::Gpu { call: FORM, problem: format!("{error:?}") };
        let done = stream.context().new_event(None).map_err(failed)?;
        let watchdog = Watchdog::start().map_err(|error| CommError::System {
            action: "cannot start a thread that watches NCCL".to_owned(),
            problem: error.to_string(),
        })?;
        let handle = begin(tcp.member(), id, &stream, &mut tcp)?;
        let number = NonZeroU64::MIN.saturating_add(GROUPS.fetch_add(1, Ordering::Relaxed));
        Ok(Self { tcp, handle, stream, done, deadline, calls: 0, watchdog, number })
    }

    /// What NCCL says of itself.
    fn state(&self) -> ncclResult_t {
        let mut state = ncclResult_t::ncclSuccess;
        // SAFETY: the communicator lives as long as its handle, and the pointer is to this stack frame.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.handle.0, &mut state) };
        if asked == ncclResult_t::ncclSuccess { state } else { asked }
    }

    /// Ends the group if NCCL has failed, or time is up. Says if a peer has ended it.
    fn look_around(&mut self, call: CollectiveCall, until: Instant) -> Result<Option<CommError>, CommError> {
        if let Err(error) = self.tcp.watch() {
            return Ok(Some(error));
        }
        if Instant::now() >= until {
            return Err(self.overdue(call));
        }
        match self.state() {
            ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => Ok(None),
            error => Err(self.end(CommError::Gpu { call, problem: said(error) })),
        }
    }

    /// Ends the group, naming the ranks that do not answer any more.
    fn overdue(&mut self, call: CollectiveCall) -> CommError {
        // Nothing waits on the GPU from here on.
        self.handle.abort();
        let error = match self.tcp.roll_call(ROLL_CALL) {
            Err(error) => error,
            Ok(()) => {
                let problem = format!("it was not done after {:?}, though all ranks answer", self.deadline);
                CommError::Gpu { call, problem }
            }
        };
        self.end(error)
    }

    fn end(&mut self, error: CommError) -> CommError {
        self.handle.abort();
        self.tcp.end(error)
    }

    /// Makes a call of NCCL.
    fn enqueue(
        &mut self,
        operation: Operation,
        numbers: usize,
        make: impl FnOnce(ncclComm_t, sys::cudaStream_t) -> Result<NcclStatus, result::NcclError>,
    ) -> Result<(), CommError> {
        self.calls += 1;
        let call = CollectiveCall { operation, sequence: self.calls, elements: numbers as u64 };
        self.check_alive(call)?;
        let guard = self.watchdog.guard(self.deadline + ROLL_CALL);
        let status = make(self.handle.0, self.stream.cu_stream().cast());
        drop(guard);
        match status {
            Ok(_) => Ok(()),
            Err(error) => Err(self.end(CommError::Gpu { call, problem: said(error.0) })),
        }
    }

    fn check_alive(&self, call: CollectiveCall) -> Result<(), CommError> {
        if !self.handle.0.is_null() {
            return Ok(());
        }
        Err(CommError::Gpu { call, problem: "the communicator has ended".to_owned() })
    }
}

impl DeviceCollective for NcclGroup {
    fn group(&self) -> NonZeroU64 {
        self.number
    }

    unsafe fn all_reduce_sum(&mut self, address: u64, numbers: usize) -> Result<(), CommError> {
        let pointer = address as *mut std::ffi::c_void;
        let (kind, sum) = (ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum);
        self.enqueue(Operation::AllReduceSum, numbers, |comm, stream| {
            // SAFETY: the caller answers for the address; the communicator and the stream are alive.
            unsafe { result::all_reduce(pointer, pointer, numbers, kind, sum, comm, stream) }
        })
    }

    unsafe fn all_gather(&mut self, part: u64, whole: u64, numbers: usize) -> Result<(), CommError> {
        let (from, to) = (part as *const std::ffi::c_void, whole as *mut std::ffi::c_void);
        self.enqueue(Operation::AllGather, numbers, |comm, stream| {
            // SAFETY: as above.
            unsafe { result::all_gather(from, to, numbers, ncclDataType_t::ncclFloat32, comm, stream) }
        })
    }

    fn wait(&mut self) -> Result<(), CommError> {
        let call = CollectiveCall { operation: Operation::Compute, sequence: self.calls, elements: 0 };
        self.check_alive(call)?;
        let failed = |error| CommError::Gpu { call, problem: format!("{error:?}") };
        if let Err(error) = self.done.record(&self.stream) {
            return Err(self.end(failed(error)));
        }
        let (until, mut look) = (Instant::now() + self.deadline, Instant::now() + WATCH);
        let mut lost: Option<(CommError, Instant)> = None;
        loop {
            match self.done.try_is_complete() {
                Ok(true) => return Ok(()),
                Ok(false) => std::thread::yield_now(),
                Err(error) => return Err(self.end(failed(error))),
            }
            let now = Instant::now();
            match &lost {
                Some((error, since)) if now > *since + FAREWELL => return Err(self.end(error.clone())),
                None if now >= look => {
                    look = now + WATCH;
                    lost = self.look_around(call, until)?.map(|error| (error, now));
                }
                _ => {}
            }
        }
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
