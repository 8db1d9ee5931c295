#!/usr/bin/env python3
"""Callers as they come: openssl, curl, GnuTLS, Python, Java and Node against the front end, each verifying it.

    cargo build && python3 tests/clients/run.py [--only NAME …] [--binary FILE]

Each has to reach two names with a certificate of their own, to get an answer, to resume a session where it can, and
to be refused under a name that is not served. One of the names has an ECDSA and an RSA certificate, and callers that
know only one of the two get that one. As root under CI, what is not on the machine is installed by apt; elsewhere it
is skipped, loudly.
"""

import argparse
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from fixture import (ANSWER, CNAME, OTHER_CNAME, SCORE, UNKNOWN_CNAME, Results, default_binary, front_end, iris,
                     need, replica, write_certificates)

HERE = Path(__file__).resolve().parent
BODY = ANSWER.decode()
ALERT = "unrecognized"


def run(command, said_to_it="", timeout=60):
    """What a program said on both its outputs, and its exit status."""
    done = subprocess.run([str(word) for word in command], input=said_to_it, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, check=False)
    return done.stdout, done.returncode


def talk(command, said_to_it):
    """The same with a program that hangs up when its input ends: that stays open until the program has ended."""
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as program:
        watchdog = threading.Timer(20, program.kill)
        watchdog.start()
        try:
            program.stdin.write(said_to_it)
            program.stdin.flush()
            said = program.stdout.read()
        except BrokenPipeError:
            said = program.stdout.read()
        finally:
            watchdog.cancel()
        return said, program.wait()


def expect(said, *wanted):
    for text in wanted:
        assert text.lower() in said.lower(), f"no {text!r} in:\n{said[-3000:]}"


def http_request(name):
    return (f"POST {SCORE} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + "{}")


def openssl(target):
    program = need("openssl", "openssl")

    def s_client(name, *arguments):
        connect = ["s_client", "-connect", f"127.0.0.1:{target.port}", "-CAfile", target.ca, "-verify_return_error",
                   "-verify_hostname", name, "-ign_eof", "-servername", name]
        return run([program, *connect, *arguments], http_request(name))[0]

    session = target.directory / "session.pem"
    for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        for name in (CNAME, OTHER_CNAME):
            said = s_client(name, option, "-sess_out", session)
            expect(said, f"subject=CN = {name}\n", "Verify return code: 0 (ok)", f"New, {version}", "HTTP/1.1 200",
                   BODY)
        expect(s_client(OTHER_CNAME, option, "-sess_in", session), f"Reused, {version}", "HTTP/1.1 200")
        expect(s_client(UNKNOWN_CNAME, option), ALERT, "no peer certificate available")
        for algorithm, wanted in (("RSA-PSS+SHA256:RSA+SHA256", "Server public key is 2048 bit"),
                                  ("ECDSA+SHA256", "Server public key is 256 bit")):
            expect(s_client(CNAME, option, "-sigalgs", algorithm), wanted, "Verify return code: 0 (ok)", "HTTP/1.1 200")
    # Nothing in common but the name: the alert that says so, not one about permissions.
    expect(s_client(CNAME, "-tls1_2", "-cipher", "AES128-GCM-SHA256"), "handshake failure")
    return "TLS 1.2 and 1.3, resumed, RSA and ECDSA by choice"


def curl(target):
    program = need("curl", "curl")

    def call(name, *arguments):
        return run([program, "--silent", "--show-error", "--max-time", "15", "--cacert", target.ca,
                    "--connect-to", f"::127.0.0.1:{target.port}", "--data", "{}", "--verbose",
                    "--write-out", "\nsays %{http_version} %{http_code} %{ssl_verify_result}\n", *arguments,
                    f"https://{name}{SCORE}"])

    for arguments, version in ((["--http1.1"], "1.1"), (["--http2"], "2"), (["--tls-max", "1.2"], "2"),
                               (["--tlsv1.3"], "2")):
        for name in (CNAME, OTHER_CNAME):
            said, status = call(name, *arguments)
            expect(said, f"says {version} 200 0", f"subject: CN={name}", BODY)
            assert status == 0, said
    said, status = call(UNKNOWN_CNAME)
    expect(said, ALERT)
    assert status == 35, f"exit status {status}: {said}"
    return "HTTP/1.1 and HTTP/2, TLS 1.2 and 1.3"


def gnutls(target):
    program = need("gnutls-cli", "gnutls-bin")

    def call(name, version, *arguments):
        priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}"
        return talk([program, "--x509cafile", target.ca, "--sni-hostname", name, "--verify-hostname", name, "--port",
                     target.port, "--priority", priority, *arguments, "127.0.0.1"], http_request(name))

    for version in ("1.2", "1.3"):
        for name in (CNAME, OTHER_CNAME):
            said, _ = call(name, version)
            expect(said, f"subject `CN={name}'", "certificate is trusted", f"(TLS{version}-", "HTTP/1.1 200", BODY)
        # Without waiting, the tickets of TLS 1.3 would come after it has gone.
        said, _ = call(CNAME, version, "--resume", "--waitresumption")
        expect(said, "This is a resumed session", "HTTP/1.1 200")
        said, status = call(UNKNOWN_CNAME, version)
        expect(said, "recognized")
        assert status != 0, said
    return "TLS 1.2 and 1.3, resumed"


