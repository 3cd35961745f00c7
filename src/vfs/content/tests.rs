use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::vfs::{Opened, SetAttr};

struct World {
    dir: TempDir,
    contents: Contents,
    me: Caller,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = File::open(dir.path()).unwrap();
        let backing = Backing::new(cache.as_fd()).unwrap();
        let contents = Contents::new(backing, options);
        let meta = fs::metadata(dir.path()).unwrap();
        Self { me: Caller { uid: meta.uid(), gid: meta.gid(), pid: 0 }, dir, contents }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn root(&self, id: &str) -> Ino {
        self.contents.root(Root::Entries(Id::new(id).unwrap())).unwrap().attr.ino
    }

    fn lookup(&self, parent: Ino, name: &str) -> Result<Entry> {
        self.contents.lookup(&self.me, parent, OsStr::new(name))
    }

    fn create(&self, parent: Ino, name: &str) -> (Entry, Opened) {
        let flags = libc::O_RDWR;
        self.contents.create(&self.me, parent, OsStr::new(name), libc::S_IFREG | 0o666, 0o022, flags).unwrap()
    }

    fn list(&self, ino: Ino) -> Vec<String> {
        let fh = self.contents.opendir(&self.me, ino).unwrap().fh;
        let mut names = Vec::new();
        let add = &mut |entry: &crate::vfs::DirEntry| {
            names.push(entry.name.to_str().unwrap().to_owned());
            true
        };
        self.contents.readdir(fh, 0, add).unwrap();
        self.contents.releasedir(fh);
        names.sort();
        names
    }

    fn errno<T>(result: Result<T>) -> i32 {
        result.map(drop).unwrap_err().errno()
    }
}

#[test]
fn a_file_is_made_written_and_found_again() {
    let world = World::new();
    fs::create_dir(world.path("e1")).unwrap();
    let root = world.root("e1");
    let (entry, opened) = world.create(root, "f");
    assert_eq!(world.contents.write(opened.fh, 3, b"abc", false).unwrap(), 3);
    assert_eq!(world.contents.read(opened.fh, 0, 100).unwrap(), b"\0\0\0abc");
    assert_eq!(fs::read(world.path("e1/f")).unwrap(), b"\0\0\0abc");
    assert_eq!(entry.attr.mode, libc::S_IFREG | 0o644);
    assert_eq!(world.lookup(root, "f").unwrap().attr.ino, entry.attr.ino);
    assert_eq!(world.list(root), [".", "..", "f"]);
    assert_eq!(World::errno(world.lookup(root, "g")), libc::ENOENT);
}

#[test]
fn an_entry_without_a_directory_gets_one_when_it_is_needed() {
    let world = World::new();
    let root = world.root("e1");
    assert_eq!(world.list(root), [".", ".."]);
    assert_eq!(World::errno(world.lookup(root, "f")), libc::ENOENT);
    assert!(!world.path("e1").exists(), "looking changes nothing");
    world.create(root, "f");
    assert!(world.path("e1/f").exists());
    assert_eq!(world.root("e1"), root, "the node stays the same");
    assert_eq!(world.list(root), [".", "..", "f"]);
}

#[test]
fn a_link_in_place_of_an_entry_leads_nowhere() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"x").unwrap();
    symlink(outside.path(), world.path("e1")).unwrap();
    let root = world.root("e1");
    assert_eq!(World::errno(world.lookup(root, "secret")), libc::ENOENT);
    assert_eq!(world.list(root), [".", ".."]);
    let made = world.contents.mkdir(&world.me, root, OsStr::new("d"), 0o777, 0);
    assert_eq!(World::errno(made), libc::ENOTDIR);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);

    // A directory replaced by a link while it is in use.
    fs::create_dir_all(world.path("e2/sub")).unwrap();
    let sub = world.lookup(world.root("e2"), "sub").unwrap().attr.ino;
    fs::remove_dir(world.path("e2/sub")).unwrap();
    symlink(outside.path(), world.path("e2/sub")).unwrap();
    assert!(world.lookup(sub, "secret").is_err());
    assert!(world.lookup(world.root("e2"), "..").is_err());
}

