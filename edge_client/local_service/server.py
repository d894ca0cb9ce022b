"""The running local service: one gRPC server with health and reflection, until SIGTERM."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.errors import SettingsError, StateInUse
from common.file_lock import file_lock
from common.files import writing_to
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.fedqana_edge_pb2_grpc import add_EdgeClientServicer_to_server
from edge_client.local_service.local_site import LocalSite
from edge_client.local_service.referral import Referral
from edge_client.local_service.servicer import Servicer
from edge_client.local_service.settings import (
    Endpoint,
    ServiceSettings,
    TlsFiles,
    endpoint_of,
    require_safe,
)
from edge_client.local_service.site_facts import SiteFacts
from edge_client.local_service.site_referral import SiteReferral
from edge_client.site import SiteFolder
from edge_client.state_lock import state_in_use
from edge_client.versions import VersionFolder

log = logging.getLogger("fedqana.local_service")

SERVICE = pb.DESCRIPTOR.services_by_name["EdgeClient"].full_name
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 150.0
"""Longest that a Learn which is under way may take to end."""
_STATUS = health_pb2.HealthCheckResponse


def serve(home: Path, settings: ServiceSettings, referral: Referral | None = None) -> None:
    """Answer for the site in ``home`` until SIGTERM or SIGINT; call it from the main thread.

    Parameters
    ----------
    home : Path
        A `SiteFolder`, with the site's policy where it has one.
    settings : ServiceSettings
    referral : Referral, optional
        That of the policy, as it is at each answer, where none is given.

    Raises
    ------
    SettingsError
        The address cannot be used, or would let others in without a certificate.
    DataNotFound, DataUnreadable
        ``home`` is not a site's folder.
    StateInUse
        Another service answers for this site already.
    """
    home = home.absolute()
    endpoint = endpoint_of(settings.address, home)
    require_safe(endpoint, settings.tls)
    folder = SiteFolder(home)
    site = LocalSite(folder.path / "state", SiteFacts.of(folder.read()))
    rule = SiteReferral(home, referral)
    busy = f"a local service runs for {home} already; stop it before another one is started"
    stop = threading.Event()
    with file_lock(home / "service.lock", 0.0, busy), _stopped_by_signals(stop):
        _undo_half_done(folder.path / "state")
        server, watch = _server(site, settings, rule)
        _listen(server, endpoint, settings.tls)
        if settings.tls is not None:  # for the site's own commands
            _listen(server, endpoint_of("", home), None)
        site.state.refresh()
        watch.set(site)
        server.start()
        log.info("listening on %s", endpoint.target)
        while not stop.wait(_LOOK_SECONDS):
            site.state.refresh()
            watch.set(site)
        log.info("stopping")
        watch.end()
        ended = server.stop(_STOP_SECONDS)
        site.close()
        ended.wait()


def _undo_half_done(state_dir: Path) -> None:
    """Put away what a killed trainer left; while a trainer is at work there is nothing to do."""
    if not (state_dir / "versions").exists():
        return
    with suppress(StateInUse), state_in_use(state_dir, wait=0.0):
        VersionFolder(state_dir).clean()


class _Health:
    """What the standard health service says: serving as soon as there is a program."""

    def __init__(self, server: grpc.Server) -> None:
        # A watcher keeps no thread of the requests' busy.
        pool = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._servicer = health.HealthServicer(True, pool)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def set(self, site: LocalSite) -> None:
        """Say whether the site can answer."""
        status = _STATUS.NOT_SERVING if site.state.refresh() is None else _STATUS.SERVING
        for name in (SERVICE, health.OVERALL_HEALTH):
            self._servicer.set(name, status)

    def end(self) -> None:
        """Say that no more is answered."""
        self._servicer.enter_graceful_shutdown()


def _server(
    site: LocalSite, settings: ServiceSettings, referral: SiteReferral
) -> tuple[grpc.Server, _Health]:
    # Changes may wait for minutes; those that do leave as many threads for answers as there were.
    threads = settings.threads + settings.changes_at_once
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="request"),
        maximum_concurrent_rpcs=settings.requests_at_once,
        options=[
            ("grpc.max_receive_message_length", settings.message_bytes),
            ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
        ],
    )
    add_EdgeClientServicer_to_server(Servicer(site, settings, referral), server)
    watch = _Health(server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, watch


def _listen(server: grpc.Server, endpoint: Endpoint, tls: TlsFiles | None) -> None:
    """Open the address; a Unix socket only for the user who runs the service."""
    if endpoint.socket is not None:
        _clear(endpoint.socket)
    before = os.umask(0o177)
    try:
        if tls is None:
            port = server.add_insecure_port(endpoint.target)
        else:
            certificate, key, authority = tls.read()
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], root_certificates=authority, require_client_auth=True
            )
            port = server.add_secure_port(endpoint.target, credentials)
    except (RuntimeError, ValueError):
        port = 0
    finally:
        os.umask(before)
    if not port:
        what = "its certificate and key" if tls else "its folder or port"
        raise SettingsError(
            f"the service cannot listen on {endpoint.target}; check the address and {what}, and "
            "whether another program uses it"
        )


def _clear(socket: Path) -> None:
    """Remove the socket of a service that was killed; a running one would hold our lock."""
    with writing_to(socket):
        if socket.is_socket():
            socket.unlink()
        elif socket.exists():
            raise SettingsError(
                f"{socket} is there and is no socket; give the service another address"
            )


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` on SIGTERM and SIGINT within the block."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
