//! Mail: who is live, letters that come whole and in order, and none for others.

use std::time::Duration;

use bytes::Bytes;

use super::{Names, SOON, eventually};
use crate::{Arrival, GatewayId, Mailbox, Store};

/// A lease long enough never to end by itself here.
const TTL: Duration = Duration::from_secs(60);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    a_gateway_is_live_from_enlisting_to_resigning(store, names).await;
    a_gateway_is_live_as_long_as_its_mailbox(store, names).await;
    letters_arrive_whole_and_in_order(store, names).await;
}

pub(super) fn gateway(names: &Names, number: u8) -> GatewayId {
    let mut id = [number; 8];
    id[..7].copy_from_slice(&names.seed.to_be_bytes()[1..]);
    GatewayId(id)
}

/// The next letter; notices are passed over.
pub(super) async fn letter(mailbox: &mut Mailbox) -> Bytes {
    let next = async {
        loop {
            match mailbox.next().await.expect("the mailbox is open") {
                Arrival::Letter(letter) => return letter,
                Arrival::Notice(_) => {}
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("a letter arrives")
}

pub(super) async fn wait_live(store: &dyn Store, gateway: GatewayId, live: bool) {
    let what = format!("{gateway} is {}live", if live { "" } else { "not " });
    eventually(&what, async || (store.is_live(gateway).await == Ok(live)).then_some(())).await;
}

async fn a_gateway_is_live_from_enlisting_to_resigning(store: &dyn Store, names: &Names) {
    let gateway = gateway(names, 1);
    assert_eq!(store.is_live(gateway).await, Ok(false));
    let mut mailbox = store.enlist(gateway, TTL);
    wait_live(store, gateway, true).await;
    store.resign(gateway).await.expect("a gateway can resign");
    assert_eq!(store.is_live(gateway).await, Ok(false));
    let end = async { while mailbox.next().await.is_some() {} };
    tokio::time::timeout(SOON, end).await.expect("the mailbox of a gateway that resigned ends");
}

async fn a_gateway_is_live_as_long_as_its_mailbox(store: &dyn Store, names: &Names) {
    let gateway = gateway(names, 2);
    let mailbox = store.enlist(gateway, TTL);
    wait_live(store, gateway, true).await;
    drop(mailbox);
    wait_live(store, gateway, false).await;
}

async fn letters_arrive_whole_and_in_order(store: &dyn Store, names: &Names) {
    let (one, other) = (gateway(names, 3), gateway(names, 4));
    let (mut one_box, mut other_box) = (store.enlist(one, TTL), store.enlist(other, TTL));
    wait_live(store, one, true).await;
    wait_live(store, other, true).await;
    let large = Bytes::from(vec![7; 1 << 20]);
    let letters = [Bytes::from_static(b"\0\r\n\xff"), large, Bytes::from_static(b"last")];
    for text in &letters {
        store.post(one, text.clone()).await.expect("a letter can be sent");
    }
    store.post(other, Bytes::from_static(b"for the other")).await.expect("a letter can be sent");
    for text in letters {
        assert_eq!(letter(&mut one_box).await, text);
    }
    assert_eq!(letter(&mut other_box).await, Bytes::from_static(b"for the other"));
    store.post(gateway(names, 5), Bytes::from_static(b"for nobody")).await.expect("nobody is no error");
}
