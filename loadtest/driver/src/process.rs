//! What processes have used: CPU time and memory, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Clock ticks of `/proc/PID/stat` in a second: what Linux shows to programs on every common machine.
const TICKS_PER_SECOND: u64 = 100;
const NANOS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// What some processes together have used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Time on a core by the scheduler's account, nanoseconds, threads that still run.
    pub run_ns: u64,
    /// The same by the threads' names.
    pub run_ns_by_thread: BTreeMap<String, u64>,
    /// User and system time, nanoseconds in steps of a clock tick, all threads ever.
    pub user_system_ns: u64,
    /// Resident memory now, KB.
    pub rss_kb: u64,
    /// Most resident memory ever, KB.
    pub rss_peak_kb: u64,
}

/// Reads what the processes `ids` have used; fails when one of them is gone.
pub fn read(ids: &[u32]) -> io::Result<Reading> {
    let mut sum = Reading::default();
    for id in ids {
        let one = read_one(*id)?;
        sum.run_ns = sum.run_ns.saturating_add(one.run_ns);
        for (name, run_ns) in one.run_ns_by_thread {
            add(&mut sum.run_ns_by_thread, name, run_ns);
        }
        sum.user_system_ns = sum.user_system_ns.saturating_add(one.user_system_ns);
        sum.rss_kb = sum.rss_kb.saturating_add(one.rss_kb);
        sum.rss_peak_kb = sum.rss_peak_kb.saturating_add(one.rss_peak_kb);
    }
    Ok(sum)
}

fn read_one(id: u32) -> io::Result<Reading> {
    let mut run_ns = 0_u64;
    let mut run_ns_by_thread = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread that ends meanwhile has no figures; the processes measured keep their threads.
        let task = task?.path();
        let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        let task_ns = nth_number(&text, 0);
        run_ns = run_ns.saturating_add(task_ns);
        add(&mut run_ns_by_thread, name.trim_end().to_owned(), task_ns);
    }
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are 11 fields after it.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let ticks = nth_number(fields, 11).saturating_add(nth_number(fields, 12));
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    Ok(Reading {
        run_ns,
        run_ns_by_thread,
        user_system_ns: ticks.saturating_mul(NANOS_PER_TICK),
        rss_kb: status_kb(&status, "VmRSS:"),
        rss_peak_kb: status_kb(&status, "VmHWM:"),
    })
}

fn add(sums: &mut BTreeMap<String, u64>, name: String, run_ns: u64) {
    let sum = sums.entry(name).or_default();
    *sum = sum.saturating_add(run_ns);
}

fn nth_number(text: &str, index: usize) -> u64 {
    text.split_whitespace().nth(index).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn status_kb(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |line| nth_number(line, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let id = std::process::id();
        let before = read(&[id]).unwrap();
        assert!(before.rss_kb > 100 && before.rss_peak_kb >= before.rss_kb);
        // Until the time on a core has grown: it must, by this loop alone.
        while read(&[id]).unwrap().run_ns <= before.run_ns {}
        assert_eq!(
            read(&[id, id]).unwrap().rss_kb / 1_000,
            read(&[id]).unwrap().rss_kb * 2 / 1_000
        );
        let after = read(&[id]).unwrap();
        assert_eq!(after.run_ns_by_thread.values().sum::<u64>(), after.run_ns);
        assert!(read(&[u32::MAX]).is_err());
    }
}