#[test]
fn streams_beyond_the_limit_have_no_descriptor_of_their_own() {
    let mut world = World::new();
    world.contents.streams = 0;
    fs::create_dir(world.path("e1")).unwrap();
    let names: Vec<_> = (0..500).map(|n| format!("name-{n:03}")).collect();
    for name in &names {
        File::create(world.path("e1").join(name)).unwrap();
    }
    let root = world.root("e1");
    let fh = world.contents.opendir(&world.me, root).unwrap().fh;
    let descriptors =
        || fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let streams = || descriptors().filter(|path| *path == world.path("e1")).count();
    let before = streams();
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let (start, from) = (seen.len(), cookie);
        let add = &mut |entry: &crate::vfs::DirEntry| {
            let taken = seen.len() < start + 100;
            if taken {
                seen.push(entry.name.to_str().unwrap().to_owned());
                cookie = entry.cookie;
            }
            taken
        };
        world.contents.readdir(fh, from, add).unwrap();
        assert_eq!(streams(), before, "only the node's own");
        if seen.len() == start {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, [vec![".".to_owned(), "..".to_owned()], names].concat());
    assert!(world.contents.fsyncdir(fh, false).unwrap().is_some());
    world.contents.releasedir(fh);
    assert_eq!(world.contents.handles.directories(), 0);
}

