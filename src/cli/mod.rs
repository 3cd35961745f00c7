//! The command line.

/// Runs the command line and gives the exit status.
pub fn main() -> std::process::ExitCode {
    todo!()
}
