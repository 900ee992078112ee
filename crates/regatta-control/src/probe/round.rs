//! One round of probing one replica: a full one finds out which eras it speaks, a light one only whether it lives.
//!
//! It keeps what it learned between rounds: the path after a redirect, and the legacy session in which it pings, so
//! that probing does not fill a server with sessions.

use regatta_policy::snapshot::{Endpoint, Eras};

use super::client::{Client, NoAnswer};
use super::speak::{Era, Session, Speaker};
use super::tools::{self, Listing};

/// Light rounds between two full ones: a replica may come back in another shape without ever failing a probe.
const LIGHT_ROUNDS: u32 = 60;

/// What is known of a replica between rounds.
#[derive(Debug)]
pub struct Known {
    endpoint: Endpoint,
    path: String,
    way: Way,
    light: u32,
}

/// How the next light round asks.
#[derive(Debug)]
enum Way {
    /// Not at all: the next round is a full one.
    Full,
    /// By `server/discover`; the eras stay what they were.
    Discover(Eras),
    /// By `ping` in this session.
    Ping(Session),
}

/// What a round found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It spoke MCP; the eras, if that is known.
    Speaks(Eras),
    /// It is there but said nothing about its eras: they stay as they were.
    Busy,
    /// It answered something else, for this reason.
    Alien(String),
    /// It gave no answer at all, for this reason.
    Mute(String),
}

impl Known {
    /// A replica that nobody has asked.
    pub fn new(endpoint: Endpoint) -> Known {
        Known { path: endpoint.path.clone(), endpoint, way: Way::Full, light: 0 }
    }

    /// The path that the replica is served under, which a redirect may have changed.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One round.
    pub async fn round(&mut self, client: &Client) -> Sight {
        self.light += 1;
        let found = match std::mem::replace(&mut self.way, Way::Full) {
            way if self.light > LIGHT_ROUNDS => {
                self.end_of(&way, client).await;
                self.full(client).await
            }
            Way::Full => self.full(client).await,
            Way::Discover(eras) => self.light_modern(eras, client).await,
            Way::Ping(session) => self.light_legacy(session, client).await,
        };
        found.unwrap_or_else(unanswered)
    }

    /// The replica's tools, by whichever way the last round found; not read if it found none.
    pub async fn tools(&mut self, client: &Client) -> Listing {
        let way = std::mem::replace(&mut self.way, Way::Full);
        let listing = match &way {
            Way::Full => Ok(Listing::Unreadable("nobody knows how to ask it".to_owned())),
            Way::Discover(_) => tools::read(&mut self.speaker(client), tools::Way::Modern).await,
            Way::Ping(session) => tools::read(&mut self.speaker(client), tools::Way::Legacy(session)).await,
        };
        self.way = way;
        listing.unwrap_or_default()
    }

    /// Ends the legacy session that was kept, if any.
    pub async fn close(&mut self, client: &Client) {
        let way = std::mem::replace(&mut self.way, Way::Full);
        self.end_of(&way, client).await;
    }

    async fn end_of(&mut self, way: &Way, client: &Client) {
        match way {
            Way::Ping(session) => self.speaker(client).end(session).await,
            Way::Full | Way::Discover(_) => {}
        }
    }

    fn speaker<'a>(&'a mut self, client: &'a Client) -> Speaker<'a> {
        Speaker { client, endpoint: &self.endpoint, path: &mut self.path }
    }

    async fn light_modern(&mut self, eras: Eras, client: &Client) -> Result<Sight, NoAnswer> {
        match self.speaker(client).discover().await? {
            Era::Spoken(()) => {
                self.way = Way::Discover(eras);
                Ok(Sight::Speaks(eras))
            }
            Era::Busy => {
                self.way = Way::Discover(eras);
                Ok(Sight::Busy)
            }
            Era::Foreign(_) | Era::Guarded | Era::Broken(_) => self.full(client).await,
        }
    }

    async fn light_legacy(&mut self, session: Session, client: &Client) -> Result<Sight, NoAnswer> {
        let pinged = self.speaker(client).ping(&session).await;
        let sight = match &pinged {
            Ok(Era::Spoken(())) => Sight::Speaks(Eras::Legacy),
            Ok(Era::Busy) => Sight::Busy,
            Ok(Era::Broken(why)) => Sight::Alien(why.clone()),
            Err(why) => unanswered(why.clone()),
            // 400 or 404: the session is unknown there, as after a restart.
            Ok(Era::Foreign(_) | Era::Guarded) => return self.full(client).await,
        };
        self.way = Way::Ping(session);
        Ok(sight)
    }

    async fn full(&mut self, client: &Client) -> Result<Sight, NoAnswer> {
        self.light = 0;
        let modern = self.speaker(client).discover().await?;
        match modern {
            Era::Guarded => return Ok(Sight::Speaks(Eras::Unknown)),
            Era::Busy => return Ok(Sight::Busy),
            Era::Spoken(()) | Era::Foreign(_) | Era::Broken(_) => {}
        }
        let legacy = self.speaker(client).initialize().await?;
        let (sight, keep) = judge(&modern, legacy);
        match (&sight, keep) {
            (Sight::Speaks(Eras::Legacy), Some(session)) => self.way = Way::Ping(session),
            (_, Some(session)) => self.speaker(client).end(&session).await,
            (_, None) => {}
        }
        match sight {
            Sight::Speaks(eras @ (Eras::Modern | Eras::Dual)) => self.way = Way::Discover(eras),
            // While an era is in doubt, every round is a full one.
            Sight::Speaks(Eras::Legacy | Eras::Unknown) | Sight::Busy | Sight::Alien(_) | Sight::Mute(_) => {}
        }
        Ok(sight)
    }
}

fn unanswered(why: NoAnswer) -> Sight {
    match why {
        NoAnswer::Mute(why) => Sight::Mute(why),
        NoAnswer::Useless(why) => Sight::Alien(why),
    }
}

/// What the two eras' answers mean together, and the session that was opened.
fn judge(modern: &Era<()>, legacy: Era<Session>) -> (Sight, Option<Session>) {
    match (modern, legacy) {
        (Era::Spoken(()), Era::Spoken(session)) => (Sight::Speaks(Eras::Dual), Some(session)),
        (Era::Spoken(()), Era::Foreign(_)) => (Sight::Speaks(Eras::Modern), None),
        // One era is sure, the other could not be asked: both are tried.
        (Era::Spoken(()), Era::Guarded | Era::Busy | Era::Broken(_)) => (Sight::Speaks(Eras::Unknown), None),
        (Era::Foreign(_), Era::Spoken(session)) => (Sight::Speaks(Eras::Legacy), Some(session)),
        (Era::Broken(_) | Era::Guarded | Era::Busy, Era::Spoken(session)) => {
            (Sight::Speaks(Eras::Unknown), Some(session))
        }
        (_, Era::Guarded) => (Sight::Speaks(Eras::Unknown), None),
        (_, Era::Busy) => (Sight::Busy, None),
        (_, Era::Foreign(why) | Era::Broken(why)) => (Sight::Alien(format!("speaks no MCP: {why}")), None),
    }
}