#[test]
fn what_was_unlinked_lives_while_it_is_known() {
    let world = World::new();
    fs::create_dir(world.path("e1")).unwrap();
    let root = world.root("e1");
    let (entry, opened) = world.create(root, "f");
    world.contents.write(opened.fh, 0, b"data", false).unwrap();
    world.contents.unlink(&world.me, root, OsStr::new("f")).unwrap();
    world.contents.release(opened.fh);
    let ino = entry.attr.ino;
    assert_eq!(world.contents.getattr(ino, None).unwrap().0.nlink, 0);
    let set = SetAttr { size: Some(2), mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(world.contents.setattr(&world.me, ino, &set, None).unwrap().0.size, 2);
    let again = world.contents.open(&world.me, ino, libc::O_RDONLY).unwrap();
    assert_eq!(world.contents.read(again.fh, 0, 10).unwrap(), b"da");
    world.contents.release(again.fh);
    world.contents.forget(ino, 1);
    assert_eq!(World::errno(world.contents.getattr(ino, None)), libc::ESTALE);
}

#[test]
fn nodes_follow_renames_of_the_directories_above() {
    let world = World::new();
    fs::create_dir_all(world.path("e1/a/b/c")).unwrap();
    fs::write(world.path("e1/a/b/c/f"), b"here").unwrap();
    let root = world.root("e1");
    let a = world.lookup(root, "a").unwrap().attr.ino;
    let b = world.lookup(a, "b").unwrap().attr.ino;
    let c = world.lookup(b, "c").unwrap().attr.ino;
    let f = world.lookup(c, "f").unwrap().attr.ino;
    world.contents.rename(&world.me, (a, OsStr::new("b")), (root, OsStr::new("moved")), 0).unwrap();
    // Without the descriptors that it still has.
    *world.contents.table() = {
        let mut table = std::mem::replace(&mut *world.contents.table(), Table::new(1));
        table.drop_ring();
        table
    };
    let opened = world.contents.open(&world.me, f, libc::O_RDONLY).unwrap();
    assert_eq!(world.contents.read(opened.fh, 0, 10).unwrap(), b"here");
    assert_eq!(world.lookup(world.lookup(root, "moved").unwrap().attr.ino, "c").unwrap().attr.ino, c);
}

#[test]
fn descriptors_are_bounded_and_nodes_given_back() {
    let world = World::new();
    *world.contents.table() = Table::new(8);
    fs::create_dir(world.path("e1")).unwrap();
    let root = world.root("e1");
    let mut known = Vec::new();
    for i in 0..100 {
        let name = format!("d{i}");
        fs::create_dir(world.path("e1").join(&name)).unwrap();
        fs::write(world.path("e1").join(&name).join("f"), &name).unwrap();
        let directory = world.lookup(root, &name).unwrap().attr.ino;
        known.push((directory, world.lookup(directory, "f").unwrap().attr.ino, name));
    }
    assert_eq!(world.contents.table().sizes(), (201, 8));
    for (_, file, name) in &known {
        let opened = world.contents.open(&world.me, *file, libc::O_RDONLY).unwrap();
        assert_eq!(world.contents.read(opened.fh, 0, 10).unwrap(), name.as_bytes());
        world.contents.release(opened.fh);
    }
    // Out of order: directories before what is in them.
    for (directory, ..) in &known {
        world.contents.forget(*directory, 1);
    }
    assert_eq!(world.contents.table().sizes().0, 201);
    for (_, file, _) in &known {
        world.contents.forget(*file, 1);
    }
    assert_eq!(world.contents.table().sizes().0, 1);
    world.contents.forget(root, 1);
    assert_eq!(world.contents.table().sizes(), (0, 0));
}

#[test]
fn two_paths_share_files_but_not_directories() {
    let world = World::new();
    fs::create_dir_all(world.path("e1/sub")).unwrap();
    fs::write(world.path("e1/f"), b"").unwrap();
    let id = Id::new("e1").unwrap();
    let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&told);
    let tell = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    world.contents.set_forget_names(ForgetNames(Box::new(tell)));
    let entries = world.contents.root(Root::Entries(id.clone())).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert_eq!((entries.entry_ttl, entries.attr_ttl), (USUAL, USUAL));
    let alias = world.contents.root(Root::Alias(id.clone(), 7)).unwrap();
    assert_ne!(entries.attr.ino, alias.attr.ino);
    assert_eq!(told.load(Ordering::Relaxed), 1, "names that were kept before are forgotten");
    let through = |ino: Ino, name: &str| world.lookup(ino, name).unwrap();
    assert_eq!(through(entries.attr.ino, "f").attr.ino, through(alias.attr.ino, "f").attr.ino);
    assert_ne!(through(entries.attr.ino, "sub").attr.ino, through(alias.attr.ino, "sub").attr.ino);
    assert_eq!(
        through(entries.attr.ino, "f").entry_ttl,
        Duration::ZERO,
        "a name may vanish through the other path"
    );
    // Once the other path is forgotten, names are kept again.
    world.contents.forget(through(alias.attr.ino, "sub").attr.ino, 2);
    world.contents.forget(alias.attr.ino, 1);
    assert_eq!(world.contents.as_root(entries.attr.ino), Some(Root::Entries(id)));
    let ino = through(entries.attr.ino, "f").attr.ino;
    world.contents.forget(ino, 10);
    assert_eq!(through(entries.attr.ino, "f").entry_ttl, USUAL);
}

#[test]
fn a_deleted_entry_is_stale_and_its_id_may_come_again() {
    let world = World::new();
    fs::create_dir_all(world.path("e1/sub")).unwrap();
    let root = Root::Entries(Id::new("e1").unwrap());
    let ino = world.root("e1");
    let sub = world.lookup(ino, "sub").unwrap().attr.ino;
    assert!(!world.contents.is_empty_root(&root).unwrap());
    world.contents.rmdir(&world.me, ino, OsStr::new("sub")).unwrap();
    assert_eq!(world.contents.getattr(sub, None).unwrap().0.ino, sub);
    assert!(world.contents.is_empty_root(&root).unwrap());
    world.contents.rmdir_root(&world.me, &root).unwrap();
    world.contents.rmdir_root(&world.me, &root).unwrap();
    world.contents.gone(&root);
    assert_eq!(World::errno(world.contents.getattr(ino, None)), libc::ESTALE);
    assert_eq!(world.contents.as_root(ino), None);
    fs::create_dir(world.path("e1")).unwrap();
    let again = world.root("e1");
    assert_ne!(again, ino);
    world.contents.forget(ino, 1);
    assert_eq!(world.list(again), [".", ".."]);
}

