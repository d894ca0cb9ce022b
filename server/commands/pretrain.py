"""`fedqana model pretrain`: weights for runs to start from, made without lesion images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.commands.network_options import network_config, network_options
from server.commands.options import json_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEWEST, _MOST = 80, 1_000_000
_PROCEDURAL = "procedural:"


@click.command()
@click.option(
    "--pictures",
    metavar="procedural:N|DIR",
    default="procedural:30000",
    show_default=True,
    help="N pictures drawn from random numbers, or every JPEG and PNG file of a folder: nobody's "
    "lesions, since a network may give away what it was trained on.",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=20, show_default=True, help="Over all pictures."
)
@network_options
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
    help="Of the drawn pictures, the first weights and the order.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
    help="Where the weights are written, for --initial.",
)  # fmt: skip
@json_option
def pretrain(
    pictures: str,
    epochs: int,
    network: str,
    elements: str | None,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Make the weights that runs start from, by learning an ImageNet network's features.

    QANA learns to predict what EfficientNet-Lite0 (the extra 'saliency') sees in the pictures. It
    takes some 40 ms a picture on one core with the default settings.
    """
    from common.files import write_atomically
    from common.qana.initial import start_from, start_id, to_content

    config = network_config(network, elements)
    count = _count(pictures)
    _check_place(out)

    # TensorFlow takes seconds.
    from common.bundle import software_versions
    from common.saliency import lite0
    from server.pretraining.distil import BATCH, LEARNING_RATE, distil
    from server.pretraining.targets import feature_targets

    teacher = lite0.load_lite0()
    shown = _pictures(pictures, count, config.input_size, seed)
    _tell(f"{len(shown)} pictures")
    every = max(1, len(shown) // 10)

    def done(n: int) -> None:
        if n % every < 64:
            _tell(f"features of {n} pictures")

    targets = feature_targets(shown, teacher, done)
    _tell(f"{targets.values.shape[1]} components have {targets.explained:.3f} of their variance")
    made = distil(
        config, shown, targets, epochs, seed,
        lambda epoch, loss, rest: _tell(
            f"epoch {epoch} of {epochs}: loss {loss:.3f}, "
            f"{rest:.3f} of the variance of held back pictures unexplained"
        ),
    )  # fmt: skip
    about = {
        "pictures": pictures if count else Path(pictures).resolve().name,
        "n_pictures": len(shown),
        "teacher": f"EfficientNet-Lite0 {lite0.SHA256}",
        "components": targets.values.shape[1],
        "epochs": epochs,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "seed": seed,
        "network": network,
        "elements": list(config.elements),
        "unexplained": round(made.unexplained, 4),
        "software": software_versions(),
    }
    content = to_content(made.weights, about)
    start_from(content, config, 2, seed=0, name="what came out")  # nothing is written that is none
    write_atomically(out, content)
    told = {"file": str(out), "sha256": start_id(content), "bytes": len(content), **about}
    click.echo(json.dumps(told, indent=2) if as_json else f"wrote {out} ({len(content)} bytes)")


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _count(choice: str) -> int:
    """How many pictures are to be drawn; 0 where they are a folder's."""
    from common.errors import SettingsError

    if not choice.startswith(_PROCEDURAL):
        return 0
    count = choice.removeprefix(_PROCEDURAL)
    known = count.isascii() and count.isdecimal() and len(count) < 10
    if not (known and _FEWEST <= int(count) <= _MOST):
        raise SettingsError(
            f"--pictures {choice[:40]}: give {_FEWEST} to {_MOST} pictures, e.g. {_PROCEDURAL}30000"
        )
    return int(count)


def _check_place(out: Path) -> None:
    """Before half an hour of work: whether the file can be written there, and is not yet."""
    from common.errors import SettingsError
    from common.files import write_atomically

    if out.exists():
        raise SettingsError(f"--out {out} is there already; name another file, or remove it")
    write_atomically(out, b"")
    out.unlink()


def _pictures(choice: str, count: int, size: int, seed: int) -> "NDArray[np.uint8]":
    from common.errors import DataUnfit
    from server.pretraining.pictures import folder_pictures, procedural_pictures

    if count:
        return procedural_pictures(count, size, seed)
    found = folder_pictures(Path(choice), size)
    if len(found) < _FEWEST:
        raise DataUnfit(f"{choice} has {len(found)} pictures; {_FEWEST} are the fewest")
    return found
