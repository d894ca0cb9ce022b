"""The options that say which network a run trains."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from common.qana.config import QanaConfig

F = TypeVar("F", bound=Callable[..., Any])

NONE = "none"

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
        metavar="LIST|none",
        default="attention,residual,excitation",
        show_default=True,
        help="QANA's elements that the network has, of attention, residual and excitation "
        "(squeeze-and-excitation). The weights that come with FedQANA are of networks with all.",
    ),
]


def network_options(command: F) -> F:
    """Give a command the options ``network`` and ``elements``, for `network_config`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def network_config(network: str, elements: str) -> "QanaConfig":
    """The network that the options name; raises SettingsError for an unknown element."""
    from common.errors import SettingsError
    from common.qana.config import DEMO_CONFIG, ELEMENTS, QanaConfig

    config = QanaConfig() if network == "default" else DEMO_CONFIG
    named = [] if elements.strip() == NONE else [part.strip() for part in elements.split(",")]
    for name in named:
        if name not in ELEMENTS:
            raise SettingsError(
                f"--elements {elements[:60]}: {name[:20]!r} is no element; give some of "
                f"{', '.join(ELEMENTS)}, separated by commas, or {NONE}"
            )
    return config.model_copy(update={"elements": tuple(e for e in ELEMENTS if e in named)})
