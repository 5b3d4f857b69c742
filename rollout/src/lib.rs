//! Staged delivery of a policy: steps, waits, a failure budget; paused by itself, resumed and rolled back by an operator.
