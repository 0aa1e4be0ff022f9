//! How lag is judged, with time as an argument.

use super::*;

const TARGET: Duration = Duration::from_millis(20);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Tick {
    Tick(millis * 1_000)
}

#[test]
fn a_burst_is_no_overload() {
    let mut lag = Lag::new(TARGET);
    for turn in 0..50 {
        // Late by five targets for 90 ms, then in time once.
        for step in 0..10 {
            let late = if step == 9 { ms(1) } else { ms(100) };
            assert_eq!(lag.observe(late, at(turn * 100 + step * 10)), 0);
        }
    }
}

#[test]
fn a_standing_lag_sheds_by_its_size_until_it_is_calm() {
    let mut lag = Lag::new(TARGET);
    assert_eq!(lag.observe(ms(30), at(0)), 0);
    assert_eq!(lag.observe(ms(30), at(99)), 0);
    assert_eq!(lag.observe(ms(30), at(100)), ALL);
    for (late, share) in [(20, ALL), (19, 933), (10, 333), (5, 0), (1, 0)] {
        assert_eq!(lag.observe(ms(late), at(110)), share, "{late} ms");
    }
    // It comes back without standing for long, as long as it was not calm.
    assert_eq!(lag.observe(ms(20), at(1_000)), ALL);
    assert_eq!(lag.observe(ms(1), at(1_010)), 0);
    assert!(lag.is_shedding());
    assert_eq!(lag.observe(ms(1), at(2_010)), 0);
    assert!(!lag.is_shedding());
    assert_eq!(lag.observe(ms(50), at(2_020)), 0);
}

#[test]
fn without_a_target_nothing_is_shed() {
    let mut lag = Lag::new(Duration::ZERO);
    assert!((0..1_000).all(|step| lag.observe(ms(500), at(step)) == 0));
}

#[test]
fn a_thread_that_says_nothing_is_late() {
    assert_eq!(estimate(ms(3), at(1_002), at(1_001)), ms(3));
    assert_eq!(estimate(ms(3), at(1_002), at(1_050)), ms(48));
}

#[test]
fn who_asks_again_and_again_is_read_the_later_the_worse_it_is() {
    for (late, rests) in [(0, 0), (20, 0), (40, 0), (41, 50), (44, 200), (9_000, 500)] {
        assert_eq!(rest(ms(late), TARGET), ms(rests), "{late} ms");
    }
    assert_eq!(rest(ms(9_000), Duration::ZERO), Duration::ZERO);
}

/// An edge that works off what comes, first come, first served; all times in microseconds.
struct Edge {
    /// Work of a call, and of turning one away.
    call: u64,
    shed: u64,
    /// Work offered, in ten thousandths of what can be done.
    offered: u64,
}

/// What came of a run.
#[derive(Debug)]
struct Outcome {
    /// Work done for calls that were taken, in thousandths of the time.
    goodput: u64,
    /// The lag that nine of ten calls found at most.
    lag: u64,
}

impl Edge {
    fn run(&self, seconds: u64) -> Outcome {
        let mut lag = Lag::new(TARGET);
        let (mut backlog, mut share, mut owed, mut turn) = (0_u64, 0, 0, 0);
        let (mut good, mut lags) = (0, Vec::new());
        // When the next beat is due, how late the last was, and what has to be done before the next.
        let (mut due, mut late, mut before) = (20, 0, None);
        for now in 0..seconds * 1_000 {
            owed += self.offered;
            while owed >= self.call * 10 {
                owed -= self.call * 10;
                turn += share;
                if turn >= ALL {
                    turn -= ALL;
                    backlog += self.shed;
                } else {
                    backlog += self.call;
                    good += if now >= 2_000 { self.call } else { 0 };
                }
            }
            let pause = if lag.is_shedding() { 2 } else { 20 };
            if before.is_none() && now >= due {
                before = Some(backlog);
            }
            backlog = backlog.saturating_sub(1_000);
            before = before.map(|work| work.saturating_sub(1_000));
            if before == Some(0) {
                (late, due, before) = (now.saturating_sub(due), now + pause, None);
            }
            if now % pause == 0 {
                let seen = estimate(ms(late), at(due), at(now));
                share = lag.observe(seen, at(now));
            }
            if now >= 2_000 {
                lags.push(backlog);
            }
        }
        lags.sort_unstable();
        Outcome { goodput: good / (seconds - 2) / 1_000, lag: lags[lags.len() * 9 / 10] / 1_000 }
    }
}

#[test]
fn overload_is_held_at_any_strength() {
    // The more comes, the more of it has come before the edge has noticed.
    for (times, shed, lag_max) in
        [(11, 10, 30), (15, 10, 40), (20, 10, 50), (40, 10, 80), (100, 5, 200)]
    {
        let outcome = Edge { call: 500, shed, offered: times * 1_000 }.run(20);
        assert!(outcome.goodput >= 900 && outcome.lag <= lag_max, "{times}: {outcome:?}");
    }
}

#[test]
fn an_edge_that_keeps_up_sheds_nothing() {
    let outcome = Edge { call: 500, shed: 500, offered: 9_500 }.run(20);
    assert!(outcome.goodput >= 940 && outcome.lag < 5, "{outcome:?}");
}
