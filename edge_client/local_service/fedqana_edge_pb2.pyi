from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Head(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_UNSPECIFIED: _ClassVar[Head]
    HEAD_PROGRAM: _ClassVar[Head]
    HEAD_CHIP: _ClassVar[Head]
    HEAD_BOTH: _ClassVar[Head]

class ReferReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFER_REASON_UNSPECIFIED: _ClassVar[ReferReason]
    REFER_REASON_LOW_CONFIDENCE: _ClassVar[ReferReason]
    REFER_REASON_REFERRED_CLASS: _ClassVar[ReferReason]
    REFER_REASON_NEW_CLASS: _ClassVar[ReferReason]
HEAD_UNSPECIFIED: Head
HEAD_PROGRAM: Head
HEAD_CHIP: Head
HEAD_BOTH: Head
REFER_REASON_UNSPECIFIED: ReferReason
REFER_REASON_LOW_CONFIDENCE: ReferReason
REFER_REASON_REFERRED_CLASS: ReferReason
REFER_REASON_NEW_CLASS: ReferReason

class ModelState(_message.Message):
    __slots__ = ("model_version", "program_version", "head")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    program_version: str
    head: str
    def __init__(self, model_version: _Optional[str] = ..., program_version: _Optional[str] = ..., head: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    def __init__(self, image: _Optional[bytes] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("code", "score", "probability")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    code: str
    score: float
    probability: float
    def __init__(self, code: _Optional[str] = ..., score: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("scores", "answer", "refer", "refer_reasons", "state", "decided_by", "backend", "calibrated")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFER_FIELD_NUMBER: _ClassVar[int]
    REFER_REASONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[ClassScore]
    answer: str
    refer: bool
    refer_reasons: _containers.RepeatedScalarFieldContainer[ReferReason]
    state: ModelState
    decided_by: Head
    backend: str
    calibrated: bool
    def __init__(self, scores: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., answer: _Optional[str] = ..., refer: bool = ..., refer_reasons: _Optional[_Iterable[_Union[ReferReason, str]]] = ..., state: _Optional[_Union[ModelState, _Mapping]] = ..., decided_by: _Optional[_Union[Head, str]] = ..., backend: _Optional[str] = ..., calibrated: bool = ...) -> None: ...

class LearnRequest(_message.Message):
    __slots__ = ("image", "diagnosis", "case_id", "lesion_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    LESION_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    diagnosis: str
    case_id: str
    lesion_id: str
    def __init__(self, image: _Optional[bytes] = ..., diagnosis: _Optional[str] = ..., case_id: _Optional[str] = ..., lesion_id: _Optional[str] = ...) -> None: ...

class LearnResponse(_message.Message):
    __slots__ = ("case_id", "learned", "diagnosis", "state")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    learned: bool
    diagnosis: str
    state: ModelState
    def __init__(self, case_id: _Optional[str] = ..., learned: bool = ..., diagnosis: _Optional[str] = ..., state: _Optional[_Union[ModelState, _Mapping]] = ...) -> None: ...

class AddClassRequest(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    def __init__(self, code: _Optional[str] = ...) -> None: ...

class AddClassResponse(_message.Message):
    __slots__ = ("added", "codes")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    added: bool
    codes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, added: bool = ..., codes: _Optional[_Iterable[str]] = ...) -> None: ...

class CorrectRequest(_message.Message):
    __slots__ = ("case_id", "diagnosis", "forget")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    diagnosis: str
    forget: bool
    def __init__(self, case_id: _Optional[str] = ..., diagnosis: _Optional[str] = ..., forget: bool = ...) -> None: ...

class CorrectResponse(_message.Message):
    __slots__ = ("changed", "state")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    state: ModelState
    def __init__(self, changed: bool = ..., state: _Optional[_Union[ModelState, _Mapping]] = ...) -> None: ...

class ListCasesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class LearnedCase(_message.Message):
    __slots__ = ("case_id", "diagnosis", "round", "lesion_id")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LESION_ID_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    diagnosis: str
    round: int
    lesion_id: str
    def __init__(self, case_id: _Optional[str] = ..., diagnosis: _Optional[str] = ..., round: _Optional[int] = ..., lesion_id: _Optional[str] = ...) -> None: ...

class ListCasesResponse(_message.Message):
    __slots__ = ("cases", "next_page_token", "total")
    CASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    cases: _containers.RepeatedCompositeFieldContainer[LearnedCase]
    next_page_token: str
    total: int
    def __init__(self, cases: _Optional[_Iterable[_Union[LearnedCase, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KnownClass(_message.Message):
    __slots__ = ("code", "in_program", "on_chip")
    CODE_FIELD_NUMBER: _ClassVar[int]
    IN_PROGRAM_FIELD_NUMBER: _ClassVar[int]
    ON_CHIP_FIELD_NUMBER: _ClassVar[int]
    code: str
    in_program: bool
    on_chip: bool
    def __init__(self, code: _Optional[str] = ..., in_program: bool = ..., on_chip: bool = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("state", "round", "classes", "neurons", "cases_learned", "cases_total", "backend", "image_size", "installing", "problem", "software", "refer_confidence_below", "refer_classes", "calibration_lesions", "temperature", "not_calibrated", "all_symmetries", "fine_tuned")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    CASES_LEARNED_FIELD_NUMBER: _ClassVar[int]
    CASES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INSTALLING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    REFER_CONFIDENCE_BELOW_FIELD_NUMBER: _ClassVar[int]
    REFER_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_LESIONS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    NOT_CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    ALL_SYMMETRIES_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNED_FIELD_NUMBER: _ClassVar[int]
    state: ModelState
    round: int
    classes: _containers.RepeatedCompositeFieldContainer[KnownClass]
    neurons: int
    cases_learned: int
    cases_total: int
    backend: str
    image_size: int
    installing: bool
    problem: str
    software: str
    refer_confidence_below: float
    refer_classes: _containers.RepeatedScalarFieldContainer[str]
    calibration_lesions: int
    temperature: float
    not_calibrated: str
    all_symmetries: bool
    fine_tuned: bool
    def __init__(self, state: _Optional[_Union[ModelState, _Mapping]] = ..., round: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[KnownClass, _Mapping]]] = ..., neurons: _Optional[int] = ..., cases_learned: _Optional[int] = ..., cases_total: _Optional[int] = ..., backend: _Optional[str] = ..., image_size: _Optional[int] = ..., installing: bool = ..., problem: _Optional[str] = ..., software: _Optional[str] = ..., refer_confidence_below: _Optional[float] = ..., refer_classes: _Optional[_Iterable[str]] = ..., calibration_lesions: _Optional[int] = ..., temperature: _Optional[float] = ..., not_calibrated: _Optional[str] = ..., all_symmetries: bool = ..., fine_tuned: bool = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ModelState
    def __init__(self, state: _Optional[_Union[ModelState, _Mapping]] = ...) -> None: ...
