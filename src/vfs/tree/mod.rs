//! The virtual nodes: views, attribute files, `new/`, `memo/`, `trash/`.
