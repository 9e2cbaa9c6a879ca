//! What a client counts: nothing before the warm-up is over, then everything until the end.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::histogram::Histogram;
use crate::options::Options;

/// Counts what a client has done, by the clock.
#[derive(Debug)]
pub struct Measurement {
    beginning: Instant,
    warmup: Duration,
    measured: Duration,
    /// When the warm-up was over.
    start: Option<Instant>,
    done: f64,
    done_before: f64,
    latencies: Histogram,
    /// The server's process, and how long it had run when the warm-up was over.
    process: Option<u32>,
    process_before: Option<Duration>,
}

impl Measurement {
    /// Begins the warm-up.
    pub fn begin(options: &Options) -> Self {
        Self {
            beginning: Instant::now(),
            warmup: options.warmup,
            measured: options.measured,
            start: None,
            done: 0.0,
            done_before: 0.0,
            latencies: Histogram::default(),
            process: options.process,
            process_before: None,
        }
    }

    /// Counts one request that took so long.
    pub fn record(&mut self, latency: Duration) {
        self.done += 1.0;
        self.latencies.record(latency);
    }

    /// Counts a part of something that has no latency.
    pub fn add(&mut self, amount: f64) {
        self.done += amount;
    }

    /// Looks at the clock; once the time is over, and something is done, tells what was measured.
    pub fn turn(&mut self) -> Option<Report> {
        let now = Instant::now();
        match self.start {
            None if now - self.beginning >= self.warmup => {
                self.done_before = std::mem::take(&mut self.done);
                self.latencies = Histogram::default();
                self.process_before = self.process.and_then(processor_time);
                self.start = Some(Instant::now());
                None
            }
            Some(start) if now - start >= self.measured && self.done > 0.0 => {
                let processor = self.process.and_then(processor_time);
                Some(Report {
                    all: self.done_before + self.done,
                    per_second: self.done / (now - start).as_secs_f64(),
                    cpu_us: processor.zip(self.process_before).map(|(after, before)| {
                        after.saturating_sub(before).as_secs_f64() * 1e6 / self.done
                    }),
                    latencies: std::mem::take(&mut self.latencies),
                })
            }
            _ => None,
        }
    }
}

/// How long the threads of a process have run on a CPU, where Linux tells.
fn processor_time(process: u32) -> Option<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// What is printed at the end, as a line of JSON.
#[derive(Debug)]
pub struct Report {
    all: f64,
    per_second: f64,
    /// Processor time of the server for each.
    cpu_us: Option<f64>,
    latencies: Histogram,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processor = clock_gettime(ClockId::ProcessCPUTime);
        write!(
            f,
            "{{\"all\": {:.3}, \"per_second\": {:.3}, \"processor_s\": {}.{:09}",
            self.all, self.per_second, processor.tv_sec, processor.tv_nsec
        )?;
        if let Some(cpu_us) = self.cpu_us {
            write!(f, ", \"cpu_us\": {cpu_us:.3}")?;
        }
        if self.latencies.total() > 0 {
            for (name, per_mille) in [("p50", 500), ("p99", 990), ("max", 1000)] {
                let microseconds = self.latencies.quantile(per_mille).as_secs_f64() * 1e6;
                write!(f, ", \"{name}_us\": {microseconds:.2}")?;
            }
        }
        f.write_str("}")
    }
}
