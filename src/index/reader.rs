//! Taking stretches of a log apart, on any thread: for every key the values, numbered, and the slots of each.
//!
//! Programs write records of few shapes, and most of their values again and again. A line of a known shape is not parsed, and
//! the text of a value that was seen before leads to its number at once. Everything else goes through the parser, which
//! alone says what a line means.

use hashbrown::DefaultHashBuilder;

use super::column::{Dictionary, Probe, Stretch};
use super::keys::{KeyNumber, Keys};
use super::ordered::OrderedDouble;
use super::recent::{Recent, Text};
use crate::name::{Id, Key};
use crate::record::{Kind, Locator, Piece, Place, Record, Shape, Token, parse_line};
use crate::value::{Leaf, Number, Value};

/// So many values are looked at before it is decided whether to look for equal ones at all.
const SAMPLE: usize = 1 << 12;
/// So many shapes are known at a time.
const SHAPES: usize = 16;
/// So many records make a part, when they come one by one.
const FULL: usize = 1 << 14;

/// Takes stretches of a log apart.
#[derive(Debug, Default)]
pub struct Reader {
    keys: Keys,
    /// Number of keys that parts have told of.
    told: usize,
    columns: Vec<Column>,
    forms: Vec<Form>,
    /// The form of the last line.
    last: usize,
    /// Lines of no known form since the last one that had one.
    misses: u32,
    tokens: Vec<Token>,
    found: Vec<Found>,
    part: Part,
    hasher: DefaultHashBuilder,
}

/// What a stretch of a log says.
#[derive(Debug, Default)]
pub struct Part {
    /// The ids of its records, one behind the other, and where each ends.
    pub(super) ids: String,
    pub(super) ends: Vec<usize>,
    pub(super) times: Vec<f64>,
    pub(super) places: Vec<Locator>,
    /// Which of them are deletions, ascending: they have no slots.
    pub(super) deleted: Vec<u32>,
    /// Keys that came first in this stretch.
    pub(super) keys: Vec<Key>,
    /// By number of the reader's key.
    pub(super) columns: Vec<(usize, Stretch)>,
    /// Malformed stretches.
    pub malformed: Vec<Locator>,
    /// Number of records.
    pub records: u64,
}

/// A shape, and where its values belong.
#[derive(Debug)]
struct Form {
    shape: Shape,
    uses: Vec<Use>,
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Id,
    Time,
    Column(usize),
}

/// What was found of a value, before anything of its line is taken.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// Its number.
    Code(u32),
    /// A number, of a key of which most values are different.
    Double(f64),
    /// A string.
    Text,
    /// Well-formed, and to be parsed.
    Sound,
    /// No attribute.
    Other,
}

/// The values of one key.
#[derive(Debug, Default)]
struct Column {
    dictionary: Dictionary,
    /// Number of values that parts have told of.
    told: usize,
    /// Number of numbered values in stretches before this one.
    taken: usize,
    /// Whether most values are different, as those of a measured quantity: from then on each is kept alone with its
    /// slot, and equal ones meet when all are sorted.
    loose: bool,
    recent: Recent,
    /// The column of elements.
    elements: Option<usize>,
    /// The elements' numbers of each array, by its own number; of other values none.
    codes_of: Vec<Box<[u32]>>,
    stretch: Stretch,
}

impl Column {
    fn code(&mut self, code: u32, slot: u32) {
        self.stretch.slots.push(slot);
        self.stretch.codes.push((slot, code));
    }

    fn double(&mut self, double: f64, slot: u32) {
        self.stretch.slots.push(slot);
        self.stretch.doubles.push((OrderedDouble::from(double), slot));
    }

    fn probe(&mut self, probe: Probe<'_>, slot: u32, hasher: &DefaultHashBuilder) {
        if self.loose {
            match probe.into_leaf() {
                Leaf::Double(double) => self.double(double, slot),
                leaf => {
                    self.stretch.slots.push(slot);
                    self.stretch.others.push((leaf, slot));
                }
            }
            return;
        }
        let code = self.intern(probe, hasher);
        self.code(code, slot);
    }

    fn intern(&mut self, probe: Probe<'_>, hasher: &DefaultHashBuilder) -> u32 {
        let before = self.dictionary.leaves.len();
        let code = self.dictionary.intern(probe, hasher);
        let now = self.dictionary.leaves.len();
        if now > before && now == SAMPLE && self.taken + self.stretch.codes.len() < SAMPLE * 2 {
            self.loose = true;
            self.recent = Recent::default();
        }
        code
    }
}

