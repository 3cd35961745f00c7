//! What is kept of every row: its time and where its record stands.

use crate::record::Locator;

/// Columns by row.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    times: Vec<f64>,
    offsets: Vec<u64>,
    lens: Vec<u32>,
}

impl Rows {
    /// Makes room for so many rows.
    pub(super) fn grow(&mut self, len: usize) {
        self.times.resize(len, 0.0);
        self.offsets.resize(len, 0);
        self.lens.resize(len, 0);
    }

    /// Sets the time and the place of a row.
    pub(super) fn set(&mut self, row: u32, time: f64, at: Locator) {
        if let Some(to) = usize::try_from(row).ok().and_then(|row| self.times.get_mut(row)) {
            *to = time;
        }
        self.place(row, at);
    }

    /// Sets the place of a row.
    pub(super) fn place(&mut self, row: u32, at: Locator) {
        let Ok(row) = usize::try_from(row) else { return };
        if let (Some(offset), Some(len)) = (self.offsets.get_mut(row), self.lens.get_mut(row)) {
            *offset = at.offset;
            *len = at.len;
        }
    }

    /// The time of a row; 0 if there is no such row.
    pub(super) fn time(&self, row: u32) -> f64 {
        usize::try_from(row).ok().and_then(|row| self.times.get(row)).copied().unwrap_or(0.0)
    }

    /// The place of a row.
    pub(super) fn locator(&self, row: u32) -> Option<Locator> {
        let row = usize::try_from(row).ok()?;
        Some(Locator { offset: *self.offsets.get(row)?, len: *self.lens.get(row)? })
    }

    /// The rows that ever had a record.
    pub(super) fn ever_live(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.lens).filter(|(_, len)| **len > 0).map(|(row, _)| row)
    }

    /// Times, offsets and lengths.
    pub(super) fn columns(&self) -> (&[f64], &[u64], &[u32]) {
        (&self.times, &self.offsets, &self.lens)
    }

    /// As [`Rows::columns`] has told of so many rows.
    pub(super) fn from_columns(
        times: Vec<f64>,
        offsets: Vec<u64>,
        lens: Vec<u32>,
        len: usize,
    ) -> Option<Self> {
        (times.len() == len && offsets.len() == len && lens.len() == len).then_some(Self {
            times,
            offsets,
            lens,
        })
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink_to_fit(&mut self) {
        self.times.shrink_to_fit();
        self.offsets.shrink_to_fit();
        self.lens.shrink_to_fit();
    }
}
