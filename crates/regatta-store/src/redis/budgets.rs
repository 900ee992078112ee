//! Budgets in Redis: a hash each, with an end, changed by one script on the server's clock.

use redis::Value;

use super::sessions::unreadable;
use super::{Redis, scripts};
use crate::budgets::BUDGET_HOLDERS_MAX;
use crate::{BoxFuture, BudgetAsk, BudgetHolder, BudgetName, BudgetShare, Budgets, StoreError};

impl Budgets for Redis {
    fn hold_budget(&self, ask: BudgetAsk) -> BoxFuture<'_, Result<BudgetShare, StoreError>> {
        Box::pin(async move {
            let numbers = [
                ask.limit.to_string(),
                ask.busy.to_string(),
                ask.want.to_string(),
                ask.term.as_millis().max(1).to_string(),
                BUDGET_HOLDERS_MAX.to_string(),
                ask.turn.to_string(),
            ];
            let [limit, busy, want, term, most, turn] = numbers.each_ref().map(String::as_bytes);
            let holder = super::names::hex(&ask.holder.0);
            let args = [holder.as_bytes(), limit, busy, want, term, most, turn];
            let key = self.inner.names.budget(&ask.budget.0);
            read(&self.inner.routes.run(&scripts::HOLD_BUDGET, &key, &args).await?).ok_or_else(unreadable)
        })
    }

    fn leave_budget(
        &self,
        budget: BudgetName,
        holder: BudgetHolder,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let key = self.inner.names.budget(&budget.0);
            let holder = super::names::hex(&holder.0);
            self.inner.routes.run(&scripts::LEAVE_BUDGET, &key, &[holder.as_bytes()]).await.map(|_| ())
        })
    }
}

fn read(answer: &Value) -> Option<BudgetShare> {
    let Value::Array(parts) = answer else { return None };
    let [Value::Int(units), Value::Int(holders)] = parts[..] else { return None };
    Some(BudgetShare { units: u32::try_from(units).ok()?, holders: u32::try_from(holders).ok()? })
}
