//! A name server that says what a test has it say, on UDP and TCP of one port of this host.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::sleep;

/// How a question is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The answers, and what is given along.
    Records(Vec<Record>, Vec<Record>),
    /// No such record, for so many seconds.
    NoData(u32),
    Code(ResponseCode),
    /// Over UDP cut to nothing, over TCP whole.
    Long(Vec<Record>),
    Garbage,
    Silence,
    Slow(Duration, Vec<Record>),
}

#[derive(Default)]
struct State {
    replies: HashMap<(Name, RecordType), Reply>,
    /// What a question without a reply of its own gets; absent: NXDOMAIN.
    otherwise: Option<Reply>,
    asked: Vec<(String, RecordType)>,
    by_tcp: usize,
}

#[derive(Clone)]
pub struct Stub {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Stub {
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            // Another may have the same port of the other protocol.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let stub = Self { address: udp.local_addr().unwrap(), state: Arc::default() };
        tokio::spawn(stub.clone().serve_udp(udp));
        tokio::spawn(stub.clone().serve_tcp(tcp));
        stub
    }

    pub fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        self.state.lock().unwrap().replies.insert((name_of(name), kind), reply);
    }

    /// These addresses, each as an A or AAAA record with this time to live; NODATA for the family that has none.
    pub fn set_addresses(&self, name: &str, ttl: u32, ips: &[&str]) {
        let (mut a, mut aaaa) = (Vec::new(), Vec::new());
        for ip in ips {
            let record = address(name, ttl, ip);
            if record.record_type() == RecordType::A { a.push(record) } else { aaaa.push(record) }
        }
        for (kind, records) in [(RecordType::A, a), (RecordType::AAAA, aaaa)] {
            let reply = if records.is_empty() { Reply::NoData(1) } else { Reply::Records(records, Vec::new()) };
            self.set(name, kind, reply);
        }
    }

    /// Nothing is known any more, and every question gets this.
    pub fn forget(&self, otherwise: Reply) {
        let mut state = self.state.lock().unwrap();
        state.replies.clear();
        state.otherwise = Some(otherwise);
    }

    pub fn asked(&self) -> Vec<(String, RecordType)> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Questions of this kind so far.
    pub fn count(&self, kind: RecordType) -> usize {
        self.asked().iter().filter(|(_, asked)| *asked == kind).count()
    }

    pub fn by_tcp(&self) -> usize {
        self.state.lock().unwrap().by_tcp
    }

    async fn serve_udp(self, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = [0; 4096];
        loop {
            let (length, caller) = socket.recv_from(&mut buffer).await.unwrap();
            let (stub, socket, question) = (self.clone(), Arc::clone(&socket), buffer[..length].to_vec());
            tokio::spawn(async move {
                if let Some(answer) = stub.answer(&question, false).await {
                    let _ = socket.send_to(&answer, caller).await;
                }
            });
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().serve_stream(stream));
        }
    }

    async fn serve_stream(self, mut stream: TcpStream) {
        while let Ok(length) = stream.read_u16().await {
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            if let Some(answer) = self.answer(&question, true).await {
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        }
    }

    async fn answer(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let mut message = Message::from_vec(question).unwrap().into_response();
        message.edns = None;
        let query = message.queries[0].clone();
        let reply = {
            let mut state = self.state.lock().unwrap();
            state.asked.push((query.name().to_ascii(), query.query_type()));
            state.by_tcp += usize::from(tcp);
            let set = state.replies.get(&(query.name().clone(), query.query_type()));
            set.or(state.otherwise.as_ref()).cloned().unwrap_or(Reply::Code(ResponseCode::NXDomain))
        };
        match reply {
            Reply::Records(answers, additionals) => {
                message.add_answers(answers);
                message.add_additionals(additionals);
            }
            Reply::NoData(ttl) => {
                let soa = SOA::new(name_of("ns."), name_of("admin."), 1, 1, 1, 1, ttl);
                message.add_authority(Record::from_rdata(query.name().clone(), ttl, RData::SOA(soa)));
            }
            Reply::Code(code) => message.metadata.response_code = code,
            Reply::Long(_) if !tcp => message.metadata.truncation = true,
            Reply::Long(answers) => drop(message.add_answers(answers)),
            // The header, as if answers followed.
            Reply::Garbage => {
                let mut bytes = message.to_vec().unwrap();
                bytes[7] = 9;
                bytes.extend([0xc0, 0xff, 0xff]);
                return Some(bytes);
            }
            Reply::Silence => return None,
            Reply::Slow(time, answers) => {
                sleep(time).await;
                message.add_answers(answers);
            }
        }
        Some(message.to_vec().unwrap())
    }
}

pub fn name_of(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    name
}

pub fn address(name: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().unwrap() {
        std::net::IpAddr::V4(ip) => RData::A(A(ip)),
        std::net::IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name_of(name), ttl, data)
}

pub fn alias(name: &str, of: &str) -> Record {
    Record::from_rdata(name_of(name), 60, RData::CNAME(CNAME(name_of(of))))
}

pub fn service(name: &str, ttl: u32, priority: u16, port: u16, target: &str) -> Record {
    let target = if target == "." { Name::root() } else { name_of(target) };
    Record::from_rdata(name_of(name), ttl, RData::SRV(SRV::new(priority, 0, port, target)))
}
