//! Why a command ends without success, and how that is told.

use std::fmt::Display;
use std::process::ExitCode;

use crate::cache::CacheError;
use crate::query::SyntaxError;
use crate::record::EditError;
use crate::store::StoreError;

/// How a command failed.
#[derive(Debug)]
pub enum Failure {
    /// It could not be done: exit status 1.
    Error {
        /// What failed, where and why.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The arguments cannot be: exit status 2.
    Usage {
        /// What is wrong, with what was expected.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Everything was said already: only this exit status.
    Status(u8),
    /// Nobody reads the output any more: a quiet end.
    BrokenPipe,
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

/// `what` failed, and nothing more can be said.
pub fn error(what: impl Into<String>) -> Failure {
    Failure::Error { what: what.into(), hint: None }
}

/// The arguments are wrong.
pub fn usage(what: impl Into<String>) -> Failure {
    Failure::Usage { what: what.into(), hint: None }
}

/// Doing something to `place` failed: `read /x/y: No such file or directory`.
pub fn io(doing: &str, place: impl Display, source: &std::io::Error) -> Failure {
    error(format!("{doing} {place}: {}", reason(source)))
}

/// The text of an OS error, without the number that Rust adds.
pub fn reason(source: &std::io::Error) -> String {
    let text = source.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// Syntax errors are shown under the expression, with a caret at the column.
pub fn syntax(text: &str, error: &SyntaxError) -> Failure {
    // A caret below the character needs a line of its own: control characters would move it.
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let before: String = shown.chars().take(error.column.saturating_sub(1)).collect();
    let width = unicode_width::UnicodeWidthStr::width(before.as_str());
    usage(format!(
        "syntax error in the expression, column {}:\n    {shown}\n    {}^\n  found {}, expected {}",
        error.column,
        " ".repeat(width),
        super::output::printable(&error.found),
        error.expected
    ))
}

impl Failure {
    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Error { hint, .. } | Self::Usage { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The message, with its hint on a second line.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Error { what, hint } | Self::Usage { what, hint } => Some(match hint {
                Some(hint) => format!("{what}\n  {hint}"),
                None => what.clone(),
            }),
            Self::Status(_) | Self::BrokenPipe => None,
        }
    }

    /// Prints the message, if there is one to print, and gives the exit status.
    pub fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            // Nobody is left to tell if standard error is closed.
            let _ =
                std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("cachedirfs: {message}\n"));
        }
        match self {
            Self::Error { .. } => ExitCode::FAILURE,
            Self::Usage { .. } => ExitCode::from(2),
            Self::Status(code) => ExitCode::from(*code),
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

/// Says what is no failure, but may become one.
pub fn warn(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("cachedirfs: warning: {text}\n"));
}

/// What is in the way in a store, in words.
pub fn store(place: impl Display, error: &StoreError) -> Failure {
    match error {
        StoreError::Io { doing, source } => {
            let failure = io(doing, format_args!("in the cache {place}"), source);
            match source.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => {
                    failure.hint("make room and try again: nothing was changed")
                }
                Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                    failure.hint("changing a cache needs write permission in its directory")
                }
                _ => failure,
            }
        }
        StoreError::NoLock(source) => self::error(format!("lock {place}/_lock: {}", reason(source))).hint(
            "the file system supports no flock; on Lustre mount it with the option `flock`, \
                 on NFS with `local_lock=none`, or mount the cache read-only (-o ro)",
        ),
        StoreError::ReadOnly => self::error(format!("{place} is open read-only")),
        StoreError::Poisoned => {
            self::error(format!("the log of {place} could not be synced earlier; changes are refused"))
                .hint("unmount, look at the disk, and mount again")
        }
        StoreError::NotACache(why) => self::error(format!("{place} is no cache: {why}")),
    }
}

/// What is in the way in a cache, in words; `place` is the cache or the entry.
pub fn cache(place: impl Display, error: &CacheError) -> Failure {
    match error {
        CacheError::NoEntry => self::error(format!("no entry {place}")).hint("`cachedirfs find` lists them"),
        CacheError::Exists => self::error(format!("the entry {place} exists already")),
        CacheError::Edit(edit) => self::error(format!(
            "{place}: {}",
            match edit {
                EditError::NoKey => "no such key",
                EditError::Exists =>
                    "a key in the way: one is a value where the other has members (a and a.b cannot both be)",
                EditError::Reserved => "`_id`, `_timestamp`, `@` and `$` are kept by the cache",
                EditError::NotAnArray => "the value is no array",
                EditError::TooDeep => "nested too deeply",
            }
        )),
        CacheError::Memory { .. } => self::error(format!("{place}: {error}")).hint(
            "the index of a cache is kept in memory: run it where there is more, raise the limit (ulimit, the job's memory), \
                 or split the cache",
        ),
        CacheError::TooLarge => self::error(format!("{place}: the attributes would be over 16 MiB"))
            .hint("write large values to a file in the entry's directory"),
        CacheError::Store(source) => store(place, source),
        CacheError::Closed => self::error(format!("{place}: the cache is closing")),
    }
}
