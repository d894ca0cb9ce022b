"""The `fedqana` command: its groups are imported only when they are used."""

import importlib
import logging
import os
import sys
import traceback
from typing import NoReturn

import click

from common import __version__
from common.errors import FedqanaError, StorageFull

BUG_EXIT_STATUS = 70

_COMMANDS = {
    "bench": "simulation.commands.bench:bench",
    "client": "edge_client.commands.client:client",
    "data": "common.commands.data:data",
    "database": "server.commands.database:database",
    "model": "server.commands.model:model",
    "models": "server.commands.models:models",
    "rounds": "server.commands.rounds:rounds",
    "runs": "server.commands.runs:runs",
    "server": "server.commands.server:server",
    "simulate": "simulation.commands.simulate:simulate",
    "site": "server.commands.site:site",
}


class _OneLineLog(logging.Handler):
    """Warnings of the program, e.g. of a site that failed in a round, without their traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line for ``record``, beside a spinner that may be running."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            text = f"{text}: {record.exc_info[1]}"
        click.echo(f"fedqana: {' '.join(text.split())}", err=True)


class _LazyGroup(click.Group):
    """A group that knows its commands' names and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fedqana")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Federated training of QANA over hospital sites, with an Akida program after every round."""


def main() -> None:
    """Run the command; an error becomes one line and its own exit status."""
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    if not debug:
        logging.lastResort = _OneLineLog(logging.WARNING)
    try:
        cli.main(args=arguments, prog_name="fedqana", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(_usage_error(error), error.exit_code)
    except FedqanaError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), error.exit_status)
    except BrokenPipeError:
        # Whoever read the output has seen enough (`fedqana runs list | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if debug:
            traceback.print_exc()
        _fail(
            f"cannot use {error.filename or 'the output'}: {error.strerror or error}; correct its "
            "place, permissions or free space, then try again",
            StorageFull.exit_status,
        )
    except Exception as error:  # the last resort: a bug, still one line for the user
        if debug:
            traceback.print_exc()
        _fail(
            f"unexpected {type(error).__name__}: {error}; this is a bug, please report it with "
            "the output of the same command and --debug",
            BUG_EXIT_STATUS,
        )


def _usage_error(error: click.ClickException) -> str:
    """A command line that is not understood, in one line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "fedqana"
    return f"{error.format_message().rstrip('.')}; see '{command} --help'"


def _fail(message: str, exit_status: int) -> NoReturn:
    # Reasons that come from libraries and databases may have several lines.
    click.echo(f"fedqana: {' '.join(message.split())}", err=True)
    sys.exit(exit_status)


if __name__ == "__main__":
    main()
