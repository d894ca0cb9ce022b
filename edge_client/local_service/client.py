"""Asks a running local service; its errors come back as those of `common.errors`."""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from common.errors import DataUnfit, FedqanaError, ServiceUnavailable, SettingsError
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.fedqana_edge_pb2_grpc import EdgeClientStub
from edge_client.local_service.settings import TlsFiles
from edge_client.local_service.status_codes import ERROR_KEY, named_error

LOOK_SECONDS = 30.0
CHANGE_SECONDS = 180.0
"""More than the service's own patience, so that its reason arrives."""

_Response = TypeVar("_Response")


class LocalServiceClient:
    """One channel to a local service; for use with ``with``, from any number of threads.

    Every method raises the `FedqanaError` that the service refused with, and ServiceUnavailable
    where none answers.

    Parameters
    ----------
    address : str
        ``unix:/absolute/path`` or ``HOST:PORT``.
    tls : TlsFiles, optional
        The caller's certificate and key, and the authority of the service's certificate.
    look_seconds, change_seconds : float
        How long to wait for an answer, and for Learn, Correct and Rollback.
    """

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None = None,
        *,
        look_seconds: float = LOOK_SECONDS,
        change_seconds: float = CHANGE_SECONDS,
    ) -> None:
        self._address = address
        self._tls = tls
        self._look, self._change = look_seconds, change_seconds
        # Pictures never go through a proxy, whatever the machine's settings are.
        options = [("grpc.enable_http_proxy", 0)]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            certificate, key, authority = tls.read()
            credentials = grpc.ssl_channel_credentials(authority, key, certificate)
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._stub = EdgeClientStub(self._channel)

    def __enter__(self) -> "LocalServiceClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def classify(self, image: bytes) -> pb.ClassifyResponse:
        """What is on an encoded picture."""
        return self._ask(
            pb.ClassifyResponse, self._stub.Classify, pb.ClassifyRequest(image=image), self._look
        )

    def learn(
        self, image: bytes, diagnosis: str, case_id: str = "", lesion_id: str = ""
    ) -> pb.LearnResponse:
        """Learn an encoded picture; durable when it returns, safe to call again."""
        request = pb.LearnRequest(
            image=image, diagnosis=diagnosis, case_id=case_id, lesion_id=lesion_id
        )
        return self._ask(pb.LearnResponse, self._stub.Learn, request, self._change)

    def add_class(self, code: str) -> pb.AddClassResponse:
        """Allow a class code in `learn` and `correct`."""
        return self._ask(
            pb.AddClassResponse, self._stub.AddClass, pb.AddClassRequest(code=code), self._look
        )

    def correct(self, case_id: str, diagnosis: str | None) -> pb.CorrectResponse:
        """Replace a case's diagnosis; with None, forget the case."""
        if diagnosis is None:
            request = pb.CorrectRequest(case_id=case_id, forget=True)
        else:
            request = pb.CorrectRequest(case_id=case_id, diagnosis=diagnosis)
        return self._ask(pb.CorrectResponse, self._stub.Correct, request, self._change)

    def list_cases(self, page_size: int = 0, page_token: str = "") -> pb.ListCasesResponse:
        """One page of the learned cases."""
        request = pb.ListCasesRequest(page_size=page_size, page_token=page_token)
        return self._ask(pb.ListCasesResponse, self._stub.ListCases, request, self._look)

    def status(self) -> pb.StatusResponse:
        """What is in service and what it has learned."""
        return self._ask(pb.StatusResponse, self._stub.Status, pb.StatusRequest(), self._look)

    def rollback(self) -> pb.RollbackResponse:
        """Go back to the last version with another program."""
        return self._ask(
            pb.RollbackResponse, self._stub.Rollback, pb.RollbackRequest(), self._change
        )

    def _ask(
        self, kind: type[_Response], method: Callable[..., Any], request: object, seconds: float
    ) -> _Response:
        try:
            response = method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise self._in_words(error, seconds) from None
        assert isinstance(response, kind)
        return response

    def _in_words(self, error: Any, seconds: float) -> FedqanaError:
        """The error that the service refused with, or why it did not answer."""
        names = dict(error.trailing_metadata() or ())
        kind = named_error(str(names.get(ERROR_KEY, "")))
        details = " ".join(str(error.details()).split())
        if kind is not None:
            return kind(details)
        code = error.code()
        if code is grpc.StatusCode.UNAVAILABLE:
            return ServiceUnavailable(self._why_silent())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServiceUnavailable(
                f"the local service at {self._address} did not answer within {seconds:g} s; it may "
                "be busy or installing a version, try again"
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return DataUnfit(
                "the picture is larger than the local service takes (32 MiB unless it was set "
                "otherwise); send a smaller one"
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ServiceUnavailable("the local service has too many requests; try again")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return SettingsError(
                f"what listens on {self._address} is no local service of this version; correct the "
                "address, or start the service anew"
            )
        return ServiceUnavailable(f"the local service failed ({code.name}: {details})")

    def _why_silent(self) -> str:
        socket = Path(self._address.removeprefix("unix:"))
        if socket.is_absolute() and socket.exists() and not os.access(socket, os.W_OK):
            return f"{socket} is for the user who runs the service only; ask as that user"
        hint = (
            ", and check that both sides' certificates fit each other's authority"
            if self._tls
            else ""
        )
        return (
            f"no local service answers at {self._address}; start it with 'fedqana client start'"
            f"{hint}"
        )
