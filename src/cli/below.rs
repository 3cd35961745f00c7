//! The file system below a cache: what of its mount options lets nodes write over each other.
//!
//! Whether there is `flock` at all is found out by trying. Whether it reaches the other nodes cannot be tried from one of them: the
//! kernel's table of mounts tells as much as can be known.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::mounts;

/// File systems in user space whose locks reach all nodes.
const SHARED: [&str; 3] = ["fuse.mfs", "fuse.glusterfs", "fuse.ceph-fuse"];

/// What is to be said of the file system of a cache, if anything.
pub fn doubt(cache: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let below = find(&table, cache)?;
    Some(format!("{} is on {} ({}): {}", cache.display(), below.place.display(), below.kind, below.doubt()?))
}

/// A mount that has a path.
#[derive(Debug, PartialEq, Eq)]
struct Below {
    place: PathBuf,
    kind: String,
    options: Vec<String>,
}

/// The mount on which an absolute path lies: of the longest mount point, the one mounted last.
fn find(table: &[u8], path: &Path) -> Option<Below> {
    let lines = table.split(|&byte| byte == b'\n').filter_map(parse);
    lines.filter(|mount| path.starts_with(&mount.place)).max_by_key(|mount| mount.place.as_os_str().len())
}

/// Reads a line: mount point and its options are the 5th and 6th field; type, source and the file system's options stand after ` - `.
fn parse(line: &[u8]) -> Option<Below> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|&byte| byte == b' ');
    let place = PathBuf::from(OsString::from_vec(mounts::unescape(fields.nth(4)?)));
    let of_mount = text(fields.next()?);
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = text(fields.next()?);
    let of_system = text(fields.nth(1).unwrap_or_default());
    let options = of_mount.split(',').chain(of_system.split(',')).map(str::to_owned).collect();
    Some(Below { place, kind, options })
}

impl Below {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// What is wrong with it, and what to do.
    fn doubt(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "lustre" if self.has("localflock") => Some(
                "with `localflock` locks hold on this node only, and nodes overwrite each other: mount it with `flock`",
            ),
            "nfs" | "nfs4" if self.has("local_lock=all") || self.has("local_lock=flock") => Some(
                "with `nolock` or `local_lock` locks hold on this node only, and nodes overwrite each other: \
                 mount it with `local_lock=none`",
            ),
            "nfs" | "nfs4" if self.has("nocto") => Some(
                "with `nocto` an opened file may be old, and nodes overwrite each other: mount it without",
            ),
            "nfs" | "nfs4" if self.has("soft") || self.has("softerr") => {
                Some("with `soft` changes fail while the server does not answer: mount it with `hard`")
            }
            "cifs" | "smb3" if self.has("nobrl") => Some(
                "with `nobrl` locks hold on this node only, and nodes overwrite each other: mount it without",
            ),
            "beegfs" => Some(
                "locks reach the other nodes only with `tuneUseGlobalFileLocks = true` in beegfs-client.conf, \
                 which cannot be seen from here",
            ),
            "9p" | "virtiofs" => {
                Some("locks may hold on this machine only: do not write to it from elsewhere too")
            }
            kind if kind.starts_with("fuse.") && !SHARED.contains(&kind) => Some(
                "it is not known whether its locks reach other nodes: if not, write to it from one node only",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /scratch rw,relatime shared:5 master:1 - lustre mds@tcp:/scratch rw,localflock,lazystatfs
31 21 0:41 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2,hard,local_lock=none,addr=10.0.0.1
32 31 0:42 / /home/old\\040data rw - nfs server:/old rw,vers=3,hard,nolock,local_lock=all
33 21 0:43 / /mfs rw - fuse.mfs mfsmaster:9421 rw,user_id=0
34 21 0:44 / /remote rw - fuse.sshfs host: rw
35 33 8:2 / /mfs rw - xfs /dev/sdb1 rw
broken
";

    fn on(path: &str) -> Below {
        find(TABLE.as_bytes(), Path::new(path)).unwrap()
    }

    #[test]
    fn the_mount_of_a_path_is_the_innermost() {
        assert_eq!(on("/srv/cache").place, Path::new("/"));
        assert_eq!(on("/home/old data/cache").kind, "nfs");
        assert_eq!(on("/home/old").kind, "nfs4");
        assert_eq!(on("/homeless").kind, "ext4");
        assert_eq!(on("/mfs/cache").kind, "xfs", "the one mounted last");
        assert!(on("/scratch").has("lazystatfs") && on("/scratch").has("relatime"));
    }

    #[test]
    fn options_that_lose_records_are_told() {
        for (path, word) in [
            ("/scratch/cache", Some("`flock`")),
            ("/home/old data", Some("local_lock=none")),
            ("/home/cache", None),
            ("/srv", None),
            ("/remote/x", Some("one node only")),
        ] {
            let doubt = on(path).doubt();
            assert_eq!(doubt.is_some(), word.is_some(), "{path}: {doubt:?}");
            assert!(doubt.unwrap_or_default().contains(word.unwrap_or_default()), "{path}: {doubt:?}");
        }
        let below = |kind: &str, options: &[&str]| Below {
            place: PathBuf::from("/x"),
            kind: kind.into(),
            options: options.iter().map(|&o| o.into()).collect(),
        };
        for (kind, options) in [
            ("nfs4", &["soft"][..]),
            ("nfs", &["nocto"]),
            ("cifs", &["nobrl"]),
            ("beegfs", &[]),
            ("9p", &[]),
            ("lustre", &["localflock"]),
        ] {
            assert!(below(kind, options).doubt().is_some(), "{kind} {options:?}");
        }
        for (kind, options) in [
            ("lustre", &["flock"][..]),
            ("ceph", &[]),
            ("fuse.ceph-fuse", &[]),
            ("fuse.glusterfs", &[]),
            ("fuseblk", &[]),
            ("tmpfs", &["soft"]),
        ] {
            assert_eq!(below(kind, options).doubt(), None, "{kind} {options:?}");
        }
    }

    #[test]
    fn this_machine_has_a_root() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(find(&table, Path::new("/")).is_some());
    }
}
