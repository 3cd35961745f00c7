//! Where the indexes of large caches are kept.

use std::ffi::OsString;
use std::path::PathBuf;

/// `cachedirfs` in the user's cache directory; `None` if there is no such directory, or `CACHEDIRFS_KEEP=0` says so.
pub fn directory() -> Option<PathBuf> {
    from(|name| std::env::var_os(name))
}

fn from(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if environment("CACHEDIRFS_KEEP").is_some_and(|keep| keep == "0") {
        return None;
    }
    // Relative paths are to be ignored: see the XDG Base Directory Specification.
    let absolute = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("cachedirfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_the_cache_directory_of_the_user() {
        let with = |pairs: &[(&str, &str)]| {
            from(|name| pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into()))
        };
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), path("/c/cachedirfs"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]), path("/h/.cache/cachedirfs"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "")]), None);
        assert_eq!(with(&[("HOME", "/h"), ("CACHEDIRFS_KEEP", "0")]), None);
    }
}
