//! `subscriptions/listen`: one subscription of the client, one leg to every replica (SESSIONS 7).
//!
//! Any replica may be the one where something changes, so all are listened to. The client hears one acknowledgement
//! with the union, first; a lost leg is opened anew for as long as the client listens. Who wants list changes alone
//! shares its legs with others (`shared.rs`); the legs here, for resources and tasks, are a client's own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use regatta_mcp::era::Era;
use regatta_mcp::{Skim, Span};
use regatta_policy::ReplicaId;
use regatta_policy::budget::Verdict;
use regatta_seal::Purpose;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::leg::{AGAIN_MAX, Leg, Shut, Subscription, again_after};
use super::shared::{self, unusable};
use crate::callers::StreamPlace;
use crate::encode;
use crate::fault::{Asker, Fault, Refusal};
use crate::gateway::Gateway;
use crate::handles;
use crate::handover::Call;
use crate::headers::Outbound;
use crate::listen::agreed::Agreed;
use crate::listen::body::{ListenBody, Source};
use crate::listen::lists::{Lists, lists_alone};
use crate::listen::shared::Refused;
use crate::listen::tasks::Tasks;
use crate::realm::Realm;
use crate::reply::ReplyBody;
use crate::results::Publishing;
use crate::tool_news;

/// How long the first acknowledgement waits for the slower replicas.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(2);
/// Messages of all legs that wait for a slow client.
const WAITING_MAX: usize = 64;

/// What a leg tells before the client hears anything.
enum Opened {
    Acknowledged(Bytes),
    Refused(Refused),
    Lost,
}

/// A leg that serves one client, and the way to it.
#[derive(Clone)]
struct Own {
    leg: Leg,
    messages: Sender<Bytes>,
    wish: Arc<Wish>,
}

/// What a client listens to, as it said it.
struct Wish {
    text: Bytes,
    params: Option<Span>,
    tasks: Tasks,
}

impl Wish {
    fn of(call: &Call, gateway: &Gateway) -> Wish {
        let params = call.one().and_then(|message| message.params.span);
        let (ring, realm) = (gateway.ring.load(), Realm::of(&call.server, &call.caller));
        let open = |name: &str| {
            handles::open(&ring, Purpose::Task, realm, name).map(|handle| (handle.maker, handle.text))
        };
        let tasks = params.map(|params| Tasks::of(params.of(&call.text), open)).unwrap_or_default();
        Wish { text: call.text.clone(), params, tasks }
    }

    /// The request as a replica gets it; none for one that has nothing to say.
    fn to(&self, replica: ReplicaId) -> Option<Bytes> {
        self.tasks.concern(replica).then(|| self.tasks.request(&self.text, self.params, replica))
    }
}

/// Serves one `subscriptions/listen`.
pub(crate) async fn listen(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    // Copied: the request's text should not stay for as long as the subscription.
    let Some(id) = asker.id.as_ref().map(|id| Bytes::copy_from_slice(id)) else {
        return Err(Fault::BadHandle.told(&asker));
    };
    let place =
        gateway.callers.stream(call.caller.account, &call.server.limits).map_err(
            |verdict| match verdict {
                Verdict::Limited | Verdict::Granted => Fault::TooManyStreams.told(&asker),
                Verdict::Shed => Fault::Overloaded.told(&asker),
            },
        )?;
    let params = call.one().and_then(|message| message.params.span);
    match params.and_then(|params: Span| lists_alone(params.of(&call.text))) {
        Some(wanted) => shared::listen(gateway, call, asker, id, place, wanted).await,
        None => alone(gateway, call, asker, id, place).await,
    }
}

