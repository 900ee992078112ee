//! The known word nearest to a mistyped one, for "did you mean".
//!
//! By the optimal string alignment distance: two letters in the wrong order are one slip.

/// What is longer is not compared, and what differs more in length.
const LENGTH_MAX: usize = 64;
const LONGER_MAX: usize = 8;

/// The known word that `word` was probably meant to be, if one is near enough: a third of its letters may differ.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (word.len() / 3).max(1);
    let is_alike =
        |candidate: &&&str| word.len() <= LENGTH_MAX && word.len().abs_diff(candidate.len()) <= LONGER_MAX;
    let alike = known.iter().filter(is_alike);
    let scored = alike.map(|candidate| (strsim::osa_distance(word, candidate), *candidate));
    scored.filter(|(far, _)| *far <= limit).min_by_key(|(far, _)| *far).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_the_word_that_was_meant() {
        let known = ["listen", "admin", "body_max", "queue_max", "queue_wait_max"];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("bodymax", Some("body_max")),
            ("queue_maxx", Some("queue_max")),
            ("listen_address_of_all", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}
