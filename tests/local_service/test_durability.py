"""kill -9 at any moment: what was acknowledged is there, and the answers are the same."""

import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from common.errors import ServiceUnavailable
from edge_client.service import EdgeClient
from tests.edge_client.cases import arriving
from tests.local_service.running import (
    CASES,
    PICTURES,
    Service,
    decided,
    make_home,
    png,
    running,
    scores_of,
)

MORE = arriving(20, seed=61, round_number=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path / "home")
    return tmp_path / "home"


def test_killed_right_after_the_answer(home: Path) -> None:
    answers = None
    for number, case in enumerate(CASES[:4], start=1):
        with running(home) as service, service.client() as client:
            if answers is not None:
                assert [client.classify(png(image)) for image in PICTURES] == answers
            acknowledged = client.learn(png(case.image), case.code, case.case_id, case.lesion_id)
            answers = [client.classify(png(image)) for image in PICTURES]
            assert answers[0].state == acknowledged.state
            service.end(signal.SIGKILL)
        with running(home) as service, service.client() as client:
            assert [client.classify(png(image)) for image in PICTURES] == answers
            listed = client.list_cases().cases
            assert [c.case_id for c in listed] == [c.case_id for c in CASES[:number]]
            assert not client.learn(png(case.image), case.code, case.case_id).learned
            service.end(signal.SIGKILL)


def test_a_correction_is_durable_too(home: Path) -> None:
    with running(home) as service, service.client() as client:
        for case in CASES[:3]:
            client.learn(png(case.image), case.code, case.case_id)
        after = client.correct(CASES[0].case_id, None).state
        service.end(signal.SIGKILL)
    with running(home) as service, service.client() as client:
        assert client.status().state == after and client.status().cases_total == 2


def test_killed_at_any_moment(home: Path) -> None:
    random = np.random.default_rng(0)
    acknowledged: list[str] = []
    left = list(MORE)
    for enough in (1, 3, 6, 10):
        with running(home) as service:

            def learn(service: Service = service) -> None:
                with service.client() as client:
                    while left:
                        case = left[0]
                        try:
                            client.learn(png(case.image), case.code, case.case_id)
                        except ServiceUnavailable:
                            return
                        acknowledged.append(left.pop(0).case_id)

            thread = threading.Thread(target=learn)
            thread.start()
            while len(acknowledged) < enough:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.05))
            service.end(signal.SIGKILL)
            thread.join()
        with running(home) as service, service.client() as client:
            listed = [c.case_id for c in client.list_cases(1000).cases]
            assert listed[: len(acknowledged)] == acknowledged
            assert len(listed) <= len(acknowledged) + 1  # written, but not answered yet
            direct = EdgeClient(home / "state", read_only=True)
            for image in PICTURES[:4]:
                assert scores_of(client.classify(png(image))) == decided(direct, image)