/// Over legs of the client's own.
async fn alone(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    id: Bytes,
    place: StreamPlace,
) -> Result<Response<ReplyBody>, Refusal> {
    let server = call.server.clone();
    let (sender, messages) = channel(WAITING_MAX);
    let (opened, mut answers) = channel(server.replicas.len().max(1));
    let mut legs = JoinSet::new();
    let wish = Arc::new(Wish::of(&call, gateway));
    let headers = Outbound::of(call.head.headers, &call.caller).compact();
    let speakers = server.replicas.iter().filter(|view| view.replica.eras.speaks_modern());
    let path: Arc<str> = server.server.path.as_str().into();
    let known: HashSet<ReplicaId> = speakers.clone().map(|view| view.replica.id).collect();
    let speakers: Vec<Own> = speakers
        .filter_map(|view| {
            let leg = Leg {
                gateway: gateway.clone(),
                path: path.clone(),
                replica: view.replica.id,
                headers: headers.clone(),
                rewritten: Arc::default(),
                text: wish.to(view.replica.id)?,
                id: id.clone(),
            };
            Some(Own { leg, messages: sender.clone(), wish: wish.clone() })
        })
        .collect();
    let Some(pattern) = speakers.first().cloned() else {
        // The makers of all its tasks are away.
        let fault = if known.is_empty() { Fault::EraNotSpoken } else { Fault::NoReplica };
        return Err(fault.told(&asker));
    };
    for own in speakers {
        legs.spawn(run(own, Some(opened.clone())));
    }
    drop((opened, sender));
    match gather(&mut answers, legs.len()).await {
        Gathered::Agreed(agreed) => {
            let news = gateway.tool_news.listen(&server, Era::Modern);
            if !agreed.lists().and(Lists::TOOLS).is_empty() && news.is_some() {
                legs.spawn(tell_tools(pattern.clone(), news));
            }
            legs.spawn(welcome(pattern, known));
            let first = agreed.acknowledgement(&id);
            let source = Source::Own { messages, _legs: legs };
            let body = ListenBody::new(gateway.clone(), id, &first, source, place);
            Ok(encode::head::events(ReplyBody::listen(body)))
        }
        Gathered::Refused(Refused::Said(said)) => {
            Ok(encode::head::like(said.head.clone(), ReplyBody::whole(said.text.clone())))
        }
        Gathered::Refused(Refused::Unusable) => Err(unusable(&asker)),
        Gathered::Nobody => Err(Fault::NoReplica.told(&asker)),
    }
}

