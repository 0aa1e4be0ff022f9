//! House rules and black-box tests: see `tidy.rs` and `e2e/`.
