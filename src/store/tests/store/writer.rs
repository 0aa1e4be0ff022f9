//! The record writer: every record, once, whatever the database does meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use sqlx::SqliteConnection;
use tokenroute_domain::record::Record;
use tokenroute_store::{RecordWriter, WriterGauges};
use tokio::sync::mpsc;

use crate::support::{FreshFile, eventually, record};

type Started = (mpsc::Sender<Record>, Arc<WriterGauges>, JoinHandle<usize>);

fn start(fresh: &FreshFile) -> Started {
    let gauges = Arc::new(WriterGauges::default());
    let (sender, receiver) = mpsc::channel(64);
    let writer = RecordWriter::spawn(fresh.database.clone(), receiver, Arc::clone(&gauges));
    (sender, gauges, writer.unwrap())
}

async fn send(sender: &mpsc::Sender<Record>, count: u128) {
    for number in 0..count {
        sender.send(record(number)).await.unwrap();
    }
}

/// Another program that holds the lock until it commits or rolls back.
async fn locked(fresh: &FreshFile) -> SqliteConnection {
    let mut other = fresh.other_program().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    other
}

async fn join(writer: JoinHandle<usize>) -> usize {
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap()
}

async fn calls(fresh: &FreshFile) -> HashSet<String> {
    let stored = fresh.database.records_after(0, 1_000_000).await.unwrap();
    let calls: HashSet<_> = stored.iter().map(|record| record.call.clone()).collect();
    assert_eq!(calls.len(), stored.len(), "no call has two records");
    calls
}

#[tokio::test]
async fn everything_sent_is_durable_when_the_thread_has_ended() {
    let fresh = FreshFile::with_account().await;
    let (sender, gauges, writer) = start(&fresh);
    send(&sender, 2_000).await;
    drop(sender);
    assert_eq!(join(writer).await, 0);
    assert_eq!(calls(&fresh).await.len(), 2_000);
    assert_eq!((gauges.written(), gauges.backlog(), gauges.retries()), (2_000, 0, 0));
}

#[tokio::test]
async fn a_lone_record_is_written_without_waiting_for_more() {
    let fresh = FreshFile::with_account().await;
    let (sender, _gauges, writer) = start(&fresh);
    send(&sender, 1).await;
    eventually("it is there", async || calls(&fresh).await.len() == 1).await;
    drop(sender);
    assert_eq!(join(writer).await, 0);
}

/// The lock is held until a try has failed, which takes longer than a statement waits for a lock.
#[tokio::test]
async fn a_database_locked_by_another_program_costs_no_record() {
    let fresh = FreshFile::with_account().await;
    let mut other = locked(&fresh).await;
    let (sender, gauges, writer) = start(&fresh);
    send(&sender, 64).await;
    eventually("a try has failed", async || gauges.retries() > 0).await;
    assert!(gauges.backlog() > 0 && gauges.written() == 0);
    assert!(calls(&fresh).await.is_empty());
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    eventually("all are written", async || gauges.written() == 64).await;
    drop(sender);
    assert_eq!(join(writer).await, 0);
    assert_eq!(calls(&fresh).await.len(), 64);
}

#[tokio::test]
async fn records_sent_before_a_shutdown_survive_a_lock_that_outlasts_it() {
    let fresh = FreshFile::with_account().await;
    let mut other = locked(&fresh).await;
    let (sender, gauges, writer) = start(&fresh);
    send(&sender, 10).await;
    drop(sender);
    eventually("a try has failed", async || gauges.retries() > 0).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(join(writer).await, 0);
    assert_eq!(calls(&fresh).await.len(), 10);
}
