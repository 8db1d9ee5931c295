//! When each call is due and how long a replica works on it: a function of the seed and nothing else.

use std::time::Duration;

use crate::Failure;
use crate::options::Options;

#[derive(Clone, Copy)]
pub struct Call {
    /// Since the load began.
    pub due: Duration,
    /// Of a replica's time.
    pub service: Duration,
    /// What is due in the warm-up is called and not counted.
    pub counts: bool,
}

pub struct Schedule {
    pub calls: Vec<Call>,
    /// Of what counts.
    pub seconds: f64,
}

impl Schedule {
    /// Poisson arrivals and exponential service times. Each has a stream of random numbers of its own, so that the nth
    /// call is the same work at every rate.
    pub fn from(options: &mut Options) -> Result<Self, Failure> {
        let seed: u64 = options.or("--seed", 1)?;
        let rate: f64 = options.or("--rate", 360.0)?;
        let mean: f64 = options.or("--mean-us", 20_000.0)? / 1e6;
        let warmup: f64 = options.or("--warmup", 2.0)?;
        let seconds: f64 = options.or("--seconds", 20.0)?;
        if !(rate > 0.0 && mean > 0.0 && seconds > 0.0 && warmup >= 0.0 && rate * (warmup + seconds) < 1e7) {
            return Err(
                "not a schedule: rate, mean and seconds are above zero, and ten million calls are the most".into()
            );
        }
        let (mut arrivals, mut services) = (Random(seed.wrapping_mul(2)), Random(seed.wrapping_mul(2) + 1));
        let (mut due, mut calls) = (0.0, Vec::new());
        loop {
            due += arrivals.exponential() / rate;
            if due >= warmup + seconds {
                return Ok(Self { calls, seconds });
            }
            calls.push(Call {
                due: Duration::from_secs_f64(due),
                service: Duration::from_micros((services.exponential() * mean * 1e6) as u64),
                counts: due >= warmup,
            });
        }
    }
}

/// `SplitMix64`, its state spread so that neighbouring seeds are far apart.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Self::mixed(Self::mixed(self.0))
    }

    fn mixed(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn exponential(&mut self) -> f64 {
        // In (0, 1]: never the logarithm of zero.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}