#[test]
fn rename_flags_and_hard_links() {
    let world = World::new();
    fs::create_dir(world.path("e1")).unwrap();
    let root = world.root("e1");
    let name = OsStr::new;
    for file in ["a", "b"] {
        fs::write(world.path("e1").join(file), file).unwrap();
    }
    let (a, b) = (world.lookup(root, "a").unwrap().attr.ino, world.lookup(root, "b").unwrap().attr.ino);
    let rename =
        |from, to, flags| world.contents.rename(&world.me, (root, name(from)), (root, name(to)), flags);
    assert_eq!(World::errno(rename("a", "b", libc::RENAME_NOREPLACE)), libc::EEXIST);
    rename("a", "b", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(
        (world.lookup(root, "a").unwrap().attr.ino, world.lookup(root, "b").unwrap().attr.ino),
        (b, a)
    );
    let linked = world.contents.link(&world.me, a, root, name("c")).unwrap();
    assert_eq!((linked.attr.ino, linked.attr.nlink), (a, 2));
    rename("b", "c", 0).unwrap();
    assert_eq!(world.list(root), [".", "..", "a", "b", "c"], "two names of one file: nothing happens");
    rename("a", "c", 0).unwrap();
    assert_eq!(world.contents.getattr(a, None).unwrap().0.nlink, 1);
    assert_eq!(fs::read(world.path("e1/c")).unwrap(), b"b");
}

#[test]
fn changes_behind_the_mount_are_seen_at_open() {
    let world = World::new();
    fs::create_dir(world.path("e1")).unwrap();
    let path = world.path("e1/f");
    fs::write(&path, b"one").unwrap();
    let ino = world.lookup(world.root("e1"), "f").unwrap().attr.ino;
    let open = || {
        let opened = world.contents.open(&world.me, ino, libc::O_RDONLY).unwrap();
        world.contents.release(opened.fh);
        (opened.keep_cache, opened.stale_attr)
    };
    assert_eq!(open(), (false, false));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while open() != (true, false) {
        assert!(std::time::Instant::now() < deadline, "an unchanged file is never kept");
        std::thread::yield_now();
    }
    fs::write(&path, b"two").unwrap();
    assert_eq!(open(), (false, true));
    // Too fresh: a further change might leave the times as they are.
    assert!(!open().0);
    // Replaced: not this node any more.
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"three").unwrap();
    assert_eq!(World::errno(world.contents.open(&world.me, ino, libc::O_RDONLY)), libc::ESTALE);
}

#[test]
fn what_is_not_forgotten_yet_is_not_kept() {
    let world = World::new();
    fs::create_dir(world.path("e1")).unwrap();
    let path = world.path("e1/f");
    fs::write(&path, b"one").unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(9);
    File::open(&path).unwrap().set_modified(old).unwrap();
    let root = world.root("e1");
    let ino = world.lookup(root, "f").unwrap().attr.ino;
    wait_until_settled(&path);
    let contents = &world.contents;
    // The second is answered, maybe, before the kernel has had the answer to the first.
    let (one, two) = (contents.open(&world.me, ino, 0).unwrap(), contents.open(&world.me, ino, 0).unwrap());
    assert!(!one.keep_cache && !two.keep_cache);
    // Who reads has had the answer.
    contents.read(one.fh, 0, 9).unwrap();
    assert!(contents.open(&world.me, ino, 0).unwrap().keep_cache);
    // So it is with names of a directory.
    wait_until_settled(&world.path("e1"));
    let (one, two) = (contents.opendir(&world.me, root).unwrap(), contents.opendir(&world.me, root).unwrap());
    assert!(!one.keep_cache && !two.keep_cache);
    contents.releasedir(two.fh);
    assert!(contents.opendir(&world.me, root).unwrap().keep_cache);
    // And with what is read under locks.
    let file = File::open(&path).unwrap();
    let (one, two) = (contents.locked(ino, file.as_fd()), contents.locked(ino, file.as_fd()));
    assert!(one.data && two.data, "the first has not come to its end");
    contents.forgotten(ino, one.seen.unwrap());
    assert!(!contents.locked(ino, file.as_fd()).data);
}

