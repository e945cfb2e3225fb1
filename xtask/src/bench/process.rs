//! What the kernel tells of processes, and pinning them.
//!
//! Invariant: a process is pinned by inheriting the affinity of the thread that starts it, so that no thread of it ever runs
//! elsewhere.

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::process::{Child, Command};
use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all its threads, also ended ones.
    pub cpu_ns: u64,
    /// In clock ticks of 10 ms, as the kernel splits it.
    pub user_ticks: u64,
    pub system_ticks: u64,
    /// Context switches of its living threads: waits, and preemptions.
    pub voluntary: u64,
    pub involuntary: u64,
}

/// Time the hypervisor took from a CPU, and all time, in clock ticks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Steal {
    pub stolen: u64,
    pub all: u64,
}

/// A started process that ends with this value.
pub struct Running(pub Child);

impl Usage {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid as i32)).context("the proxy's CPU clock")?;
        let cpu_ns = Duration::from(clock.now()?).as_nanos() as u64;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command may hold spaces; what follows its closing parenthesis does not.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|f| f.parse().ok()).unwrap_or(0);
        let mut usage = Self { cpu_ns, user_ticks: field(11), system_ticks: field(12), ..Self::default() };
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread may end while we look.
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
            usage.voluntary += number(&status, "voluntary_ctxt_switches:");
            usage.involuntary += number(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(usage)
    }

    /// CPU time of this process.
    pub fn own_cpu_ns() -> u64 {
        ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map_or(0, |time| Duration::from(time).as_nanos() as u64)
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

impl Steal {
    /// Of one CPU.
    pub fn of(cpu: usize) -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let name = format!("cpu{cpu} ");
        let line = stat.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // Guest time is in user time already: the first eight columns are all there is.
        Self { stolen: ticks.get(7).copied().unwrap_or(0), all: ticks.iter().take(8).sum() }
    }

    /// Share of the time since `earlier`.
    pub fn share_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        if all == 0 { 0.0 } else { self.stolen.saturating_sub(earlier.stolen) as f64 / all as f64 }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command` on one CPU.
pub fn start_on(cpu: usize, command: &mut Command) -> anyhow::Result<Running> {
    let before = sched_getaffinity(None)?;
    pin(cpu)?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    Ok(Running(child.with_context(|| format!("start {:?}", command.get_program()))?))
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("pin to CPU {cpu}: the benchmark needs two CPUs"))
}

/// Resident and proportional set size in bytes.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    (number(&status, "VmRSS:") * 1024, number(&rollup, "Pss:") * 1024)
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}
