//! Rows of `attempt`, the ledger of ClientIdentifiers: one try to get one certificate onto one enrollment. Its id is the trace id.
