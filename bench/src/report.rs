//! The figures, for people and for programs.

use std::time::Duration;

use serde::Serialize;

use crate::load::Answers;

/// One measured run of one server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    /// Answered with 2xx.
    requests_per_second: f64,
    p50_us: u32,
    p99_us: u32,
    /// Processor time of the server, generator not included.
    cpu_us_per_request: f64,
    errors: u64,
}

impl Round {
    pub(crate) fn new(answers: Answers, duration: Duration, cpu: Duration) -> Self {
        let mut latencies = answers.latencies_us;
        latencies.sort_unstable();
        let requests = latencies.len() as f64;
        Self {
            requests_per_second: requests / duration.as_secs_f64(),
            p50_us: quantile(&latencies, 0.5),
            p99_us: quantile(&latencies, 0.99),
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / requests.max(1.0),
            errors: answers.errors,
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) kontor: Vec<Round>,
    pub(crate) native: Vec<Round>,
}

impl Report {
    /// The median throughput of Kontor as a part of that of the native service.
    fn throughput_ratio(&self) -> f64 {
        let throughput = |rounds: &[Round]| median(rounds.iter().map(|round| round.requests_per_second));
        throughput(&self.kontor) / throughput(&self.native)
    }

    /// How many times the processor time Kontor needs for a request.
    fn cpu_ratio(&self) -> f64 {
        let cpu = |rounds: &[Round]| median(rounds.iter().map(|round| round.cpu_us_per_request));
        cpu(&self.kontor) / cpu(&self.native)
    }

    pub(crate) fn print_table(&self) -> anyhow::Result<()> {
        println!("round  server  requests/s  p50 ms  p99 ms  CPU µs/request  errors");
        for (index, (kontor, native)) in self.kontor.iter().zip(&self.native).enumerate() {
            for (server, round) in [("kontor", kontor), ("native", native)] {
                println!(
                    "{:5}  {server}  {:10.0}  {:6.2}  {:6.2}  {:14.1}  {:6}",
                    index + 1,
                    round.requests_per_second,
                    f64::from(round.p50_us) / 1e3,
                    f64::from(round.p99_us) / 1e3,
                    round.cpu_us_per_request,
                    round.errors,
                );
            }
        }
        println!("\nmedians, kontor to native: throughput {:.0} %", self.throughput_ratio() * 100.0);
        println!("                           CPU time of a request {:.2} times", self.cpu_ratio());
        Ok(())
    }

    pub(crate) fn print_json(&self) -> anyhow::Result<()> {
        let figures = serde_json::json!({
            "kontor": self.kontor,
            "native": self.native,
            "throughput_ratio": self.throughput_ratio(),
            "cpu_ratio": self.cpu_ratio(),
        });
        println!("{figures:#}");
        Ok(())
    }
}

/// The value that the part `share` of all values does not exceed; 0 if there are none.
pub(crate) fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle value, or the mean of the two in the middle; not a number if there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
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
    fn a_quantile_is_the_nearest_rank() {
        let table = [(&[][..], 0.5, 0), (&[7], 0.99, 7), (&[1, 2, 3, 4], 0.5, 2), (&[1, 2, 3, 4], 0.99, 4)];
        for (sorted, share, expected) in table {
            assert_eq!(quantile(sorted, share), expected, "{share} of {sorted:?}");
        }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5), (vec![5.0], 5.0)] {
            assert_eq!(median(values.iter().copied()), expected, "{values:?}");
        }
    }
}