/// Waits until a further change of a file would show in its times.
fn wait_until_settled(path: &std::path::Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !files::is_settled(&backing::stat(File::open(path).unwrap().as_fd()).unwrap()) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn numbers_of_readdir_are_those_of_stat() {
    let world = World::new();
    fs::create_dir_all(world.path("e1/d")).unwrap();
    fs::write(world.path("e1/f"), b"").unwrap();
    let root = world.root("e1");
    let fh = world.contents.opendir(&world.me, root).unwrap().fh;
    let mut seen = Vec::new();
    let add = &mut |entry: &crate::vfs::DirEntry| {
        seen.push((entry.name.clone(), entry.ino));
        true
    };
    world.contents.readdir(fh, 0, add).unwrap();
    for (name, ino) in seen.iter().filter(|(name, _)| name != "." && name != "..") {
        assert_eq!(world.lookup(root, name.to_str().unwrap()).unwrap().attr.ino, *ino);
    }
    let mut counted = 0;
    let add = &mut |_: &crate::vfs::DirEntry, _: &Entry| {
        counted += 1;
        counted < 4
    };
    world.contents.readdirplus(&world.me, fh, 0, add).unwrap();
    world.contents.releasedir(fh);
    for (_, ino) in seen {
        world.contents.forget(ino, if ino == root { 0 } else { 2 });
    }
    assert_eq!(world.contents.table().sizes().0, 1, "what was not taken was not counted");
}

#[test]
fn whoever_may_write_the_directory_may_change_attributes() {
    let world = World::new();
    for name in ["e1", "elsewhere"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    std::os::unix::fs::symlink("elsewhere", world.path("link")).unwrap();
    let may = |id: &str| world.contents.may_change(&world.me, &Id::new(id).unwrap()).unwrap();
    assert!(["e1", "none", "link"].into_iter().all(may));
    if world.me.uid != 0 {
        for name in ["e1", "elsewhere"] {
            fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o555)).unwrap();
        }
        assert_eq!(["e1", "none", "link"].map(may), [false, true, true], "no link is followed");
    }
    assert_eq!(world.contents.table().sizes(), (0, 0), "nothing is kept of them");
}

#[test]
fn what_a_large_directory_lists_is_kept_for_longer() {
    /// The shortest and the longest time of names and attributes that are listed.
    fn kept(world: &World, directory: Ino) -> (Duration, Duration) {
        let fh = world.contents.opendir(&world.me, directory).unwrap().fh;
        let mut times = Vec::new();
        let add = &mut |name: &crate::vfs::DirEntry, entry: &Entry| {
            if name.name != "." && name.name != ".." {
                times.extend([entry.entry_ttl, entry.attr_ttl]);
            }
            true
        };
        world.contents.readdirplus(&world.me, fh, 0, add).unwrap();
        world.contents.releasedir(fh);
        (*times.iter().min().unwrap(), *times.iter().max().unwrap())
    }
    const FILES: u32 = 5000;
    let said = Some(Duration::from_millis(1500));
    for attr_timeout in [None, said, Some(Duration::ZERO)] {
        let world = World::with(Options { attr_timeout, ..Options::default() });
        for (id, files) in [("small", 1), ("large", FILES)] {
            fs::create_dir(world.path(id)).unwrap();
            for file in 0..files {
                File::create(world.path(&format!("{id}/file-{file}"))).unwrap();
            }
        }
        let (small, large) = (kept(&world, world.root("small")), kept(&world, world.root("large")));
        if let Some(said) = attr_timeout {
            assert_eq!((small, large), ((said, said), (said, said)));
            continue;
        }
        assert!(small.0 >= USUAL && small.1 < USUAL * 3 / 2, "{small:?}");
        assert!(large.0 >= USUAL + FILES * Duration::from_micros(40) && large.1 < LONGEST, "{large:?}");
        // Another path to the entry: what is listed may change through that one.
        world.contents.root(Root::Alias(Id::new("large").unwrap(), 7)).unwrap();
        assert_eq!(kept(&world, world.root("large")).0, Duration::ZERO);
    }
    assert_eq!(World::new().contents.listing_ttl(u64::MAX), LONGEST);
}
