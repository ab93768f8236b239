//! Beginning and ending a communicator without a way to hang.

use crate::{Collective, CollectiveCall, CommError, Member, Operation, TcpGroup};
use cudarc::driver::CudaStream;
use cudarc::nccl::result;
use cudarc::nccl::sys::{self, ncclComm_t, ncclResult_t};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

pub(super) const FORM: CollectiveCall =
    CollectiveCall { operation: Operation::Form, sequence: 0, elements: 0 };

/// A communicator; ended at the latest when it is dropped.
pub(super) struct NcclCommunicator(pub ncclComm_t);

// SAFETY: NCCL allows calls on a communicator from any thread, one at a time; a handle has one owner.
unsafe impl Send for NcclCommunicator {}

impl NcclCommunicator {
    /// Ends the communicator: what waits in it on the GPU gives up.
    pub fn abort(&mut self) {
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

impl Drop for NcclCommunicator {
    fn drop(&mut self) {
        self.abort();
    }
}

/// All ranks must come within this time; NCCL finds its paths between GPUs meanwhile.
const BEGIN: Duration = Duration::from_secs(60);

/// For NCCL to say what a peer has heard already.
const HEARING: Duration = Duration::from_millis(500);

/// Begins a communicator on a thread of its own: the call returns when all ranks have made it, which a rank that dies now
/// prevents. (A communicator that does not block would start a thread for every sum.)
pub(super) fn begin(
    member: Member,
    id: sys::ncclUniqueId,
    stream: &Arc<CudaStream>,
    tcp: &mut TcpGroup,
) -> Result<NcclCommunicator, CommError> {
    let (sender, begun) = mpsc::channel();
    let context = stream.context().clone();
    let start = move || {
        let bound = context.bind_to_thread().map_err(|error| format!("{error:?}"));
        let handle = bound.and_then(|()| communicator(member, id));
        // If nobody waits any more the communicator ends here.
        let _ = sender.send(handle);
    };
    let thread = std::thread::Builder::new().name("nccl-begin".into()).spawn(start);
    if let Err(error) = thread {
        return Err(tcp.end(CommError::Gpu { call: FORM, problem: error.to_string() }));
    }
    let until = Instant::now() + BEGIN;
    loop {
        let problem = match begun.recv_timeout(Duration::from_millis(1)) {
            Ok(Ok(handle)) => return Ok(handle),
            Ok(Err(problem)) => problem,
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {
                let Err(lost) = tcp.watch() else { continue };
                // What ended a peer may be told to this rank too, and then says more than that the peer is gone.
                match begun.recv_timeout(HEARING) {
                    Ok(Err(problem)) => problem,
                    _ => return Err(tcp.end(lost)),
                }
            }
            Err(_) => format!("the ranks did not meet within {BEGIN:?}"),
        };
        return Err(tcp.end(CommError::Gpu { call: FORM, problem }));
    }
}

fn communicator(member: Member, id: sys::ncclUniqueId) -> Result<NcclCommunicator, String> {
    let mut handle = std::ptr::null_mut();
    let (ranks, rank) = (member.world_size().get().cast_signed(), member.rank().0.cast_signed());
    // SAFETY: the pointer is to this stack frame, and the id is one that NCCL made.
    let begun = unsafe { result::comm_init_rank(&mut handle, ranks, id, rank) };
    begun.map(|_| NcclCommunicator(handle)).map_err(|error| said(error.0))
}

/// Ends the process when a call of NCCL itself does not return, which no other thread could end: better a rank that is
/// started again than one that hangs.
pub(super) struct Watchdog {
    /// Milliseconds since `epoch` until which a call has to return; 0 if none is under way.
    until: Arc<AtomicU64>,
    epoch: Instant,
}

/// A call under way.
pub(super) struct Guard<'a>(&'a AtomicU64);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

const LOOK: Duration = Duration::from_millis(200);
/// The exit status of a rank that was stuck (EX_SOFTWARE of sysexits.h).
const STUCK: i32 = 70;

impl Watchdog {
    /// Starts the thread that looks whether a call is over its deadline.
    pub fn start() -> std::io::Result<Self> {
        let (until, epoch) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let watched = Arc::downgrade(&until);
        let watch = move || {
            while let Some(until) = watched.upgrade() {
                let until = until.load(Ordering::Relaxed);
                if until != 0 && epoch.elapsed().as_millis() as u64 > until {
                    tracing::error!("a call of NCCL does not return: this rank ends");
                    std::process::exit(STUCK);
                }
                std::thread::sleep(LOOK);
            }
        };
        std::thread::Builder::new().name("nccl-watchdog".into()).spawn(watch)?;
        Ok(Self { until, epoch })
    }

    /// From now on until the guard is dropped no more than `limit` may pass.
    pub fn guard(&self, limit: Duration) -> Guard<'_> {
        let until = (self.epoch.elapsed() + limit).as_millis() as u64;
        self.until.store(until.max(1), Ordering::Relaxed);
        Guard(&self.until)
    }
}

/// The unique id that rank 0 makes, on all ranks. It travels as numbers from 0 to 255.
pub(super) fn shared_id(tcp: &mut TcpGroup) -> Result<sys::ncclUniqueId, CommError> {
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
        let problem = "rank 0 cannot make a unique id: see NCCL_DEBUG=INFO in its log".to_owned();
        return Err(tcp.end(CommError::Gpu { call: FORM, problem }));
    }
    let mut internal = [0; BYTES];
    for (byte, number) in internal.iter_mut().zip(&whole) {
        *byte = (*number as u8).cast_signed();
    }
    Ok(sys::ncclUniqueId { internal })
}

pub(super) fn said(error: ncclResult_t) -> String {
    match error {
        ncclResult_t::ncclInvalidUsage => {
            "NCCL: invalid usage; two ranks on one GPU need --collectives tcp".to_owned()
        }
        other => format!("NCCL: {other:?}; NCCL_DEBUG=INFO says more"),
    }
}
