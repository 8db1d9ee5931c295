//! The thread that keeps what is served in step with the files: it hears that something may have changed, has the
//! environment look, and hands on what is new. Nothing it does makes a request wait.
//!
//! It hears of changes from the kernel (`watch`), from a slow poll for all that the kernel does not tell, and from
//! whoever asks ([`Handle`]). What any of them says is a reason to look and nothing more: what counts is content.

mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use tokio::sync::oneshot;

use crate::config::{self, Config, Diagnostics, Severity};
use crate::environment::report::{CertificateReport, Report, Status, Taking};
use crate::environment::{Environment, PATIENCE, Scope};
use watch::Watch;

/// A writer's events come in bursts; the files are looked at when nothing was heard for this long.
const QUIET: Duration = Duration::from_millis(50);

/// A directory in which something is written all the time must not keep a change back.
const LONGEST_BURST: Duration = Duration::from_millis(250);

/// Messages that wait. When there are more, all files are looked at.
const INBOX: usize = 1024;

/// What the thread is told.
enum Message {
    /// Something happened to what this path leads to.
    Changed(PathBuf),
    /// Something happened, nobody knows where.
    MissedEvents,
    Reload(oneshot::Sender<Report>),
    Status(oneshot::Sender<Standing>),
    Stop,
}

/// How things stand.
#[derive(Debug)]
pub struct Standing {
    pub status: Status,
    /// Settings whose new value holds after a restart only.
    pub waits_for_restart: Vec<&'static str>,
}

/// Asks the thread.
#[derive(Clone)]
pub struct Handle(SyncSender<Message>);

/// The thread is gone, which happens when the front end stops.
#[derive(Debug, thiserror::Error)]
#[error("the front end is stopping")]
pub struct Stopped;

impl Handle {
    /// Reads every file and takes what is good.
    ///
    /// # Errors
    ///
    /// The front end is stopping.
    pub async fn reload(&self) -> Result<Report, Stopped> {
        self.ask(Message::Reload).await
    }

    /// # Errors
    ///
    /// The front end is stopping.
    pub async fn standing(&self) -> Result<Standing, Stopped> {
        self.ask(Message::Status).await
    }

