//! The running front end: binds, starts the threads, and stops them.
//!
//! One worker thread a CPU, each with its own runtime, listeners and connections to replicas (`worker`), one control
//! thread for everything operators ask ([`crate::admin`]), and one that follows the files ([`crate::reload`]). This file
//! is the only place that knows all parts.

mod delay;
mod published;
pub mod pulse;
mod share;
mod sources;
pub mod spread;
mod tend;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use self::pulse::Pulse;
use crate::admin::drain::LastAsked;
use crate::admin::pace::Pace;
use crate::admin::{self, Admin};
use crate::cluster::{self, AddressError, Cluster};
use crate::config::{AdminListen, Config};
use crate::discovery::kubernetes::standing::Standing;
use crate::environment::Environment;
use crate::listener;
use crate::reload;
use crate::scoring::catalog::Catalog;
use crate::shutdown::{DrainTimes, Phase, SharedDrainTimes};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::writer::LineWriter;
use crate::tls::Terminator;
use published::Published;
use sources::Sources;

/// Why the front end did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{key} = \"{address}\": {error}{}", listener::remedy(.error))]
    Bind { key: &'static str, address: SocketAddr, error: io::Error },
    // Said whole, hence no source: `{:#}` would say it again.
    #[error("admin.{0}")]
    Admin(admin::AdminError),
    // The same.
    #[error("cluster: {0}")]
    Cluster(AddressError),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Where access log lines go.
#[derive(Clone, Debug, Default)]
pub struct AccessOutput {
    /// Absent: nowhere.
    pub writer: Option<LineWriter>,
    /// Text instead of JSON.
    pub text: bool,
}

/// The addresses that were bound; they differ from those configured where the port was 0.
#[derive(Clone, Debug)]
pub struct Bound {
    pub https: SocketAddr,
    pub http: Option<SocketAddr>,
    pub admin: AdminListen,
    /// Where other front ends of the cluster hand requests over.
    pub cluster: Option<SocketAddr>,
}

/// A front end that serves. Dropped without [`FrontEnd::stop`] it cuts what is in flight.
#[derive(Debug)]
pub struct FrontEnd {
    bound: Bound,
    phase: watch::Sender<Phase>,
    /// Says `None` when every worker has ended.
    workers_alive: mpsc::Receiver<()>,
    workers: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    pulses: Vec<Pulse>,
    reload: Option<reload::Handle>,
    config: Arc<ArcSwap<Config>>,
    drain_times: SharedDrainTimes,
    metrics: Arc<Metrics>,
}

impl FrontEnd {
    /// Binds every address, then starts serving.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing is left running.
    pub fn start(environment: Environment, metrics: Arc<Metrics>, access: AccessOutput) -> Result<Self, StartError> {
        let config = Arc::clone(environment.config());
        let threads = metrics.threads.len();
        let sockets = Sockets::bind(&config, threads)?;
        let bound = sockets.bound;
        let (https, http) = (bound.https, bound.http);
        let cluster = cluster(&environment, bound.cluster)?;
        let sharing = cluster.as_ref().map(|cluster| &cluster.sharing);

        let certificates = Arc::new(ArcSwap::from_pointee(environment.table()));
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::new(&config, https.port(), &metrics, sharing, None)));
        let token = Arc::new(ArcSwap::from_pointee(environment.token()));
        let transport = Arc::new(ArcSwap::from_pointee(environment.admin_transport()));
        let terminator = Terminator::new(Arc::clone(&certificates));

        let (phase, phases) = watch::channel(Phase::Running);
        let (alive, workers_alive) = mpsc::channel(1);
        let shared_config = Arc::new(ArcSwap::from(Arc::clone(&config)));
        let mut front_end = Self {
            bound,
            phase,
            workers_alive,
            workers: Vec::new(),
            control: None,
            pulses: Vec::new(),
            reload: None,
            config: Arc::clone(&shared_config),
            drain_times: Arc::default(),
            metrics: Arc::clone(&metrics),
        };
        let mut http_listeners = sockets.http.into_iter();
        let mut members_listeners = sockets.members.into_iter();
        for (index, (https, spread)) in sockets.https.into_iter().zip(spread::parts(threads)).enumerate() {
            let (pulse, asked) = pulse::pair();
            front_end.pulses.push(pulse);
            let setup = worker::Setup {
                index,
                asked,
                https,
                http: http_listeners.next(),
                members: members_listeners.next(),
                cluster: cluster.clone(),
                terminator: terminator.clone(),
                catalog: Arc::clone(&catalog),
                metrics: Arc::clone(&metrics),
                access: access.clone(),
                phases: phases.clone(),
                spread,
                alive: alive.clone(),
            };
            front_end.workers.push(start_thread(format!("worker-{index}"), |runtime| worker::run(runtime, setup))?);
        }
        let catalog_changed = Arc::new(Notify::new());
        let kubernetes = Arc::new(Standing::new(config.kubernetes_watches()));
        let published = Arc::new(Published::new(published::Parts {
            https_port: https.port(),
            metrics: Arc::clone(&metrics),
            config: Arc::clone(&shared_config),
            certificates: Arc::clone(&certificates),
            catalog: Arc::clone(&catalog),
            token: Arc::clone(&token),
            transport: Arc::clone(&transport),
            cluster: cluster.clone(),
            listens_on: config.admin.listen.clone(),
            catalog_changed: Arc::clone(&catalog_changed),
        }));
        let follower = Arc::clone(&published);
        let publish = move |environment: &Environment| follower.follow(environment);
        let main = environment.main_file().to_owned();
        let reload = reload::start(environment, publish).map_err(StartError::Thread)?;
        front_end.reload = Some(reload.clone());
        let admin = Admin {
            phase: front_end.phase.clone(),
            metrics,
            certificates,
            catalog,
            token,
            transport,
            reload,
            cluster,
            config: shared_config,
            bound: admin::Callers { https, http },
            main,
            kubernetes: Arc::clone(&kubernetes),
            turn: Arc::default(),
            pace: Pace::default(),
            drain_times: Arc::clone(&front_end.drain_times),
            last_asked: LastAsked::default(),
        };
        front_end.start_control(admin, sockets.admin, published, catalog_changed)?;
        Ok(front_end)
    }

    /// Starts the thread of everything that is not on a request's way: the admin listener, health checks, discovery, and
    /// sharing with other front ends.
    fn start_control(
        &mut self,
        admin: Admin,
        listener: admin::AdminListener,
        published: Arc<Published>,
        catalog_changed: Arc<Notify>,
    ) -> Result<(), StartError> {
        let (pulse, asked) = pulse::pair();
        self.pulses.push(pulse);
        self.control = Some(start_thread("control".to_owned(), |runtime| {
            runtime.spawn_local(asked.answer());
            let (catalog, kubernetes) = (Arc::clone(&admin.catalog), Arc::clone(&admin.kubernetes));
            let labelled = Box::new(move |all: Vec<_>| published.follow_labelled(all));
            let sources = Rc::new(Sources::new(Arc::clone(&kubernetes)));
            let told = tend::Told { standing: kubernetes, labelled };
            runtime.spawn_local(tend::tend(Arc::clone(&catalog), catalog_changed, Rc::clone(&sources), told));
            if let Some(cluster) = admin.cluster.clone() {
                let (config, phases) = (Arc::clone(&admin.config), admin.phase.subscribe());
                runtime.spawn_local(share::share(cluster, catalog, config, sources, phases));
            }
            runtime.block_on(admin.serve(listener));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })?);
        Ok(())
    }

    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// How long its stop may take; nothing that is configured later changes it.
    pub fn drain_times(&self) -> DrainTimes {
        *self.drain_times.get_or_init(|| DrainTimes::of(&self.config.load()))
    }

    /// What follows the files.
    pub fn reload(&self) -> Option<reload::Handle> {
        self.reload.clone()
    }

    /// Whether every thread that serves still turns: each has to answer. Waits for ever for one that is stuck.
    pub async fn is_turning(&self) -> bool {
        for pulse in &self.pulses {
            if !pulse.beats().await {
                return false;
            }
        }
        true
    }

    /// No longer ready, but connections are still taken.
    pub fn begin_drain(&self) {
        Phase::Draining.reach(&self.phase);
    }

    /// Returns when somebody began that over the admin API, and so asked for a stop.
    pub async fn asked_to_drain(&self) {
        // The sender is here.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Takes no more connections, finishes what is in flight within `limit`, and cuts the rest: so many requests.
    pub async fn stop(mut self, limit: Duration) -> u64 {
        Phase::Closing.reach(&self.phase);
        // What is left of connections without a request is nothing to anybody.
        let _ = timeout(limit, self.workers_alive.recv()).await;
        self.join();
        self.metrics.requests_cut()
    }

    /// Ends every thread at once.
    fn join(&mut self) {
        Phase::Stopped.reach(&self.phase);
        if let Some(reload) = self.reload.take() {
            reload.stop();
        }
        // A panic has been reported by the thread that had it.
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        // What was cut has been counted.
        Phase::Ended.reach(&self.phase);
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        self.join();
    }
}

