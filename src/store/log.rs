//! Reading the log: following it without the lock, catching up under it.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::digest::Digest;
use super::{
    CHUNK, Followed, Generation, LINE_MAX, LOG, Lines, Locked, NO_LOG, Sink, Store, StoreError, TRIES, hold,
    sys,
};
use crate::record::{Dialect, Locator, Piece, parse_line};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, thread};

/// How many bytes before the position must be what they were: if not, the log was cut and written anew.
const MARK: u64 = 32;

/// How far the log was read.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The generation that is followed; `None` at first.
    pub generation: Option<Arc<Generation>>,
    /// Everything before it was given to sinks or appended by us.
    pub offset: u64,
    /// The last bytes before it.
    pub mark: Vec<u8>,
    /// The dialect of the first record.
    pub dialect: Option<Dialect>,
    /// Of everything before the offset.
    pub digest: Digest,
    /// Our idea of the log may be wrong: the next pass gives everything anew.
    pub reload: bool,
    /// When something new was last seen in it, in uptime of the machine.
    pub moved: Option<Duration>,
    /// This generation, open to write, and what it looked like then.
    pub writer: Option<(Arc<File>, sys::Stat)>,
}

/// What stands under the log's name.
struct Look {
    file: Option<Arc<File>>,
    stat: sys::Stat,
}

impl Store {
    /// Gives the sink what came since the last call, up to the last `\n`, without the lock.
    ///
    /// A log that is gone is an error (`ENOENT`), unless there was none before: nobody removes it but by mistake.
    /// After an error, what was given stays given, but that a pass that began with [`Sink::replaced`] begins again.
    pub fn follow(&self, sink: &mut dyn Sink) -> Result<Followed, StoreError> {
        let mut position = hold(&self.position);
        self.patiently(&mut position, |position| {
            let Some(look) = self.look(position)? else { return self.absent(position, sink) };
            self.pass(position, &look, sink)
        })
    }

    /// Gives everything anew at the next pass.
    pub fn forget(&self) {
        hold(&self.position).reload = true;
    }

    /// For how long nothing new was seen in the log.
    pub fn quiet(&self) -> Option<Duration> {
        hold(&self.position).moved.map(|moved| self.sys.uptime().saturating_sub(moved))
    }

    /// The size of the log, if bytes without a `\n` stand at its end: a writer is at work, or has died.
    pub fn tail(&self) -> Option<u64> {
        let generation = hold(&self.current).clone()?;
        let size = self.sys.stat_file(generation.file.as_ref()?).ok()?.size;
        (size > self.bytes()).then_some(size)
    }

    /// Tries again what fails with `ESTALE`, from the beginning of the log.
    fn patiently<T>(
        &self,
        position: &mut Position,
        mut step: impl FnMut(&mut Position) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 0;
        loop {
            let result = step(position);
            self.publish(position);
            tries += 1;
            match result {
                Err(e) if e.is_stale() && tries < TRIES => {
                    position.reload = true;
                    thread::sleep(Duration::from_millis(5) * tries);
                }
                other => return other,
            }
        }
    }

    /// Lets those see the position who do not wait for it.
    pub(super) fn publish(&self, position: &Position) {
        self.bytes.store(position.offset, Ordering::Relaxed);
        *hold(&self.dialect) = position.dialect;
        (*hold(&self.current)).clone_from(&position.generation);
    }

