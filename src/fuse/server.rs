//! The callbacks.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::beside::Beside;
use super::convert::{caller, errno, file_attr, file_type, lock_errno, lock_kind, open_flags, set_time};
use super::passthrough::Backings;
use crate::processors;
use crate::vfs::{self, Error, LockRequest, SetAttr, Stale, Vfs};

/// Node ids are never reused for something else, so there is one generation.
const GENERATION: Generation = Generation(0);
/// The protocol's minor version that has `FUSE_NOTIFY_INC_EPOCH`.
const EPOCH_MINOR: u32 = 44;
/// The minor version of the first kernel (Linux 6.18) of which it is known that files that are open with `FOPEN_DIRECT_IO` and without
/// agree, mapped memory included. Older ones did not forget pages in time.
const DIRECT_MINOR: u32 = 45;
const MAX_WRITE: u32 = 1 << 20;
/// From so many bytes on, other threads had better read ahead while the program goes on.
const MUCH_DATA: u32 = 64 << 10;

/// What turned out when the kernel and the daemon met, shared with the mount.
#[derive(Debug, Default)]
pub(super) struct Negotiated {
    epochs: AtomicBool,
    notifier: OnceLock<Notifier>,
}

impl Negotiated {
    pub fn epochs(&self) -> bool {
        self.epochs.load(Ordering::Relaxed)
    }

    pub fn set_notifier(&self, notifier: Notifier) {
        // Set once for each session.
        let _ = self.notifier.set(notifier);
    }
}

#[derive(Debug)]
pub(super) struct Server {
    vfs: Arc<Vfs>,
    backings: Arc<Backings>,
    negotiated: Arc<Negotiated>,
    beside: Arc<Beside>,
    /// Dropped with the server: tells that the session has ended.
    _alive: Sender<()>,
}

impl Server {
    pub fn new(vfs: Arc<Vfs>, passthrough: bool, alive: Sender<()>) -> Self {
        let backings = Arc::new(Backings::new(passthrough));
        Self { vfs, backings, negotiated: Arc::default(), beside: Arc::new(Beside::new()), _alive: alive }
    }

    pub fn backings(&self) -> Arc<Backings> {
        Arc::clone(&self.backings)
    }

    pub fn negotiated(&self) -> Arc<Negotiated> {
        Arc::clone(&self.negotiated)
    }

    fn entry_done(reply: ReplyEntry) -> vfs::Done<vfs::Entry> {
        Box::new(move |result| match result {
            Ok(entry) => {
                reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &file_attr(&entry.attr), GENERATION);
            }
            Err(error) => reply.error(errno(&error)),
        })
    }

    fn empty_done(reply: ReplyEmpty) -> vfs::Done<()> {
        Box::new(move |result| match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        })
    }
}

/// Attributes that the kernel keeps are out of date: tells it before the open is answered, so that the size is right for the
/// first read. For an inode in use this waits for nothing.
fn refresh_attr(negotiated: &Negotiated, ino: u64) {
    if let Some(notifier) = negotiated.notifier.get()
        && let Err(error) = notifier.inval_inode(INodeNo(ino), -1, 0)
    {
        log::debug!("the kernel was not told of new attributes: {error}");
    }
}

/// Makes the kernel forget what it keeps of a file, and replies then. Not here: the kernel waits for reads on their way, which
/// may wait for this thread.
fn forget_data(vfs: Arc<Vfs>, negotiated: Arc<Negotiated>, ino: INodeNo, stale: Stale, reply: ReplyEmpty) {
    // Without a thread, the reply is dropped, which is EIO: the program would read what is old.
    let forget = move || {
        let forgotten = negotiated.notifier.get().map(|notifier| notifier.inval_inode(ino, 0, 0));
        match (forgotten, stale.seen) {
            (Some(Ok(())), Some(seen)) => vfs.forgotten(ino.0, seen),
            (Some(Err(error)), _) => log::debug!("the kernel was not told of new data: {error}"),
            (Some(Ok(())) | None, _) => {}
        }
        reply.ok();
    };
    if let Err(error) =
        thread::Builder::new().name("forget".into()).stack_size(64 << 10).spawn(processors::as_usual(forget))
    {
        log::warn!("no thread to tell the kernel of new data: {error}");
    }
}

fn xattr_reply(result: Result<Vec<u8>, Error>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(data) => match u32::try_from(data.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&data),
            Ok(_) | Err(_) => reply.error(errno(&Error::Range)),
        },
        Err(error) => reply.error(errno(&error)),
    }
}

