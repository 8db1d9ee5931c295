//! The thread that keeps what is served in step with the files: it hears that something may have changed, has the
//! environment look, and hands on what is new. Nothing it does makes a request wait.
//!
//! It hears of changes from the kernel (`watch`), from a slow poll for all that the kernel does not tell, and from
//! whoever asks ([`Handle`]). What any of them says is a reason to look and nothing more: what counts is content.

mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io, thread};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::config::{self, Config, Diagnostics, Severity};
use crate::environment::report::{CertificateReport, Report, Status, Taking};
use crate::environment::{Environment, PATIENCE, Scope};
use watch::Watch;

/// A writer's events come in bursts; the files are looked at when nothing was heard for this long.
const QUIET: Duration = Duration::from_millis(50);

/// A directory in which something is written all the time must not keep a change back.
const LONGEST_BURST: Duration = Duration::from_millis(250);

/// How long an answer is waited for. 10,000 pairs take about a second.
const PATIENCE_OF_ASKERS: Duration = Duration::from_secs(30);

/// Messages that wait. When there are more, all files are looked at.
const INBOX: usize = 1024;

/// What the thread is told.
enum Message {
    /// Something happened to what this path leads to.
    Changed(PathBuf),
    /// Something happened, nobody knows where.
    MissedEvents,
    Reload(Asked),
    /// There may be a reason to end.
    Wake,
}

/// A reload that somebody waits for.
struct Asked {
    scope: Scope,
    answer: oneshot::Sender<Report>,
}

/// How things stand.
#[derive(Debug)]
pub struct Standing {
    pub status: Status,
    /// Settings whose new value holds after a restart only.
    pub waits_for_restart: Vec<&'static str>,
}

/// The thread, as others see it. They never wait for it but for a reload they asked for: a network file system may hold
/// it up for as long as it likes.
#[derive(Clone)]
pub struct Handle {
    inbox: SyncSender<Message>,
    standing: Arc<ArcSwap<Standing>>,
    is_over: Arc<AtomicBool>,
    /// Since when the thread looks at files, in seconds since 1970; 0 while it does not.
    busy_since: Arc<AtomicU64>,
}

/// Why files are not read.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the files are not followed any more: the front end is stopping, or its log says why")]
    Over,
    #[error("the files could not be read within {} s; do they lie on a file system that does not answer?", .0.as_secs())]
    Stuck(Duration),
}

impl Handle {
    /// Reads every file and takes what is good.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]; a reload that is stuck goes on when it can.
    pub async fn reload(&self) -> Result<Report, ReloadError> {
        self.look(Scope::Read).await
    }

    /// Reads `files`, which were changed and are complete, and takes what is good.
    ///
    /// # Errors
    ///
    /// See [`ReloadError`]; a reload that is stuck goes on when it can.
    pub async fn changed(&self, files: &[PathBuf]) -> Result<Report, ReloadError> {
        self.look(Scope::changed(files)).await
    }

    async fn look(&self, scope: Scope) -> Result<Report, ReloadError> {
        let stuck = || ReloadError::Stuck(PATIENCE_OF_ASKERS);
        let answer = timeout(PATIENCE_OF_ASKERS, self.ask(scope)).await.map_err(|_| stuck())?;
        answer.ok_or(ReloadError::Over)
    }

    async fn ask(&self, scope: Scope) -> Option<Report> {
        let (answer, answered) = oneshot::channel();
        let mut message = Message::Reload(Asked { scope, answer });
        while let Err(error) = self.inbox.try_send(message) {
            match error {
                TrySendError::Full(back) => message = back,
                TrySendError::Disconnected(_) => return None,
            }
            // Under a storm of events there is room again at once.
            sleep(QUIET).await;
        }
        answered.await.ok()
    }

    /// How things stood after the last look.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Whether the files are followed: the thread is there, and no file system holds it up.
    pub fn is_following(&self) -> bool {
        let busy_since = self.busy_since.load(Relaxed);
        let is_stuck = busy_since > 0 && seconds_now().saturating_sub(busy_since) > PATIENCE_OF_ASKERS.as_secs();
        !self.is_over.load(Relaxed) && !is_stuck
    }

