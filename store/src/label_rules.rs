//! Rows of `label_rule`.
