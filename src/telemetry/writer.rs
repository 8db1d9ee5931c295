//! Hands finished lines to a thread of their own, so that a slow terminal, pipe or disk never holds up a request.
//! What the thread cannot take in time is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Batches that may wait for the writing thread. With batches of at most 64 KiB this bounds the memory to 8 MiB.
const WAITING_BATCHES: usize = 128;

/// The wait before a full channel is tried again, when the process ends.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Where lines go. Clones write to the same thread.
#[derive(Clone, Debug)]
pub struct LineWriter {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    /// Answer when everything before this is written.
    Flush(SyncSender<()>),
}

impl LineWriter {
    /// Starts the thread that writes to `out`; lines it could not take are added to `dropped`.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub fn start(name: &str, out: impl Write + Send + 'static, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(WAITING_BATCHES);
        thread::Builder::new().name(name.to_owned()).spawn({
            let dropped = Arc::clone(&dropped);
            move || write_all(&waiting, out, &dropped)
        })?;
        Ok(Self { messages, dropped })
    }

    /// Hands over whole lines; never waits.
    pub fn send(&self, lines: Vec<u8>) {
        if let Err(TrySendError::Full(rejected) | TrySendError::Disconnected(rejected)) =
            self.messages.try_send(Message::Lines(lines))
            && let Message::Lines(lines) = rejected
        {
            count_dropped(&lines, &self.dropped);
        }
    }

    /// Waits until what was sent is written, or `limit` is over.
    pub fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        // A full channel behind a stuck output has no bounded wait of its own.
        while let Err(TrySendError::Full(unsent)) = self.messages.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = unsent;
            thread::sleep(FULL_PAUSE);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn count_dropped(lines: &[u8], dropped: &AtomicU64) {
    let count = memchr::memchr_iter(b'\n', lines).count();
    dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
}

fn write_all(waiting: &Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    while let Ok(message) = waiting.recv() {
        match message {
            // A closed pipe or a full disk must not end the front end; the next batch tries again.
            Message::Lines(batch) => {
                if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                    count_dropped(&batch, dropped);
                }
            }
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event { line: Vec::new(), writer: self }
    }
}

/// Collects one log event and sends it when it is complete.
pub struct Event<'a> {
    line: Vec<u8>,
    writer: &'a LineWriter,
}

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.writer.send(std::mem::take(&mut self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says what it is to write, and stands still in each write until it is let go.
    struct Stuck(Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(bytes.to_vec());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_never_blocks_the_sender_and_lost_lines_are_counted() {
        let (go, wait) = mpsc::channel();
        let (written, seen) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LineWriter::start("test", Stuck(wait, written), Arc::clone(&dropped)).expect("start a thread");
        let sent = WAITING_BATCHES * 2;
        for _ in 0..sent {
            writer.send(b"one\ntwo\n".to_vec());
        }
        drop(go);
        drop(writer);
        // Ends when the writing thread has written what it took.
        let written = seen.iter().count();
        assert!(written >= WAITING_BATCHES && written < sent);
        assert_eq!(dropped.load(Relaxed), 2 * (sent - written) as u64);
    }

    #[test]
    fn flush_gives_up_at_its_limit_although_the_output_is_stuck_and_the_channel_is_full() {
        let (_go, wait) = mpsc::channel();
        let (written, seen) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LineWriter::start("test", Stuck(wait, written), Arc::clone(&dropped)).expect("start a thread");
        writer.send(b"stuck\n".to_vec());
        seen.recv().expect("the thread writes");
        for _ in 0..=WAITING_BATCHES {
            writer.send(b"waits\n".to_vec());
        }
        assert_eq!(dropped.load(Relaxed), 1, "the channel is full");
        let limit = Duration::from_millis(100);
        let (done, ended) = mpsc::channel();
        // On a thread of its own: one that never returned would never fail.
        thread::spawn(move || {
            let begin = Instant::now();
            writer.flush(limit);
            let _ = done.send(begin.elapsed());
        });
        let lasted = ended.recv_timeout(Duration::from_secs(20)).expect("it returns");
        assert!(lasted >= limit, "it waits for what may still be written: {lasted:?}");
    }
}
