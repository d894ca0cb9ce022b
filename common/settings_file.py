"""Settings files: TOML that people edit, checked against its form, errors in one line by key."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import DataNotFound, SettingsError

M = TypeVar("M", bound=BaseModel)


def in_words(error: ValidationError, form: type[BaseModel], more: str = "") -> str:
    """The first thing that is wrong with settings of sections, and what to do.

    ``more`` is said where a value does not fit.
    """
    first = error.errors(include_input=False, include_url=False)[0]
    section, *rest = map(str, first["loc"])
    known = form.model_fields
    if first["type"] != "extra_forbidden":
        is_part = section in known and hasattr(known[section].annotation, "model_fields")
        where = f"[{section}]" if is_part else section
        where += f" {rest[0]}" if rest else ""
        what = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {what}; correct it{more}"
    if not rest:
        return f"there is no section [{section}]; the sections are {', '.join(known)}"
    keys = getattr(known[section].annotation, "model_fields", {})
    return f"[{section}] has no key {rest[0]!r}; its keys are {', '.join(keys)}"


def read_settings(path: Path, form: type[M], absent: str) -> M:
    """The settings at ``path``.

    Raises DataNotFound with the line ``absent`` where there are none, and SettingsError, which
    names file and key, where they are not as ``form`` asks.
    """
    try:
        return form.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as error:
        raise DataNotFound(absent) from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {in_words(error, form)}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not readable TOML ({error}); correct it") from error
