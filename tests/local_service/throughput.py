"""Print what the local service costs beside Akida itself: throughput and latency as ratios.

python -m tests.local_service.throughput [--program FILE] [--requests N]

The bare backend is one `Program.predict_potentials` of a prepared image after the other, in this
process. The service is asked over its Unix socket with encoded pictures, by 1 and by 8 callers.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.akida_runtime import Program, available_device
from common.classes import HAM10000_CLASSES
from common.data.cases import Cases, LesionImage
from common.data.preparation import prepare_cases
from common.data.synthetic import synthetic_lesion_images
from common.qana.config import QanaConfig
from edge_client.exemplars import ExemplarStore
from edge_client.service import EdgeClient
from edge_client.site import SiteData, SiteFolder
from tests.local_service.running import Service, running

PICTURES = 60
TAUGHT = 500


@dataclass(frozen=True)
class Figures:
    """Requests per second and latencies in seconds."""

    rate: float
    seconds: list[float]

    def percentile(self, share: float) -> float:
        """A percentile of the latencies."""
        return float(np.percentile(self.seconds, share))


def measured(ask: Callable[[int], object], requests: int) -> Figures:
    """Ask one after the other."""
    for number in range(10):
        ask(number)
    seconds = []
    started = time.perf_counter()
    for number in range(requests):
        before = time.perf_counter()
        ask(number)
        seconds.append(time.perf_counter() - before)
    return Figures(requests / (time.perf_counter() - started), seconds)


def measured_at_once(service: Service, pictures: list[bytes], callers: int, n: int) -> Figures:
    """``callers`` ask ``n`` requests each, all at the same time."""
    found: list[Figures] = []

    def call(offset: int) -> None:
        with service.client() as client:
            found.append(
                measured(lambda k: client.classify(pictures[(k + offset) % len(pictures)]), n)
            )

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Figures(sum(f.rate for f in found), [s for f in found for s in f.seconds])


def untrained_program(config: QanaConfig, images: np.ndarray) -> Program:  # type: ignore[type-arg]
    """A program of this shape with initial weights: it costs what a trained one costs."""
    from common.qana.convert import convert
    from common.qana.fold import fold
    from common.qana.networks import initial_weights
    from common.qana.quantize import observe_ranges, quantizable_weights

    n_classes = len(HAM10000_CLASSES)
    chain = fold(initial_weights(config, n_classes, 0), config)
    weights = quantizable_weights(chain, observe_ranges(chain, config, images[:64]))
    return convert(weights, config, n_classes)


def make_home(home: Path, program: Program, cases: Cases) -> None:
    """A site with ``program`` in service and an exemplar store of ``cases``."""
    size = program.input_shape[0]
    nothing = Cases.empty(size)
    classes = HAM10000_CLASSES
    SiteFolder(home).write(
        SiteData("site", classes, cases, nothing, nothing, nothing, np.zeros(0, np.int64))
    )
    store = ExemplarStore.initial(cases, classes.codes)
    client = EdgeClient(home / "state")
    client.install(program, "1", 1, classes.codes, store, nothing)


def show(name: str, figures: Figures, bare: Figures) -> None:
    """A line of ratios to the bare backend: its rate, and its median latency."""
    median = bare.percentile(50)
    latencies = "  ".join(
        f"p{share} {figures.percentile(share) / median:6.2f}" for share in (50, 95, 99)
    )
    print(f"{name:<46} rate {figures.rate / bare.rate:5.2f}  {latencies}", flush=True)


def keep_teaching(
    service: Service, taught: list[LesionImage], pause: float, done: threading.Event
) -> list[float]:
    """Learn case after case until told to stop; how long each took."""
    seconds = []
    with service.client() as client:
        for image in taught:
            if done.wait(pause):
                break
            started = time.perf_counter()
            client.learn(image.read(), image.label)
            seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, help="a program.fbz; else an untrained default one")
    parser.add_argument("--requests", type=int, default=400, help="of each caller")
    options = parser.parse_args()
    lesions = synthetic_lesion_images(900, 0)
    size = QanaConfig().input_size
    if options.program:
        size = Program.from_file(options.program).input_shape[0]
    cases = prepare_cases(lesions[TAUGHT:], HAM10000_CLASSES, size=size)
    program = (
        Program.from_file(options.program)
        if options.program
        else untrained_program(QanaConfig(), cases.images)
    )
    pictures = [image.read() for image in lesions[-PICTURES:]]
    print(f"{available_device().name}; {len(cases)} training cases, pictures of about "
          f"{np.mean([len(p) for p in pictures]) / 1024:.0f} KiB")  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        make_home(home, program, cases)
        images = cases.images[-PICTURES:]
        n = options.requests
        bare = measured(lambda k: program.predict_potentials(images[k % PICTURES][None]), n)
        print(f"bare backend: {bare.percentile(50) * 1000:.1f} ms, {bare.rate:.0f} a second")
        show("bare backend", bare, bare)
        direct, codes = EdgeClient(home / "state", read_only=True), HAM10000_CLASSES.codes
        show(
            "EdgeClient.decide",
            measured(lambda k: direct.decide(images[k % PICTURES][None], codes), n),
            bare,
        )
        with running(home) as service:
            for callers in (1, 8):
                figures = measured_at_once(service, pictures, callers, n)
                show(f"service, {callers} caller(s)", figures, bare)
            taught = list(lesions[:TAUGHT])
            for pause, how in ((1.0, "a Learn a second"), (0.0, "Learns back to back")):
                for callers in (1, 8):
                    done = threading.Event()
                    seconds: list[float] = []
                    some, taught = taught[: TAUGHT // 5], taught[TAUGHT // 5 :]
                    teacher = threading.Thread(
                        target=lambda s=seconds, t=some, p=pause, d=done: s.extend(
                            keep_teaching(service, t, p, d)
                        )
                    )
                    teacher.start()
                    figures = measured_at_once(service, pictures, callers, n)
                    done.set()
                    teacher.join()
                    show(f"service, {callers} caller(s), {how}", figures, bare)
                    if seconds:
                        learn = Figures(len(seconds) / sum(seconds), seconds)
                        show(f"  these {len(seconds)} Learns", learn, bare)


if __name__ == "__main__":
    main()
