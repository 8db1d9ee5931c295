//! What a balancer says of a connection before it passes it on: the PROXY protocol, versions 1 and 2 (`proxy-protocol.txt`,
//! which comes with `HAProxy`). Who has to say it is for the configuration to say: anybody else could claim to be anybody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;

const LINE_BEGIN: &[u8] = b"PROXY ";

/// What a header of version 2 begins with. No line of version 1 is shorter.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes behind the fixed part of version 2 that are taken: the addresses, and what a balancer adds to them.
const LONGEST_REST: usize = 4096;

/// Why a connection has no header that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("it does not begin with a PROXY protocol header")]
    Missing,
    #[error("its PROXY protocol header is malformed")]
    Malformed,
}

/// Reads the header, and nothing of what follows it. Absent: the balancer speaks for itself, as in its health checks, or
/// of something else than TCP over IP.
///
/// # Errors
///
/// See [`HeaderError`].
pub async fn read(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut begin = [0; SIGNATURE.len()];
    tcp.read_exact(&mut begin).await?;
    if begin == SIGNATURE {
        read_binary(tcp).await
    } else if begin.starts_with(LINE_BEGIN) {
        read_line(tcp, &begin).await
    } else {
        Err(HeaderError::Missing)
    }
}

/// The rest of a line, which is looked at before it is taken: what follows it is the caller's.
async fn read_line(tcp: &mut TcpStream, begin: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let mut line = [0; LONGEST_LINE];
    let mut length = begin.len();
    line[..length].copy_from_slice(begin);
    while length < LONGEST_LINE {
        let seen = tcp.peek(&mut line[length..]).await?;
        let end = line[length..length + seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        if taken == 0 {
            return Err(HeaderError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        tcp.read_exact(&mut line[length..length + taken]).await?;
        length += taken;
        if end.is_some() {
            return line_of(&line[..length]);
        }
    }
    Err(HeaderError::Malformed)
}

/// `PROXY TCP4|TCP6 <source> <destination> <source port> <destination port>`, or `PROXY UNKNOWN` and whatever follows.
fn line_of(line: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok()).ok_or(HeaderError::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => source_of::<Ipv4Addr>(words),
        Some("TCP6") => source_of::<Ipv6Addr>(words),
        _ => None,
    };
    source.map(Some).ok_or(HeaderError::Malformed)
}

fn source_of<'a, A: std::str::FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let (source, _destination): (A, A) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (port, _) = (number(words.next()?)?, number(words.next()?)?);
    words.next().is_none().then(|| SocketAddr::new(source.into(), port))
}

/// As the specification has numbers: without a sign, and without zeros before them.
fn number(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// What follows the signature: version and command, family and protocol, a length, and so many bytes.
async fn read_binary(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut fixed = [0; 4];
    tcp.read_exact(&mut fixed).await?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(HeaderError::Malformed);
    }
    let mut rest = vec![0; length];
    tcp.read_exact(&mut rest).await?;
    binary_of(command, family, &rest)
}

fn binary_of(command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    match command {
        // LOCAL: the balancer's own, whatever it says of addresses.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(HeaderError::Malformed),
    }
    match family {
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let (source, rest) = rest.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
            let (_, rest) = rest.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
            port_of(rest).map(|port| Some((*source, port).into()))
        }
        // And over IPv6.
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(HeaderError::Malformed)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(HeaderError::Malformed)?;
            port_of(rest).map(|port| Some((*source, port).into()))
        }
        _ => Ok(None),
    }
}

/// The first of two ports.
fn port_of(rest: &[u8]) -> Result<u16, HeaderError> {
    let (ports, _) = rest.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
    Ok(u16::from_be_bytes([ports[0], ports[1]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_taken_as_the_specification_has_them() {
        let taken = |line: &str| line_of(line.as_bytes()).map(|source| source.map(|source| source.to_string())).ok();
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(taken("PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n"), some("192.0.2.7:56324"));
        assert_eq!(taken("PROXY TCP6 2001:db8::7 2001:db8::2 0 65535\r\n"), some("[2001:db8::7]:0"));
        for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 x 1 2 3 4\r\n"] {
            assert_eq!(taken(unknown), Some(None), "{unknown}");
        }
        for wrong in [
            "PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.2 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.2 56324 443\r\n",
            "PROXY TCP4 2001:db8::7 198.51.100.2 56324 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.2 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.2 01 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.2 1 443\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.2 1 443\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(taken(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn binary_headers_are_taken_as_the_specification_has_them() {
        let ports = [0xdc, 0x04, 0x01, 0xbb];
        let four = [&[192, 0, 2, 7, 198, 51, 100, 2][..], &ports, b"whatever a balancer adds"].concat();
        let taken = |command, family, rest: &[u8]| binary_of(command, family, rest).ok();
        assert_eq!(taken(0x21, 0x11, &four), Some(Some("192.0.2.7:56324".parse().unwrap())));
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let six = [&address.octets()[..], &address.octets(), &ports].concat();
        assert_eq!(taken(0x21, 0x21, &six), Some(Some("[2001:db8::7]:56324".parse().unwrap())));
        // Health checks of the balancer; datagrams, and sockets of a file system.
        for (command, family) in [(0x20, 0x11), (0x20, 0x00), (0x21, 0x00), (0x21, 0x12), (0x21, 0x31)] {
            assert_eq!(taken(command, family, &four), Some(None), "{command:x} {family:x}");
        }
        assert_eq!((taken(0x22, 0x11, &four), taken(0x11, 0x11, &four)), (None, None));
        for length in 0..12 {
            assert_eq!(taken(0x21, 0x11, &four[..length]), None, "{length}");
        }
        assert_eq!(taken(0x21, 0x21, &six[..35]), None);
    }

    proptest! {
        #[test]
        fn any_source_is_read_as_it_was_written(source: IpAddr, port: u16, rest in prop::collection::vec(any::<u8>(), 0..64)) {
            let (word, family, octets) = match source {
                IpAddr::V4(source) => ("TCP4", 0x11, source.octets().to_vec()),
                IpAddr::V6(source) => ("TCP6", 0x21, source.octets().to_vec()),
            };
            let line = format!("PROXY {word} {source} {source} {port} 443\r\n");
            prop_assert!(line.len() <= LONGEST_LINE);
            prop_assert_eq!(line_of(line.as_bytes()).ok(), Some(Some(SocketAddr::new(source, port))));
            let binary = [&octets[..], &octets, &port.to_be_bytes(), &[1, 187], &rest].concat();
            prop_assert_eq!(binary_of(0x21, family, &binary).ok(), Some(Some(SocketAddr::new(source, port))));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), command: u8, family: u8) {
            let _ = line_of(&bytes);
            let _ = binary_of(command, family, &bytes);
        }
    }
}
