//! Quotas in Redis: a key each, with an end, changed by one script (lease.lua) on the server's clock; and a hash of the
//! gateways that are there.

use std::time::Duration;

use redis::Value;

use super::routes::Call;
use super::sessions::unreadable;
use super::{Redis, names, scripts};
use crate::{BoxFuture, GatewayId, QuotaAsk, QuotaGrant, QuotaTerms, QuotaWant, Quotas, StoreError};

/// Gateways that are counted.
const GATEWAYS_MAX: usize = 1024;

impl Quotas for Redis {
    fn ask_quotas(&self, asks: Vec<QuotaAsk>) -> BoxFuture<'_, Vec<Result<QuotaGrant, StoreError>>> {
        Box::pin(async move {
            let call = |ask: &QuotaAsk| Call {
                key: self.inner.names.quota(&ask.key.0),
                args: args(ask).into_iter().map(String::into_bytes).collect(),
            };
            let calls: Vec<Call> = asks.iter().map(call).collect();
            let answers = self.inner.routes.run_all(&scripts::LEASE, &calls).await;
            answers.into_iter().map(|answer| read(&answer?).ok_or_else(unreadable)).collect()
        })
    }

    fn attend(&self, gateway: GatewayId, ttl: Duration) -> BoxFuture<'_, Result<u32, StoreError>> {
        Box::pin(async move {
            let (id, ttl) = (names::hex(&gateway.0), ttl.as_millis().max(1).to_string());
            let most = GATEWAYS_MAX.to_string();
            let args = [id.as_bytes(), ttl.as_bytes(), most.as_bytes()];
            let key = self.inner.names.gateways();
            match self.inner.routes.run(&scripts::ATTEND, &key, &args).await? {
                Value::Int(count) => u32::try_from(count).map_err(|_| unreadable()),
                _ => Err(unreadable()),
            }
        })
    }

    fn depart(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let id = names::hex(&gateway.0);
            let key = self.inner.names.gateways();
            self.inner.routes.run(&scripts::DEPART, &key, &[id.as_bytes()]).await.map(|_| ())
        })
    }
}

/// As the script takes them.
fn args(ask: &QuotaAsk) -> [String; 12] {
    let (algorithm, first, second) = match ask.terms {
        QuotaTerms::Window { allow, within_us } => ("window", u64::from(allow), within_us),
        QuotaTerms::Even { interval_us, slack_us } => ("gcra", interval_us, slack_us),
    };
    let (cost, way) = match ask.want {
        QuotaWant::Nothing => (0, "once"),
        QuotaWant::AtOnce(units) => (units, "once"),
        QuotaWant::Held(units) => (units, "held"),
    };
    [
        algorithm.to_owned(),
        first.to_string(),
        second.to_string(),
        ask.block_us.to_string(),
        names::hex(&ask.holder.to_be_bytes()),
        ask.used.to_string(),
        ask.last_ago_us.to_string(),
        cost.to_string(),
        way.to_owned(),
        ask.extra.to_string(),
        ask.term_us.to_string(),
        // The server's own time.
        String::new(),
    ]
}

fn read(answer: &Value) -> Option<QuotaGrant> {
    let Value::Array(parts) = answer else { return None };
    let number = |value: &Value| match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<i64>().ok(),
        _ => None,
    };
    let numbers: Vec<i64> = parts.iter().map(number).collect::<Option<_>>()?;
    match numbers[..] {
        [1, held, remaining, reset_after_us] => Some(QuotaGrant::Granted {
            held: u32::try_from(held).ok()?,
            remaining: u32::try_from(remaining).ok()?,
            reset_after_us: u64::try_from(reset_after_us).ok()?,
        }),
        // Below zero: never.
        [0, retry_after_us] => {
            Some(QuotaGrant::Refused { retry_after_us: u64::try_from(retry_after_us).ok() })
        }
        _ => None,
    }
}
