//! File operations as steps of a schedule that a test explores: before each, another thread may go on.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use super::faults::Faulty;
use crate::store::sys::{Stat, Sys};
use crate::sync::thread::yield_now;

/// The operations of [`Faulty`], and a flock that is waited for in the schedule instead of in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Steps(pub Faulty);

impl Steps {
    fn next(&self) -> &Faulty {
        yield_now();
        &self.0
    }
}

impl Sys for Steps {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<File> {
        self.next().open(dir, name, flags, mode)
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        self.next().stat(dir, name)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.next().stat_file(file)
    }

    fn read(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.next().read(file, buf, at)
    }

    fn write(&self, file: &File, buf: &[u8], at: u64) -> io::Result<usize> {
        self.next().write(file, buf, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.next().truncate(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.next().sync_data(file)
    }

    fn sync_dir(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.next().sync_dir(dir)
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
        self.next().rename(dir, from, to)
    }

    fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        self.next().unlink(dir, name)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.next().set_mode(file, mode)
    }

    fn set_owner(&self, file: &File, uid: u32, gid: u32) -> io::Result<()> {
        self.next().set_owner(file, uid, gid)
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        self.next().try_lock(file)
    }

    fn lock(&self, file: &File) -> io::Result<()> {
        while !self.try_lock(file)? {}
        Ok(())
    }

    fn unlock(&self, file: &File) -> io::Result<()> {
        self.next().unlock(file)
    }
}
