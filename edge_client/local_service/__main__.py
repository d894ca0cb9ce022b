"""``python -m edge_client.local_service HOME``: the service by itself, for a supervisor."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from common.errors import FedqanaError
from common.json_log import log_to_stream
from edge_client.local_service.referral import Referral
from edge_client.local_service.settings import ServiceSettings, settings_of, tls_files

log = logging.getLogger("fedqana.local_service")

_OWN = ("address", "threads", "changes_at_once", "requests_at_once", "write_wait", "message_bytes")


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM; an error becomes one line of the log and its exit status."""
    options = _parser().parse_args(arguments)
    log_to_stream()
    try:
        settings, referral = _settings(options), _referral(options)
        from edge_client.local_service.server import serve

        serve(options.home, settings, referral)
    except FedqanaError as error:
        log.error("%s", " ".join(str(error).split()))
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    usual = ServiceSettings()
    parser = argparse.ArgumentParser(
        prog="python -m edge_client.local_service",
        description="Answer gRPC for the site in HOME until SIGTERM. What is not given here is as "
        "client.toml and policy.toml in HOME say, else as usual.",
    )
    parser.add_argument("home", type=Path, metavar="HOME", help="the site's folder")
    parser.add_argument("--address", help="unix:PATH or HOST:PORT; usually unix:HOME/service.sock")
    for name, text in (
        ("certificate", "the service's certificate, PEM"),
        ("key", "its key, PEM"),
        ("client-ca", "the authority of the callers' certificates, PEM"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    for name, kind, text in (
        ("threads", int, "requests worked on at a time"),
        ("changes-at-once", int, "changes that may wait for their turn"),
        ("requests-at-once", int, "all requests under way"),
        ("write-wait", float, "seconds that a change waits for an installation"),
        ("message-bytes", int, "largest message"),
    ):
        value = getattr(usual, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=f"{text}; usually {value:g}")
    parser.add_argument(
        "--refer-below",
        type=float,
        metavar="PROBABILITY",
        help="refer less certain answers, with --refer-classes in place of the policy's rule",
    )
    parser.add_argument(
        "--refer-classes", metavar="CODES", help="codes always referred, separated by commas"
    )
    return parser


def _settings(options: argparse.Namespace) -> ServiceSettings:
    found = settings_of(options.home)
    given = {name: value for name in _OWN if (value := getattr(options, name)) is not None}
    tls = tls_files(options.certificate, options.key, options.client_ca)
    return replace(found, **given, tls=tls or found.tls)


def _referral(options: argparse.Namespace) -> Referral | None:
    """The rule that the options give; None where they give none, so that the policy's holds."""
    below, classes = options.refer_below, options.refer_classes
    if below is None and classes is None:
        return None
    usual = Referral()
    codes = usual.classes if classes is None else _codes(classes)
    return Referral(usual.confidence_below if below is None else below, codes)


def _codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip() for code in text.split(",") if code.strip())


if __name__ == "__main__":
    sys.exit(main())
