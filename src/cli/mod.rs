//! The command line: the only user of `clap`. Arguments are turned once into validated options; a command works on
//! [`crate::cache`] without a mount, but for those that are about mounts.

mod args;
mod below;
mod check;
mod conditions;
mod daemon;
mod entries;
mod failure;
mod find;
mod kept;
mod locate;
mod logging;
mod memo;
mod memory;
mod mount;
mod mounts;
mod output;
mod status;
mod trash;

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
    if !matches!(cli.command, Command::Mount(_)) {
        logging::command(cli.verbose);
    }
    let cache = cli.cache.as_deref();
    match &cli.command {
        Command::Mount(args) => mount::run(args, cli.verbose),
        Command::Umount(args) => status::umount(args),
        Command::Status(args) => status::status(args),
        Command::New(args) => entries::new(cache, args),
        Command::Find(args) => find::find(cache, args),
        Command::Show(args) => entries::show(cache, args),
        Command::Set(args) => entries::set(cache, args),
        Command::Unset(args) => entries::unset(cache, args),
        Command::Rm(args) => entries::rm(cache, args),
        Command::Check(args) => check::run(cache, args),
        Command::Compact(args) => entries::compact(cache, args),
        Command::Values(args) => find::values(cache, args),
        Command::Schema(args) => find::schema(cache, args),
        Command::Diff(args) => entries::diff(cache, args),
        Command::Trash(command) => trash::run(cache, command),
        Command::Memo(args) => memo::run(cache, args),
    }
}
