//! An entry's real directory: every call relative to a directory descriptor, never through a symbolic link.

/// The cache directory, and below it the directories of entries.
#[derive(Debug)]
pub struct Backing {
    _todo: (),
}