    /// Ends the thread, after what it has at hand.
    pub fn stop(&self) {
        // The thread takes what is in its inbox, or it is gone already.
        let _ = self.0.send(Message::Stop);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        // Full only under a storm of events, and then everything is about to be looked at; try again a little later.
        let mut message = message(answer);
        while let Err(error) = self.0.try_send(message) {
            match error {
                TrySendError::Full(back) => message = back,
                TrySendError::Disconnected(_) => return Err(Stopped),
            }
            tokio::time::sleep(QUIET).await;
        }
        answered.await.map_err(|_| Stopped)
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
pub fn start(
    environment: Environment,
    publish: impl FnMut(&Environment) + Send + 'static,
) -> io::Result<(Handle, JoinHandle<()>)> {
    let (sender, inbox) = sync_channel(INBOX);
    let watch = Watch::new(&environment.config().reload, &sender);
    let started_with = Arc::clone(environment.config());
    let mut reloader = Reloader { environment, watch, inbox, publish, started_with, waits_for_restart: Vec::new() };
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || reloader.run())?;
    Ok((Handle(sender), thread))
}

struct Reloader<P> {
    environment: Environment,
    watch: Watch,
    inbox: Receiver<Message>,
    publish: P,
    started_with: Arc<Config>,
    waits_for_restart: Vec<&'static str>,
}

impl<P: FnMut(&Environment)> Reloader<P> {
    fn run(&mut self) {
        self.follow_directories();
        // What changed between the first look and the watch was not heard.
        self.look(&Scope::Glance);
        let mut polled = Instant::now();
        loop {
            let interval = self.environment.config().reload.poll_interval;
            let patience = if self.environment.is_unsettled() { PATIENCE.min(interval) } else { interval };
            let message = match self.inbox.recv_timeout((polled + patience).saturating_duration_since(Instant::now())) {
                Ok(Message::Changed(path)) => self.after_burst(Scope::of(path)),
                Ok(Message::MissedEvents) => self.after_burst(Scope::Glance),
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.look(&Scope::Glance);
                    self.log_expiring();
                    polled = Instant::now();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match message {
                Some(Message::Stop) => return,
                Some(message) => self.answer(message),
                None => {}
            }
        }
    }

    fn answer(&mut self, message: Message) {
        // Whoever asked may have gone.
        match message {
            Message::Reload(answer) => drop(answer.send(self.look(&Scope::Read))),
            Message::Status(answer) => {
                let status = self.environment.status();
                drop(answer.send(Standing { status, waits_for_restart: self.waits_for_restart.clone() }));
            }
            Message::Changed(_) | Message::MissedEvents | Message::Stop => {}
        }
    }

    /// Waits for the end of a burst of events, then looks. Another message ends the waiting, and is given back.
    fn after_burst(&mut self, mut scope: Scope) -> Option<Message> {
        let end = Instant::now() + LONGEST_BURST;
        let mut other = None;
        while let Ok(message) = self.inbox.recv_timeout(QUIET.min(end.saturating_duration_since(Instant::now()))) {
            match message {
                Message::Changed(path) => scope.widen(path),
                Message::MissedEvents => scope = Scope::Glance,
                message => {
                    other = Some(message);
                    break;
                }
            }
        }
        self.look(&scope);
        other
    }

    fn look(&mut self, scope: &Scope) -> Report {
        let mut remarks = Diagnostics::default();
        let report = self.environment.look(scope, &mut remarks);
        if report.is_any_taken() {
            (self.publish)(&self.environment);
        }
        self.follow_directories();
        log_taken(&report);
        log_remarks(&remarks);
        if report.config.result == Taking::Taken {
            self.note_what_waits();
        }
        self.log_troubles();
        report
    }

    /// Links may lead elsewhere now, and directories may be others under the same name.
    fn follow_directories(&mut self) {
        if let Some(directories) = self.environment.new_directories() {
            self.watch.follow(directories);
        }
    }

    fn log_expiring(&mut self) {
        for (cname, certificate) in self.environment.tell_expiring() {
            let not_after = humantime::format_rfc3339_seconds(certificate.not_after());
            tracing::warn!(%cname, serial = certificate.serial(), %not_after, "the certificate that is served ends soon, or has ended");
        }
    }

    fn note_what_waits(&mut self) {
        self.waits_for_restart = waits_for_restart(&self.started_with, self.environment.config());
        if !self.waits_for_restart.is_empty() {
            tracing::warn!(settings = ?self.waits_for_restart, "these settings changed and wait for a restart");
        }
    }

    fn log_troubles(&mut self) {
        for trouble in self.environment.tell_troubles() {
            for finding in &trouble {
                match finding.severity {
                    Severity::Error => tracing::error!("not taken, what was there before goes on: {finding}"),
                    Severity::Warning => tracing::warn!("not taken, what was there before goes on: {finding}"),
                }
            }
        }
    }
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
        tracing::info!(files = ?other.files, "taken");
    }
}

fn log_remarks(remarks: &Diagnostics) {
    for remark in remarks {
        tracing::warn!("{remark}");
    }
}

/// The settings that are read when the process starts, as far as they are others in `new`.
fn waits_for_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let settings = [
        ("frontend.https", old.frontend.https == new.frontend.https),
        ("frontend.http", old.frontend.http == new.frontend.http),
        ("frontend.threads", old.frontend.threads == new.frontend.threads),
        ("admin.listen", old.admin.listen == new.admin.listen),
        ("log", old.log == new.log),
        ("reload.watch", old.reload.watch == new.reload.watch),
    ];
    settings.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}
