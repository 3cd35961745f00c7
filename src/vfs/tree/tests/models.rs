//! Requests of several threads under explored schedules, as a kernel sends them: it keeps names until it is told, and
//! counts what it knows.

use std::collections::HashMap;

use shuttle::thread::spawn;

use super::*;
use crate::cache::Published;
use crate::cache::tests::models::join;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock, explore, mpsc};
use crate::vfs::Error;
use crate::vfs::tree::shown::Shown;

/// A node as the kernel knows it.
#[derive(Debug, Clone, Copy)]
struct Known {
    count: u64,
    /// Type and permissions: in these tests each file has its own.
    mode: u32,
}

/// What a kernel does with the answers.
struct Kernel {
    world: World,
    /// Names of an older epoch are asked for again (`FUSE_NOTIFY_INC_EPOCH`).
    epoch: Arc<AtomicU64>,
    names: Mutex<HashMap<(Ino, OsString), (Ino, u64)>>,
    /// Never held across a step.
    known: std::sync::Mutex<HashMap<Ino, Known>>,
}

impl Kernel {
    fn new() -> Arc<Self> {
        let world = World::new();
        let epoch = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&epoch);
        let shown = world.vfs.shown();
        world.cache.set_hook(Box::new(move |published| {
            shown.forget(published, || {
                told.fetch_add(1, Ordering::SeqCst);
            });
        }));
        let told = Arc::clone(&epoch);
        world.vfs.set_forget_names(Box::new(move || {
            told.fetch_add(1, Ordering::SeqCst);
        }));
        Arc::new(Self { world, epoch, names: Mutex::default(), known: std::sync::Mutex::default() })
    }

    /// Takes a reference that an answer gave.
    fn know(&self, entry: &Entry) -> Ino {
        let (ino, mode) = (entry.attr.ino, entry.attr.mode);
        // Links are numbers of their own, and not counted.
        let mut known = self.known.lock().unwrap();
        let node = known.entry(ino).or_insert(Known { count: 0, mode });
        assert_eq!(node.mode, mode, "{ino:#x} stands for two files");
        node.count += 1;
        ino
    }

    fn ask(&self, parent: Ino, name: &str) -> Answer<Entry> {
        errno(self.world.vfs.lookup(&self.world.caller, parent, OsStr::new(name)))
    }

    /// Finds a path, by what is kept where that counts.
    fn find(&self, path: &str) -> Answer<Ino> {
        let mut at = ROOT;
        for name in path.split('/') {
            let began = self.epoch.load(Ordering::SeqCst);
            let key = (at, OsString::from(name));
            let kept = self.names.lock().unwrap().get(&key).copied();
            at = match kept {
                Some((ino, epoch)) if epoch == began => ino,
                _ => {
                    let entry = self.ask(at, name)?;
                    let ino = self.know(&entry);
                    // No time passes: how long it may be kept is all the same.
                    if !entry.entry_ttl.is_zero() {
                        self.names.lock().unwrap().insert(key, (ino, began));
                    }
                    ino
                }
            };
        }
        Ok(at)
    }

    fn read(&self, path: &str) -> Answer<String> {
        let ino = self.find(path)?;
        let opened = errno(self.world.vfs.open(&self.world.caller, ino, libc::O_RDONLY))?;
        let content = errno(self.world.vfs.read(opened.fh, 0, 100));
        self.world.vfs.release(ino, opened.fh);
        content.map(|content| String::from_utf8(content).unwrap())
    }

    fn rename(&self, from: (&str, &str), to: (&str, &str)) -> Answer<()> {
        let (from_dir, to_dir) = (self.find(from.0)?, self.find(to.0)?);
        let (from, to) = ((from_dir, OsStr::new(from.1)), (to_dir, OsStr::new(to.1)));
        wait(|done| self.world.vfs.rename(&self.world.caller, from, to, 0, done))
    }

    /// Gives up references to a node.
    fn forget(&self, ino: Ino, count: u64) {
        {
            let mut known = self.known.lock().unwrap();
            let node = known.get_mut(&ino).unwrap();
            node.count -= count;
            if node.count == 0 {
                known.remove(&ino);
            }
        }
        self.world.vfs.forget(ino, count);
    }

    /// Forgets everything, as at the end of a mount: nothing may be left.
    fn end(&self) {
        let all = std::mem::take(&mut *self.known.lock().unwrap());
        for (ino, node) in all {
            self.world.vfs.forget(ino, node.count);
        }
        assert_eq!(self.world.vfs.tree.table.len(), 1, "the root is left");
        assert_eq!(self.world.vfs.tree.contents.sizes(), (0, 0), "nodes, and descriptors of nodes");
    }
}

