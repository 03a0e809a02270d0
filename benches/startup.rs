//! How long `stor` takes to start, beside a program that does nothing: `cargo bench --bench startup`.

#![expect(clippy::disallowed_methods, reason = "the bench starts stor")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;

fn main() {
    let stor = env!("CARGO_BIN_EXE_stor");
    let programs =
        [("true", "/bin/true", ""), ("stor --version", stor, "--version"), ("stor --help", stor, "--help")];
    let mut times = programs.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((_, program, argument), times) in programs.iter().zip(&mut times) {
            times.push(run(program, argument));
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2].as_secs_f64() * 1e3
    });
    for ((name, ..), median) in programs.iter().zip(medians) {
        println!("{name:>15}: {median:6.2} ms, {:6.2} ms more than true", median - medians[0]);
    }
}

fn run(program: &str, argument: &str) -> Duration {
    let mut command = Command::new(program);
    command.args((!argument.is_empty()).then_some(argument)).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().expect("the program starts");
    let time = begin.elapsed();
    assert!(status.success(), "{program}: {status}");
    time
}
