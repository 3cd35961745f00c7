//! `README` and `.status`.

use super::Tree;
use crate::value::{Number, Object, Text, Value};

impl Tree {
    /// What this is and how to ask it, in one screen.
    pub(super) fn readme(&self) -> String {
        let mountpoint = self.options.mountpoint.display();
        let cache = self.cache.store().path().display();
        format!(
            "\
This is cachedirfs: experiment results, mounted from {cache}
An entry is a set of attributes and a directory; a question is a path.

  ls {mountpoint}
    entries/ID/                the entry's directory: all its files
    entries/ID/.attrs/KEY      one file an attribute: cat, echo 0.1 >, rm, mv
    entries/ID/.attrs.json     all of them on one line; > replaces, >> merges
    by-attr/KEY/VALUE/ID       the entries whose KEY is VALUE; KEY[] for elements of arrays
    where/EXPR/ID              where/'loss < 0.5 and not has(error)'; also lt le gt ge eq ne like, in (a, b)
    sort/KEY/NNNNNN-ID         in order; sort/-KEY descending
    new/NAME/                  mkdir new/x, or with attributes: mkdir new/lr=0.1,model=resnet18
    memo/K=V,K=V/              the one entry with these attributes; mkdir makes it, once
    trash/ID/                  mv entries/ID trash/ and back; rm -r trash/ID is for good

Below every directory that lists entries, by name: by-attr/ where/ sort/ table.csv table.jsonl schema.json count

  ls by-attr/lr/0.1/by-attr/model/resnet18
  ls 'by-attr/model/resnet18/where/loss < 0.5/sort/loss' | head -1
  cat by-attr/lr/0.1/table.csv
  mv by-attr/status/running/ID by-attr/status/done/
  cat new/x/.attrs/_id                      the permanent id of what mkdir new/x made
  cachedirfs status {mountpoint}            how the mount is doing
"
        )
    }

    /// How the mount is doing, as one JSON object.
    pub(super) fn status(&self) -> Vec<u8> {
        let status = self.cache.status();
        let number = |number: u64| Number::new(number.to_string()).map_or(Value::Null, Value::Number);
        let count = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
        let string = |text: String| Value::String(Text::from_str(text));
        let (waiting, seconds) = match status.waiting {
            Some((what, seconds)) => (string(what.to_owned()), Value::Number(seconds.into())),
            None => (Value::Null, number(0)),
        };
        let (held, waits) = self.locks.len();
        let members = [
            ("cache", string(self.cache.store().path().to_string_lossy().into_owned())),
            ("mountpoint", string(self.options.mountpoint.to_string_lossy().into_owned())),
            ("pid", number(u64::from(std::process::id()))),
            ("version", string(env!("CARGO_PKG_VERSION").to_owned())),
            ("read_only", Value::Bool(self.options.read_only)),
            ("entries", number(status.entries)),
            ("malformed", number(status.malformed)),
            ("log_bytes", number(status.log_bytes)),
            ("dead_records", number(status.dead_records)),
            ("poisoned", Value::Bool(status.poisoned)),
            ("waiting", waiting),
            ("waiting_seconds", seconds),
            ("waiting_for", status.holder.map_or(Value::Null, string)),
            ("trouble", status.trouble.map_or(Value::Null, string)),
            ("nodes", count(self.table.len())),
            ("content_nodes", count(self.contents.nodes())),
            ("handles", count(self.handles.len())),
            ("passthrough", Value::Bool(self.contents.passthrough())),
            ("locks_held", count(held)),
            ("locks_waiting", count(waits)),
        ];
        let mut object = Object::new();
        for (name, value) in members {
            object.insert(Text::from_str(name), value);
        }
        crate::view::attribute::object_line(&object)
    }
}