#[test]
fn a_change_shows_in_the_next_request_whoever_asks_meanwhile() {
    const RUNNING: &str = "by-attr/status/running";
    const DONE: &str = "by-attr/status/done";
    explore(|| {
        let kernel = Kernel::new();
        kernel.world.entry("a", r#"{"status": "running"}"#);
        kernel.world.entry("b", r#"{"status": "done"}"#);
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let kernel = Arc::clone(&kernel);
                spawn(move || {
                    let _ = kernel.find(&format!("{RUNNING}/a"));
                    let _ = kernel.find(&format!("{DONE}/a"));
                    let status = kernel.read("entries/a/.attrs/status").unwrap();
                    assert!(status == "running\n" || status == "done\n", "{status:?}");
                })
            })
            .collect();
        let moving = Arc::clone(&kernel);
        threads.push(spawn(move || {
            moving.rename((RUNNING, "a"), (DONE, "a")).unwrap();
            assert_eq!(moving.find(&format!("{RUNNING}/a")), Err(libc::ENOENT), "it was moved");
            moving.find(&format!("{DONE}/a")).unwrap();
            assert_eq!(moving.read("entries/a/.attrs/status").unwrap(), "done\n");
            assert_eq!(moving.read(&format!("{DONE}/count")).unwrap(), "2\n");
        }));
        join(threads);
        kernel.end();
    });
}

#[test]
fn nobody_who_has_published_goes_on_before_the_kernel_is_told() {
    explore(|| {
        let (shown, epoch) = (Arc::new(Shown::default()), Arc::new(AtomicU64::new(0)));
        shown.view();
        let publish = |_| {
            let (shown, epoch) = (Arc::clone(&shown), Arc::clone(&epoch));
            spawn(move || {
                shown.forget(&Published::default(), || {
                    epoch.fetch_add(1, Ordering::SeqCst);
                });
                assert_eq!(epoch.load(Ordering::SeqCst), 1, "what was shown is from before");
            })
        };
        join((0..2).map(publish).collect());
    });
}

#[test]
fn what_is_removed_through_one_path_of_an_entry_is_gone_from_the_other() {
    explore(|| {
        let kernel = Kernel::new();
        let (vfs, caller) = (&kernel.world.vfs, &kernel.world.caller);
        let new = kernel.find("new").unwrap();
        let made = wait(|done| vfs.mkdir(caller, new, OsStr::new("x"), 0o700, 0, done)).unwrap();
        let directory = kernel.know(&made);
        let file = libc::S_IFREG | 0o600;
        let made = wait(|done| vfs.mknod(caller, directory, OsStr::new("f"), file, 0, 0, done));
        kernel.know(&made.unwrap());
        let id = kernel.world.cache.index().id(crate::index::Row(0)).unwrap();
        let keeping = Arc::clone(&kernel);
        let keeper = spawn(move || {
            let _ = keeping.find("new/x/f");
            let _ = keeping.find("new/x/f");
        });
        let removing = Arc::clone(&kernel);
        let remover = spawn(move || {
            let directory = removing.find(&format!("entries/{}", id.as_str())).unwrap();
            let (vfs, caller) = (&removing.world.vfs, &removing.world.caller);
            wait(|done| vfs.unlink(caller, directory, OsStr::new("f"), done)).unwrap();
            assert_eq!(removing.find("new/x/f"), Err(libc::ENOENT));
        });
        join(vec![keeper, remover]);
        kernel.end();
    });
}

