//! The distinct values of a key, ascending, in few allocations: as they are held and as they are kept in a file.

use std::cmp::Ordering;

use crate::value::Leaf;

/// A scalar that is no double: these bits are a NaN, and no leaf holds NaN as a double.
const BOXED: u64 = 0xFFF8_0000_0000_0000;
const NULL: u64 = BOXED;
const FALSE: u64 = BOXED | 1;
const TRUE: u64 = BOXED | 2;
const NAN: u64 = BOXED | 3;
/// The first of the integers that no double holds; the others count up from here.
const INTEGERS: u64 = BOXED | 4;

/// Texts one behind the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    /// Where each ends.
    pub ends: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let end = usize::try_from(*self.ends.get(at)?).ok()?;
        let start = match at.checked_sub(1) {
            Some(before) => usize::try_from(*self.ends.get(before)?).ok()?,
            None => 0,
        };
        self.bytes.get(start..end)
    }

    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u64);
    }

    fn shrink_to_fit(&mut self) {
        self.ends.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }
}

/// Ascending values, none twice.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    /// null, false, true, numbers and NaN.
    pub scalars: Vec<u64>,
    /// The digits of the integers among them that no double holds.
    pub integers: Texts,
    pub strings: Texts,
    /// Arrays and objects.
    pub jsons: Texts,
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.scalars.len() + self.strings.len() + self.jsons.len()
    }

    /// About how many bytes they take.
    pub fn bytes(&self) -> u64 {
        let texts = [&self.integers, &self.strings, &self.jsons];
        let texts: u64 = texts.map(|texts| (texts.bytes.len() + texts.ends.len() * 8) as u64).iter().sum();
        self.scalars.len() as u64 * 8 + texts
    }

    /// Appends a value that is above all others.
    pub fn push(&mut self, leaf: &Leaf) {
        let word = match leaf {
            Leaf::String(text) => return self.strings.push(text),
            Leaf::Json(text) => return self.jsons.push(text.as_bytes()),
            Leaf::Null => NULL,
            Leaf::Bool(false) => FALSE,
            Leaf::Bool(true) => TRUE,
            Leaf::NaN => NAN,
            Leaf::Double(double) => double.to_bits(),
            Leaf::Integer(digits) => {
                let word = INTEGERS + self.integers.len() as u64;
                self.integers.push(digits.as_bytes());
                word
            }
        };
        self.scalars.push(word);
    }

    /// A value.
    pub fn get(&self, at: usize) -> Option<Leaf> {
        if let Some(&word) = self.scalars.get(at) {
            return self.scalar(word);
        }
        let at = at - self.scalars.len();
        if let Some(text) = self.strings.get(at) {
            return Some(Leaf::String(text.into()));
        }
        let text = self.jsons.get(at.checked_sub(self.strings.len())?)?;
        std::str::from_utf8(text).ok().map(|text| Leaf::Json(text.into()))
    }

    fn scalar(&self, word: u64) -> Option<Leaf> {
        Some(match word {
            NULL => Leaf::Null,
            FALSE => Leaf::Bool(false),
            TRUE => Leaf::Bool(true),
            NAN => Leaf::NaN,
            INTEGERS.. => {
                let digits = self.integers.get(usize::try_from(word - INTEGERS).ok()?)?;
                Leaf::Integer(std::str::from_utf8(digits).ok()?.into())
            }
            bits => Leaf::Double(f64::from_bits(bits)),
        })
    }

    /// How a value stands to another.
    pub fn compare(&self, at: usize, other: &Leaf) -> Ordering {
        // What is mostly compared makes no leaf.
        match (self.scalars.get(at), other) {
            (Some(&bits), Leaf::Double(double)) if bits < BOXED => {
                f64::from_bits(bits).partial_cmp(double).unwrap_or(Ordering::Equal)
            }
            (Some(_), Leaf::String(_) | Leaf::Json(_)) => Ordering::Less,
            (None, Leaf::String(text)) => match self.strings.get(at - self.scalars.len()) {
                Some(string) => string.cmp(text),
                None => Ordering::Greater,
            },
            _ => self.get(at).map_or(Ordering::Greater, |leaf| leaf.cmp(other)),
        }
    }

    /// Number of values for which a condition holds that holds for the first ones and none after.
    pub fn partition(&self, holds: impl Fn(usize) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if holds(middle) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Number of values below one.
    pub fn below(&self, leaf: &Leaf) -> usize {
        self.partition(|at| self.compare(at, leaf).is_lt())
    }

    /// Number of values not above one.
    pub fn up_to(&self, leaf: &Leaf) -> usize {
        self.partition(|at| self.compare(at, leaf).is_le())
    }

    /// Gives back memory that is not used.
    pub fn shrink_to_fit(&mut self) {
        self.scalars.shrink_to_fit();
        for texts in [&mut self.integers, &mut self.strings, &mut self.jsons] {
            texts.shrink_to_fit();
        }
    }
}
