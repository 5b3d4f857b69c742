//! Rows of `rollout`.
