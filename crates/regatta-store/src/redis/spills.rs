//! Spilled streams in Redis: a hash a stream, an event a field, numbered.

use bytes::Bytes;
use redis::Value;

use super::sessions::unreadable;
use super::{Inner, Redis, scripts};
use crate::{BoxFuture, Course, Recalled, SpilledEvent, Spills, StoreError, StreamName};

/// Events and bytes that go out in one script: a long one would hold up everybody.
const BATCH_EVENTS_MAX: usize = 200;
const BATCH_BYTES_MAX: usize = 1 << 20;

impl Inner {
    async fn append(
        &self,
        stream: StreamName,
        events: Vec<SpilledEvent>,
        course: Course,
    ) -> Result<(), StoreError> {
        let mut batches = batches(&events).peekable();
        if batches.peek().is_none() {
            return self.append_batch(&stream, &[], course).await;
        }
        while let Some(batch) = batches.next() {
            // The end is written with the last events, never before them.
            let course = if batches.peek().is_some() { Course::Open } else { course };
            self.append_batch(&stream, batch, course).await?;
        }
        Ok(())
    }

    async fn append_batch(
        &self,
        stream: &StreamName,
        events: &[SpilledEvent],
        course: Course,
    ) -> Result<(), StoreError> {
        let limits = &self.limits;
        let ended: &[u8] = match course {
            Course::Open => b"0",
            Course::Ended => b"1",
        };
        let first = events.first().map_or(0, |event| event.sequence);
        let numbers = [
            limits.spill_ttl.as_millis().to_string(),
            limits.spill_events_max.to_string(),
            limits.spill_bytes_max.to_string(),
            first.to_string(),
        ];
        let [ttl, most_events, most_bytes, first] = &numbers;
        let mut args =
            vec![ttl.as_bytes(), most_events.as_bytes(), most_bytes.as_bytes(), ended, first.as_bytes()];
        args.extend(events.iter().map(|event| &event.bytes[..]));
        match self.routes.run(&scripts::SPILL, &self.names.events(stream), &args).await {
            Ok(Value::Int(dropped)) => {
                self.means.counters.refused_spills.more(dropped.unsigned_abs());
                Ok(())
            }
            Ok(_) => Err(unreadable()),
            Err(error) => {
                self.means.counters.refused_spills.more(events.len() as u64);
                Err(error)
            }
        }
    }

    async fn look_up(
        &self,
        stream: StreamName,
        from: u64,
        events_max: usize,
    ) -> Result<Option<Recalled>, StoreError> {
        let numbers =
            [from.min(1 << 53).to_string(), events_max.to_string(), self.limits.recall_bytes_max.to_string()];
        let args = numbers.each_ref().map(|number| number.as_bytes());
        match self.routes.run(&scripts::RECALL, &self.names.events(&stream), &args).await? {
            Value::Nil => Ok(None),
            answer => read(answer).map(Some).ok_or_else(unreadable),
        }
    }

    async fn drop_stream(&self, stream: StreamName) -> Result<(), StoreError> {
        let key = self.names.events(&stream);
        let mut cmd = redis::cmd("DEL");
        cmd.arg(&key);
        self.routes.ask(&key, &cmd, super::line::Repeat::Harmless).await.map(|_| ())
    }
}

/// Runs of events without a gap, none too large for one script.
fn batches(events: &[SpilledEvent]) -> impl Iterator<Item = &[SpilledEvent]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut bytes = 0;
        let mut fits = |(at, event): (usize, &SpilledEvent)| {
            bytes += event.bytes.len();
            event.sequence == first.sequence + at as u64 && (at == 0 || bytes <= BATCH_BYTES_MAX)
        };
        let number = rest.iter().enumerate().take(BATCH_EVENTS_MAX).position(|place| !fits(place));
        let number = number.unwrap_or(rest.len().min(BATCH_EVENTS_MAX));
        let (batch, after) = rest.split_at(number);
        rest = after;
        Some(batch)
    })
}

fn read(answer: Value) -> Option<Recalled> {
    let Value::Array(mut parts) = answer else { return None };
    if parts.len() < 4 {
        return None;
    }
    let events = parts.split_off(4);
    let number = |part: &Value| match part {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    let [first, next, ended, from] = [&parts[0], &parts[1], &parts[2], &parts[3]].map(number);
    let from = from?;
    let event = |(at, part)| match part {
        Value::BulkString(bytes) => {
            Some(SpilledEvent { sequence: from + at as u64, bytes: Bytes::from(bytes) })
        }
        _ => None,
    };
    Some(Recalled {
        events: events.into_iter().enumerate().map(event).collect::<Option<_>>()?,
        first: first?,
        next: next?,
        course: if ended? == 1 { Course::Ended } else { Course::Open },
    })
}

impl Spills for Redis {
    fn spill(
        &self,
        stream: StreamName,
        events: Vec<SpilledEvent>,
        course: Course,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.append(stream, events, course))
    }

    fn recall(
        &self,
        stream: StreamName,
        from: u64,
        events_max: usize,
    ) -> BoxFuture<'_, Result<Option<Recalled>, StoreError>> {
        Box::pin(self.inner.look_up(stream, from, events_max))
    }

    fn discard(&self, stream: StreamName) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.drop_stream(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, length: usize) -> SpilledEvent {
        SpilledEvent { sequence, bytes: Bytes::from(vec![0; length]) }
    }

    #[test]
    fn batches_have_no_gap_and_a_bound() {
        let lengths = |events: &[SpilledEvent]| batches(events).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), []);
        let gap: Vec<_> = [1, 2, 5, 6, 7].into_iter().map(|sequence| event(sequence, 1)).collect();
        assert_eq!(lengths(&gap), [2, 3]);
        let many: Vec<_> = (0..450).map(|sequence| event(sequence, 1)).collect();
        assert_eq!(lengths(&many), [200, 200, 50]);
        let large: Vec<_> = (0..4).map(|sequence| event(sequence, BATCH_BYTES_MAX * 2 / 3)).collect();
        assert_eq!(lengths(&large), [1, 1, 1, 1]);
    }
}