    /// Ends the thread after what it has at hand, which is not waited for.
    pub fn stop(&self) {
        self.is_over.store(true, Relaxed);
        // If there is no room, there is something to wake it.
        let _ = self.inbox.try_send(Message::Wake);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

/// Starts the thread. `publish` is called, on that thread, with the environment whenever something in it was taken.
///
/// # Errors
///
/// The system has no thread to give.
pub fn start(environment: Environment, publish: impl FnMut(&Environment) + Send + 'static) -> io::Result<Handle> {
    let (sender, inbox) = sync_channel(INBOX);
    let watch = Watch::new(&environment.config().reload, &sender);
    let standing = Standing { status: environment.status(), waits_for_restart: Vec::new() };
    let standing = Arc::new(ArcSwap::from_pointee(standing));
    let handle = Handle { inbox: sender, standing, is_over: Arc::default(), busy_since: Arc::default() };
    let mut reloader = Reloader {
        watch,
        inbox,
        publish,
        standing: Arc::clone(&handle.standing),
        is_over: Arc::clone(&handle.is_over),
        started_with: Arc::clone(environment.config()),
        busy_since: Arc::clone(&handle.busy_since),
        unheard: true,
        environment,
    };
    thread::Builder::new().name("reload".to_owned()).spawn(move || {
        // What is served goes on; that it is no longer followed has to be seen.
        if catch_unwind(AssertUnwindSafe(|| reloader.run())).is_err() {
            reloader.is_over.store(true, Relaxed);
            tracing::error!("following the files has failed; what was taken is served on, and changes need a restart");
        }
    })?;
    Ok(handle)
}

struct Reloader<P> {
    environment: Environment,
    watch: Watch,
    inbox: Receiver<Message>,
    publish: P,
    standing: Arc<ArcSwap<Standing>>,
    is_over: Arc<AtomicBool>,
    started_with: Arc<Config>,
    busy_since: Arc<AtomicU64>,
    /// Whether something may have changed before the kernel was asked to tell of it.
    unheard: bool,
}

impl<P: FnMut(&Environment)> Reloader<P> {
    fn run(&mut self) {
        self.follow_directories();
        let mut polled = Instant::now();
        while !self.is_over.load(Relaxed) {
            let interval = self.environment.config().reload.poll_interval;
            let patience = if self.environment.is_unsettled() { PATIENCE.min(interval) } else { interval };
            let left = patience.saturating_sub(polled.elapsed());
            if left.is_zero() || std::mem::take(&mut self.unheard) {
                // Also while events come without end.
                self.look(&Scope::Glance);
                self.log_expiring();
                polled = Instant::now();
                continue;
            }
            let asked = match self.inbox.recv_timeout(left) {
                Ok(Message::Changed(path)) => {
                    let scope = self.widened(Scope::of(path.clone()), path);
                    self.after_burst(scope)
                }
                Ok(Message::MissedEvents) => self.after_burst(Scope::Glance),
                Ok(Message::Reload(asked)) => Some(asked),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(asked) = asked {
                self.reload(asked);
            }
        }
    }

    /// Reads what is asked for, once for all who have asked so far.
    fn reload(&mut self, first: Asked) {
        let mut scope = first.scope;
        let mut answers = vec![first.answer];
        while let Ok(message) = self.inbox.try_recv() {
            // Whatever else was heard is looked at as well.
            match message {
                Message::Reload(asked) => {
                    scope = scope.and(asked.scope);
                    answers.push(asked.answer);
                }
                Message::Changed(path) => {
                    self.watch.doubt(&path);
                    self.unheard = true;
                }
                Message::MissedEvents => self.unheard = true,
                Message::Wake => {}
            }
        }
        let report = self.look(&scope);
        for answer in answers {
            // Whoever asked may have gone.
            let _ = answer.send(report.clone());
        }
    }

    /// Waits for the end of a burst of events, then looks. Somebody who asks ends the waiting, and is given back.
    fn after_burst(&mut self, mut scope: Scope) -> Option<Asked> {
        let end = Instant::now() + LONGEST_BURST;
        while let Ok(message) = self.inbox.recv_timeout(QUIET.min(end.saturating_duration_since(Instant::now()))) {
            match message {
                Message::Changed(path) => scope = self.widened(scope, path),
                Message::MissedEvents => scope = Scope::Glance,
                Message::Reload(asked) => {
                    self.unheard |= !matches!(asked.scope, Scope::Read);
                    return Some(asked);
                }
                Message::Wake => return None,
            }
        }
        self.look(&scope);
        None
    }

    /// Of a directory that was watched and may be another one now, everything below is concerned.
    fn widened(&mut self, mut scope: Scope, path: PathBuf) -> Scope {
        if self.watch.doubt(&path) {
            return Scope::Glance;
        }
        scope.widen(path);
        scope
    }

    fn look(&mut self, scope: &Scope) -> Report {
        self.busy_since.store(seconds_now(), Relaxed);
        let report = self.look_and_publish(scope);
        self.busy_since.store(0, Relaxed);
        report
    }

    fn look_and_publish(&mut self, scope: &Scope) -> Report {
        let mut remarks = Diagnostics::default();
        let mut report = self.environment.look(scope, &mut remarks);
        // First: whoever meets the new certificate finds it told.
        if report.is_any_taken() || !report.is_all_taken() || self.has_recovered() {
            self.note_standing();
        }
        if report.is_any_taken() {
            (self.publish)(&self.environment);
        }
        self.follow_directories();
        log_taken(&report);
        log_remarks(&remarks);
        self.log_troubles();
        let waiting = &self.standing.load().waits_for_restart;
        report.waits_for_restart = waiting.iter().map(ToString::to_string).collect();
        report
    }

    /// Whether something is held against files that are as they were before.
    fn has_recovered(&self) -> bool {
        !self.standing.load().status.is_all_good()
    }

    fn note_standing(&self) {
        let waits_for_restart = waits_for_restart(&self.started_with, self.environment.config());
        if !waits_for_restart.is_empty() && waits_for_restart != self.standing.load().waits_for_restart {
            tracing::warn!(settings = ?waits_for_restart, "these settings changed and wait for a restart");
        }
        self.standing.store(Arc::new(Standing { status: self.environment.status(), waits_for_restart }));
    }

    /// Links may lead elsewhere now, and directories may be others under the same name.
    fn follow_directories(&mut self) {
        let were_read = self.environment.take_read();
        if were_read || self.watch.is_stale() {
            self.unheard |= self.watch.follow(self.environment.directories(), self.environment.names());
        }
    }

    fn log_expiring(&mut self) {
        for (cname, certificate) in self.environment.tell_expiring() {
            let not_after = humantime::format_rfc3339_seconds(certificate.not_after());
            tracing::warn!(%cname, serial = certificate.serial(), %not_after, "the certificate that is served ends soon, or has ended");
        }
    }

    fn log_troubles(&mut self) {
        for (findings, goes_on) in self.environment.tell_troubles() {
            let so = if goes_on { "not taken, what was there before goes on" } else { "not taken" };
            for finding in &findings {
                match finding.severity {
                    Severity::Error => tracing::error!("{so}: {finding}"),
                    Severity::Warning => tracing::warn!("{so}: {finding}"),
                }
            }
        }
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn log_taken(report: &Report) {
    if report.config.result == Taking::Taken {
        tracing::info!("configuration taken");
    }
    for certificate in report.certificates.iter().filter(|certificate| certificate.result == Taking::Taken) {
        let CertificateReport { cname, cert_pem, replaced_serial, serial, not_after, .. } = certificate;
        tracing::info!(
            cname,
            cert_pem,
            old_serial = replaced_serial,
            new_serial = serial,
            not_after,
            "certificate taken"
        );
    }
    for other in report.others.iter().filter(|other| other.result == Taking::Taken) {
        tracing::info!(files = other.files.join(", "), "file taken");
    }
}

fn log_remarks(remarks: &Diagnostics) {
    for remark in remarks {
        tracing::warn!("{remark}");
    }
}

/// What `[cluster]` says of something, if it is there.
fn cluster<T>(config: &Config, what: fn(&config::Cluster) -> T) -> Option<T> {
    config.cluster.as_ref().map(what)
}

/// The settings that are read when the process starts, as far as they are others in `new`.
fn waits_for_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let settings = [
        ("frontend.https", old.frontend.https == new.frontend.https),
        ("frontend.http", old.frontend.http == new.frontend.http),
        ("frontend.threads", old.frontend.threads == new.frontend.threads),
        ("admin.listen", old.admin.listen == new.admin.listen),
        ("cluster.listen", cluster(old, |one| one.listen) == cluster(new, |one| one.listen)),
        ("cluster.address", cluster(old, |one| one.address) == cluster(new, |one| one.address)),
        ("log", old.log == new.log),
        ("reload.watch", old.reload.watch == new.reload.watch),
    ];
    settings.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}
