//! What `scorefront serve` tells the service manager that started it, over a real socket of the kind systemd listens on.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::harness::{Environment, FrontEnd, PATIENCE, SCOREFRONT, Stub, http_get};

/// systemd's end of it.
struct Manager(UnixDatagram);

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self(socket)
    }

    fn next(&self) -> String {
        let mut message = [0; 512];
        let length = self.0.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).expect("UTF-8")
    }
}

fn serve(environment: Environment, notify_socket: &str, settings: &[(&str, &str)]) -> FrontEnd {
    let mut command = Command::new(SCOREFRONT);
    command.arg("serve").stdout(Stdio::piped()).env("NOTIFY_SOCKET", notify_socket).envs(settings.iter().copied());
    environment.serve_as(&mut command)
}

fn at_path(environment: &Environment) -> (Manager, String) {
    let path = environment.file("notify");
    (Manager::new(UnixDatagram::bind(&path).expect("bind")), path.to_str().expect("UTF-8").to_owned())
}

fn microseconds_now() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let environment = Environment::new();
    let (manager, address) = at_path(&environment);
    let front_end = serve(environment, &address, &[]);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(http_get(front_end.admin, "/readyz").0, 200);

    let asked = microseconds_now();
    front_end.process.signal(Signal::HUP);
    let reloading = manager.next();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the time");
    assert!((asked..=microseconds_now()).contains(&since.parse().expect("a number")), "{asked} {reloading}");
    assert_eq!(manager.next(), "READY=1");
    front_end.events.wait_for("SIGHUP: every file was read");

    front_end.stop();
    assert_eq!(manager.next(), "STOPPING=1");
    assert_eq!(front_end.process.exit_code(), Some(0));
}

#[test]
fn its_socket_may_have_a_name_of_the_abstract_namespace() {
    let name = format!("scorefront-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::new(UnixDatagram::bind_addr(&address).expect("bind"));
    let _front_end = serve(Environment::new(), &format!("@{name}"), &[]);
    assert_eq!(manager.next(), "READY=1");
}

#[test]
fn a_watchdog_hears_of_it_twice_a_period_while_it_scores_and_no_more_once_it_stands_still() {
    let replica = Stub::start();
    let environment = Environment::new().service("iris", replica.address);
    let (manager, address) = at_path(&environment);
    let front_end = serve(environment, &address, &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(manager.next(), "READY=1");
    let begin = Instant::now();
    for _ in 0..6 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    assert!(begin.elapsed() >= Duration::from_millis(400), "it says so all the time: {:?}", begin.elapsed());

    front_end.process.signal(Signal::STOP);
    manager.0.set_nonblocking(true).expect("set");
    // What was said before is still to be read.
    while manager.0.recv(&mut [0; 512]).is_ok() {}
    manager.0.set_nonblocking(false).expect("set");
    manager.0.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    assert!(manager.0.recv(&mut [0; 512]).is_err(), "a process that stands still says that it is well");
    front_end.process.signal(Signal::CONT);
    manager.0.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(manager.next(), "WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_is_not_kept() {
    let environment = Environment::new();
    let (manager, address) = at_path(&environment);
    let front_end = serve(environment, &address, &[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(http_get(front_end.admin, "/readyz").0, 200);
    front_end.stop();
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn it_serves_although_nobody_listens_or_the_address_is_none() {
    for address in ["/nowhere/notify", "vsock:2:1", "@", ""] {
        let front_end = serve(Environment::new(), address, &[("WATCHDOG_USEC", "soon")]);
        assert_eq!(http_get(front_end.admin, "/readyz").0, 200, "{address}");
    }
}
