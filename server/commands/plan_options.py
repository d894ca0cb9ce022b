"""The options that make a run's plan, in a simulation and on a deployed server."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from server.commands.network_options import network_config, network_options

F = TypeVar("F", bound=Callable[..., Any])


def initial_option(default: str) -> Callable[[F], F]:
    """The option --initial, with "pretrained" or "random" as its default."""
    return click.option(
        "--initial",
        metavar="pretrained|random|FILE",
        default=default,
        show_default=True,
        help="Weights that the network starts from: those that come with FedQANA, which were made "
        "without anybody's images, random ones, or a file's; see 'fedqana model pretrain'.",
    )


_OPTIONS = [
    click.option("--rounds", "float_rounds", default=48, show_default=True, help="Float rounds."),
    click.option(
        "--qat-rounds", default=16, show_default=True, help="Quantization-aware rounds after them."
    ),
    click.option("--local-epochs", default=1, show_default=True, help="Epochs per site and round."),
    click.option("--batch", default=64, show_default=True, help="Cases per training step."),
    click.option("--learning-rate", default=1e-3, show_default=True, help="Of the float phase."),
    click.option("--qat-learning-rate", default=3e-4, show_default=True, help="Of the QAT phase."),
    click.option(
        "--freeze-batch-norm",
        default=0.25,
        show_default=True,
        help="Share of the float rounds after which batch norm's statistics are fixed; 1: never.",
    ),
    click.option(
        "--site-weights",
        default="cases",
        show_default=True,
        type=click.Choice(["cases", "classes"]),
        help="What a site's update counts by: its cases, or its part in each class's cases, all "
        "classes alike.",
    ),
    click.option(
        "--average",
        default=0.25,
        show_default=True,
        help="Share of each phase's rounds, its last ones, whose networks' mean the phase ends "
        "with; 0: the last round's network.",
    ),
    click.option(
        "--class-offsets/--no-class-offsets",
        default=True,
        show_default=True,
        help="Whether each phase ends with offsets of the classes' logits by which the network "
        "answers all classes alike; with --balance prior.",
    ),
    click.option(
        "--event-penalty",
        default=0.0,
        show_default=True,
        help="Weight of the mean activation level in the loss of QAT rounds: fewer events on "
        "the chip.",
    ),
    click.option(
        "--distillation",
        default=1.0,
        show_default=True,
        help="Share of the float network's answers in the targets of QAT rounds; the rest are "
        "labels.",
    ),
    click.option(
        "--compression",
        default="none",
        show_default=True,
        type=click.Choice(["none", "quantization", "top-k"]),
        help="How a site's update travels: as float32 weights, or as their change in 3 bits a "
        "weight, or the change's largest tenth. What is left out goes with the next round's.",
    ),
    click.option(
        "--strategy",
        default="fedavg",
        show_default=True,
        type=click.Choice(
            ["fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum"]
        ),
        help="How updates are combined (Flower's strategies).",
    ),
    click.option("--proximal", default=0.01, show_default=True, help="FedProx's mu."),
    click.option(
        "--server-learning-rate",
        default=0.01,
        show_default=True,
        help="FedAdam's and FedYogi's eta.",
    ),
    click.option(
        "--balance",
        default="prior",
        show_default=True,
        type=click.Choice(["prior", "smote", "none"]),
        help="Against class imbalance: prior correction of the local loss, SMOTE, or nothing.",
    ),
    click.option(
        "--class-prior",
        default="pooled",
        show_default=True,
        type=click.Choice(["pooled", "site"]),
        help="Whose shares of the classes that correction is by: of all sites' validation lesions "
        "together, or of the site's own training cases.",
    ),
    click.option(
        "--smote-share",
        default=0.25,
        show_default=True,
        help="Share of a site's largest class up to which SMOTE fills the others, if less than "
        "twice the cases.",
    ),
    network_options,
    click.option(
        "--all-symmetries",
        is_flag=False,
        flag_value="always",
        default="last",
        show_default=True,
        type=click.Choice(["never", "last", "always"]),
        help="When sites answer by the mean over an image's eight symmetries, which is more "
        "accurate and eight times the work on the chip: never; with the run's last version and "
        "those that are promoted; or always, with every version. Without a value: always.",
    ),
    click.option(
        "--fine-tuning-epochs",
        default=5,
        show_default=True,
        help="Epochs that each site trains the run's last version, and those that are promoted, on "
        "for itself; it serves what it gains by. 0 for none.",
    ),
    initial_option("pretrained"),
    click.option("--seed", default=0, show_default=True, help="Of everything that is drawn."),
    click.option("--quorum", default=0.5, show_default=True, help="Share of sites a round needs."),
    click.option("--deadline", default=3600.0, show_default=True, help="Seconds per step."),
]


_NETWORK = ("network", "elements")


def plan_options(command: F) -> F:
    """Give a command all options of a plan, those of `network_options` among them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def plan_settings(options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Settings of `server.plan.make_plan` from the options, and the file of initial weights.

    Raises SettingsError where they do not fit, and as `network_config` and `initial_content`.
    """
    from common.errors import SettingsError
    from common.qana.initial import initial_content, start_id

    if options["float_rounds"] < 1:
        raise SettingsError(
            f"--rounds {options['float_rounds']}: give at least one float round; quantized rounds "
            "start from its network"
        )
    settings = {name: value for name, value in options.items() if name not in _NETWORK}
    config = network_config(options["network"], options["elements"])
    content = initial_content(options["initial"], config)
    return {**settings, "config": config, "initial": start_id(content)}, content
