use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::*;

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

#[test]
fn names_are_single_components() {
    for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
        assert_eq!(component(OsStr::new(bad)).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{bad:?}");
    }
    assert!(component(OsStr::from_bytes(b"\xff \n")).is_ok());
}

#[test]
fn links_are_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let fd = open(dir.path());
    assert!(open_at(fd.as_fd(), c"real", libc::O_PATH | libc::O_DIRECTORY).is_ok());
    assert!(open_at(fd.as_fd(), c"link", libc::O_PATH | libc::O_DIRECTORY).is_err());
    assert_eq!(open_at(fd.as_fd(), c"link", libc::O_RDONLY).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    assert!(open_at(fd.as_fd(), c"..", libc::O_PATH).is_err());
    let link = open_at(fd.as_fd(), c"link", libc::O_PATH).unwrap();
    assert_eq!(read_link(link.as_fd()).unwrap(), b"real");
}

#[test]
fn held_files_are_changed_whatever_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"hello").unwrap();
    let fd = open_at(open(dir.path()).as_fd(), c"f", libc::O_PATH).unwrap();
    fs::rename(&path, dir.path().join("g")).unwrap();
    fs::write(&path, b"other").unwrap();
    chmod(fd.as_fd(), 0o604).unwrap();
    set_times(fd.as_fd(), SetTime::Omit, SetTime::At(-2, 500_000_000)).unwrap();
    truncate(fd.as_fd(), 2).unwrap();
    set_times(fd.as_fd(), SetTime::Now, SetTime::At(-2, 500_000_000)).unwrap();
    let found = stat(fd.as_fd()).unwrap();
    assert_eq!(
        (found.mode & 0o777, found.size, found.mtime.sec, found.mtime.nsec),
        (0o604, 2, -2, 500_000_000)
    );
    assert_eq!(found.ino, fs::metadata(dir.path().join("g")).unwrap().ino());
    let data = reopen(fd.as_fd(), libc::O_RDONLY).unwrap();
    assert_eq!(read_at(data.as_fd(), 0, 100).unwrap(), b"he");
    assert_eq!(fs::read(&path).unwrap(), b"other");
}

#[test]
fn xattrs_of_held_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"").unwrap();
    let fd = open_at(open(dir.path()).as_fd(), c"f", libc::O_PATH).unwrap();
    let long = vec![b'x'; 1000];
    match set_xattr(fd.as_fd(), c"user.a", &long, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
        result => result.unwrap(),
    }
    assert_eq!(get_xattr(fd.as_fd(), c"user.a").unwrap(), long);
    assert!(list_xattr(fd.as_fd()).unwrap().windows(7).any(|name| name == b"user.a\0"));
    remove_xattr(fd.as_fd(), c"user.a").unwrap();
    assert_eq!(get_xattr(fd.as_fd(), c"user.a").unwrap_err().raw_os_error(), Some(libc::ENODATA));
}

#[test]
fn files_belong_to_the_caller_and_only_for_the_call() {
    if !credentials::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fd = open(dir.path());
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    {
        let _as = credentials::impersonate(1234, 4321, 0).unwrap();
        let _mask = credentials::umask(0o027);
        make_directory(fd.as_fd(), c"theirs", 0o777).unwrap();
        let held = open_at(fd.as_fd(), c"theirs", libc::O_PATH).unwrap();
        assert!(chown(held.as_fd(), Some(0), None).is_err());
        assert!(reopen(held.as_fd(), libc::O_RDONLY).is_ok());
    }
    make_directory(fd.as_fd(), c"ours", 0o700).unwrap();
    let found = stat_at(fd.as_fd(), c"theirs").unwrap();
    assert_eq!((found.uid, found.gid, found.mode & 0o7777), (1234, 4321, 0o750));
    assert_eq!(stat_at(fd.as_fd(), c"ours").unwrap().uid, 0);
}
