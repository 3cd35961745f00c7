//! `check`: everything irregular in a cache, and what of it can be mended without losing anything.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, FileType, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use fs2::FileExt;

use super::args::CheckArgs;
use super::failure::{self, Failure, Result};
use super::locate::{self, Access};
use super::memo::RUN_PREFIX;
use super::output::{self, Out, printable, string};
use crate::name::Id;
use crate::record::{Locator, Malformed, Piece, parse_line, parse_tail};
use crate::store::{Generation, Options, Sink, Store};
use crate::trash::{self, Leftover};
use crate::value::{Object, Text};

/// The log of a cache.
const LOG: &str = "_entries";
/// So much of a malformed line is shown.
const SHOWN: usize = 60;

/// Something irregular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line of the log, from 1.
    pub line: Option<u64>,
    /// The file or directory in the cache, if it is not the log.
    pub place: Option<String>,
    /// What kind of irregularity, one word for programs.
    pub kind: &'static str,
    /// What it is, for people.
    pub what: String,
    /// Whether it is only worth knowing: nothing is wrong.
    pub note: bool,
}

/// `cachedirfs check`.
pub fn run(asked: Option<&Path>, args: &CheckArgs) -> Result<()> {
    let cache = locate::directory(asked)?;
    if args.repair {
        for done in repair(&cache)? {
            let _ = writeln!(io::stderr(), "cachedirfs: {}", printable(&done));
        }
    }
    let findings = check(&cache)?;
    let mut out = Out::stdout();
    for finding in &findings {
        if args.json {
            out.object(&finding.to_object())?;
        } else {
            out.line(&finding.to_text())?;
        }
    }
    out.finish()?;
    if findings.iter().all(|finding| finding.note) { Ok(()) } else { Err(Failure::Status(1)) }
}

impl Finding {
    fn at_line(line: u64, kind: &'static str, what: String) -> Self {
        Self { line: Some(line), place: None, kind, what, note: false }
    }

    fn at(place: impl Into<String>, kind: &'static str, what: &str) -> Self {
        Self { line: None, place: Some(place.into()), kind, what: what.to_owned(), note: false }
    }

    fn noted(self) -> Self {
        Self { note: true, ..self }
    }

    fn to_text(&self) -> String {
        let place = match (self.line, &self.place) {
            (Some(line), _) => format!("{LOG}:{line}"),
            (None, Some(place)) => printable(place).into_owned(),
            (None, None) => LOG.to_owned(),
        };
        format!("{place}: {}{}", if self.note { "note: " } else { "" }, self.what)
    }

    fn to_object(&self) -> Object<'static> {
        let mut object = Object::new();
        if let Some(line) = self.line {
            object.insert(Text::from_str("line"), output::count(line));
        }
        object.insert(Text::from_str("place"), string(self.place.clone().unwrap_or_else(|| LOG.to_owned())));
        object.insert(Text::from_str("kind"), string(self.kind));
        object.insert(Text::from_str("what"), string(self.what.clone()));
        object.insert(Text::from_str("note"), crate::value::Value::Bool(self.note));
        object
    }
}

/// What the log says of the entries.
#[derive(Debug, Default)]
struct Log {
    findings: Vec<Finding>,
    /// The last record of each id, by line: whether it deletes.
    last: HashMap<Id, (u64, bool)>,
}

/// Looks at the log and the directory, without the lock: a program that writes meanwhile may show as an unsaved directory.
pub fn check(cache: &Path) -> Result<Vec<Finding>> {
    let log = read_log(&cache.join(LOG)).map_err(|e| failure::io("read", cache.join(LOG).display(), &e))?;
    let mut findings = log.findings;
    let names = fs::read_dir(cache)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|e| failure::io("list", cache.display(), &e))?;
    let mut directories = HashSet::new();
    let mut of_directory = Vec::new();
    for name in names {
        let kind = name.file_type().map_err(|e| failure::io("look at", name.path().display(), &e))?;
        let shown = name.file_name().to_string_lossy().into_owned();
        match name.file_name().to_str().map(Id::new) {
            Some(Ok(id)) if kind.is_dir() => {
                if log.last.get(&id).is_none_or(|&(_, deleted)| deleted) {
                    of_directory.push(unsaved(shown, log.last.contains_key(&id)));
                }
                directories.insert(id);
            }
            Some(Ok(id)) if log.last.contains_key(&id) => of_directory.push(Finding::at(
                shown,
                "no-directory",
                "an entry's name, but no directory: its contents cannot be reached",
            )),
            _ => of_directory.extend(stray(cache, &name.file_name(), &shown, kind)),
        }
    }
    for (id, &(line, deleted)) in &log.last {
        if !deleted && !directories.contains(id) {
            let what = format!("the entry {} has no directory: shown with empty contents", id.as_str());
            of_directory.push(Finding::at_line(line, "no-contents", what).noted());
        }
    }
    of_directory.extend(in_trash(cache)?.iter().map(of_leftover));
    of_directory.sort_by(|a, b| (a.line, &a.place).cmp(&(b.line, &b.place)));
    findings.append(&mut of_directory);
    Ok(findings)
}

