//! The binary `cachedirfs`; see [`cachedirfs::cli`].

fn main() -> std::process::ExitCode {
    cachedirfs::cli::main()
}
