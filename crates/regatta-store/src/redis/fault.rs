//! What an error of Redis means for the connection and for the caller. Pure.
//!
//! No message carries a key, a value or a password: only the code that the server gave, or what the system said.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::address::Addr;

/// What to do about an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection is of no use any more; what was asked may have been done.
    Broken(String),
    /// The server cannot do it, now or ever: it is a replica, it loads. It did nothing. Look for another one.
    NotTheOne(String),
    /// Another member of the cluster has this slot, for good.
    Moved(Addr),
    /// Another member of the cluster has this key, this once.
    Ask(Addr),
    /// In the middle of a change of the cluster: the same again, soon.
    TryAgain,
    /// The script is not known there.
    NoScript,
    /// There is no memory left.
    OutOfMemory,
    /// The server will not do it, and another attempt changes nothing.
    Refused(String),
}

pub(super) fn judge(error: &RedisError) -> Verdict {
    use ServerErrorKind as Server;
    let redirect = || error.redirect_node().and_then(|(addr, _)| Addr::parse(addr));
    match error.kind() {
        ErrorKind::Server(Server::ReadOnly | Server::BusyLoading | Server::MasterDown) => {
            Verdict::NotTheOne(said(error))
        }
        ErrorKind::Server(Server::Moved) => {
            redirect().map_or_else(|| Verdict::Refused(said(error)), Verdict::Moved)
        }
        ErrorKind::Server(Server::Ask) => {
            redirect().map_or_else(|| Verdict::Refused(said(error)), Verdict::Ask)
        }
        ErrorKind::Server(Server::TryAgain) => Verdict::TryAgain,
        ErrorKind::Server(Server::NoScript) => Verdict::NoScript,
        ErrorKind::Server(_) | ErrorKind::Extension if is_out_of_memory(error) => Verdict::OutOfMemory,
        ErrorKind::Extension if error.code() == Some("NOAUTH") => Verdict::Broken(said(error)),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
            Verdict::Refused(said(error))
        }
        ErrorKind::InvalidClientConfig => Verdict::Refused(said(error)),
        // Input and output, an answer that is no RESP, a connection that its driver gave up, a failed greeting.
        _ => Verdict::Broken(said(error)),
    }
}

/// Redis before 7 wraps an error within a script into another one.
fn is_out_of_memory(error: &RedisError) -> bool {
    let words = "command not allowed when used memory > 'maxmemory'";
    error.code() == Some("OOM") || error.detail().is_some_and(|detail| detail.contains(words))
}

/// What can be shown of an error.
pub(super) fn said(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => "the user or the password is refused".to_owned(),
        ErrorKind::Server(_) | ErrorKind::Extension => {
            format!("the server says {}", error.code().unwrap_or("no"))
        }
        ErrorKind::Io => format!("{error}"),
        _ => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as the server writes it.
    fn from_server(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("it is RESP");
        value.extract_error().expect_err("it is an error")
    }

    #[test]
    fn each_answer_of_a_server_in_trouble_has_its_consequence() {
        let not_the_one = |line: &str| matches!(judge(&from_server(line)), Verdict::NotTheOne(_));
        assert!(not_the_one("READONLY You can't write against a read only replica."));
        assert!(not_the_one("LOADING Redis is loading the dataset in memory"));
        assert!(not_the_one("MASTERDOWN Link with MASTER is down"));
        let addr = Addr { host: "127.0.0.1".to_owned(), port: 7001 };
        assert_eq!(judge(&from_server("MOVED 3999 127.0.0.1:7001")), Verdict::Moved(addr.clone()));
        assert_eq!(judge(&from_server("ASK 3999 127.0.0.1:7001")), Verdict::Ask(addr));
        assert_eq!(judge(&from_server("NOSCRIPT No matching script")), Verdict::NoScript);
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'. script: f1, on @user_script:1.",
            "ERR Error running script: OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            assert_eq!(judge(&from_server(line)), Verdict::OutOfMemory, "{line}");
        }
        assert!(matches!(judge(&from_server("NOAUTH Authentication required.")), Verdict::Broken(_)));
        assert!(matches!(judge(&from_server("CLUSTERDOWN The cluster is down")), Verdict::Refused(_)));
    }

    #[test]
    fn nothing_of_the_data_is_said() {
        let error = from_server("NOPERM No permissions to access a key 'mcp:session:{secret}'");
        assert_eq!(judge(&error), Verdict::Refused("the server says NOPERM".to_owned()));
    }
}
