//! Log lines to stderr through a bounded queue and a thread of their own.
//!
//! A stderr that is full, slow or stuck never stalls the gateway: a line that finds no room is dropped and counted
//! (RELIABILITY F22, F23). The same thread owns the status block of `up`, so that lines and block never mix.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use regatta_control::config::LogFormat;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for stderr.
const LINES_MAX: usize = 4096;
/// How long the end of the process waits for stderr to take what is queued.
const FLUSH_MAX: Duration = Duration::from_millis(200);

/// The way to stderr; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink {
    queue: SyncSender<Word>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Word {
    /// Log output, with its line end.
    Line(Vec<u8>),
    /// The status block that stands below all lines; replaces the one before.
    Block(Vec<String>),
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// Starts the writer. One for a process.
pub fn sink() -> io::Result<Sink> {
    let (queue, words) = sync_channel(LINES_MAX);
    std::thread::Builder::new().name("stderr".into()).spawn(move || write(&words, io::stderr()))?;
    Ok(Sink { queue, dropped: Arc::default() })
}

/// Sends all tracing events of this process to `sink`. `filter` is in the syntax of `RUST_LOG`, which wins over it.
///
/// # Errors
/// The filter that cannot be read, for a person.
pub fn install(sink: &Sink, format: LogFormat, filter: &str) -> Result<(), String> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = wanted.as_deref().unwrap_or(filter);
    let filter =
        EnvFilter::try_new(text).map_err(|why| format!("the log filter {text:?} is not valid: {why}"))?;
    let colour = colour(&io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink.clone());
    // A second call, as in a test, changes nothing.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(colour).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Whether `stream` shows colours: a terminal, and `NO_COLOR` is unset or empty.
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Sink {
    /// Lines that were dropped because stderr did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// One line for people, not a log event.
    pub fn say(&self, line: &str) {
        self.send(Word::Line(format!("{line}\n").into_bytes()));
    }

    /// Shows `lines` below everything else until the next block. For terminals only.
    pub fn block(&self, lines: Vec<String>) {
        self.send(Word::Block(lines));
    }

    /// Waits a moment until what was queued is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        self.send(Word::Flush(done));
        let _ = written.recv_timeout(FLUSH_MAX);
    }

    fn send(&self, word: Word) {
        if self.queue.try_send(word).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Sink {
    /// Takes a whole event: tracing-subscriber writes each in one call.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.send(Word::Line(text.to_vec()));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        self.clone()
    }
}

/// Writes until all senders are gone. An error of stderr is nobody's concern: there is no other place to tell it.
fn write(words: &Receiver<Word>, mut out: impl Write) {
    let mut block: Vec<String> = Vec::new();
    for word in words {
        let _ = match word {
            Word::Line(text) if block.is_empty() => out.write_all(&text),
            Word::Line(text) => {
                let all = [erase(&block).as_bytes(), &text, draw(&block).as_bytes()].concat();
                out.write_all(&all)
            }
            Word::Block(lines) => {
                let all = erase(&block) + &draw(&lines);
                block = lines;
                out.write_all(all.as_bytes())
            }
            Word::Flush(done) => {
                let flushed = out.flush();
                let _ = done.try_send(());
                flushed
            }
        };
    }
}

/// To the start of the block, and everything below it cleared.
fn erase(block: &[String]) -> String {
    if block.is_empty() { String::new() } else { format!("\x1b[{}A\r\x1b[J", block.len()) }
}

fn draw(block: &[String]) -> String {
    block.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_and_counts_lines_that_a_stuck_stderr_does_not_take() {
        let (queue, _words) = sync_channel(2);
        let sink = Sink { queue, dropped: Arc::default() };
        for _ in 0..5 {
            sink.say("a line");
        }
        assert_eq!(sink.dropped(), 3);
    }

    #[test]
    fn lines_go_above_the_block() {
        let (queue, words) = sync_channel(8);
        let sink = Sink { queue, dropped: Arc::default() };
        sink.block(vec!["a".into(), "b".into()]);
        sink.say("line");
        sink.block(vec!["c".into()]);
        drop(sink);
        let mut out = Vec::new();
        write(&words, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a\nb\n\x1b[2A\r\x1b[Jline\na\nb\n\x1b[2A\r\x1b[Jc\n");
    }
}