/// What interrupted moves left in the trash.
fn in_trash(cache: &Path) -> Result<Vec<Leftover>> {
    if !cache.join(trash::NAME).is_dir() {
        return Ok(Vec::new());
    }
    let cache = locate::open(Some(cache), Access::Read)?;
    trash::leftovers(&cache).map_err(|e| super::trash::failed("of the trash", &e))
}

fn of_leftover(leftover: &Leftover) -> Finding {
    let at = |name: &str, what| Finding::at(format!("{}/{name}", trash::NAME), "trash", what);
    match leftover {
        Leftover::RecordOfLive(id) => at(
            &format!("{}.json", id.as_str()),
            "the record of an entry that is live: a move was interrupted",
        ),
        Leftover::DirectoryOfLive(id) => {
            at(id.as_str(), "the contents of an entry that is live: a move was interrupted")
        }
        Leftover::DirectoryOutside(id) => {
            Finding::at(id.as_str(), "trash", "the contents of an entry in the trash: a move was interrupted")
        }
        Leftover::NoRecord(name) => at(name, "contents without a record: its attributes are not known"),
        Leftover::Malformed(name) => at(name, "no record of an entry"),
        Leftover::Temporary(name) => at(name, "a record whose writing was interrupted"),
        Leftover::Unnamed(name, _) => {
            at(name, "the record of an entry whose move to the trash was interrupted")
        }
    }
}

/// Finishes or takes back interrupted moves.
fn mend_trash(path: &Path, done: &mut Vec<String>) -> Result<()> {
    if !path.join(trash::NAME).is_dir() {
        return Ok(());
    }
    let cache = locate::open(Some(path), Access::Write)?;
    let failed = |e: &_| super::trash::failed("of the trash", e);
    for leftover in trash::leftovers(&cache).map_err(|e| failed(&e))? {
        if trash::mend(&cache, &leftover).map_err(|e| failed(&e))? {
            let Finding { place, what, .. } = of_leftover(&leftover);
            done.push(format!("{} is mended: {what}", place.unwrap_or_default()));
        }
    }
    super::entries::close(&cache)
}

fn unsaved(name: String, deleted: bool) -> Finding {
    if deleted {
        Finding::at(name, "deleted", "a directory left of a deleted entry: removing it was interrupted")
    } else {
        Finding::at(
            name,
            "unsaved",
            "a directory without a record: a program has not saved it yet, or never did",
        )
    }
}

/// What else may lie in a cache directory.
fn stray(cache: &Path, name: &OsStr, shown: &str, kind: FileType) -> Option<Finding> {
    match shown {
        LOG | "_lock" => (!kind.is_file())
            .then(|| Finding::at(shown, "stray", "something else where a regular file must be")),
        "_trash" => (!kind.is_dir())
            .then(|| Finding::at(shown, "stray", "no directory: nothing can be moved to the trash")),
        _ if shown.starts_with("_torn-") => Some(
            Finding::at(
                shown,
                "set-aside",
                "bytes of the log that were set aside; yours to look at and remove",
            )
            .noted(),
        ),
        _ if shown.starts_with("_backup-") => Some(
            Finding::at(
                shown,
                "backup",
                "a copy of the log from before a repair; yours to look at and remove",
            )
            .noted(),
        ),
        _ if shown.starts_with(RUN_PREFIX) => abandoned(&cache.join(name)).then(|| {
            Finding::at(
                shown,
                "abandoned-run",
                "left by a `memo` run that died: asking for it again takes it over",
            )
        }),
        _ if shown.starts_with("_entries.tmp-") => {
            Some(Finding::at(shown, "temporary", "left by a compaction that was interrupted"))
        }
        _ => Some(Finding::at(shown, "stray", "no entry's name, and nothing of the cache's own").noted()),
    }
}

