"""`fedqana model pretrain`: weights for runs to start from, made without lesion images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.commands.options import json_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEWEST = 80
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
@click.option(
    "--network",
    type=click.Choice(["default", "small"]),
    default="default",
    show_default=True,
    help="QANA's widths, as of 'fedqana simulate'.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True,
    help="Of the drawn pictures, the first weights and the order.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
    help="Where the weights are written, for --initial.",
)  # fmt: skip
@json_option
def pretrain(pictures: str, epochs: int, network: str, seed: int, out: Path, as_json: bool) -> None:
    """Make the weights that runs start from, by learning an ImageNet network's features.

    QANA learns to tell what EfficientNet-Lite0 (the extra 'saliency') sees in the pictures. It
    takes some 50 ms a picture on one core with the default settings.
    """
    from common.files import write_atomically
    from common.qana.config import DEMO_CONFIG, QanaConfig
    from common.qana.initial import identity, to_content
    from common.saliency import lite0
    from server.pretraining.distil import BATCH, LEARNING_RATE, distil
    from server.pretraining.targets import COMPONENTS, feature_targets

    def tell(line: str) -> None:
        if not as_json:
            click.echo(line)

    config = QanaConfig() if network == "default" else DEMO_CONFIG
    shown = _pictures(pictures, config.input_size, seed)
    tell(f"{len(shown)} pictures")
    every = max(1, len(shown) // 10)

    def done(n: int) -> None:
        if n % every < 64:
            tell(f"features of {n} pictures")

    targets = feature_targets(shown, done)
    tell(f"{targets.values.shape[1]} components have {targets.explained:.3f} of their variance")
    made = distil(
        config, shown, targets, epochs, seed,
        lambda epoch, loss, rest: tell(
            f"epoch {epoch} of {epochs}: loss {loss:.3f}, "
            f"{rest:.3f} of the variance of held back pictures unexplained"
        ),
    )  # fmt: skip
    source = pictures if pictures.startswith(_PROCEDURAL) else Path(pictures).name
    about = {
        "pictures": source,
        "n_pictures": len(shown),
        "teacher": f"EfficientNet-Lite0 {lite0.SHA256}",
        "components": min(COMPONENTS, targets.values.shape[1]),
        "epochs": epochs,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "seed": seed,
        "network": network,
        "unexplained": round(made.unexplained, 4),
    }
    content = to_content(made.weights, about)
    write_atomically(out, content)
    told = {"file": str(out), "sha256": identity(content), "bytes": len(content), **about}
    click.echo(json.dumps(told, indent=2) if as_json else f"wrote {out} ({len(content)} bytes)")


def _pictures(choice: str, size: int, seed: int) -> "NDArray[np.uint8]":
    from common.errors import DataUnfit, SettingsError
    from server.pretraining.pictures import folder_pictures, procedural_pictures

    if not choice.startswith(_PROCEDURAL):
        found = folder_pictures(Path(choice), size)
        if len(found) < _FEWEST:
            raise DataUnfit(f"{choice} has {len(found)} pictures; {_FEWEST} are the fewest")
        return found
    count = choice.removeprefix(_PROCEDURAL)
    if not (count.isascii() and count.isdecimal() and int(count) >= _FEWEST):
        raise SettingsError(
            f"--pictures {choice}: give at least {_FEWEST}, e.g. {_PROCEDURAL}30000"
        )
    return procedural_pictures(int(count), size, seed)
