//! The worker as the data plane and an operator see it: snapshots, versions, reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regatta_policy::snapshot::{Eras, Health, Snapshot};
use tokio::sync::watch;

use crate::config::{Env, load};
use crate::stub::{Stub, dual};
use crate::{Control, Source};

fn write(dir: &tempfile::TempDir, text: &str) -> Source {
    let path = dir.path().join("regatta.toml");
    std::fs::write(&path, text).unwrap();
    Source { path, env: Env::default() }
}

fn over(stubs: &[&Stub]) -> String {
    let urls: Vec<String> = stubs.iter().map(|stub| stub.url()).collect();
    format!("[[server]]\nname = \"demo\"\nreplicas = {urls:?}\n")
}

async fn start(source: &Source) -> Control {
    Control::start(load(&source.path, &source.env).unwrap(), Some(source.clone()), None).await
}

async fn until(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    fits: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    snapshots.wait_for(|snapshot| fits(snapshot)).await.unwrap().clone()
}

#[tokio::test]
async fn the_first_snapshot_knows_what_the_first_probes_saw() {
    let (dir, stub) = (tempfile::tempdir().unwrap(), Stub::start(dual).await);
    let control = start(&write(&dir, &over(&[&stub]))).await;
    let snapshot = control.snapshots().borrow().clone();
    let replica = &snapshot.servers[0].replicas[0];
    assert_eq!((snapshot.version, replica.health, replica.eras), (1, Health::Healthy, Eras::Dual));
    control.stop().await;
}

#[tokio::test]
async fn a_replica_that_fails_and_returns_is_told_each_time_with_a_higher_version() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = broken.clone();
    let stub = Stub::start(move |asked| match switch.load(Ordering::Relaxed) {
        true => (500, Vec::new(), String::new()),
        false => dual(asked),
    });
    let (dir, stub) = (tempfile::tempdir().unwrap(), stub.await);
    let control = start(&write(&dir, &over(&[&stub]))).await;
    let mut snapshots = control.snapshots();
    broken.store(true, Ordering::Relaxed);
    let health = |wanted: Health| move |s: &Snapshot| s.servers[0].replicas[0].health == wanted;
    let down = until(&mut snapshots, health(Health::Unhealthy)).await;
    assert!(control.views().borrow()[0].why.is_some());
    broken.store(false, Ordering::Relaxed);
    let up = until(&mut snapshots, health(Health::Healthy)).await;
    assert_eq!((down.version, up.version), (2, 3));
    control.stop().await;
}

#[tokio::test]
async fn a_bad_file_never_replaces_a_good_one() {
    let (dir, first, second) =
        (tempfile::tempdir().unwrap(), Stub::start(dual).await, Stub::start(dual).await);
    let source = write(&dir, &over(&[&first]));
    let control = start(&source).await;
    let mut snapshots = control.snapshots();
    write(&dir, "[gateway]\nlisten = 1\n");
    control.reload().await;
    write(&dir, &over(&[&first, &second]));
    control.reload().await;
    let snapshot = until(&mut snapshots, |s| s.servers[0].replicas.len() == 2).await;
    assert_eq!(snapshot.servers[0].replicas[0].health, Health::Healthy);
    assert!(2 <= snapshot.version);
    let stats = control.stats();
    // At least: the look every two seconds may have met one of the files as well.
    assert!(1 <= stats.config_reload_failed.load(Ordering::Relaxed));
    assert!(1 <= stats.config_reloads.load(Ordering::Relaxed));
    until(&mut snapshots, |s| s.servers[0].replicas[1].health == Health::Healthy).await;
    control.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_seen_without_a_signal() {
    let (dir, first, second) =
        (tempfile::tempdir().unwrap(), Stub::start(dual).await, Stub::start(dual).await);
    let source = write(&dir, &over(&[&first]));
    let control = start(&source).await;
    write(&dir, &over(&[&second]));
    let url = second.url();
    until(&mut control.snapshots(), |s| s.servers[0].replicas[0].endpoint.url == url).await;
    control.stop().await;
}
