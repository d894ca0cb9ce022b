"""Options that several commands of simulations share."""

import click

deploy_every_option = click.option(
    "--deploy-every",
    default=1,
    show_default=True,
    help="Rounds from one deployment to the next; those between only train and evaluate. The last "
    "round of each phase is always deployed.",
)
