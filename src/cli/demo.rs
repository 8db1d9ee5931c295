//! `scorefront demo`: the main job in one command.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

use super::serve::{Output, Signals};
use crate::config::LogFormat;
use crate::demo::replica::Replica;
use crate::demo::{CNAME, DemoEnvironment};
use crate::environment;
use crate::front_end::{FrontEnd, threads};

/// How long calls in flight may take to finish after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  scorefront demo
  scorefront demo --port 9443")]
pub(super) struct Arguments {
    /// The port to serve https on; another free one if it is taken
    #[arg(long, default_value_t = 8443)]
    port: u16,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut replicas = JoinSet::new();
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let replica = Replica::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
            addresses.push(replica.local_addr()?);
            replicas.spawn(replica.serve(std::future::pending()));
        }
        let demo = DemoEnvironment::create(https_address(arguments.port), &addresses)?;
        let (environment, _) = environment::open(&demo.config())?;
        let mut log = environment.config().log.clone();
        log.format = LogFormat::Text;
        let output = Output::start(&log)?;
        let metrics = output.metrics(threads(0));
        let front_end = FrontEnd::start(environment, metrics, output.access.clone())?;
        print_what_to_paste(&front_end, &demo, &addresses);

        tokio::select! {
            _ = signals.next() => {}
            () = front_end.asked_to_drain() => {}
        }
        front_end.stop(DRAIN).await;
        replicas.shutdown().await;
        output.finish();
        println!("\nStopped; the demo's files are gone.");
        Ok(ExitCode::SUCCESS)
    })
}

fn https_address(port: u16) -> SocketAddr {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = TcpListener::bind(wanted).is_ok();
    SocketAddr::from((Ipv4Addr::LOCALHOST, if free { port } else { 0 }))
}

fn print_what_to_paste(front_end: &FrontEnd, demo: &DemoEnvironment, replicas: &[SocketAddr]) {
    let bound = front_end.bound();
    let uri = format!("https://{CNAME}:{}/api/v1/service/iris/score", bound.https.port());
    let replicas: Vec<_> = replicas.iter().map(SocketAddr::to_string).collect();
    println!("scorefront demo: the iris classifier, two replicas ({})", replicas.join(", "));
    println!("Configuration: {}", demo.config().display());
    println!("Metrics:       {}/metrics", bound.admin);
    println!("Scoring URI:   {uri}\n");
    println!("Score three flowers (sepal length and width, petal length and width, in cm):\n");
    println!("  curl --cacert {} {uri} \\", quoted(&demo.ca_pem().display().to_string()));
    println!("    -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\", demo.key);
    println!("    -d '{{\"data\": [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.7, 3.1, 5.6, 2.4]]}}'\n");
    println!("Ctrl-C stops everything. Calls are logged below.");
}

/// As a shell takes it for one word (POSIX 2.2.2): temporary directories may have blanks in their names.
fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