/// Whether nobody holds the lock.
fn abandoned(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    opened.is_ok_and(|file| FileExt::try_lock_shared(&file).is_ok())
}

fn read_log(path: &Path) -> io::Result<Log> {
    let mut log = Log::default();
    // A fifo must not hang, and is told with the other names of the directory, as whatever else is no file.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => file,
        Ok(_) => return Ok(log),
        // A cache without a log is an empty one.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ELOOP | libc::ENXIO)) => {
            return Ok(log);
        }
        Err(e) => return Err(e),
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(log);
        }
        number += 1;
        let whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if !whole {
            let what = match &*parse_tail(&line) {
                [(_, Piece::Record(_))] => {
                    "the last line lacks its newline: a writer is in the middle, or died there"
                }
                _ => "the log ends in the middle of a record",
            };
            log.findings.push(Finding::at_line(number, "torn", what.to_owned()));
        }
        let pieces = if whole { parse_line(&line) } else { parse_tail(&line) };
        let starts: Vec<_> = pieces.iter().map(|(range, _)| range.start).collect();
        for (range, piece) in pieces {
            match piece {
                Piece::Record(record) => {
                    log.last.insert(record.id, (number, record.deleted));
                }
                Piece::Malformed(_) if !whole => {}
                Piece::Malformed(why) => {
                    let bytes = line.get(range.clone()).unwrap_or_default();
                    let text: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).collect();
                    let (kind, why) = match why {
                        Malformed::NotAnObject
                            if starts.contains(&range.end) && line.get(range.end) != Some(&0) =>
                        {
                            ("torn-inside", "a torn record in front of a good one, which counts")
                        }
                        other => reason(other),
                    };
                    log.findings.push(Finding::at_line(number, kind, format!("{why}: {}", printable(&text))));
                }
            }
        }
    }
}

fn reason(why: Malformed) -> (&'static str, &'static str) {
    match why {
        Malformed::NotAnObject => ("no-object", "no JSON object"),
        Malformed::NoId => ("no-id", "an object without a usable _id or @"),
        Malformed::Nuls => ("nuls", "NUL bytes, left by a power cut"),
        Malformed::TooLong => ("too-long", "longer than any record may be"),
    }
}

/// For a repair, which reads the log by itself.
struct Nothing;

impl Sink for Nothing {
    fn replaced(&mut self, _: &Arc<Generation>) {}

    fn line(&mut self, _: Locator, _: &[u8]) {}

    fn oversized(&mut self, _: Locator) {}
}

/// Mends the cache; says what was done. Nothing is destroyed: what is taken out of the log is set aside.
fn repair(cache: &Path) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let failed = |e: &_| failure::store(cache.display(), e);
    let store = Store::open(cache, &Options::default()).map_err(|e| failed(&e))?;
    let torn_before = check(cache)?.iter().any(|finding| finding.kind == "torn");
    {
        let mut locked = store.lock().map_err(|e| failed(&e))?;
        locked.catch_up(&mut Nothing).map_err(|e| failed(&e))?;
        if torn_before {
            done.push("the end of the log is mended".to_owned());
        }
        let repaired = locked.repair().map_err(|e| failed(&e))?;
        if let (Some(aside), Some(backup)) = (repaired.set_aside, repaired.backup) {
            done.push(format!(
                "{} malformed stretches are moved from the log to {}, {} records behind them saved; {} is the log as it was",
                repaired.stretches,
                cache.join(aside).display(),
                repaired.salvaged,
                cache.join(backup).display()
            ));
        }
    }
    mend_trash(cache, &mut done)?;
    for finding in check(cache)? {
        let Some(name) = &finding.place else { continue };
        let path = cache.join(name);
        let removed = match finding.kind {
            "temporary" => fs::remove_file(&path),
            // Only an empty one: contents are never removed by a guess.
            "deleted" => fs::remove_dir(&path),
            _ => continue,
        };
        done.push(match removed {
            Ok(()) => format!("{} is removed: {}", path.display(), finding.what),
            Err(e) => format!("{} stays: {}", path.display(), failure::reason(&e)),
        });
    }
    Ok(done)
}