fn at(number: KeyNumber) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Reader {
    /// Takes whole lines, the first of which begins at an offset of the log; the last may lack its `\n`.
    pub fn lines(&mut self, offset: u64, bytes: &[u8]) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes).chain((!bytes.ends_with(b"\n")).then_some(bytes.len())) {
            let line = bytes.get(start..end).unwrap_or_default();
            if !line.is_empty() {
                self.line(offset + start as u64, line);
            }
            start = end + 1;
        }
    }

    /// Takes a line.
    pub fn line(&mut self, offset: u64, line: &[u8]) {
        let locator = |range: &std::ops::Range<usize>| Locator {
            offset: offset + range.start as u64,
            len: u32::try_from(range.len()).unwrap_or(u32::MAX),
        };
        if self.misses < 1000 || self.misses.is_multiple_of(16) {
            let forms = self.forms.len();
            for form in (self.last..forms).chain(0..self.last.min(forms)) {
                if self.take(form, line, locator(&(0..line.len()))) {
                    self.misses = 0;
                    // Programs that write by turns, do so in the same order.
                    self.last = if form + 1 < forms { form + 1 } else { 0 };
                    return;
                }
            }
        }
        self.misses = self.misses.saturating_add(1);
        for (range, piece) in parse_line(line) {
            match piece {
                Piece::Record(record) => {
                    if range.len() == line.len() {
                        self.learn(line, &record);
                    }
                    self.record(&record, locator(&range));
                }
                Piece::Malformed(_) => self.part.malformed.push(locator(&range)),
            }
        }
    }

    /// Takes a record.
    pub fn record(&mut self, record: &Record<'_>, at: Locator) {
        let slot = self.begin(record.id.as_str(), record.time, at);
        if record.deleted {
            // A deletion has no slot.
            self.part.deleted.push(u32::try_from(self.part.ends.len() - 1).unwrap_or(u32::MAX));
            return;
        }
        let Self { keys, columns, hasher, .. } = self;
        keys.walk(record.object.iter(), &mut |number: KeyNumber, value: &Value<'_>| {
            let number = self::at(number);
            if columns.len() <= number {
                columns.resize_with(number + 1, Column::default);
            }
            if let Some(column) = columns.get_mut(number) {
                column.probe(Probe::of(value), slot, hasher);
            }
        });
    }

    /// Notes a record; gives its slot.
    fn begin(&mut self, id: &str, time: f64, at: Locator) -> u32 {
        let part = &mut self.part;
        let slot = part.ends.len() - part.deleted.len();
        part.ids.push_str(id);
        part.ends.push(part.ids.len());
        part.times.push(time);
        part.places.push(at);
        part.records += 1;
        u32::try_from(slot).unwrap_or(u32::MAX)
    }

    /// Learns the shape of a line that was parsed.
    fn learn(&mut self, line: &[u8], record: &Record<'_>) {
        if self.misses > 1000 && !self.misses.is_multiple_of(256) {
            return;
        }
        let Some(shape) = Shape::of(line, &record.object) else { return };
        let mut uses = Vec::new();
        for place in shape.places() {
            uses.push(match place {
                Place::Id => Use::Id,
                Place::Time => Use::Time,
                Place::Attribute(path) => {
                    let Some(number) = self.keys.numbers_at(path.iter().map(|member| &**member), false)
                    else {
                        return;
                    };
                    Use::Column(at(number))
                }
            });
        }
        self.columns.resize_with(self.keys.len(), Column::default);
        let form = Form { shape, uses };
        if self.forms.iter().any(|other| other.shape == form.shape) {
            return;
        }
        if self.forms.len() == SHAPES {
            self.forms.remove(0);
        }
        self.forms.push(form);
    }

    /// Takes a line if it has a form, and says whether it has.
    fn take(&mut self, form: usize, line: &[u8], at: Locator) -> bool {
        let Some((id, time)) = self.look(form, line) else { return false };
        let slot = self.begin(id, time, at);
        self.put(form, line, slot);
        true
    }

    /// Looks at all values of a line before any of them is taken: if one is malformed, the line as a whole is left to the
    /// parser. Gives the id and the time.
    fn look<'l>(&mut self, form: usize, line: &'l [u8]) -> Option<(&'l str, f64)> {
        let Self { forms, tokens, found, columns, keys, hasher, .. } = self;
        let Form { shape, uses } = forms.get(form)?;
        if !shape.split(line, tokens) {
            return None;
        }
        let line = std::str::from_utf8(line).ok()?;
        found.clear();
        let (mut id, mut time) = ("", 0.0);
        for ((usage, token), place) in uses.iter().zip(&*tokens).zip(shape.places()) {
            let text = line.get(token.start..token.end)?;
            found.push(match (usage, place) {
                (Use::Id, _) => {
                    let path =
                        if token.kind == Kind::Plain { text.get(1..text.len() - 1)? } else { return None };
                    id = Id::check(Id::in_path(path)).ok()?;
                    Found::Other
                }
                (Use::Time, _) => {
                    let exactly = || Leaf::of(&Value::Number(Number::new(text)?)).as_f64();
                    time = Number::double(text).or_else(exactly).filter(|time| time.is_finite())?;
                    Found::Other
                }
                (Use::Column(column), Place::Attribute(path)) => {
                    let this = columns.get_mut(*column)?;
                    if this.loose {
                        found.push(Column::look_loosely(text, token.kind)?);
                        continue;
                    }
                    let short = Text::of(line.as_bytes(), token.start, token.end);
                    if let Some(code) = short.as_ref().and_then(|short| this.recent.get(short)) {
                        Found::Code(code)
                    } else {
                        let code = if token.kind == Kind::Plain {
                            this.intern(Probe::Text(inside(text.as_bytes())), hasher)
                        } else {
                            let value = Value::parse(text.as_bytes()).ok()?;
                            let code = this.intern(Probe::of(&value), hasher);
                            if let Value::Array(elements) = &value
                                && !elements.is_empty()
                            {
                                let path = path.iter().map(|member| &**member);
                                let number = self::at(keys.numbers_at(path, true)?);
                                intern_elements(columns, *column, number, code, elements, hasher);
                            }
                            code
                        };
                        if let (Some(short), Some(this)) = (&short, columns.get_mut(*column))
                            && !this.loose
                        {
                            this.recent.put(short, code);
                        }
                        Found::Code(code)
                    }
                }
                (Use::Column(_), _) => return None,
            });
        }
        Some((id, time))
    }

    /// Takes the values that were looked at.
    fn put(&mut self, form: usize, line: &[u8], slot: u32) {
        let Self { forms, tokens, found, columns, keys, hasher, .. } = self;
        let Some(Form { shape, uses }) = forms.get(form) else { return };
        for (((usage, token), found), place) in uses.iter().zip(&*tokens).zip(&*found).zip(shape.places()) {
            let Use::Column(number) = usage else { continue };
            let Some(column) = columns.get_mut(*number) else { continue };
            let text = line.get(token.start..token.end).unwrap_or_default();
            match *found {
                Found::Other => {}
                Found::Double(double) => column.double(double, slot),
                Found::Text => column.probe(Probe::Text(inside(text)), slot, hasher),
                Found::Code(code) => {
                    column.code(code, slot);
                    let codes =
                        column.codes_of.get_mut(self::at(code)).map(std::mem::take).unwrap_or_default();
                    if codes.is_empty() {
                        continue;
                    }
                    if let Some(elements) = column.elements.and_then(|elements| columns.get_mut(elements)) {
                        codes.iter().for_each(|&code| elements.code(code, slot));
                    }
                    if let Some(place) =
                        columns.get_mut(*number).and_then(|column| column.codes_of.get_mut(self::at(code)))
                    {
                        *place = codes;
                    }
                }
                Found::Sound => {
                    let Ok(value) = Value::parse(text) else { continue };
                    column.probe(Probe::of(&value), slot, hasher);
                    if let Value::Array(elements) = &value
                        && !elements.is_empty()
                        && let Place::Attribute(path) = place
                        && let Some(of) = keys.numbers_at(path.iter().map(|member| &**member), true)
                    {
                        columns.resize_with(columns.len().max(self::at(of) + 1), Column::default);
                        if let Some(column) = columns.get_mut(self::at(of)) {
                            for value in elements {
                                column.probe(Probe::of(value), slot, hasher);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether many records came one by one.
    pub(super) fn is_full(&self) -> bool {
        self.part.ends.len() >= FULL
    }

    /// What came since the last call.
    pub fn part(&mut self) -> Part {
        let mut part = std::mem::take(&mut self.part);
        part.keys = self.keys.from(self.told).to_vec();
        self.told = self.keys.len();
        for (number, column) in self.columns.iter_mut().enumerate() {
            let leaves = column.dictionary.leaves.get(column.told..).unwrap_or_default();
            if leaves.is_empty() && column.stretch.slots.is_empty() {
                continue;
            }
            column.stretch.leaves = leaves.to_vec();
            column.told = column.dictionary.leaves.len();
            let room = column.stretch.codes.len();
            column.taken += room;
            part.columns.push((number, std::mem::take(&mut column.stretch)));
            column.stretch.codes.reserve(room);
        }
        part
    }
}

impl Column {
    /// What a value is, if most are different.
    fn look_loosely(text: &str, kind: Kind) -> Option<Found> {
        if kind == Kind::Plain {
            return Some(Found::Text);
        }
        if kind == Kind::Word
            && let Some(double) = Number::double(text)
        {
            return Some(Found::Double(double));
        }
        Value::parse(text.as_bytes()).is_ok().then_some(Found::Sound)
    }
}

/// Numbers the elements of an array that has a number.
fn intern_elements(
    columns: &mut Vec<Column>,
    array: usize,
    number: usize,
    code: u32,
    elements: &[Value<'_>],
    hasher: &DefaultHashBuilder,
) {
    columns.resize_with(columns.len().max(number + 1), Column::default);
    let Some(of) = columns.get_mut(number) else { return };
    let codes = elements.iter().map(|value| of.intern(Probe::of(value), hasher)).collect();
    let Some(column) = columns.get_mut(array) else { return };
    column.elements = Some(number);
    if column.codes_of.len() <= at(code) {
        column.codes_of.resize(at(code) + 1, Box::default());
    }
    if let Some(place) = column.codes_of.get_mut(at(code)) {
        *place = codes;
    }
}

/// What stands between the quotes.
fn inside(text: &[u8]) -> &[u8] {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
}