    /// What stands under the log's name, without the lock; `None` if nothing.
    fn look(&self, position: &Position) -> Result<Option<Look>, StoreError> {
        let followed = position.generation.as_ref().filter(|_| !position.reload && self.local);
        if let Some((generation, file)) = followed.and_then(|g| Some((g, g.file.as_ref()?))) {
            // The everyday case costs one system call. Elsewhere than on a local file system, only an open is sure to
            // ask the server what stands under the name.
            match sys::retry(|| self.sys.stat(self.dir(), LOG)) {
                Ok(stat) if stat.id == generation.id => {
                    return Ok(Some(Look { file: Some(Arc::clone(file)), stat }));
                }
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                Err(source) => return Err(StoreError::Io { doing: "looking at the log", source }),
            }
        }
        match self.open_regular(LOG, libc::O_RDONLY, "opening the log", NO_LOG) {
            Ok((file, stat)) => Ok(Some(Look { file: Some(Arc::new(file)), stat })),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// There is no log.
    fn absent(&self, position: &mut Position, sink: &mut dyn Sink) -> Result<Followed, StoreError> {
        match &position.generation {
            Some(generation) if generation.file.is_some() => Err(StoreError::Io {
                doing: "opening the log",
                source: io::Error::from_raw_os_error(libc::ENOENT),
            }),
            Some(_) if !position.reload => Ok(Followed::default()),
            _ => {
                self.begin(position, &Look { file: None, stat: sys::Stat::default() }, sink);
                position.reload = false;
                Ok(Followed { lines: 0, replaced: true })
            }
        }
    }

    /// Starts on another log.
    fn begin(&self, position: &mut Position, look: &Look, sink: &mut dyn Sink) {
        let generation = Arc::new(Generation {
            sys: Arc::clone(&self.sys),
            id: look.stat.id,
            file: look.file.as_ref().map(Arc::clone),
        });
        sink.replaced(&generation);
        *position = Position { generation: Some(generation), reload: true, ..Position::default() };
    }

    /// Whether the log is the one that was read, and has everything that was read.
    fn continues(&self, position: &Position, look: &Look) -> Result<bool, StoreError> {
        let (Some(generation), Some(file)) = (&position.generation, &look.file) else { return Ok(false) };
        if position.reload
            || generation.file.is_none()
            || generation.id != look.stat.id
            || look.stat.size < position.offset
        {
            return Ok(false);
        }
        if look.stat.size == position.offset {
            // Nothing new: that the end was rewritten in place is found out with the next line.
            return Ok(true);
        }
        Ok(self.mark(file, position.offset)? == position.mark)
    }

    /// The last bytes before an offset.
    pub(super) fn mark(&self, file: &File, offset: u64) -> Result<Vec<u8>, StoreError> {
        let len = offset.min(MARK);
        let mut mark = vec![0; usize::try_from(len).unwrap_or_default()];
        let n = sys::read_full(&*self.sys, file, &mut mark, offset - len)
            .map_err(StoreError::io("reading the log"))?;
        mark.truncate(n);
        Ok(mark)
    }

    /// Gives the sink the lines up to the last `\n` before the size that was seen.
    fn pass(
        &self,
        position: &mut Position,
        look: &Look,
        sink: &mut dyn Sink,
    ) -> Result<Followed, StoreError> {
        let Some(file) = &look.file else { return Ok(Followed::default()) };
        let replaced = !self.continues(position, look)?;
        if replaced {
            self.begin(position, look, sink);
        }
        if replaced || look.stat.size > position.offset {
            position.moved = Some(self.sys.uptime());
        }
        if look.stat.size == position.offset {
            position.reload = false;
            return Ok(Followed { lines: 0, replaced });
        }
        let digest = &mut position.digest;
        let mut probe = Probe { dialect: position.dialect, lines: 0, digest, sink };
        let (offset, result) = read_lines(&*self.sys, file, position.offset, look.stat.size, &mut probe);
        let (dialect, lines) = (probe.dialect, probe.lines);
        if offset > position.offset {
            position.mark = self.mark(file, offset).inspect_err(|_| position.reload = true)?;
        }
        position.offset = offset;
        position.dialect = dialect;
        result.map_err(StoreError::io("reading the log"))?;
        // Only now: whoever breaks off in a replaced log begins again.
        position.reload = false;
        Ok(Followed { lines, replaced })
    }

    /// Takes our own lines into the position.
    pub(super) fn advance(&self, position: &mut Position, lines: &[u8]) {
        position.digest.take(position.offset, lines);
        position.offset += lines.len() as u64;
        position.moved = Some(self.sys.uptime());
        let from = lines.len().saturating_sub(usize::try_from(MARK).unwrap_or_default());
        position.mark.extend_from_slice(lines.get(from..).unwrap_or_default());
        let surplus = position.mark.len().saturating_sub(usize::try_from(MARK).unwrap_or_default());
        position.mark.drain(..surplus);
        if position.dialect.is_none() {
            position.dialect = lines.split(|&b| b == b'\n').find_map(dialect_of);
        }
        self.publish(position);
    }

    /// Follows a log that we have made ourselves, from its end.
    pub(super) fn adopt(
        &self,
        position: &mut Position,
        generation: &Arc<Generation>,
        size: u64,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let Some(file) = &generation.file else { return Ok(()) };
        let dialect = position.dialect;
        *position = Position {
            generation: Some(Arc::clone(generation)),
            offset: size,
            mark: Vec::new(),
            dialect,
            digest,
            reload: true,
            moved: Some(self.sys.uptime()),
            writer: None,
        };
        position.mark = self.mark(file, size)?;
        position.reload = false;
        self.publish(position);
        Ok(())
    }
}

impl Locked<'_> {
    /// Mends a torn tail, then gives the sink what came since the last call.
    ///
    /// A log that is missing is made; one that was removed while it was followed is put back from the open descriptor.
    pub fn catch_up(&mut self, sink: &mut dyn Sink) -> Result<Followed, StoreError> {
        let store = self.store;
        self.log = None;
        let mut position = hold(&store.position);
        let (followed, log) = store.patiently(&mut position, |position| {
            let (file, stat) = if let Some(known) = store.known_log(position)? {
                known
            } else {
                let (file, stat) = store.open_own_log(&self.taken, position)?;
                (Arc::new(file), stat)
            };
            let look = Look { file: Some(Arc::clone(&file)), stat };
            let mut followed = store.pass(position, &look, sink)?;
            // Elsewhere it is closed at the end: a file that is open to write on several nodes is cached by none.
            let same = position.generation.as_ref().is_some_and(|generation| generation.id == stat.id);
            position.writer = (store.local && same).then(|| (Arc::clone(&file), stat));
            if stat.size > position.offset {
                let whole = store.mend(&file, position.offset, stat.size)?;
                if let Some(line) = whole {
                    let len = u32::try_from(line.len()).unwrap_or(u32::MAX);
                    sink.line(Locator { offset: position.offset, len }, &line);
                    followed.lines += 1;
                    store.advance(position, &line);
                    store.advance(position, b"\n");
                }
            }
            Ok((followed, (file, position.offset)))
        })?;
        self.log = Some(log);
        Ok(followed)
    }
}

impl Store {
    /// The log that is open to write already, if it is the one of that name. The descriptor that is followed may be another
    /// file's by now: so it is looked at by name, and elsewhere than on a local file system, where attributes may be old, opened.
    fn known_log(&self, position: &Position) -> Result<Option<(Arc<File>, sys::Stat)>, StoreError> {
        let generation = position.generation.as_ref().filter(|_| self.local && !position.reload);
        let (Some(generation), Some((writer, then))) = (generation, &position.writer) else {
            return Ok(None);
        };
        // Whoever has been locked out since shall not write.
        let open_to = |stat: &sys::Stat| (stat.mode, stat.uid, stat.gid);
        match sys::retry(|| self.sys.stat(self.dir(), LOG)) {
            Ok(stat) if stat.id == generation.id && open_to(&stat) == open_to(then) => {
                Ok(Some((Arc::clone(writer), stat)))
            }
            Ok(_) => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(source) => Err(StoreError::Io { doing: "looking at the log", source }),
        }
    }

