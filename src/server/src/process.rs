//! Keeps the memory of this process, which holds secrets, from other processes and from disk.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From here on there is no core dump, and processes of the same user can neither trace this one nor read
/// its memory and environment; root still can. A successor does the same for itself.
pub(crate) fn shield() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
