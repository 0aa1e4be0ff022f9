//! Tests of the journal against a disk that fails.