/// The kernel asks for ACLs to decide on permissions, and takes no other answer than that there is none: where the file system
/// has no ACLs, there is none.
fn without_acl(name: &OsStr, error: Error) -> Error {
    let missing = matches!(error.errno(), libc::EOPNOTSUPP | libc::ENOENT);
    if missing && name.as_bytes().starts_with(b"system.posix_acl_") { Error::NoAttribute } else { error }
}

/// The label of a file that has none: `ls -l` asks for it file by file unless it hears that there are none at all. Where there are
/// labels, the kernel does not ask us for those of a mount.
fn without_label(name: &OsStr, error: Error) -> Error {
    if name == "security.selinux" && error.errno() == libc::ENODATA { Error::NotSupported } else { error }
}

/// A lock that a thread asks for, or about.
fn lock_request(
    request: &Request,
    ino: INodeNo,
    fh: FileHandle,
    owner: LockOwner,
    range: vfs::Range,
    kind: i32,
    pid: u32,
) -> Result<LockRequest, Error> {
    let (thread, kind) = (request.pid(), lock_kind(kind)?);
    Ok(LockRequest { ino: ino.0, fh: fh.0, owner: owner.0, pid, thread, kind, range })
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_FLOCK_LOCKS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ];
        for capability in wanted {
            if config.add_capabilities(capability).is_err() {
                log::debug!("the kernel does not offer {capability:?}");
            }
        }
        let passthrough = self.backings.is_enabled()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        if !passthrough {
            self.backings.disable();
        }
        // The errors of these name the nearest value that would do: the default is one.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(64);
        let version = config.kernel_abi();
        let epochs = (version.0, version.1) >= (7, EPOCH_MINOR);
        self.negotiated.epochs.store(epochs, Ordering::Relaxed);
        let direct_writes = (version.0, version.1) >= (7, DIRECT_MINOR);
        self.vfs.negotiated(epochs, passthrough, direct_writes);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.beside.turn(request.pid());
        let result = self.vfs.lookup(&caller(request), parent.0, name);
        if matches!(&result, Err(error) if error.errno() == libc::ENOENT) {
            let ttl = self.vfs.absence_ttl(parent.0);
            if !ttl.is_zero() {
                // Node 0 stands for no node.
                return reply.entry_with_ttls(&ttl, &ttl, &file_attr(&vfs::Attr::default()), GENERATION);
            }
        }
        Self::entry_done(reply)(result);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _turn = self.beside.turn_aside();
        self.vfs.forget(ino.0, count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.getattr(ino.0, fh.map(|fh| fh.0)) {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _turn = self.beside.turn(request.pid());
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let done = Box::new(move |result| match result {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        });
        self.vfs.setattr(&caller(request), ino.0, &set, fh.map(|fh| fh.0), done);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.mknod(&caller(request), parent.0, name, mode, umask, rdev, Self::entry_done(reply));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.mkdir(&caller(request), parent.0, name, mode, umask, Self::entry_done(reply));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.unlink(&caller(request), parent.0, name, Self::empty_done(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.rmdir(&caller(request), parent.0, name, Self::empty_done(reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.symlink(&caller(request), parent.0, name, target.as_os_str(), Self::entry_done(reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn(request.pid());
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        self.vfs.rename(&caller(request), from, to, flags.bits(), Self::empty_done(reply));
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.beside.turn(request.pid());
        Self::entry_done(reply)(self.vfs.link(&caller(request), ino.0, parent.0, name));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.beside.turn(request.pid());
        let opened = match self.vfs.open(&caller(request), ino.0, flags.0) {
            Ok(opened) => opened,
            Err(error) => return reply.error(errno(&error)),
        };
        if opened.stale_attr {
            refresh_attr(&self.negotiated, ino.0);
        }
        let backing = opened.backing.as_ref();
        let id = backing
            .and_then(|backing| self.backings.opened(ino.0, || register(|| reply.open_backing(backing))));
        if backing.is_some() && !self.backings.is_enabled() {
            self.vfs.passthrough_refused();
        }
        let flags = open_flags(&opened, id.is_some());
        match id {
            Some(id) => reply.opened_passthrough(FileHandle(opened.fh), flags, &id),
            None => reply.opened(FileHandle(opened.fh), flags),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _turn = self.beside.turn(request.pid());
        let (backings, vfs) = (Arc::clone(&self.backings), Arc::clone(&self.vfs));
        let done = Box::new(move |result: Result<(vfs::Entry, vfs::Opened), Error>| {
            let (entry, opened) = match result {
                Ok(result) => result,
                Err(error) => return reply.error(errno(&error)),
            };
            let (ttl, attr, fh) =
                (entry.attr_ttl.min(entry.entry_ttl), file_attr(&entry.attr), FileHandle(opened.fh));
            let backing = opened.backing.as_ref();
            let id = backing.and_then(|backing| {
                backings.opened(entry.attr.ino, || register(|| reply.open_backing(backing)))
            });
            if backing.is_some() && !backings.is_enabled() {
                vfs.passthrough_refused();
            }
            let flags = open_flags(&opened, id.is_some());
            match id {
                Some(id) => reply.created_passthrough(&ttl, &attr, GENERATION, fh, flags, &id),
                None => reply.created(&ttl, &attr, GENERATION, fh, flags),
            }
        });
        self.vfs.create(&caller(request), parent.0, name, mode, umask, flags, done);
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.beside.turn(if size < MUCH_DATA { request.pid() } else { 0 });
        match self.vfs.read(fh.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.beside.turn(request.pid());
        let kill_suid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.vfs.write(fh.0, offset, data, lock_owner.map(|owner| owner.0), kill_suid) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.flush(ino.0, fh.0, lock_owner.0, request.pid(), Self::empty_done(reply));
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn_aside();
        self.backings.released(ino.0);
        self.vfs.release(ino.0, fh.0);
        reply.ok();
    }

    fn getlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let _turn = self.beside.turn(request.pid());
        let asked = lock_request(request, ino, fh, owner, vfs::Range { start, end }, kind, pid);
        match asked.and_then(|asked| self.vfs.find_lock(asked)) {
            Ok(Some(held)) => {
                reply.locked(held.range.start, held.range.end, held.kind.fcntl_type(), held.pid);
            }
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Err(error) => reply.error(lock_errno(&error)),
        }
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn(request.pid());
        let asked = match lock_request(request, ino, fh, owner, vfs::Range { start, end }, kind, pid) {
            Ok(asked) => asked,
            Err(error) => return reply.error(lock_errno(&error)),
        };
        let (vfs, negotiated) = (Arc::clone(&self.vfs), Arc::clone(&self.negotiated));
        let done = Box::new(move |result: vfs::Result<Stale>| match result {
            Ok(stale) if stale.data => forget_data(vfs, negotiated, ino, stale, reply),
            Ok(stale) => {
                if stale.attr {
                    refresh_attr(&negotiated, ino.0);
                }
                reply.ok();
            }
            Err(error) => reply.error(lock_errno(&error)),
        });
        self.vfs.set_lock(asked, sleep, done);
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.fsync(fh.0, datasync, Self::empty_done(reply));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.opendir(&caller(request), ino.0) {
            Ok(opened) => reply.opened(FileHandle(opened.fh), open_flags(&opened, false)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = self.beside.turn(request.pid());
        let result = self.vfs.readdir(fh.0, offset, &mut |entry| {
            !reply.add(INodeNo(entry.ino), entry.cookie, file_type(entry.kind), &entry.name)
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.beside.turn(request.pid());
        let result = self.vfs.readdirplus(&caller(request), fh.0, offset, &mut |name, entry| {
            let ttl = entry.attr_ttl.min(entry.entry_ttl);
            !reply.add(
                INodeNo(entry.attr.ino),
                name.cookie,
                &name.name,
                &ttl,
                &file_attr(&entry.attr),
                GENERATION,
            )
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn_aside();
        self.vfs.releasedir(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.fsyncdir(fh.0, datasync, Self::empty_done(reply));
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.statfs(ino.0) {
            Ok(s) => {
                reply.statfs(s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.setxattr(&caller(request), ino.0, name, value, flags, Self::empty_done(reply));
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.beside.turn(request.pid());
        let result = self.vfs.getxattr(&caller(request), ino.0, name);
        let result = result.map_err(|error| without_label(name, without_acl(name, error)));
        xattr_reply(result, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.beside.turn(request.pid());
        xattr_reply(self.vfs.listxattr(&caller(request), ino.0), size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.beside.turn(request.pid());
        self.vfs.removexattr(&caller(request), ino.0, name, Self::empty_done(reply));
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _turn = self.beside.turn(request.pid());
        Self::empty_done(reply)(self.vfs.fallocate(fh.0, offset, length, mode));
    }

    fn lseek(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.lseek(fh.0, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _turn = self.beside.turn(request.pid());
        match self.vfs.copy_file_range((fh_in.0, offset_in), (fh_out.0, offset_out), length) {
            Ok(copied) => reply.written(copied),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn ioctl(
        &self,
        request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let _turn = self.beside.turn(request.pid());
        reply.error(fuser::Errno::ENOTTY);
    }
}

/// Registers a backing file. The kernel will write to it with the rights that this thread has now, on behalf of whoever
/// writes: without those that would leave set-user-id bits in place.
fn register(open: impl FnOnce() -> io::Result<fuser::BackingId>) -> io::Result<fuser::BackingId> {
    let _ordinary = vfs::content::without_privileges();
    open()
}