/// Everything that is listened on; of the workers' listeners one for each of them.
struct Sockets {
    https: Vec<StdListener>,
    http: Vec<StdListener>,
    members: Vec<StdListener>,
    admin: admin::AdminListener,
    bound: Bound,
}

impl Sockets {
    fn bind(config: &Config, threads: usize) -> Result<Self, StartError> {
        let bind =
            |key, address| listener::bind(address, threads).map_err(|error| StartError::Bind { key, address, error });
        let bind_if = |key, address: Option<_>| match address {
            Some(address) => bind(key, address).map(|(bound, listeners)| (Some(bound), listeners)),
            None => Ok((None, Vec::new())),
        };
        let (https_address, https) = bind("frontend.https", config.frontend.https)?;
        let (http_address, http) = bind_if("frontend.http", config.frontend.http)?;
        let admin = admin::bind(&config.admin).map_err(StartError::Admin)?;
        let (cluster, members) = bind_if("cluster.listen", config.cluster.as_ref().map(|table| table.listen))?;
        let bound = Bound { https: https_address, http: http_address, admin: admin.address(), cluster };
        Ok(Self { https, http, members, admin, bound })
    }
}

/// What this front end is to the others of its cluster, whose place to hand requests over is bound at `bound`.
fn cluster(environment: &Environment, bound: Option<SocketAddr>) -> Result<Option<Arc<Cluster>>, StartError> {
    let (Some(table), Some(bound)) = (&environment.config().cluster, bound) else { return Ok(None) };
    let own = cluster::own_address(table, bound).map_err(StartError::Cluster)?;
    Ok(Some(Cluster::new(own, environment.cluster_secrets())))
}

/// How many worker threads `configured` asks for: 0 is one for each CPU this process may use, which in a container is
/// its quota.
pub fn threads(configured: usize) -> usize {
    match configured {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}

fn start_thread(name: String, run: impl FnOnce(LocalRuntime) + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    // The runtime cannot change threads; its making is the only thing in there that can fail.
    let (made, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let _ = made.send(Ok(()));
                run(runtime);
            }
            Err(error) => drop(made.send(Err(error))),
        }
    });
    let thread = thread.map_err(StartError::Thread)?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(StartError::Thread(error)),
        Err(_) => Err(StartError::Thread(io::Error::other("it ended at once"))),
    }
}