    /// Opens the log to write, and makes it if need be.
    pub(super) fn open_log(&self, position: &Position) -> Result<(File, sys::Stat), StoreError> {
        const DOING: &str = "opening the log";
        for _ in 0..TRIES {
            match self.open_regular(LOG, libc::O_RDWR, DOING, NO_LOG) {
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                other => return other,
            }
            let followed = position.generation.as_ref().and_then(|generation| generation.file.as_ref());
            if let Some(file) = followed.filter(|_| position.offset > 0) {
                ::log::warn!("{}/_entries was removed: put back", self.path.display());
                self.put_back(file)?;
                continue;
            }
            match self.create(LOG, DOING) {
                Ok(_) => {
                    sys::retry(|| self.sys.sync_dir(self.dir())).map_err(StoreError::io(DOING))?;
                }
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(StoreError::Io { doing: DOING, source: io::Error::from_raw_os_error(libc::ESTALE) })
    }
}

/// Looks at the lines on their way, until it knows the dialect.
struct Probe<'s> {
    dialect: Option<Dialect>,
    lines: u64,
    digest: &'s mut Digest,
    sink: &'s mut dyn Sink,
}

impl Sink for Probe<'_> {
    fn replaced(&mut self, generation: &Arc<Generation>) {
        self.sink.replaced(generation);
    }

