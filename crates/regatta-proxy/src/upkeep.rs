//! What the answer to a call does to the result cache: it fills it, or it makes things in it old.
//!
//! It travels with the call (in its `Errand`, then in what reads its answer), and whatever drops it settles it: a
//! fetch without a result lets its waiters go, and a writing tool whose outcome nobody knows has written. It never
//! reads a body; those who do tell it what they saw.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_cache::{About, Audience, Form, Kept, Lead, LocalKey, Purge, hint, outcome};
use regatta_mcp::{Method, Skim, skim};
use regatta_policy::Micros;
use regatta_policy::cache::{Keeping, Outcome, Page, Said, Telling};

use crate::gateway::Gateway;
use crate::results::{Publishing, ServerRules};

/// What an answer has to do with the cache.
pub(crate) struct Upkeep {
    part: Part,
    touch: Option<Touch>,
    publishing: Option<Publishing>,
}

/// A call's part in the fetch of a result.
enum Part {
    None,
    /// To be found out as soon as the call is on its way.
    Asks(Asking),
    Leads(Fill),
}

/// A call for something that may be kept, and was not found.
pub(crate) struct Asking {
    pub rules: Arc<ServerRules>,
    /// By which of the rules.
    pub by: By,
    pub key: LocalKey,
    pub about: About,
    /// What is left of an older result.
    pub spare: Option<Arc<Kept>>,
}

/// The duty to bring a result.
pub(crate) struct Fill {
    pub rules: Arc<ServerRules>,
    pub by: By,
    pub lead: Box<Lead>,
}

/// What decides whether a result is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// This one of the server's rules.
    Rule(usize),
    /// The server's own word, as far as it counts.
    Hint { method: Method, page: Page, public: Option<LocalKey>, asked: u64 },
    /// The operator's time for a legacy server's lists.
    Time { ttl: Duration },
}

/// What a call makes old by how it ends.
pub(crate) struct Touch {
    rules: Arc<ServerRules>,
    what: Vec<Purge>,
    when: When,
}

/// The end that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Success, and whatever may have been one: a writing tool's.
    Done,
    /// An error: a cursor is not known any more, so what was kept of its list is of one that is no more.
    Refused(Method),
}

impl Upkeep {
    /// A call that asks for something, or touches something, or both.
    pub fn new(asking: Option<Asking>, touch: Option<Touch>) -> Upkeep {
        Upkeep { part: asking.map_or(Part::None, Part::Asks), touch, publishing: None }
    }

    /// A fetch of our own.
    pub fn fill(fill: Fill) -> Upkeep {
        Upkeep { part: Part::Leads(fill), touch: None, publishing: None }
    }

    /// Whether it is not yet known who fetches.
    pub fn asks(&self) -> bool {
        matches!(self.part, Part::Asks(_))
    }

    /// Takes what is asked for, to find out who fetches.
    pub fn take_asking(&mut self) -> Option<Asking> {
        match std::mem::replace(&mut self.part, Part::None) {
            Part::Asks(asking) => Some(asking),
            other @ (Part::None | Part::Leads(_)) => {
                self.part = other;
                None
            }
        }
    }

    /// This call fetches.
    pub fn lead(&mut self, fill: Fill) {
        self.part = Part::Leads(fill);
    }

    /// Who waits for this call, if it fetches.
    pub fn audience(&self) -> Option<Audience> {
        match &self.part {
            Part::Leads(fill) => Some(fill.lead.audience()),
            Part::None | Part::Asks(_) => None,
        }
    }

    /// The largest result that would be kept.
    pub fn max_bytes(&self) -> Option<usize> {
        match &self.part {
            Part::Leads(Fill { rules, by: By::Rule(rule), .. }) => Some(rules.rules[*rule].rule.max_bytes),
            Part::Leads(_) => None,
            Part::None | Part::Asks(_) => None,
        }
    }

    /// The server said something.
    pub fn heard(&self) {
        if let Part::Leads(fill) = &self.part {
            fill.lead.heard();
        }
    }

    /// The server asked the client something, or its answer is not one that is kept: those who wait need not.
    pub fn pass(&mut self) {
        if let Part::Leads(fill) = std::mem::replace(&mut self.part, Part::None) {
            fill.lead.pass();
        }
    }

    /// Nothing was executed: what it would have touched stays as it is.
    pub fn was_idle(&mut self) {
        if let Some(mut touch) = self.touch.take() {
            touch.what.clear();
        }
    }

    /// The server cannot answer: the older result, as far as it may still be given out.
    pub fn spare(&mut self, gateway: &Gateway) -> Option<Arc<Kept>> {
        let Part::Leads(fill) = std::mem::replace(&mut self.part, Part::None) else { return None };
        let Fill { rules, by, lead } = fill;
        match lead.spare(gateway.clock.now()) {
            Ok(kept) => Some(kept),
            Err(lead) => {
                self.part = Part::Leads(Fill { rules, by, lead });
                None
            }
        }
    }

    /// What must be done before the answer goes out: the other gateways are being told what it made old.
    pub fn take_publishing(&mut self) -> Option<Publishing> {
        self.publishing.take()
    }

    /// The same, for those who poll; a call that is answered has nothing else to do after it.
    pub fn publishing(&mut self) -> Option<&mut Publishing> {
        self.publishing.as_mut()
    }

