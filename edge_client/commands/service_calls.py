"""Commands of `fedqana client` that ask the running local service, as other programs do."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_client.commands.options import home_option, json_option

if TYPE_CHECKING:
    from edge_client.local_service.client import LocalServiceClient

_PICTURE = click.Path(path_type=Path)


@click.command()
@click.argument("images", nargs=-1, required=True, type=_PICTURE)
@home_option
@json_option
def classify(images: tuple[Path, ...], home: Path, as_json: bool) -> None:
    """Say what is on pictures, and which a person should look at."""
    from common.data.image_files import read_file
    from common.errors import DataError

    answers, status = [], 0
    with _service(home) as service:
        for path in images:
            try:
                answer = _as_json(service.classify(read_file(path)))
            except DataError as error:
                status = status or error.exit_status
                click.echo(f"fedqana: {path}: {error}", err=True)
                answer = {"error": str(error)}
            answers.append({"image": str(path), **answer})
            if not as_json and "error" not in answer:
                click.echo(_in_a_line(answers[-1]))
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    if status:
        sys.exit(status)


@click.command()
@click.argument("image", type=_PICTURE)
@click.option("--diagnosis", required=True, metavar="CODE", help="Confirmed diagnosis.")
@click.option("--case", "case_id", default="", metavar="ID", help="Id; else the file's SHA-256.")
@click.option("--lesion", "lesion_id", default="", metavar="ID", help="Lesion's id; else the case.")
@home_option
@json_option
def learn(
    image: Path, diagnosis: str, case_id: str, lesion_id: str, home: Path, as_json: bool
) -> None:
    """Learn a picture with its confirmed diagnosis."""
    from common.data.image_files import read_file

    with _service(home) as service:
        result = _as_json(service.learn(read_file(image), diagnosis.lower(), case_id, lesion_id))
    if as_json:
        click.echo(json.dumps(result, indent=2))
    elif result["learned"]:
        click.echo(f"learned case {result['case_id']} as {result['diagnosis']}")
    else:
        how = f"counts as {result['diagnosis']}" if result["diagnosis"] else "was forgotten"
        click.echo(f"case {result['case_id']} is known already and {how}; nothing changed")


@click.command("add-class")
@click.argument("code")
@home_option
@json_option
def add_class(code: str, home: Path, as_json: bool) -> None:
    """Allow a new class code for diagnoses."""
    with _service(home) as service:
        result = _as_json(service.add_class(code))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    known = "added" if result["added"] else "was there already"
    click.echo(f"{code} {known}; classes: {', '.join(result['codes'])}")


@click.command()
@click.argument("case_id", metavar="CASE")
@click.option("--diagnosis", metavar="CODE", help="The right diagnosis.")
@click.option("--forget", is_flag=True, help="Forget the case.")
@home_option
@json_option
def correct(case_id: str, diagnosis: str | None, forget: bool, home: Path, as_json: bool) -> None:
    """Correct the diagnosis of a learned case, or forget the case."""
    if (diagnosis is None) != forget:
        raise click.UsageError("give either --diagnosis or --forget")
    with _service(home) as service:
        result = _as_json(service.correct(case_id, diagnosis))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    now = "forgotten" if forget else str(diagnosis)
    click.echo(f"case {case_id}: {now if result['changed'] else f'was {now} already'}")


@click.command()
@home_option
@json_option
def cases(home: Path, as_json: bool) -> None:
    """List the cases that were learned here."""
    rows: list[dict[str, Any]] = []
    with _service(home) as service:
        token = ""
        while True:
            page = service.list_cases(1000, token)
            rows += [_as_json(case) for case in page.cases]
            token = page.next_page_token
            if not token:
                break
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("no cases learned yet")
    for row in rows:
        lesion = "" if row["lesion_id"] == row["case_id"] else f"  lesion {row['lesion_id']}"
        click.echo(f"{row['case_id']}  {row['diagnosis']:<8} round {row['round']}{lesion}")


def status_from_service(home: Path, as_json: bool) -> None:
    """Print what the running service says is in service, and how far local training is."""
    from edge_client.training_progress import read_progress

    with _service(home) as service:
        found = _as_json(service.status())
    training = read_progress(home)
    if as_json:
        click.echo(json.dumps({**found, "training": training}, indent=2))
        return
    state = found.get("state")
    if state is None:
        rows = {"version": "none yet", "problem": found["problem"]}
    else:
        rows = {
            "version": f"{state['model_version']} (round {found['round']})",
            "program": state["program_version"]
            + (", fine-tuned here" if found["fine_tuned"] else ""),
            "head": state["head"],
            "cases": f"{found['cases_learned']} learned since, {found['cases_total']} in all",
            "backend": found["backend"],
            "referred": f"confidence below {found['refer_confidence_below']:g}"
            + "".join(f", every {code}" for code in found["refer_classes"]),
            "answers": "by eight views of a picture" if found["all_symmetries"] else "",
            "calibrated": _calibration(found),
            "problem": found["problem"],
        }
    if training is not None:
        rows["training"] = (
            f"{training['run']} round {training['round']} ({training['phase']}): epoch "
            f"{training['epoch']} of {training['epochs']}, {training['at'][:19]} UTC"
        )
    rows["classes"] = ", ".join(map(_class_in_words, found["classes"]))
    if found["installing"]:
        rows["installing"] = "a new version, now"
    for name, text in {"site": _membership(home), **rows}.items():
        if text:
            click.echo(f"{name + ':':<12}{text}")


def _membership(home: Path) -> str:
    """Site and server of a folder that has joined one."""
    from edge_client.client_folder import CONFIG, ClientFolder

    if not (home / CONFIG).exists():
        return ""
    config = ClientFolder(home).config()
    return f"{config.site} of {config.server} (whether it is let in: fedqana client check)"


def rollback_through_service(home: Path, as_json: bool) -> None:
    """Have the running service go back to the last version with another program."""
    with _service(home) as service:
        state = _as_json(service.rollback())["state"]
    if as_json:
        click.echo(json.dumps(state, indent=2))
    else:
        click.echo(f"version {state['model_version']} is in service again")


def _service(home: Path) -> "LocalServiceClient":
    from edge_client.local_service.client import LocalServiceClient
    from edge_client.local_service.settings import own_address

    return LocalServiceClient(own_address(home))


def _as_json(message: Any) -> dict[str, Any]:
    """A message as plain JSON values, with the names of the .proto and without omissions."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _in_a_line(answer: dict[str, Any]) -> str:
    best = answer["scores"][0]
    line = f"{answer['image']}: {best['code']} {best['probability']:.0%}"
    if answer["refer"]:
        why = [_REASONS[reason] for reason in answer["refer_reasons"]]
        line += f"  refer: {', '.join(why)}"
    return line


def _calibration(status: dict[str, Any]) -> str:
    if not status["calibration_lesions"]:
        return f"no: {status['not_calibrated']}"
    return f"on {status['calibration_lesions']} lesions, temperature {status['temperature']:.2f}"


def _class_in_words(known: dict[str, Any]) -> str:
    if known["in_program"]:
        return str(known["code"])
    return f"{known['code']} ({'on the chip' if known['on_chip'] else 'no case yet'})"


_REASONS = {
    "REFER_REASON_LOW_CONFIDENCE": "not sure",
    "REFER_REASON_REFERRED_CLASS": "this class is always referred",
    "REFER_REASON_NEW_CLASS": "a class that only the chip knows",
}

COMMANDS: tuple[click.Command, ...] = (classify, learn, add_class, correct, cases)
