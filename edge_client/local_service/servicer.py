"""The methods of the .proto, each a call of the site; errors become status codes here."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc

from common import __version__
from common.errors import FedqanaError, ServiceUnavailable, SettingsError
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service.fedqana_edge_pb2_grpc import EdgeClientServicer
from edge_client.local_service.local_site import LocalSite
from edge_client.local_service.settings import ServiceSettings
from edge_client.local_service.site_referral import SiteReferral
from edge_client.local_service.snapshot import Snapshot
from edge_client.local_service.status_codes import ERROR_KEY, code_of

log = logging.getLogger("fedqana.local_service")

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context: TypeAlias = grpc.ServicerContext


def _method(
    answer: Callable[["Servicer", _Request, _Context], _Response],
) -> Callable[["Servicer", _Request, _Context], _Response]:
    """Turn an error into its status code; of an unexpected one nothing but where it happened."""

    @functools.wraps(answer)
    def answered(servicer: "Servicer", request: _Request, context: _Context) -> _Response:
        try:
            return answer(servicer, request, context)
        except FedqanaError as error:
            _refuse(context, error)
        except Exception as error:
            # Its text may hold something of a patient's file.
            log.error("%s failed: %s at %s", answer.__name__, type(error).__name__, _place(error))
            context.abort(
                grpc.StatusCode.INTERNAL,
                "unexpected error; this is a bug, its place is in the service's log",
            )
            raise

    return answered


def _refuse(context: _Context, error: FedqanaError) -> NoReturn:
    context.set_trailing_metadata(((ERROR_KEY, type(error).__name__),))
    context.abort(code_of(error), " ".join(str(error).split()))
    raise error


def _place(error: Exception) -> str:
    """File and line where an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


class Servicer(EdgeClientServicer):
    """Answers for one site.

    Parameters
    ----------
    site : LocalSite
    settings : ServiceSettings
    referral : SiteReferral
    """

    def __init__(self, site: LocalSite, settings: ServiceSettings, referral: SiteReferral) -> None:
        self._site = site
        self._settings = settings
        self._referral = referral
        self._turns = threading.BoundedSemaphore(settings.changes_at_once)

    @_method
    def Classify(  # noqa: N802
        self, request: pb.ClassifyRequest, context: _Context
    ) -> pb.ClassifyResponse:
        """See the .proto."""
        answer, snapshot = self._site.classify(request.image)
        best = answer.scores[0]
        reasons = self._referral.rule().reasons(best.code, best.probability, answer.decided_by)
        return pb.ClassifyResponse(
            scores=[
                pb.ClassScore(code=s.code, score=s.score, probability=s.probability)
                for s in answer.scores
            ],
            answer=best.code,
            refer=bool(reasons),
            refer_reasons=[f"REFER_REASON_{reason.name}" for reason in reasons],
            state=_state(snapshot),
            decided_by=f"HEAD_{answer.decided_by.name}",
            backend=snapshot.backend,
            calibrated=snapshot.calibration.is_fitted,
        )

    @_method
    def Learn(  # noqa: N802
        self, request: pb.LearnRequest, context: _Context
    ) -> pb.LearnResponse:
        """See the .proto."""
        with self._turn(context) as patience:
            result, snapshot = self._site.learn(
                request.image, request.diagnosis, request.case_id, request.lesion_id, patience
            )
        return pb.LearnResponse(
            case_id=result.case_id,
            learned=result.learned,
            diagnosis=result.diagnosis,
            state=_state(snapshot),
        )

    @_method
    def AddClass(  # noqa: N802
        self, request: pb.AddClassRequest, context: _Context
    ) -> pb.AddClassResponse:
        """See the .proto."""
        self._site.state.refresh()
        return pb.AddClassResponse(
            added=self._site.add_class(request.code), codes=self._site.codes()
        )

    @_method
    def Correct(  # noqa: N802
        self, request: pb.CorrectRequest, context: _Context
    ) -> pb.CorrectResponse:
        """See the .proto."""
        if not (request.diagnosis if request.HasField("diagnosis") else request.forget):
            raise SettingsError("say what is right: a diagnosis, or forget = true")
        code = request.diagnosis if request.HasField("diagnosis") else None
        with self._turn(context) as patience:
            changed, snapshot = self._site.correct(request.case_id, code, patience)
        return pb.CorrectResponse(changed=changed, state=_state(snapshot))

    @_method
    def ListCases(  # noqa: N802
        self, request: pb.ListCasesRequest, context: _Context
    ) -> pb.ListCasesResponse:
        """See the .proto."""
        page = self._site.cases.page(request.page_size, request.page_token)
        return pb.ListCasesResponse(
            cases=[
                pb.LearnedCase(
                    case_id=c.case_id, diagnosis=c.code, round=c.round, lesion_id=c.lesion_id
                )
                for c in page.cases
            ],
            next_page_token=page.next_token,
            total=page.total,
        )

    @_method
    def Status(  # noqa: N802
        self, request: pb.StatusRequest, context: _Context
    ) -> pb.StatusResponse:
        """See the .proto."""
        snapshot, rule = self._site.state.refresh(), self._referral.rule()
        status = pb.StatusResponse(
            cases_total=len(self._site.cases.all()),
            installing=self._site.is_installing,
            problem=self._site.state.problem or self._referral.problem,
            software=__version__,
            refer_confidence_below=rule.confidence_below,
            refer_classes=rule.classes,
        )
        own: tuple[str, ...] = ()
        taught: frozenset[str] = frozenset()
        if snapshot is not None:
            own, taught = snapshot.codes[: snapshot.n_known], snapshot.taught
            status.state.CopyFrom(_state(snapshot))
            status.round = snapshot.round
            status.neurons = snapshot.neurons
            status.cases_learned = snapshot.cases_learned
            status.backend = snapshot.backend
            status.image_size = snapshot.image_size
            status.calibration_lesions = snapshot.calibration.lesions
            status.temperature = snapshot.calibration.temperature
            status.not_calibrated = snapshot.calibration.note
            status.all_symmetries = snapshot.all_symmetries
            status.fine_tuned = snapshot.fine_tuned
        status.classes.extend(
            pb.KnownClass(code=code, in_program=code in own, on_chip=code in taught)
            for code in self._site.codes()
        )
        return status

    @_method
    def Rollback(  # noqa: N802
        self, request: pb.RollbackRequest, context: _Context
    ) -> pb.RollbackResponse:
        """See the .proto."""
        with self._turn(context) as patience:
            return pb.RollbackResponse(state=_state(self._site.rollback(patience)))

    @contextmanager
    def _turn(self, context: _Context) -> Iterator[float]:
        """A place among the changes that wait; how many seconds this one may."""
        if not self._turns.acquire(blocking=False):
            raise ServiceUnavailable(
                f"{self._settings.changes_at_once} other changes are waiting; try again in a minute"
            )
        try:
            remaining: Any = context.time_remaining()
            longest = self._settings.write_wait
            yield longest if remaining is None else min(longest, remaining)
        finally:
            self._turns.release()


def _state(snapshot: Snapshot) -> pb.ModelState:
    return pb.ModelState(
        model_version=snapshot.model_version,
        program_version=snapshot.program_version,
        head=snapshot.head,
    )
