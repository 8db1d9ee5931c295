"""The proxies: each class writes its configuration and says how it is started.

All of them end TLS 1.3 with the same pair, take `/api/v1/service/iris/score` and hand it on as `/score` to one replica over
kept connections. Peers run bare: no access log, no limits, no health checks, bodies streamed and not gathered; with buffers of the
sizes at which each was found to cost least.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from support import PATH

KEY = "benchmark-key"
# TLS 1.3 has one that everybody must know; callers offer no other, so that everybody does the same work.
CIPHER = "TLS_AES_128_GCM_SHA256"


@dataclass(frozen=True)
class Setup:
    """What is different from case to case."""

    pair: str = "ecdsa"
    # The replica ends each connection.
    closes: bool = False
    # Bodies of 100 KiB and more, for those that want to be told.
    large: bool = False


@dataclass
class Place:
    """Where a proxy runs."""

    work: Path
    port: int
    replica: int
    pair: object
    setup: Setup


class Proxy:
    # As it is named on the command line, and in tables.
    name = title = ""

    def __init__(self, program):
        self.program = program

    def command(self, place):
        """Writes the configuration into `place.work`; returns what to start."""
        raise NotImplementedError


class Scorefront(Proxy):
    """With everything switched on: keys, permits, a queue, health checks, metrics, the access log.

    With more than one name there are as many services as names, each name with files of its own. Their replicas are
    one and the same, and so many health checks of it would be a load of their own: they are left out then.
    """

    name, title = "scorefront", "scorefront"

    def __init__(self, program, threads=1, names=1, label=None):
        super().__init__(program)
        self.threads, self.names = threads, names
        self.title = label or self.title
        if label:
            self.name = label.replace(",", "").replace(" ", "-")

    def command(self, place):
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        # Apart from what is written to: it follows the files of its environment.
        environment = place.work / "environment"
        environment.mkdir()
        head = (
            f'[frontend]\nhttps = "127.0.0.1:{place.port}"\nthreads = {self.threads}\n'
            'drain_grace = "10ms"\ndrain_timeout = "1s"\n'
            '[tls]\nmin_version = "1.3"\n[admin]\nlisten = "127.0.0.1:0"\n[log]\naccess = true\nformat = "json"\n'
            "[defaults]\nmax_concurrent_requests_per_replica = 1000\nmax_queue = 1000\n"
            + ('health_interval = "0s"\n' if self.names > 1 else ""))
        tables = []
        for number in range(self.names):
            name, service = ("localhost", "iris") if self.names == 1 else (f"n{number}.bench.example", f"svc{number}")
            cert, key = place.pair.cert, place.pair.key
            if self.names > 1:
                directory = environment / "certs" / name
                directory.mkdir(parents=True)
                cert, key = (shutil.copy(file, directory) for file in (cert, key))
            tables.append(
                f'[[cname]]\nname = "{name}"\ncert_pem = "{cert}"\nkey_pem = "{key}"\n'
                f'[[service]]\nname = "{service}"\n'
                f'primary_key_sha256 = "{digest}"\nreplicas = ["http://127.0.0.1:{place.replica}"]\n')
        (environment / "scorefront.toml").write_text(head + "".join(tables))
        return [self.program, "serve", "--config", environment / "scorefront.toml"]


class Nginx(Proxy):
    name = title = "nginx"

    def command(self, place):
        # With large bodies its own sizes cost it some 40 % more upwards, and twice as much downwards.
        buffers = ("client_body_buffer_size 256k; proxy_buffer_size 256k; proxy_buffers 8 256k;"
                   " proxy_busy_buffers_size 512k;") if place.setup.large else ""
        (place.work / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; error_log /dev/null; pid {place.work}/nginx.pid;\n"
            "events { worker_connections 8192; }\n"
            "http { access_log off; keepalive_requests 1000000000; client_max_body_size 0;\n"
            f"upstream replica {{ server 127.0.0.1:{place.replica}; keepalive 256;"
            " keepalive_requests 1000000000; }\n"
            f"server {{ listen 127.0.0.1:{place.port} ssl http2; server_name localhost; ssl_protocols TLSv1.3;"
            f" ssl_conf_command Ciphersuites {CIPHER};\n"
            f"ssl_certificate {place.pair.cert}; ssl_certificate_key {place.pair.key};\n"
            f"location {PATH} {{ proxy_pass http://replica/score; proxy_http_version 1.1;"
            f' proxy_set_header Connection ""; proxy_buffering off; proxy_request_buffering off; {buffers} }} }} }}\n')
        return [self.program, "-p", place.work, "-c", place.work / "nginx.conf"]


class Haproxy(Proxy):
    name, title = "haproxy", "HAProxy"

    def command(self, place):
        # With large bodies its own 16 KiB cost it a sixth more; above 64 KiB it costs more again.
        buffers = "  tune.bufsize 65536\n" if place.setup.large else ""
        (place.work / "haproxy.cfg").write_text(
            f"global\n{buffers}  nbthread 1\n  maxconn 8192\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n"
            f"  ssl-default-bind-ciphersuites {CIPHER}\n"
            "defaults\n  mode http\n  http-reuse always\n  option http-ignore-probes\n  timeout client 75s\n  timeout server 60s\n"
            "  timeout connect 5s\n"
            f"frontend callers\n  bind 127.0.0.1:{place.port} ssl crt {place.pair.both} alpn h2,http/1.1\n"
            "  default_backend replicas\n"
            f"backend replicas\n  http-request set-path /score\n  server one 127.0.0.1:{place.replica}\n")
        return [self.program, "-f", place.work / "haproxy.cfg"]


class Envoy(Proxy):
    name, title = "envoy", "Envoy"

    def command(self, place):
        def address(number):
            return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

        def typed(kind, **fields):
            return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}

        route = {"match": {"path": PATH},
                 "route": {"cluster": "replica", "timeout": "60s", "prefix_rewrite": "/score"}}
        router = {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}
        manager = typed(
            "filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="callers",
            codec_type="AUTO", generate_request_id=False, http_filters=[router],
            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})
        pair = {"certificate_chain": {"filename": str(place.pair.cert)},
                "private_key": {"filename": str(place.pair.key)}}
        tls = typed("transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}})
        listener = {"name": "callers", "address": address(place.port), "filter_chains": [{
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
        most = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}
        endpoint = {"endpoint": {"address": address(place.replica)}}
        cluster = {"name": "replica", "type": "STATIC", "connect_timeout": "5s",
                   "circuit_breakers": {"thresholds": [most]},
                   "load_assignment": {"cluster_name": "replica", "endpoints": [{"lb_endpoints": [endpoint]}]}}
        (place.work / "envoy.json").write_text(json.dumps(
            {"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
        return [self.program, "-c", place.work / "envoy.json", "--concurrency", 1, "--disable-hot-restart",
                "--log-level", "error"]


class Traefik(Proxy):
    """One CPU to run on is one thread for Go's work."""

    name, title = "traefik", "Traefik"

    def command(self, place):
        (place.work / "routes.toml").write_text(
            f'[http.routers.score]\nentryPoints = ["callers"]\nrule = "Path(`{PATH}`)"\nservice = "replica"\n'
            'middlewares = ["score"]\n[http.routers.score.tls]\n'
            '[http.middlewares.score.replacePath]\npath = "/score"\n'
            "[http.services.replica.loadBalancer]\n"
            f'[[http.services.replica.loadBalancer.servers]]\nurl = "http://127.0.0.1:{place.replica}"\n'
            "[tls.stores.default.defaultCertificate]\n"
            f'certFile = "{place.pair.cert}"\nkeyFile = "{place.pair.key}"\n'
            '[tls.options.default]\nminVersion = "VersionTLS13"\n')
        (place.work / "traefik.toml").write_text(
            "[global]\ncheckNewVersion = false\nsendAnonymousUsage = false\n[log]\nlevel = \"ERROR\"\n"
            f'[entryPoints.callers]\naddress = "127.0.0.1:{place.port}"\n'
            "[serversTransport]\nmaxIdleConnsPerHost = 256\n"
            f'[providers.file]\nfilename = "{place.work}/routes.toml"\nwatch = false\n')
        return [self.program, f"--configFile={place.work}/traefik.toml"]


class Caddy(Proxy):
    """As Traefik: one CPU, one thread for Go's work."""

    name, title = "caddy", "Caddy"

    def command(self, place):
        (place.work / "Caddyfile").write_text(
            "{\n  admin off\n  auto_https off\n"
            f"  storage file_system {place.work}/caddy\n  log {{\n    level ERROR\n  }}\n"
            "  servers {\n    protocols h1 h2\n  }\n}\n"
            f"https://localhost:{place.port} {{\n  bind 127.0.0.1\n"
            f"  tls {place.pair.cert} {place.pair.key} {{\n    protocols tls1.3\n  }}\n"
            f"  rewrite {PATH} /score\n  reverse_proxy 127.0.0.1:{place.replica} {{\n"
            "    transport http {\n      compression off\n      keepalive_idle_conns_per_host 256\n    }\n  }\n}\n")
        # It keeps a copy of its configuration.
        home = [f"{name}={place.work}/caddy" for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")]
        return ["env", *home, self.program, "run", "--adapter", "caddyfile", "--config", place.work / "Caddyfile"]


PEERS = {proxy.name: proxy for proxy in (Nginx, Haproxy, Envoy, Traefik, Caddy)}
