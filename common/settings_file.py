"""Settings files: TOML that people edit, checked against its form, errors in one line by key."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import DataNotFound, SettingsError

M = TypeVar("M", bound=BaseModel)


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
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}: {first['msg']}; correct it") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is not readable TOML ({error}); correct it") from error