/// Tells a client of its own legs what the gateway itself knows: that the list of tools changed.
async fn tell_tools(own: Own, mut news: Option<watch::Receiver<u64>>) {
    loop {
        tool_news::changed(&mut news).await;
        for message in Lists::TOOLS.messages(&own.leg.id) {
            if own.messages.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// A notification that waits until no gateway gives out what it makes old.
struct Held {
    told: Option<Publishing>,
    data: Bytes,
}

/// Returns when the first of them may go out.
async fn first_is_told(held: &mut VecDeque<Held>) {
    if let Some(Held { told: Some(told), .. }) = held.front_mut() {
        let _ = told.await;
    }
}

enum Gathered {
    Agreed(Agreed),
    Refused(Refused),
    Nobody,
}

/// Waits for all legs, but not longer than for the first and `ACKNOWLEDGE_WAIT`.
async fn gather(answers: &mut Receiver<Opened>, legs: usize) -> Gathered {
    let mut agreed: Option<Agreed> = None;
    let mut refused = None;
    let all = async {
        for _ in 0..legs {
            match answers.recv().await {
                Some(Opened::Acknowledged(filter)) => agreed.get_or_insert_default().add(&filter),
                Some(Opened::Refused(by)) => refused = Some(by),
                Some(Opened::Lost) => {}
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(ACKNOWLEDGE_WAIT, all).await;
    match (agreed, refused) {
        (Some(agreed), _) => Gathered::Agreed(agreed),
        (None, Some(refused)) => Gathered::Refused(refused),
        (None, None) => Gathered::Nobody,
    }
}

/// Gives replicas that come later a leg of their own, made by `pattern`.
async fn welcome(pattern: Own, mut known: HashSet<ReplicaId>) {
    let mut legs = JoinSet::new();
    loop {
        tokio::time::sleep(AGAIN_MAX).await;
        while legs.try_join_next().is_some() {}
        let Leg { gateway, path, .. } = &pattern.leg;
        let Some(server) = gateway.view().server_at(path).cloned() else { return };
        known.retain(|id| server.replica(*id).is_some());
        for view in server.replicas.iter().filter(|view| view.replica.eras.speaks_modern()) {
            if known.insert(view.replica.id)
                && let Some(text) = pattern.wish.to(view.replica.id)
            {
                let leg = Leg { replica: view.replica.id, text, ..pattern.leg.clone() };
                legs.spawn(run(Own { leg, ..pattern.clone() }, None));
            }
        }
    }
}

/// One leg, until its client goes away or the replica leaves the config. `opened` is told how the first opening went;
/// a leg without it came later.
async fn run(own: Own, mut opened: Option<Sender<Opened>>) {
    let mut failures = 0u32;
    loop {
        let Some(server) = own.leg.server() else { return };
        let since = Instant::now();
        match own.leg.open(&server).await {
            Ok(mut subscription) => {
                match opened.take() {
                    Some(first) => {
                        let filter = own.wish.tasks.acknowledged(&subscription.filter, own.leg.replica);
                        _ = first.send(Opened::Acknowledged(filter)).await;
                    }
                    // What happened while nobody listened is not known.
                    None => own.say_everything(&subscription.filter).await,
                }
                if own.relay(&mut subscription).await.is_err() {
                    return;
                }
                // One that did not stand is a failure too, or its client is told that everything changed, again and again.
                if since.elapsed() >= AGAIN_MAX {
                    failures = 0;
                }
            }
            Err(Shut::Refused(refused)) => {
                // Refused at first, refused always, unless the replica is only unwell: another one may agree.
                let for_good = matches!(&refused, Refused::Said(said) if !said.head.status.is_server_error());
                if let Some(first) = opened.take() {
                    let _ = first.send(Opened::Refused(refused)).await;
                    if for_good {
                        return;
                    }
                }
            }
            Err(Shut::Lost) => {
                if let Some(first) = opened.take() {
                    let _ = first.send(Opened::Lost).await;
                }
            }
        }
        let wait = again_after(failures);
        failures = failures.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

impl Own {
    /// Passes notifications on until the upstream ends; an error means that the client is gone.
    async fn relay(&self, subscription: &mut Subscription) -> Result<(), ()> {
        let mut held = VecDeque::new();
        let mut is_open = true;
        while is_open || !held.is_empty() {
            tokio::select! {
                () = first_is_told(&mut held), if !held.is_empty() => {
                    let Some(Held { data, .. }) = held.pop_front() else { continue };
                    self.messages.send(data).await.map_err(|_| ())?;
                }
                heard = subscription.notification(&self.leg.gateway), if is_open && held.len() < WAITING_MAX => {
                    match heard {
                        Some((data, seen)) => held.extend(self.hold(data, &seen)),
                        None => is_open = false,
                    }
                }
            }
        }
        Ok(())
    }

    /// A notification for the client, until the other gateways know of it; none if it is the gateway's own to say, or about
    /// a task that the client does not listen to.
    fn hold(&self, data: Bytes, seen: &Skim) -> Option<Held> {
        let told = self.leg.server().and_then(|server| server.results.hear(seen, &data));
        let is_ours =
            tool_news::is_told(seen, &data) && tool_news::is_ours(&self.leg.gateway, &self.leg.path);
        if is_ours {
            return None;
        }
        let named = self.wish.tasks.notification(data, seen, self.leg.replica);
        if named.is_none() {
            self.leg.gateway.metrics.dropped_messages.inc();
        }
        named.map(|data| Held { told, data })
    }

    async fn say_everything(&self, filter: &Bytes) {
        if let Some(told) = self.leg.server().and_then(|server| server.results.missed()) {
            let _ = told.await;
        }
        let mut agreed = Agreed::default();
        agreed.add(filter);
        if tool_news::is_ours(&self.leg.gateway, &self.leg.path) {
            agreed = agreed.without(Lists::TOOLS);
        }
        for message in agreed.everything(&self.leg.id) {
            if self.messages.send(message).await.is_err() {
                return;
            }
        }
    }
}
