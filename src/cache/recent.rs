//! Records that were appended lately: who sets one attribute after the other need not have them read and parsed again.

use std::collections::HashMap;

use crate::index::Row;
use crate::record::{Locator, Record};
use crate::store::Generation;
use crate::sync::{Arc, Weak};

/// Between half as many and so many are kept,
const MOST: usize = 256;
/// none of which is longer than so many bytes.
const LONGEST: u32 = 4 << 10;

/// By row, as they stand at a place of one generation of the log.
#[derive(Debug, Default)]
pub(super) struct Recent {
    generation: Weak<Generation>,
    younger: HashMap<Row, Kept>,
    older: HashMap<Row, Kept>,
}

type Kept = (Locator, Arc<Record<'static>>);

impl Recent {
    /// The record of a row at a place of a generation.
    pub fn get(&self, generation: &Arc<Generation>, row: Row, at: Locator) -> Option<Arc<Record<'static>>> {
        if !self.is_of(generation) {
            return None;
        }
        let (place, record) = self.younger.get(&row).or_else(|| self.older.get(&row))?;
        (*place == at).then(|| Arc::clone(record))
    }

    /// Keeps a record that stands there now.
    pub fn put(
        &mut self,
        generation: &Arc<Generation>,
        row: Row,
        at: Locator,
        record: &Arc<Record<'static>>,
    ) {
        if at.len > LONGEST {
            return;
        }
        if !self.is_of(generation) {
            *self = Self { generation: Arc::downgrade(generation), ..Self::default() };
        }
        if self.younger.len() >= MOST / 2 {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(row, (at, Arc::clone(record)));
    }

    /// The generation that is known here is never taken for a later one: it keeps its place in memory.
    fn is_of(&self, generation: &Arc<Generation>) -> bool {
        std::ptr::eq(self.generation.as_ptr(), Arc::as_ptr(generation))
    }
}
