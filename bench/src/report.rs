//! The result of a comparison in turns, and its table.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::load::Answers;

/// One measured run of one server. A request is the unit that the comparison counts.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// The rate of requests answered with 2xx.
    requests_per_second: f64,
    /// 0 if the generator does not wait for answers.
    p50_us: u64,
    p99_us: u64,
    /// Processor time of the server and of the nats-servers under it, without the generator.
    cpu_us_per_request: f64,
    errors: u64,
}

impl Round {
    pub(crate) fn new(answers: Answers, duration: Duration, cpu: Duration) -> Self {
        let latencies = &answers.latencies;
        let requests = latencies.count() as f64;
        Self {
            requests_per_second: requests / duration.as_secs_f64(),
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / requests.max(1.0),
            errors: answers.errors,
        }
    }

    /// Returns the round of work that continued after its requests were answered.
    pub(crate) fn of_flood(done: u64, errors: u64, duration: Duration, cpu: Duration) -> Self {
        Self {
            requests_per_second: done as f64 / duration.as_secs_f64(),
            p50_us: 0,
            p99_us: 0,
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / (done as f64).max(1.0),
            errors,
        }
    }
}

/// The rounds of one compared server.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    name: &'static str,
    pub(crate) rounds: Vec<Round>,
}

impl Series {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new() }
    }

    fn throughput(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.requests_per_second))
    }

    fn p99_us(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.p99_us as f64))
    }

    fn cpu_us(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.cpu_us_per_request))
    }
}

/// The result of a comparison in turns.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The unit of work that a connection repeats: a `request`, an `order`.
    unit: &'static str,
    compared: Vec<Series>,
    baseline: Series,
}

impl Report {
    pub(crate) fn new(unit: &'static str, compared: Vec<Series>, baseline: Series) -> Self {
        Self { unit, compared, baseline }
    }

    fn series(&self) -> impl Iterator<Item = &Series> {
        self.compared.iter().chain([&self.baseline])
    }

    /// Returns the lowest of the series' median throughputs.
    pub(crate) fn lowest_throughput(&self) -> f64 {
        self.series().map(Series::throughput).fold(f64::INFINITY, f64::min)
    }

    /// Returns a series' median throughput as a share of the baseline's.
    fn throughput_ratio(&self, series: &Series) -> f64 {
        series.throughput() / self.baseline.throughput()
    }

    /// Returns a series' latency as a multiple of the baseline's.
    fn p99_ratio(&self, series: &Series) -> f64 {
        series.p99_us() / self.baseline.p99_us()
    }

    /// Returns a series' processor time as a multiple of the baseline's.
    fn cpu_ratio(&self, series: &Series) -> f64 {
        series.cpu_us() / self.baseline.cpu_us()
    }

    pub(crate) fn print(&self) {
        let unit = self.unit;
        let (rate, cpu) = (format!("{unit}s/s"), format!("CPU µs/{unit}"));
        let width = self.series().map(|series| series.name.len()).max().unwrap_or_default();
        println!("round  {:width$}  {rate}  p50 ms  p99 ms  {cpu}  errors", "");
        for index in 0..self.baseline.rounds.len() {
            for Series { name, rounds } in self.series() {
                let round = &rounds[index];
                println!(
                    "{:5}  {name:width$}  {:rate_width$.0}  {:6.2}  {:6.2}  {:cpu_width$.1}  {:6}",
                    index + 1,
                    round.requests_per_second,
                    round.p50_us as f64 / 1e3,
                    round.p99_us as f64 / 1e3,
                    round.cpu_us_per_request,
                    round.errors,
                    rate_width = rate.chars().count(),
                    cpu_width = cpu.chars().count(),
                );
            }
        }
        println!();
        for series in &self.compared {
            let (throughput, cpu) = (self.throughput_ratio(series) * 100.0, self.cpu_ratio(series));
            let (name, baseline) = (series.name, self.baseline.name);
            let p99 = match self.p99_ratio(series) {
                // The generator did not wait for answers.
                0.0 => String::new(),
                ratio => format!(", p99 {ratio:.2} times"),
            };
            println!(
                "medians, {name} to {baseline}: throughput {throughput:.0} %{p99}, CPU time {cpu:.2} times"
            );
        }
    }

    /// Returns all measured figures and their ratios.
    pub(crate) fn figures(&self) -> Value {
        let ratio = |series: &Series| {
            json!({
                "name": series.name,
                "throughput": self.throughput_ratio(series),
                "p99": self.p99_ratio(series),
                "cpu": self.cpu_ratio(series),
            })
        };
        let ratios: Vec<_> = self.compared.iter().map(ratio).collect();
        json!({ "measured": self, "ratios": ratios })
    }
}

/// Returns the middle value, or the mean of the two in the middle. Returns NaN if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match (values.get(values.len() / 2), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(middle), 1) => *middle,
        (Some(upper), _) => (values[values.len() / 2 - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5), (vec![5.0], 5.0)] {
            assert_eq!(median(values.iter().copied()), expected, "{values:?}");
        }
    }
}