    fn line(&mut self, at: Locator, line: &[u8]) {
        if self.dialect.is_none() {
            self.dialect = dialect_of(line);
        }
        self.lines += 1;
        self.sink.line(at, line);
    }

    fn lines(&mut self, lines: Lines) -> Vec<u8> {
        let bytes = lines.bytes();
        if self.dialect.is_none() {
            self.dialect = bytes.split(|&b| b == b'\n').find_map(dialect_of);
        }
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.digest.take(lines.offset, bytes);
        self.sink.lines(lines)
    }

    fn oversized(&mut self, at: Locator) {
        self.lines += 1;
        self.sink.oversized(at);
    }
}

/// The dialect of a line's first record.
fn dialect_of(line: &[u8]) -> Option<Dialect> {
    parse_line(line).into_iter().find_map(|(_, piece)| match piece {
        Piece::Record(record) => Some(record.dialect),
        Piece::Malformed(_) => None,
    })
}

/// Gives a sink the whole lines of a file between two offsets. Gives the offset after the last `\n`, and why it broke off.
pub(super) fn read_lines(
    sys: &dyn sys::Sys,
    file: &File,
    from: u64,
    limit: u64,
    sink: &mut dyn Sink,
) -> (u64, io::Result<()>) {
    let mut buf: Vec<u8> = Vec::new();
    // What is in the buffer, and where its first byte stands in the file.
    let (mut filled, mut base) = (0_usize, from);
    // Where a line began that is too long for the buffer.
    let mut oversized: Option<u64> = None;
    loop {
        let at = base + filled as u64;
        let want = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX).min(CHUNK);
        if buf.len() < filled + want {
            buf.resize(filled + want, 0);
        }
        let Some(space) = buf.get_mut(filled..filled + want) else { break };
        let n = match sys::retry(|| sys.read(file, space, at)) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return (oversized.unwrap_or(base), Err(e)),
        };
        let searched = filled;
        filled += n;
        let mut start = 0;
        if let Some(newline) = memchr::memrchr(b'\n', buf.get(searched..filled).unwrap_or_default()) {
            if let Some(begun) = oversized.take()
                && let Some(end) = memchr::memchr(b'\n', buf.get(searched..filled).unwrap_or_default())
            {
                give_oversized(begun, base + (searched + end) as u64, sink);
                start = searched + end + 1;
            }
            let end = searched + newline + 1;
            if end > start {
                let rest = buf.get(end..filled).unwrap_or_default().to_vec();
                buf = sink.lines(Lines { buffer: buf, within: start..end, offset: base + start as u64 });
                // Whatever a buffer holds is written over; making it anew would take as long as reading.
                buf.splice(..rest.len().min(buf.len()), rest.iter().copied());
                (start, filled, base) = (0, rest.len(), base + end as u64);
            }
        }
        if filled as u64 - start as u64 > LINE_MAX || oversized.is_some() {
            // Not even the beginning of such a line is kept in memory.
            oversized.get_or_insert(base + start as u64);
            start = filled;
        }
        buf.copy_within(start..filled, 0);
        filled -= start;
        base += start as u64;
    }
    (oversized.unwrap_or(base), Ok(()))
}

/// Gives a line that is too long, in parts that a locator can name.
fn give_oversized(begun: u64, end: u64, sink: &mut dyn Sink) {
    let mut offset = begun;
    while offset < end {
        let len = u32::try_from(end - offset).unwrap_or(u32::MAX);
        sink.oversized(Locator { offset, len });
        offset += u64::from(len);
    }
}
