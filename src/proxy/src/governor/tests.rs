//! The governor's verdicts, with memory, lag and time as arguments.

use tokenroute_domain::time::Timestamp;

use super::*;

fn governor() -> Governor {
    Governor::new(&Registry::new(), 1_000).unwrap()
}

fn key(chance: u128) -> KeyId {
    KeyId::new(Timestamp(1_000), chance)
}

#[test]
fn without_memory_models_are_still_listed() {
    let governor = governor();
    assert_eq!(governor.set_memory(86, 100), Some(Pressure::Shedding));
    assert_eq!(governor.set_memory(87, 100), None);
    assert_eq!(governor.look(Endpoint::ChatCompletions), Err(Shed::Memory));
    assert_eq!(governor.look(Endpoint::Models), Ok(()));
    assert!(!governor.refuses_connections());
    assert_eq!(governor.set_memory(50, 100), Some(Pressure::Normal));
    assert_eq!(governor.look(Endpoint::ChatCompletions), Ok(()));
}

#[test]
fn calls_are_bounded_by_the_lower_of_two() {
    let governor = governor();
    assert_eq!(governor.check_calls(1_000, 5_000), Ok(()));
    assert_eq!(governor.check_calls(1_001, 5_000), Err(Shed::Calls));
    assert_eq!(governor.check_calls(11, 10), Err(Shed::Calls));
}

#[test]
fn a_greedy_key_leaves_room_for_another() {
    let governor = governor();
    let mut held = Vec::new();
    let refused = loop {
        match governor.place(key(1), (held.len() + 1, 90)) {
            Ok(one) => held.push(one),
            Err(why) => break why,
        }
    };
    assert_eq!((refused, held.len()), (Shed::KeyShare, 80));
    let _other = governor.place(key(2), (81, 90)).unwrap();
    // Whoever is turned away holds nothing.
    assert_eq!(governor.0.holders.calls(), 81);
}

#[test]
fn lag_turns_away_the_share_and_the_greedy_first() {
    let governor = governor();
    let many: Vec<_> = (0..99).map(|_| governor.place(key(1), (100, 1_000)).unwrap()).collect();
    governor.0.share.store(250, Ordering::Relaxed);
    let turned = |chance| {
        let one = |_| governor.place(key(chance), (100, 1_000)).is_err();
        (0..1_000).filter(|turn| one(*turn)).count()
    };
    assert_eq!((turned(1), turned(2)), (500, 0));
    governor.0.share.store(750, Ordering::Relaxed);
    assert_eq!((turned(1), turned(2)), (1_000, 500));
    drop(many);
    governor.0.share.store(0, Ordering::Relaxed);
    assert_eq!(turned(1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_does_nothing_is_in_time() {
    let governor = governor();
    assert_eq!(governor.lag(), Duration::ZERO, "nothing is late that has not begun");
    let _beating = tokio::spawn(governor.clone().beat());
    tokio::time::sleep(PAUSE * 3).await;
    assert_eq!(governor.lag(), Duration::ZERO);
}

#[test]
fn a_runtime_that_is_kept_busy_sheds_and_is_calm_again() {
    let governor = governor();
    let (edge, other) = (runtime(), runtime());
    edge.spawn(governor.clone().beat());
    other.spawn(governor.clone().watch(Duration::from_millis(20)));
    let share = || governor.0.share.load(Ordering::Relaxed);
    // More than the threads can do: there is always something else to do before what is due.
    let busy = edge.spawn(async {
        loop {
            std::thread::sleep(Duration::from_millis(60));
            tokio::task::yield_now().await;
        }
    });
    until(|| share() == ALL);
    assert!(governor.place(key(1), (1, 1_000)).is_err());
    busy.abort();
    until(|| share() == 0 && governor.0.series.lag.get() < 0.02);
    assert!(governor.place(key(1), (1, 1_000)).is_ok());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Waits for what comes sooner or later.
fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it has not come");
}
