"""The options that say which network a run trains."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from common.qana.config import QanaConfig

F = TypeVar("F", bound=Callable[..., Any])

ALL, NONE = "all", "none"

_OPTIONS = [
    click.option(
        "--network",
        default="default",
        show_default=True,
        type=click.Choice(["default", "small"]),
        help="QANA's widths: 32/64/128/256, or a small one for quick looks.",
    ),
    click.option(
        "--elements",
        metavar="LIST|all|none",
        help="QANA's elements that the network has: some of attention, residual and excitation "
        "(squeeze-and-excitation), separated by commas.  [default: none; all with 'small']",
    ),
]


def network_options(command: F) -> F:
    """Give a command the options ``network`` and ``elements``, for `network_config`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def network_config(network: str, elements: str | None) -> "QanaConfig":
    """The network that the options name; raises SettingsError for an unknown element.

    Without ``elements`` it has what networks of these widths have by default.
    """
    from common.errors import SettingsError
    from common.qana.config import DEMO_CONFIG, ELEMENTS, QanaConfig

    config = QanaConfig() if network == "default" else DEMO_CONFIG
    if elements is None:
        return config
    known = {ALL: list(ELEMENTS), NONE: []}
    named = known.get(elements.strip(), [part.strip() for part in elements.split(",")])
    for name in named:
        if name not in ELEMENTS:
            raise SettingsError(
                f"--elements {elements[:60]}: {name[:20]!r} is no element; give some of "
                f"{', '.join(ELEMENTS)}, separated by commas, or {ALL} or {NONE}"
            )
    return config.model_copy(update={"elements": tuple(e for e in ELEMENTS if e in named)})