def python(target):
    def call(name, version, session=None):
        context = ssl.create_default_context(cafile=str(target.ca))
        context.minimum_version = context.maximum_version = version
        # A session belongs to its context.
        context = session[0] if session else context
        tcp = socket.create_connection(("127.0.0.1", target.port), 10)
        with context.wrap_socket(tcp, server_hostname=name, session=session and session[1]) as connection:
            connection.sendall(http_request(name).encode())
            said = b""
            while part := connection.recv(65536):
                said += part
            subject = dict(pair for [pair] in connection.getpeercert()["subject"])["commonName"]
            expect(said.decode(), "HTTP/1.1 200", BODY)
            assert subject == name, subject
            assert connection.session_reused == bool(session), "resumed" if connection.session_reused else "not resumed"
            return context, connection.session

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for name in (CNAME, OTHER_CNAME):
            call(name, version, call(name, version))
        try:
            call(UNKNOWN_CNAME, version)
        except ssl.SSLError as error:
            expect(str(error).replace("_", " "), ALERT)
        else:
            raise AssertionError("an unknown name is served")
    return f"TLS 1.2 and 1.3, resumed, {ssl.OPENSSL_VERSION}"


def java(target):
    program, keytool = need("java", "default-jdk-headless"), need("keytool", "default-jdk-headless")
    # One that runs a source file: a runtime alone does not.
    need("javac", "default-jdk-headless")
    store, hosts = target.directory / "trust.p12", target.directory / "hosts"
    said, status = run([keytool, "-importcert", "-noprompt", "-alias", "ca", "-file", target.ca, "-keystore", store,
                        "-storetype", "PKCS12", "-storepass", "changeit"])
    assert status == 0, said
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in (CNAME, OTHER_CNAME, UNKNOWN_CNAME)))
    said, status = run([Path(program).resolve().parent / "javac", "-d", target.directory, HERE / "Client.java"])
    assert status == 0, said

    def call(name, version, *properties):
        return run([program, f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit",
                    f"-Djdk.net.hosts.file={hosts}", f"-Dhttps.protocols={version}", *properties,
                    "-cp", target.directory, "Client", f"https://{name}:{target.port}{SCORE}"])[0]

    for version in ("TLSv1.2", "TLSv1.3"):
        for name in (CNAME, OTHER_CNAME):
            said = call(name, version)
            expect(said, f"new 200 {BODY} CN={name} EC\n", f"resumed 200 {BODY} CN={name}")
        expect(call(UNKNOWN_CNAME, version), "refused", ALERT)
    expect(call(CNAME, "TLSv1.2", "-Dhttps.cipherSuites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
           f"200 {BODY} CN={CNAME} RSA")
    return "TLS 1.2 and 1.3, resumed, RSA by choice, " + run([program, "--version"])[0].splitlines()[0]


def node(target):
    program = need("node", "nodejs")

    def call(name, version):
        return run([program, HERE / "client.js", "127.0.0.1", target.port, name, SCORE, version, target.ca])[0]

    for version in ("TLSv1.2", "TLSv1.3"):
        for name in (CNAME, OTHER_CNAME):
            said = call(name, version)
            expect(said, f"new 200 {BODY} CN={name} {version} true", f"resumed 200 {BODY}")
        expect(call(UNKNOWN_CNAME, version), "refused", ALERT)
    return "TLS 1.2 and 1.3, resumed, " + run([program, "--version"])[0].strip()


CLIENTS = {"openssl": openssl, "curl": curl, "gnutls": gnutls, "python": python, "java": java, "node": node}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CLIENTS, action="append", help="default: all")
    parser.add_argument("--binary", type=Path, default=None, help="default: target/release or target/debug")
    arguments = parser.parse_args()
    binary, results = arguments.binary or default_binary(), Results()
    with tempfile.TemporaryDirectory() as directory, replica() as replica_port:
        directory = Path(directory)
        write_certificates(directory)
        with front_end(binary.resolve(), directory, iris(replica_port)) as target:
            for name in arguments.only or CLIENTS:
                results.check(name, lambda name=name: CLIENTS[name](target))
    sys.exit(results.failures > 0)


if __name__ == "__main__":
    main()
