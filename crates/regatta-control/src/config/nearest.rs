//! The known word nearest to a mistyped one, for "did you mean".
//!
//! Pure: Damerau–Levenshtein distance over short ASCII words (optimal string alignment, one transposition a place).

/// The known word that `word` was probably meant to be, if one is near enough: a third of its letters may differ.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (word.len() / 3).max(1);
    let scored = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    scored.filter(|(far, _)| *far <= limit).min_by_key(|(far, _)| *far).map(|(_, candidate)| candidate)
}

fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len().abs_diff(right.len()) > 8 || left.len() > 64 {
        return usize::MAX;
    }
    let width = right.len() + 1;
    let mut rows: Vec<usize> = vec![0; (left.len() + 1) * width];
    rows.iter_mut().take(width).enumerate().for_each(|(j, cell)| *cell = j);
    for i in 1..=left.len() {
        rows[i * width] = i;
        for j in 1..width {
            let same = usize::from(left[i - 1] != right[j - 1]);
            let mut best = rows[(i - 1) * width + j - 1] + same;
            best = best.min(rows[(i - 1) * width + j] + 1).min(rows[i * width + j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[(i - 2) * width + j - 2] + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[left.len() * width + right.len()]
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
