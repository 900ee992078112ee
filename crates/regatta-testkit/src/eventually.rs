//! Waiting for a fact instead of sleeping and hoping.

use std::time::Duration;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Probes until `probe` gives something, and gives that. Panics with `what` when it has not by `within`.
///
/// ```ignore
/// eventually("the replica is back", Duration::from_secs(5), async || gateway.ready().await.then_some(())).await;
/// ```
pub async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_what_the_probe_found() {
        let mut left = 3;
        let found = eventually("it counts down", Duration::from_secs(5), async || {
            left -= 1;
            (left == 0).then_some("found")
        });
        assert_eq!(found.await, "found");
    }

    #[tokio::test]
    #[should_panic(expected = "not within 10ms: never")]
    async fn panics_with_the_sentence() {
        eventually("never", Duration::from_millis(10), async || None::<()>).await;
    }
}
