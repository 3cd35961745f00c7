//! The command line: the only user of `clap`. Arguments are turned once into validated options; a command works on
//! [`crate::cache`] without a mount, but for those that are about mounts.

mod args;
mod daemon;
mod failure;
mod logging;
mod memory;
mod mount;
mod mounts;
mod output;
mod status;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use failure::Result;

/// Runs the command line and gives the exit status: 0, 1 for a failure, 2 for arguments that cannot be.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Mount(args) => mount::run(args, cli.verbose),
        Command::Umount(args) => status::umount(args),
        Command::Status(args) => status::status(args),
        _ => Err(failure::error("not there yet")),
    }
}
