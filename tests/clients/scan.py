#!/usr/bin/env python3
"""testssl.sh and sslyze against the front end as it comes; then against an nginx that is weak on purpose.

    cargo build && python3 tests/clients/scan.py [--only testssl|sslyze] [--binary FILE] [--keep DIRECTORY]

Fails if either finds a weakness in the front end that the table EXCEPTIONS gives no reason for, or if a scan did not
run to its end; and if either finds nothing to complain about in the weak nginx, since then it proves nothing about us.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fixture import (CI, CNAME, ROOT, Missing, Results, default_binary, front_end, iris, need, replica, weak_nginx,
                     write_certificates)

SSLYZE = "sslyze==6.3.1"

# testssl's ids that do not count, with the severity they may have at most, and why. WARN is what it could not find out.
EXCEPTIONS = {
    "cipher_order": ("HIGH", "the caller's order is taken: every suite is ECDHE with AEAD, so none is to be avoided, and"
                             " phones without AES in hardware know that they want ChaCha20 (Mozilla advises it)"),
    "cert_revocation": ("HIGH", "the test's own CA has neither CRL nor OCSP"),
    "secure_renego": ("WARN", "testssl's openssl cannot ask for it here; sslyze does (session_renegotiation)"),
    "sessionresumption_ticket": ("WARN", "testssl hangs up at once, in TLS 1.3 often before the ticket is there, and takes"
                                         " the missing file for a failed connection; run.py resumes in earnest"),
    "cert_chain_of_trust": ("WARN", "trust in the test's own CA depends on the stores testssl brings along"),
    "DNS_CAArecord": ("LOW", "the name is not in the DNS"),
}
SEVERITIES = ["WARN", "LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"]

# What each scanner must say of the weak nginx: if it does not see these, it sees nothing.
WEAK = {"testssl": {"TLS1", "TLS1_1", "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_AVERAGE"},
        "sslyze": {"tls_1_0_cipher_suites", "tls_1_1_cipher_suites", "tls_1_2_cipher_suites"}}


def run(command, **options):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=300, check=False, **options)


def testssl(target, directory):
    """Findings as id: text. Left out: client simulations, each cipher by itself, and HTTP headers: the model's."""
    program = need("testssl", "testssl.sh")
    for tool, package in (("hexdump", "bsdextrautils"), ("dig", "bind9-dnsutils")):
        need(tool, package)
    report = directory / "testssl.json"
    report.unlink(missing_ok=True)
    said = run([program, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1",
                "--add-ca", target.ca, "--jsonfile", report, "-p", "-s", "-f", "-P", "-S", "-U",
                f"{CNAME}:{target.port}"], cwd=directory,
               # Not every OpenSSL has the engine for GOST, which testssl then reports as a finding of its own.
               env={**os.environ, "NO_ENGINE": "true"})
    entries = json.loads(report.read_text()) if report.exists() else []
    # The last test of its run. A scan that broke off has found little, which must not look like a pass.
    if "RC4" not in {entry["id"] for entry in entries}:
        raise ValueError(f"testssl did not run to its end:\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
    findings = {}
    for entry in entries:
        severity, name = entry["severity"], entry["id"].split(" ")[0]
        if severity in SEVERITIES:
            allowed = EXCEPTIONS.get(name, (None,))[0]
            if allowed is None or SEVERITIES.index(severity) > SEVERITIES.index(allowed):
                findings[name] = f"{severity}: {entry['finding']}"
    return findings


def installed_sslyze():
    """sslyze in a virtual environment below the target directory."""
    if shutil.which("sslyze"):
        return shutil.which("sslyze")
    directory = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "tools" / SSLYZE
    program = directory / "bin/sslyze"
    if not program.exists():
        for command in ([sys.executable, "-m", "venv", "--clear", directory],
                        [directory / "bin/python", "-m", "pip", "install", "--quiet", SSLYZE]):
            made = run(command)
            if made.returncode:
                program.unlink(missing_ok=True)
                raise Missing(f"{SSLYZE} cannot be installed: {(made.stdout + made.stderr)[-300:].strip()}")
    return program


# What must be true of each of sslyze's results. Resumption is not among them: sslyze takes a renewed ticket for one
# that was ignored (it compares them); run.py resumes for real.
# Ciphers: forward secrecy with AEAD, or one of TLS 1.3's own.
def strong(cipher):
    return "_ECDHE_" in cipher and ("_GCM_" in cipher or "_CHACHA20_" in cipher) and "anon" not in cipher


SSLYZE_RESULTS = {
    **{f"{version}_cipher_suites": lambda result: not result["accepted_cipher_suites"]
       for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")},
    "tls_1_2_cipher_suites": lambda result: all(strong(accepted["cipher_suite"]["name"])
                                                for accepted in result["accepted_cipher_suites"])
    and len(result["accepted_cipher_suites"]) > 0,
    "tls_1_3_cipher_suites": lambda result: len(result["accepted_cipher_suites"]) > 0,
    "tls_1_3_early_data": lambda result: not result["supports_early_data"],
    "tls_compression": lambda result: not result["supports_compression"],
    "openssl_ccs_injection": lambda result: not result["is_vulnerable_to_ccs_injection"],
    "tls_fallback_scsv": lambda result: result["supports_fallback_scsv"],
    "heartbleed": lambda result: not result["is_vulnerable_to_heartbleed"],
    "robot": lambda result: result["robot_result"].startswith("NOT_VULNERABLE"),
    "session_renegotiation": lambda result: result["supports_secure_renegotiation"]
    and not result["is_vulnerable_to_client_renegotiation_dos"],
    "elliptic_curves": lambda result: {curve["name"] for curve in result["supported_curves"]}
    <= {"X25519", "secp256r1", "prime256v1", "secp384r1"},
    "tls_extended_master_secret": lambda result: result["supports_ems_extension"],
    "certificate_info": lambda result: all(
        deployment["received_chain_has_valid_order"]
        and any(validation["trust_store"]["path"].endswith("ca.pem") and validation["was_validation_successful"]
                for validation in deployment["path_validation_results"])
        for deployment in result["certificate_deployments"]),
}
SSLYZE_COMMANDS = [
    "certinfo", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "early_data", "compression", "openssl_ccs",
    "fallback", "heartbleed", "robot", "reneg", "elliptic_curves", "ems"]


def sslyze(target, directory):
    program, report = installed_sslyze(), directory / "sslyze.json"
    report.unlink(missing_ok=True)
    said = run([program, f"--json_out={report}", "--certinfo_ca_file", target.ca, "--mozilla_config=disable",
                *(f"--{command}" for command in SSLYZE_COMMANDS), f"{CNAME}:{target.port}{{127.0.0.1}}"], cwd=directory)
    if not report.exists():
        raise ValueError(f"sslyze reported nothing:\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
    [scan] = json.loads(report.read_text())["server_scan_results"]
    if scan["scan_status"] != "COMPLETED":
        raise ValueError(f"sslyze could not connect: {scan['connectivity_error_trace']}")
    findings = {}
    for name, good in SSLYZE_RESULTS.items():
        outcome = scan["scan_result"][name]
        if outcome["status"] != "COMPLETED":
            trace = outcome["error_trace"] or [""]
            reason = outcome["error_reason"] or outcome["status"]
            findings[name] = f"{reason}: {''.join(trace).strip().splitlines()[-1:]}"
        elif not good(outcome["result"]):
            findings[name] = json.dumps(outcome["result"])[:400]
    return findings


SCANNERS = {"testssl": testssl, "sslyze": sslyze}


def find_nothing(scan, target, directory):
    findings = scan(target, directory)
    assert not findings, "".join(f"\n    {name}: {text}" for name, text in findings.items())


def find_weaknesses(name, target, directory):
    findings = SCANNERS[name](target, directory)
    unseen = WEAK[name] - findings.keys()
    assert not unseen, f"it does not see {', '.join(sorted(unseen))}"
    return ", ".join(findings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SCANNERS, action="append", help="default: both")
    parser.add_argument("--binary", type=Path, default=None, help="default: target/release or target/debug")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the scanners' reports there")
    arguments = parser.parse_args()
    binary, results = arguments.binary or default_binary(), Results()
    names = arguments.only or list(SCANNERS)
    with tempfile.TemporaryDirectory() as directory, replica() as replica_port:
        directory = Path(directory)
        write_certificates(directory)
        with front_end(binary.resolve(), directory, iris(replica_port)) as target:
            for name in names:
                results.check(f"{name} finds no weakness in the front end",
                              lambda name=name: find_nothing(SCANNERS[name], target, directory))
                keep(arguments.keep, directory, name, "front-end")
        try:
            with weak_nginx(directory) as target:
                for name in names:
                    results.check(f"{name} sees what is wrong with a weak nginx",
                                  lambda name=name: find_weaknesses(name, target, directory))
                    keep(arguments.keep, directory, name, "weak-nginx")
        except Missing as missing:
            results.failures += CI
            print(f"\n!!! SKIPPED the proof that the scanners see anything: {missing}\n")
    sys.exit(results.failures > 0)


def keep(where, directory, name, target):
    if where and (directory / f"{name}.json").exists():
        where.mkdir(parents=True, exist_ok=True)
        shutil.copy(directory / f"{name}.json", where / f"{name}-{target}.json")


if __name__ == "__main__":
    main()