    /// The response is here: `said` by the server, and as it goes out to the client. Gives what goes out instead.
    pub fn answered(&mut self, gateway: &Gateway, said: &Bytes, outgoing: Bytes) -> Bytes {
        let Ok(seen) = skim(said) else {
            self.pass();
            return outgoing;
        };
        let outcome = outcome(&seen, said);
        if let Some(touch) = self.touch.take() {
            self.publishing = touch.settle(outcome, gateway.clock.now());
        }
        match std::mem::replace(&mut self.part, Part::None) {
            Part::Leads(fill) => fill.answered(gateway, (said, &seen), outcome, outgoing),
            Part::None | Part::Asks(_) => outgoing,
        }
    }
}

/// A list of a legacy server that is larger is not kept.
const LIST_MAX: usize = 1 << 20;

impl Fill {
    fn answered(
        self,
        gateway: &Gateway,
        (said, seen): (&Bytes, &Skim),
        outcome: Outcome,
        outgoing: Bytes,
    ) -> Bytes {
        let now = gateway.clock.now();
        let bytes = seen.result.map_or(0, regatta_mcp::Span::len);
        let (keeping, telling, public) = match self.by {
            By::Rule(rule) => {
                let rule = &self.rules.rules[rule].rule;
                (rule.keeping(outcome, bytes), rule.telling, None)
            }
            By::Hint { method, page, public, asked } => {
                let (keeping, who) = self.hinted((said, seen), (method, page, asked), outcome, now);
                // What was for everybody, and is fetched anew for one of them, may be for nobody else by now.
                let is_misplaced =
                    who != Said::Public && public.is_some_and(|public| self.lead.is_of(public));
                let keeping = if is_misplaced { Keeping::Passed } else { keeping };
                (keeping, Telling::Silent, public.filter(|_| who == Said::Public))
            }
            By::Time { ttl } if bytes <= LIST_MAX => {
                (self.rules.lists.legacy_keeping(ttl, outcome), Telling::Silent, None)
            }
            By::Time { .. } => (Keeping::Passed, Telling::Silent, None),
        };
        let outgoing = match (telling, outcome) {
            (Telling::Marked, Outcome::Complete | Outcome::ToolError) => told(said, seen, outgoing),
            (Telling::Silent | Telling::Marked, _) => outgoing,
        };
        let form = match keeping {
            Keeping::Kept(life) => Form::of(said, seen, telling).map(|form| (form, life)),
            Keeping::Passed => None,
        };
        match (form, public) {
            (Some((form, life)), None) => _ = self.lead.keep(form, life, now),
            (Some((form, life)), Some(public)) => self.lead.keep_for_all(public, form, life, now),
            (None, _) => self.lead.pass(),
        }
        outgoing
    }

    /// What becomes of a result by its server's own word.
    fn hinted(
        &self,
        (said, seen): (&Bytes, &Skim),
        (method, page, asked): (Method, Page, u64),
        outcome: Outcome,
        now: Micros,
    ) -> (Keeping, Said) {
        let (keeping, who) = self.rules.lists.keeping(hint(seen, said), page, outcome);
        // What a server says of itself may depend on who asks, unless it says that it does not (SESSIONS 7).
        let is_for_all = method != Method::ServerDiscover || who == Said::Public;
        let is_kept = keeping != Keeping::Passed && is_for_all;
        if let Some(read) = self.rules.read(method).filter(|_| !is_kept && outcome == Outcome::Complete) {
            read.put_aside(asked, now);
        }
        (if is_kept { keeping } else { Keeping::Passed }, who)
    }
}

/// The answer with the mark of a miss.
fn told(said: &Bytes, seen: &Skim, outgoing: Bytes) -> Bytes {
    if outgoing.as_ptr() == said.as_ptr() {
        return Lead::marked(&outgoing, seen);
    }
    match skim(&outgoing) {
        Ok(seen) => Lead::marked(&outgoing, &seen),
        Err(_) => outgoing,
    }
}

impl Touch {
    /// Makes `what` old unless the call turns out to have done nothing; none if nothing is named.
    pub fn new(rules: &Arc<ServerRules>, what: Vec<Purge>) -> Option<Touch> {
        (!what.is_empty()).then(|| Touch { rules: rules.clone(), what, when: When::Done })
    }

    /// Makes what is kept of `list` old if its server refuses a later page of it: who then begins anew, as it should
    /// (2026-07-28 server/utilities/caching, *Interaction with Pagination*), must not get the first page that led there.
    pub fn of_pages(rules: &Arc<ServerRules>, list: Method) -> Touch {
        let what = vec![Purge::Tool(list.as_str().to_owned())];
        Touch { rules: rules.clone(), what, when: When::Refused(list) }
    }

    fn settle(mut self, outcome: Outcome, now: Micros) -> Option<Publishing> {
        let what = std::mem::take(&mut self.what);
        match (self.when, outcome) {
            (When::Done, Outcome::ToolError | Outcome::Failed) => None,
            // A task has only begun, and a question may come after half the work: both may have written.
            (When::Done, Outcome::Complete | Outcome::Unfinished | Outcome::Asked) => self.rules.purge(what),
            (When::Refused(list), Outcome::Failed) => {
                let is_due = self.rules.read(list).is_some_and(|read| read.begins_anew(now));
                if is_due { self.rules.purge(what) } else { None }
            }
            (
                When::Refused(_),
                Outcome::Complete | Outcome::ToolError | Outcome::Unfinished | Outcome::Asked,
            ) => None,
        }
    }
}

impl Drop for Touch {
    fn drop(&mut self) {
        if !self.what.is_empty() && self.when == When::Done {
            self.rules.purge(std::mem::take(&mut self.what));
        }
    }
}
