//! A name server for tests, on UDP of a free port of this host. The tests of the binary have it too.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// The host that SRV records lead to.
const HOST: &str = "replicas.test.";

/// Knows one set of replicas: every name asked for has all of them, by A as by SRV. It fails each question as long as
/// it was told of none.
pub struct NameServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Absent: SERVFAIL.
    replicas: Option<Vec<SocketAddr>>,
    asked: usize,
}

impl NameServer {
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let known = Arc::clone(&state);
        // It ends with the process.
        thread::spawn(move || serve(&socket, &known));
        Self { address, state }
    }

    /// These are the replicas from now on, for no longer than until the next question.
    pub fn set(&self, replicas: &[SocketAddr]) {
        self.state.lock().expect("no panic").replicas = Some(replicas.to_vec());
    }

    /// SERVFAIL from now on.
    pub fn fail(&self) {
        self.state.lock().expect("no panic").replicas = None;
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.state.lock().expect("no panic").asked
    }
}

fn serve(socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 4096];
    while let Ok((length, caller)) = socket.recv_from(&mut buffer) {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let replicas = {
            let mut state = state.lock().expect("no panic");
            state.asked += 1;
            state.replicas.clone()
        };
        let answer = answer(question, replicas.as_deref()).to_vec().expect("a message");
        let _ = socket.send_to(&answer, caller);
    }
}

fn answer(question: Message, replicas: Option<&[SocketAddr]>) -> Message {
    let mut message = question.into_response();
    message.edns = None;
    let query = message.queries[0].clone();
    let Some(replicas) = replicas else {
        message.metadata.response_code = ResponseCode::ServFail;
        return message;
    };
    let records: Vec<_> = match query.query_type() {
        RecordType::A => {
            let ips: BTreeSet<_> = replicas.iter().map(SocketAddr::ip).collect();
            let ipv4 = |ip| if let IpAddr::V4(ip) = ip { Some(RData::A(A(ip))) } else { None };
            ips.into_iter().filter_map(ipv4).collect()
        }
        RecordType::SRV => {
            let host = Name::from_ascii(HOST).expect("a name");
            replicas.iter().map(|replica| RData::SRV(SRV::new(0, 0, replica.port(), host.clone()))).collect()
        }
        _ => Vec::new(),
    };
    message.add_answers(records.into_iter().map(|data| Record::from_rdata(query.name().clone(), 0, data)));
    message
}
