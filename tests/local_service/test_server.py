"""The service as a process: limits, refusals, health, start and end."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from common.errors import (
    DataNotFound,
    DataUnfit,
    DataUnreadable,
    ModelNotFound,
    ServiceUnavailable,
    UnknownLabel,
)
from edge_client.case_journal import CaseJournal
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.client import LocalServiceClient
from edge_client.local_service.fedqana_edge_pb2_grpc import EdgeClientStub
from edge_client.state_lock import state_in_use
from tests.edge_client.cases import CLASSES
from tests.edge_client.test_service import STORE, install
from tests.local_service.running import (
    CASES,
    PICTURES,
    ROOT,
    Service,
    free_port,
    lenient,
    make_home,
    png,
    running,
)

SERVICE = "fedqana.edge.v1.EdgeClient"


def test_a_correction_says_what_is_right(service: Service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        stub = EdgeClientStub(channel)
        for request in (
            pb.CorrectRequest(case_id="x"),
            pb.CorrectRequest(case_id="x", forget=False),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Correct(request, timeout=10)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_callers_patience_counts_too(service: Service, home: Path) -> None:
    with state_in_use(home / "state"):
        with service.client(change_seconds=0.5) as client, pytest.raises(ServiceUnavailable):
            client.learn(png(CASES[0].image), CASES[0].code)
        time.sleep(0.5)
    time.sleep(1)
    with service.client() as client:
        assert client.list_cases().total == 0  # given up there is given up here


def test_waiting_changes_leave_room_for_answers(home: Path) -> None:
    options = ("--threads", "1", "--changes-at-once", "2", "--write-wait", "4")
    refused: list[str] = []

    def learn(service: Service, number: int) -> None:
        with service.client() as client:
            try:
                client.learn(png(CASES[number].image), CASES[number].code)
            except ServiceUnavailable as error:
                refused.append(str(error))

    with running(home, *options) as service, service.client() as client:
        with state_in_use(home / "state"):
            waiting = [threading.Thread(target=learn, args=(service, n)) for n in range(4)]
            for thread in waiting:
                thread.start()
            time.sleep(0.5)
            started = time.monotonic()
            client.classify(png(PICTURES[0]))
            assert time.monotonic() - started < 1
            time.sleep(1)
            assert len(refused) == 2 and "other changes are waiting" in refused[0]
        for thread in waiting:
            thread.join()
        assert len(refused) == 2 and client.list_cases().total == 2


@pytest.mark.parametrize("damage", [b"", b"GIF89a", png(PICTURES[0])[:-40], b"\xff\xd8\xff\xe0"])
def test_a_damaged_picture(service: Service, damage: bytes) -> None:
    with service.client() as client:
        with pytest.raises(DataUnreadable) as refused:
            client.classify(damage)
        assert "\n" not in str(refused.value) and "the picture that was sent" in str(refused.value)
        with pytest.raises(DataUnreadable):
            client.learn(damage, "red")
    with grpc.insecure_channel(service.address) as channel:
        with pytest.raises(grpc.RpcError) as code:
            EdgeClientStub(channel).Classify(pb.ClassifyRequest(image=damage), timeout=10)
        assert code.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_too_large(client: LocalServiceClient) -> None:
    with pytest.raises(DataUnfit, match="larger than the local service takes"):
        client.classify(bytes(32 * 2**20 + 1))
    client.classify(png(PICTURES[0]) + bytes(31 * 2**20))  # what follows a PNG is ignored


def test_before_the_first_program(tmp_path: Path) -> None:
    home = tmp_path / "home"
    state = make_home(home, installed=False)
    with running(home) as service, service.client() as client:
        status = client.status()
        assert not status.HasField("state") and "no program was installed" in status.problem
        assert [c.code for c in status.classes] == list(CLASSES)
        for ask in (
            lambda: client.classify(png(PICTURES[0])),
            lambda: client.learn(png(CASES[0].image), "red"),
            lambda: client.correct("x", None),
            client.rollback,
        ):
            with pytest.raises(ModelNotFound, match="no program was installed"):
                ask()
        assert client.list_cases().total == 0
        with grpc.insecure_channel(service.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watched = [
                health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
                for name in (SERVICE, "")
            ]
            serving = health_pb2.HealthCheckResponse
            assert [next(w).status for w in watched] == [serving.NOT_SERVING] * 2
            install(lenient(state), 1, STORE)
            assert [next(w).status for w in watched] == [serving.SERVING] * 2
            check = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
            assert check.status == serving.SERVING
        assert client.classify(png(PICTURES[0])).state.model_version == "1"


def test_many_who_watch_health_leave_room(home: Path) -> None:
    options = ("--threads", "1", "--changes-at-once", "1")
    with running(home, *options) as service, grpc.insecure_channel(service.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watched = [health.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(8)]
        assert all(next(w).status for w in watched)
        with service.client() as client:
            client.classify(png(PICTURES[0]))


def test_reflection(service: Service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (response,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    names = {found.name for found in response.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} < names


def test_one_service_at_a_time(service: Service, home: Path) -> None:
    second = Service(home)
    assert second.process.wait(30) == 44
    assert "a local service runs for" in second.log()
    with service.client() as client:
        client.status()


def test_the_socket_is_for_its_owner(service: Service, home: Path) -> None:
    found = (home / "service.sock").stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600


def test_a_file_in_the_sockets_place_is_left_alone(home: Path) -> None:
    (home / "service.sock").write_text("mine")
    refused = Service(home)
    assert refused.process.wait(30) == 60 and "is no socket" in refused.log()
    assert (home / "service.sock").read_text() == "mine"


def test_an_address_that_is_taken(home: Path, tmp_path: Path) -> None:
    make_home(tmp_path / "second")
    address = f"127.0.0.1:{free_port()}"
    with running(home, "--address", address, address=address) as first:
        second = Service(tmp_path / "second", "--address", address)
        assert second.process.wait(30) == 60 and "cannot listen on" in second.log()
        with first.client() as client:
            client.status()


def test_a_wrong_home(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "edge_client.local_service", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 10 and "is not a site's folder" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_nobody_answers(tmp_path: Path) -> None:
    client = LocalServiceClient(f"unix:{tmp_path}/service.sock")
    with client, pytest.raises(ServiceUnavailable, match="'fedqana client start'"):
        client.status()


def test_a_stop_lets_a_running_change_finish(service: Service, home: Path) -> None:
    """A Learn that waits is refused at SIGTERM; one that has its turn is answered."""
    answers: list[object] = []

    def learn(number: int) -> None:
        with service.client() as client:
            try:
                answers.append(client.learn(png(CASES[number].image), CASES[number].code).learned)
            except ServiceUnavailable as error:
                answers.append(str(error))

    threads = [threading.Thread(target=learn, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    while not answers:
        time.sleep(0.001)
    assert service.end(signal.SIGTERM) == 0
    for thread in threads:
        thread.join()
    learned = sum(answer is True for answer in answers)
    assert learned >= 1 and len(answers) == 6
    assert len(CaseJournal(home / "state" / "cases.journal", read_only=True)) == learned


def test_a_waiting_change_does_not_delay_the_stop(home: Path) -> None:
    with running(home) as service, service.client() as client, state_in_use(home / "state"):
        refused: list[str] = []

        def learn() -> None:
            try:
                client.learn(png(CASES[0].image), CASES[0].code)
            except ServiceUnavailable as error:
                refused.append(str(error))

        thread = threading.Thread(target=learn)
        thread.start()
        time.sleep(0.5)
        started = time.monotonic()
        assert service.end(signal.SIGTERM) == 0 and time.monotonic() - started < 5
        thread.join()
        assert "the service is being stopped" in refused[0]


def test_the_log_says_nothing_of_patients(home: Path) -> None:
    with running(home) as service, service.client() as client:
        secret = "MUSTERMANN-1970"
        client.learn(png(CASES[0].image), CASES[0].code, secret, f"{secret}-L")
        client.correct(secret, None)
        for ask in (
            lambda: client.classify(secret.encode()),
            lambda: client.learn(png(CASES[1].image), secret),
            lambda: client.correct(f"{secret}-2", None),
        ):
            with pytest.raises((DataUnreadable, UnknownLabel, DataNotFound)):
                ask()
        (home / "state" / "cases.journal").write_bytes(secret.encode())  # a bug's worth of damage
        with pytest.raises(Exception):  # noqa: B017
            client.correct(secret, "red")
        service.end()
        assert secret not in service.log()


def test_an_unexpected_error_tells_its_place_only(home: Path) -> None:
    """A picture that the program cannot take, as a bug would make it."""
    from edge_client.local_service import servicer

    class Broken:
        def classify(self, content: bytes) -> None:
            raise KeyError(content)

    class Context:
        found: tuple[object, str] = (None, "")

        def abort(self, code: object, details: str) -> None:
            self.found = (code, details)
            raise RuntimeError

    context = Context()
    broken = servicer.Servicer.__new__(servicer.Servicer)
    broken._site = Broken()  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        broken.Classify(pb.ClassifyRequest(image=b"secret"), context)
    code, details = context.found
    assert code is grpc.StatusCode.INTERNAL and "secret" not in details


def test_the_example_of_the_documentation(service: Service, home: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "local-service.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "lesion.png").write_bytes(png(PICTURES[0]))
    for there, here in (
        ("unix:/srv/fedqana-client/service.sock", service.address),
        ("lesion.jpg", "lesion.png"),
        ('"nv"', '"red"'),
    ):
        assert example.count(there) == 1
        example = example.replace(there, here)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", example]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    with service.client() as client:
        (case,) = client.list_cases().cases
        assert (case.case_id, case.lesion_id) == ("2026-0417", "L-88")
        assert ran.stdout.startswith(client.classify(png(PICTURES[0])).answer)
