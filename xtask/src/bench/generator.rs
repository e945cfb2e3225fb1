//! The load generator: open loop at a fixed rate, or closed loop to saturation; one thread.
//!
//! In the open loop requests are due by the clock alone and latency counts from when a request was due, so a proxy that
//! stalls pays for everything it delayed. The measured window begins after a warm-up, and the proxy's CPU time is read at its two
//! ends. Invariant: one failed request voids the run.

use super::certificates;
use super::connection::Connection;
use super::process::{self, Steal, Usage};
use super::schedule::Schedule;
use anyhow::bail;
use clap::Args;
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    #[arg(long)]
    pub cpu: usize,
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    /// Requests per second; 0 is the closed loop.
    #[arg(long)]
    pub rate: u64,
    #[arg(long)]
    pub poisson: bool,
    #[arg(long)]
    pub warmup: f64,
    #[arg(long)]
    pub secs: f64,
    /// The process whose CPU time is read, and the CPU it is on.
    #[arg(long)]
    pub watch: Option<u32>,
    #[arg(long, default_value_t = 1)]
    pub watch_cpu: usize,
    /// Folder with the certificates for mutual TLS.
    #[arg(long)]
    pub tls: Option<PathBuf>,
}

/// What one run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests answered in the window.
    pub completed: u64,
    /// Length of the window.
    pub secs: f64,
    /// Microseconds from when a request was due (open loop) or sent (closed loop).
    pub latency_us: Percentiles,
    /// Microseconds from when a request was due until it was sent.
    pub lag_us: Percentiles,
    /// Requests sent more than 100 µs after they were due.
    pub late: u64,
    /// Share of the window that the generator itself was computing.
    pub own_cpu: f64,
    /// Of the watched process.
    pub usage: Usage,
    /// Share of the watched CPU that the hypervisor took.
    pub steal: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

const LATE_NS: u64 = 100_000;
/// No answer for this long ends a run as failed.
const STALLED_NS: u64 = 10_000_000_000;

/// Runs and prints the [`Outcome`] as JSON.
pub fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    process::pin(args.cpu)?;
    // The kernel rounds waits up by 50 µs otherwise.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    println!("{}", serde_json::to_string(&Run::new(args)?.run()?)?);
    Ok(ExitCode::SUCCESS)
}

struct Run<'a> {
    args: &'a LoadArgs,
    poll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// First in, first out: every connection is used, also at low rates.
    idle: VecDeque<usize>,
    started: Instant,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    completed: u64,
    late: u64,
    window: Option<Window>,
}

struct Window {
    at: u64,
    own_cpu: u64,
    usage: Usage,
    steal: Steal,
}

impl<'a> Run<'a> {
    fn new(args: &'a LoadArgs) -> anyhow::Result<Self> {
        let tls = args.tls.as_deref().map(certificates::client_config).transpose()?;
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(args.connections);
        for at in 0..args.connections {
            let connection = Connection::open(args.address, tls.as_ref())?;
            epoll::add(&poll, connection.socket(), EventData::new_u64(at as u64), EventFlags::IN)?;
            connections.push(connection);
        }
        Ok(Self {
            args,
            poll,
            idle: (0..connections.len()).collect(),
            connections,
            started: Instant::now(),
            latency: histogram()?,
            lag: histogram()?,
            completed: 0,
            late: 0,
            window: None,
        })
    }

    fn run(mut self) -> anyhow::Result<Outcome> {
        let begin = (self.args.warmup * 1e9) as u64;
        let end = begin + (self.args.secs * 1e9) as u64;
        let mut schedule = (self.args.rate > 0).then(|| Schedule::new(self.args.rate, self.args.poisson));
        let mut next = schedule.as_mut().map(Schedule::next);
        let mut due: VecDeque<u64> = VecDeque::new();
        let mut events = Vec::with_capacity(256);
        let mut heard = 0;
        self.started = Instant::now();
        loop {
            let mut now = self.now();
            if self.window.is_none() && now >= begin {
                self.window = Some(self.look(now)?);
            }
            if now >= end {
                return self.outcome(now);
            }
            if now > heard + STALLED_NS {
                bail!("no answer for 10 s");
            }
            if let (Some(schedule), Some(at)) = (&mut schedule, &mut next) {
                while *at <= now {
                    due.push_back(*at);
                    *at = schedule.next();
                }
                while let Some(at) = due.front().copied()
                    && let Some(free) = self.idle.pop_front()
                {
                    due.pop_front();
                    self.send(free, at, now)?;
                    now = self.now();
                }
            } else {
                while let Some(free) = self.idle.pop_front() {
                    self.send(free, now, now)?;
                    now = self.now();
                }
            }
            // With a backlog there is nothing to do until an answer comes.
            let until = if due.is_empty() { next.unwrap_or(end).min(end) } else { end };
            let wait = until.saturating_sub(self.now());
            let wait = Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let at = event.data.u64() as usize;
                if self.connections[at].receive()? {
                    heard = self.now();
                    if self.window.is_some() {
                        self.completed += 1;
                        self.latency.saturating_record(heard.saturating_sub(self.connections[at].due));
                    }
                    self.idle.push_back(at);
                }
            }
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn send(&mut self, at: usize, due: u64, now: u64) -> anyhow::Result<()> {
        if self.window.is_some() {
            let lag = now.saturating_sub(due);
            self.lag.saturating_record(lag);
            self.late += u64::from(lag > LATE_NS);
        }
        self.connections[at].send(due)
    }

    fn look(&self, at: u64) -> anyhow::Result<Window> {
        let usage = self.args.watch.map(Usage::of).transpose()?.unwrap_or_default();
        Ok(Window { at, own_cpu: Usage::own_cpu_ns(), usage, steal: Steal::of(self.args.watch_cpu) })
    }

    fn outcome(&self, now: u64) -> anyhow::Result<Outcome> {
        let last = self.look(now)?;
        let Some(first) = &self.window else { bail!("the window is empty") };
        let length = (last.at - first.at) as f64;
        Ok(Outcome {
            completed: self.completed,
            secs: length / 1e9,
            latency_us: Percentiles::of(&self.latency),
            lag_us: Percentiles::of(&self.lag),
            late: self.late,
            own_cpu: (last.own_cpu - first.own_cpu) as f64 / length,
            usage: last.usage.since(first.usage),
            steal: last.steal.share_since(first.steal),
        })
    }
}

/// Up to a minute, to three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() as f64 / 1000.0 }
    }
}