/// Looks a name up, uses the node, and hands the reference to whoever forgets.
fn use_file(kernel: &Kernel, directory: Ino, name: &str, forget: &mpsc::Sender<Ino>) {
    let entry = match kernel.ask(directory, name) {
        Ok(entry) => entry,
        Err(errno) => return assert!(matches!(errno, libc::ENOENT | libc::ESTALE), "{errno}"),
    };
    let ino = kernel.know(&entry);
    match kernel.world.vfs.getattr(ino, None) {
        Ok((attr, _)) => {
            assert_eq!((attr.ino, attr.mode), (ino, entry.attr.mode), "another file than was found");
        }
        // It was moved meanwhile, and is looked up again.
        Err(error) => assert!(matches!(error, Error::Stale), "{error:?}"),
    }
    forget.send(ino).unwrap();
}

#[test]
fn a_node_is_one_file_while_the_kernel_knows_it_and_nothing_is_left_when_it_does_not() {
    explore(|| {
        let kernel = Kernel::new();
        kernel.world.entry("a", "{}");
        let new = kernel.find("new").unwrap();
        let made = wait(|done| {
            kernel.world.vfs.mkdir(&kernel.world.caller, new, OsStr::new("x"), 0o700, 0, done);
        });
        kernel.know(&made.unwrap());
        let id = kernel.world.cache.index().id(crate::index::Row(1)).unwrap();
        let (forget, forgotten) = mpsc::channel::<Ino>();
        let forgetter = {
            let kernel = Arc::clone(&kernel);
            spawn(move || {
                for ino in forgotten {
                    kernel.forget(ino, 1);
                }
            })
        };
        // One entry through two paths, and another one: files are made, replaced, moved between them, and removed.
        let paths = ["new/x".to_owned(), format!("entries/{}", id.as_str()), "entries/a".to_owned()];
        let threads: Vec<_> = (0..3_u32)
            .map(|t| {
                let (kernel, forget, paths) = (Arc::clone(&kernel), forget.clone(), paths.clone());
                spawn(move || {
                    let [here, there] = [t, t + 1].map(|t| paths[t as usize % 3].clone());
                    let [from, to] = [&here, &there].map(|path| kernel.find(path).unwrap());
                    let (vfs, caller) = (&kernel.world.vfs, &kernel.world.caller);
                    let own = libc::S_IFREG | (0o400 + t);
                    let made = wait(|done| vfs.mknod(caller, from, OsStr::new("f"), own, 0, 0, done));
                    match made {
                        Ok(entry) => forget.send(kernel.know(&entry)).unwrap(),
                        Err(errno) => assert_eq!(errno, libc::EEXIST),
                    }
                    use_file(&kernel, to, "f", &forget);
                    let names = ((from, OsStr::new("f")), (to, OsStr::new("g")));
                    let _ = wait(|done| vfs.rename(caller, names.0, names.1, 0, done));
                    use_file(&kernel, to, "g", &forget);
                    let _ = wait(|done| vfs.unlink(caller, to, OsStr::new("g"), done));
                    use_file(&kernel, from, "f", &forget);
                })
            })
            .collect();
        drop(forget);
        join(threads);
        join(vec![forgetter]);
        kernel.end();
    });
}

/// Walks a path without keeping anything: every node is what it was found as until it is forgotten.
fn visit(kernel: &Kernel, path: &str) -> Answer<()> {
    let mut taken = vec![ROOT];
    let mut result = Ok(());
    for name in path.split('/') {
        match kernel.ask(*taken.last().unwrap(), name) {
            Ok(entry) => {
                let ino = kernel.know(&entry);
                taken.push(ino);
                match errno(kernel.world.vfs.getattr(ino, None)) {
                    Ok((attr, _)) => assert_eq!((attr.ino, attr.mode), (ino, entry.attr.mode)),
                    Err(errno) => result = Err(errno),
                }
            }
            Err(errno) => result = Err(errno),
        }
        if result.is_err() {
            break;
        }
    }
    taken.into_iter().skip(1).for_each(|ino| kernel.forget(ino, 1));
    result
}

