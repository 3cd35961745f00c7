//! What `scripts/bench` compares with: programs that do the least that must be done, and the clocks that are too fine for Python.
//!
//! ```text
//! limits serve MNT COUNT THREADS          fuser serving a directory of COUNT static links, until it is unmounted
//! limits serve MNT COUNT THREADS DIR      the same, of directories: each name that is looked up is looked at in DIR
//! limits null MNT THREADS                 fuser serving a directory in which mkdir, and setting attributes of eNNNNNNNN, does nothing
//!                                         but succeed, until it is unmounted
//! limits null MNT THREADS DIR             the same, but mkdir makes a directory and a record in DIR, as `make` does
//! limits parse LOG                        seconds of one pass over the lines of a log: sonic-rs, simd-json
//! limits make DIR COUNT WRITERS           mkdir and flocked append, without FUSE
//! limits mkdir DIR COUNT WRITERS          mkdir of DIR/lr=0.1,seed=N
//! limits set DIR COUNT WRITERS            another value of the attribute `step` of DIR/eNNNNNNNN, by extended attributes
//! limits stat DIR FIRST COUNT THREADS     lstat of DIR/eNNNNNNNN, each once
//! limits wait DIR FIRST COUNT LISTED      lstat of DIR/eNNNNNNNN round and round, and listings of LISTED, until standard
//!                                         input ends: the longest of each, in seconds
//! ```

mod clocks;
mod null;
mod serve;

use std::io;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match args[1..] {
        ["serve", mountpoint, count, threads] => {
            serve::serve(mountpoint, number(count), number(threads), None)
        }
        ["serve", mountpoint, count, threads, real] => {
            serve::serve(mountpoint, number(count), number(threads), Some(real))
        }
        ["null", mountpoint, threads] => null::serve(mountpoint, number(threads), None),
        ["null", mountpoint, threads, real] => null::serve(mountpoint, number(threads), Some(real)),
        ["parse", log] => clocks::parse(log),
        ["make", dir, count, writers] => clocks::make(dir, number(count), number(writers)),
        ["mkdir", dir, count, writers] => clocks::mkdir(dir, number(count), number(writers)),
        ["set", dir, count, writers] => clocks::set(dir, number(count), number(writers)),
        ["stat", dir, first, count, threads] => {
            clocks::stat(dir, number(first), number(count), number(threads))
        }
        ["wait", dir, first, count, listed] => clocks::wait(dir, number(first), number(count), listed),
        _ => Err(io::Error::other("usage: see the head of src/main.rs")),
    }
}
