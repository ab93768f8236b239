//! Processor time and memory of another process on this machine, from /proc.

use serde::{Deserialize, Serialize};

/// Ticks of /proc/PID/stat in a second, on every Linux in use.
const TICKS: f64 = 100.0;

/// What a process used during a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Its id.
    pub pid: u32,
    /// Processor time, seconds, of all its threads.
    pub cpu_seconds: f64,
    /// Of that, for an edit, microseconds, warm-up included on both sides.
    pub cpu_us_per_edit: f64,
    /// Resident memory at the beginning, bytes, with all sessions open.
    pub resident_first: u64,
    /// The most that was seen, bytes.
    pub resident_most: u64,
}

pub(super) struct ProcessWatch {
    pid: u32,
    first: Option<(f64, u64)>,
    last: Option<(f64, u64)>,
    most: u64,
}

impl ProcessWatch {
    /// Watches a process from now on.
    pub fn new(pid: u32) -> Self {
        let mut watch = Self { pid, first: None, last: None, most: 0 };
        watch.look();
        watch
    }

    /// Looks what it has used so far; one that is gone changes nothing.
    pub fn look(&mut self) {
        let seen = look(self.pid);
        self.first = self.first.or(seen);
        self.last = seen.or(self.last);
        self.most = self.most.max(seen.map_or(0, |(_, resident)| resident));
    }

    /// What it used between the first look and the last; none if it was never there.
    pub fn finish(self) -> Option<ProcessUse> {
        let ((before, resident_first), (after, _)) = self.first.zip(self.last)?;
        let cpu_seconds = after - before;
        Some(ProcessUse {
            pid: self.pid,
            cpu_seconds,
            cpu_us_per_edit: 0.0,
            resident_first,
            resident_most: self.most,
        })
    }
}

/// (processor seconds, resident bytes) of a process that is there.
fn look(pid: u32) -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state is field 3, user and system time are 14 and 15.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some((ticks / TICKS, kibibytes << 10))
}