#[test]
fn a_node_that_one_thread_forgets_is_there_for_the_other() {
    explore(|| {
        let kernel = Kernel::new();
        kernel.world.entry("a", r#"{"k": "v"}"#);
        std::fs::create_dir(kernel.world.dir.path().join("a/sub")).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let kernel = Arc::clone(&kernel);
                spawn(move || {
                    for path in ["by-attr/k/v/a", "entries/a/.attrs/k", "entries/a/sub"] {
                        assert_eq!(visit(&kernel, path), Ok(()), "{path}");
                    }
                })
            })
            .collect();
        join(threads);
        kernel.end();
    });
}

#[test]
fn what_is_removed_while_it_is_known_can_still_be_asked_about() {
    explore(|| {
        let kernel = Kernel::new();
        kernel.world.entry("a", "{}");
        let directory = kernel.find("entries/a").unwrap();
        // As the kernel locks a directory: for looking up by any number, for changing by one.
        let lock = Arc::new(RwLock::new(()));
        let threads: Vec<_> = (0..3_u32)
            .map(|t| {
                let (kernel, lock) = (Arc::clone(&kernel), Arc::clone(&lock));
                spawn(move || {
                    let (vfs, caller, name) = (&kernel.world.vfs, &kernel.world.caller, OsStr::new("f"));
                    let made = {
                        let _alone = lock.write().unwrap();
                        let own = libc::S_IFREG | (0o400 + t);
                        wait(|done| vfs.mknod(caller, directory, name, own, 0, 0, done))
                            .map(|entry| kernel.know(&entry))
                    };
                    let found = {
                        let _shared = lock.read().unwrap();
                        kernel.ask(directory, "f").map(|entry| (kernel.know(&entry), entry.attr.mode))
                    };
                    {
                        let _alone = lock.write().unwrap();
                        let _ = wait(|done| vfs.unlink(caller, directory, name, done));
                    }
                    if let Ok((ino, mode)) = found {
                        let (attr, _) = errno(vfs.getattr(ino, None)).expect("it is known");
                        assert_eq!((attr.ino, attr.mode), (ino, mode));
                        kernel.forget(ino, 1);
                    }
                    if let Ok(ino) = made {
                        errno(vfs.getattr(ino, None)).expect("it is known");
                        kernel.forget(ino, 1);
                    }
                })
            })
            .collect();
        join(threads);
        kernel.end();
    });
}

#[test]
fn entries_that_go_while_they_are_looked_at_leave_nothing() {
    explore(|| {
        let kernel = Kernel::new();
        for id in ["a", "b"] {
            kernel.world.entry(id, r#"{"k": "v"}"#);
        }
        let (entries, trash) = (kernel.find("entries").unwrap(), kernel.find("trash").unwrap());
        kernel.find("entries/a").unwrap();
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let kernel = Arc::clone(&kernel);
                spawn(move || {
                    for path in ["by-attr/k/v", "entries/a/.attrs/k", "entries/b/.attrs.json", "trash/b"] {
                        let visited = visit(&kernel, path);
                        assert!(
                            matches!(visited, Ok(()) | Err(libc::ENOENT | libc::ESTALE)),
                            "{path}: {visited:?}"
                        );
                    }
                })
            })
            .collect();
        let deleting = Arc::clone(&kernel);
        threads.push(spawn(move || {
            let (vfs, caller) = (&deleting.world.vfs, &deleting.world.caller);
            wait(|done| vfs.rmdir(caller, entries, OsStr::new("a"), done)).unwrap();
            assert_eq!(deleting.find("entries/a"), Err(libc::ENOENT));
            // Another entry of that name is another node, for whoever still knows the former.
            let again = wait(|done| vfs.mkdir(caller, entries, OsStr::new("a"), 0o700, 0, done));
            deleting.know(&again.unwrap());
            let (from, to) = ((entries, OsStr::new("b")), (trash, OsStr::new("b")));
            wait(|done| vfs.rename(caller, from, to, 0, done)).unwrap();
            assert_eq!(deleting.find("entries/b"), Err(libc::ENOENT));
            deleting.find("trash/b").unwrap();
            assert_eq!(deleting.find("by-attr/k/v"), Err(libc::ENOENT), "nobody has the value any more");
        }));
        join(threads);
        kernel.end();
    });
}
