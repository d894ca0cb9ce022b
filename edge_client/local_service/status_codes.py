"""Which gRPC status code each error of FedQANA becomes, and back."""

import grpc

import common.errors
from common.errors import (
    DataError,
    DataNotFound,
    DataUnfit,
    DeviceError,
    FedqanaError,
    ModelNotFound,
    ServiceError,
    SettingsError,
    SiteRefused,
    StateDamaged,
    StateInUse,
    StorageFull,
)

ERROR_KEY = "fedqana-error"
"""Trailing metadata with the name of the error's class."""

_Code = grpc.StatusCode

CODES: tuple[tuple[type[FedqanaError], grpc.StatusCode], ...] = (
    (DataNotFound, _Code.NOT_FOUND),
    (DataUnfit, _Code.FAILED_PRECONDITION),
    (DataError, _Code.INVALID_ARGUMENT),
    (SettingsError, _Code.INVALID_ARGUMENT),
    (ModelNotFound, _Code.FAILED_PRECONDITION),
    (ServiceError, _Code.UNAVAILABLE),
    (StateInUse, _Code.UNAVAILABLE),
    (StorageFull, _Code.RESOURCE_EXHAUSTED),
    (StateDamaged, _Code.DATA_LOSS),
    (DeviceError, _Code.INTERNAL),
    (FedqanaError, _Code.INTERNAL),
)
"""The first class that an error is an instance of decides."""


def code_of(error: FedqanaError) -> grpc.StatusCode:
    """The status code that an error becomes."""
    return next(code for kind, code in CODES if isinstance(error, kind))


def named_error(name: str) -> type[FedqanaError] | None:
    """The class of `common.errors` with this name, made from one line; None where there is none."""
    found = getattr(common.errors, name, None)
    is_error = isinstance(found, type) and issubclass(found, FedqanaError)
    return found if is_error and found is not SiteRefused else None
