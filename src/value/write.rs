//! Writers: as Python's `json.dumps` prints, and compact.
