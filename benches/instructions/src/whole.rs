//! The request path from socket to socket: connections, calls and bodies.

use crate::caller::{self, Caller};
use crate::calls::{Http1, Http2};
use crate::counting::mark;
use crate::replica::Replica;
use crate::stage::{World, play};

/// Bytes of a small body, one way and the other.
const SMALL: usize = 80;

const MIB: usize = 1024 * 1024;

/// Streams that are open at once, as in benches/compare.
const STREAMS: usize = 16;

/// One call after the other over one HTTP/1.1 connection, to a replica that keeps its connections.
pub fn http1(calls: usize) {
    kept(calls, SMALL, SMALL, false);
}

/// The same where the replica closes each connection after its answer.
pub fn closing(calls: usize) {
    kept(calls, SMALL, SMALL, true);
}

pub fn up(calls: usize) {
    kept(calls, MIB, SMALL, false);
}

pub fn down(calls: usize) {
    kept(calls, SMALL, MIB, false);
}

fn kept(calls: usize, up: usize, down: usize, closes: bool) {
    play(Replica::start(down, closes), move |world| {
        let config = caller::config(world, b"http/1.1", false);
        let mut connection = Http1::connect(world, &config, up);
        measured(calls, world, |world| connection.call(world));
    });
}

/// Calls in sixteens over one HTTP/2 connection.
pub fn http2(calls: usize) {
    play(Replica::start(SMALL, false), move |world| {
        let config = caller::config(world, b"h2", false);
        let mut connection = Http2::connect(world, &config, SMALL);
        measured(calls / STREAMS, world, |world| connection.calls(world, STREAMS));
    });
}

pub fn full_handshake(handshakes: usize) {
    handshake(handshakes, false);
}

pub fn resumed_handshake(handshakes: usize) {
    handshake(handshakes, true);
}

/// Connections that are opened and closed again without a call.
fn handshake(handshakes: usize, resumes: bool) {
    play(Replica::start(SMALL, false), move |world| {
        let config = caller::config(world, b"http/1.1", resumes);
        Caller::connect(world, &config).close(world);
        measured(handshakes, world, |world| {
            let caller = Caller::connect(world, &config);
            assert_eq!(caller.is_resumed(), resumes);
            caller.close(world);
        });
    });
}

/// Does it for a while, and then `times` times between the marks.
fn measured(times: usize, world: &mut World, mut act: impl FnMut(&mut World)) {
    for _ in 0..times.div_ceil(4) {
        act(world);
    }
    mark();
    for _ in 0..times {
        act(world);
    }
    mark();
}
