"""Instructions and answers as Flower messages; the one place that knows Flower's records.

Flower 1.41's Message API: a message carries a RecordDict of ArrayRecords (weights), and
ConfigRecords (JSON text, file contents as bytes). Flower sends every array as an object of its own,
with a signed request and a database transaction each; so all weights of a message travel as one
array, the bytes of an uncompressed .npz file.
"""

import hashlib
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import ValidationError

from common.arrays import from_npz, to_npz
from common.errors import SiteRefused
from common.messages import ASKS, KINDS, Answer, Instruction, Kind

MESSAGE_TYPES: dict[Kind, str] = {
    "handshake": "query.handshake",
    "train": "train",
    "balance": "query.balance",
    "evaluate": "evaluate",
    "deploy": "query.deploy",
    "share": "query.share",
    "final": "query.final",
}
"""Flower routes by these; queries carry an action's name."""


_PACKED = "packed"


def to_array_record(arrays: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    """Named numpy arrays as Flower's."""
    return ArrayRecord({name: Array(np.ascontiguousarray(a)) for name, a in arrays.items()})


def from_array_record(record: ArrayRecord) -> dict[str, NDArray[np.float32]]:
    """Flower's arrays as numpy arrays; SiteRefused where one cannot be decoded."""
    try:
        arrays = {str(name): array.numpy() for name, array in record.items()}
    except Exception as error:  # np.load raises much more than it says on hostile bytes
        raise SiteRefused("malformed", "an array of the message cannot be decoded") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # np.load takes zips
        raise SiteRefused("malformed", "an array of the message is none")
    return arrays


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Named arrays as one: a message with 150 arrays takes 150 requests, with one it takes two."""
    packed = to_npz({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return ArrayRecord({_PACKED: Array(np.frombuffer(packed, np.uint8))})


def unpack_arrays(record: ArrayRecord) -> dict[str, NDArray[np.float32]]:
    """What `pack_arrays` packed; SiteRefused("malformed") for anything else."""
    found = from_array_record(record)
    packed = found.get(_PACKED)
    if packed is None or len(found) != 1 or packed.dtype != np.uint8 or packed.ndim != 1:
        raise SiteRefused("malformed", "the arrays of the message are not packed as agreed")
    try:
        return from_npz(packed.tobytes(), uncompressed=True)
    except ValueError as error:
        raise SiteRefused("malformed", "an array of the message cannot be decoded") from error


def pack_instructions(instructions: Iterable[Instruction]) -> list[RecordDict]:
    """Instructions as the contents of messages; arrays that several of them share are packed once.

    All sites get the same weights: a thousand copies of them would take gigabytes.
    """
    made: dict[int, tuple[Any, Array]] = {}

    def packed(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
        if id(arrays) not in made:  # beside it the arrays themselves, so that their id stays theirs
            made[id(arrays)] = arrays, pack_arrays(arrays)[_PACKED]
        return ArrayRecord({_PACKED: made[id(arrays)][1]})

    contents = []
    for instruction in instructions:
        ask = ConfigRecord({"ask": instruction.ask.model_dump_json()})
        content = RecordDict({"instruction": ask})
        if instruction.arrays:
            content["arrays"] = packed(instruction.arrays)
        if instruction.files:
            content["files"] = ConfigRecord(dict(instruction.files))
        if instruction.teacher:
            content["teacher"] = packed(instruction.teacher)
        contents.append(content)
    return contents


def unpack_instruction(message: Message) -> Instruction:
    """What a site is asked; SiteRefused("bad-instruction") where it does not parse."""
    kind = message.metadata.message_type.removeprefix("query.")
    try:
        if kind not in KINDS:
            raise SiteRefused("bad-instruction", f"unknown kind of message {kind!r}")
        content = message.content
        ask = ASKS[kind].model_validate_json(str(content.config_records["instruction"]["ask"]))
        arrays = content.array_records.get("arrays")
        files = content.config_records.get("files")
        teacher = content.array_records.get("teacher")
        return Instruction(
            kind,
            ask,
            unpack_arrays(arrays) if arrays is not None else {},
            {str(n): bytes(v) for n, v in files.items()} if files is not None else {},
            unpack_arrays(teacher) if teacher is not None else {},
        )
    except (KeyError, ValidationError, TypeError) as error:
        raise SiteRefused("bad-instruction", "the coordinator's message is malformed") from error


def pack_answer(answer: Answer) -> RecordDict:
    """A site's answer as the content of a reply."""
    content = RecordDict({"answer": ConfigRecord({"reply": answer.reply, "error": answer.error})})
    if answer.arrays:
        content["arrays"] = pack_arrays(answer.arrays)
    return content


def unpack_answer(content: RecordDict) -> Answer:
    """A site's answer; SiteRefused where it has not the agreed form."""
    try:
        said = content.config_records["answer"]
        arrays = content.array_records.get("arrays")
        return Answer(
            str(said["reply"]),
            str(said["error"]),
            unpack_arrays(arrays) if arrays is not None else {},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SiteRefused("malformed", "the reply is not an answer") from error


def payload_bytes(content: RecordDict) -> int:
    """Size of a message's payload in bytes: arrays, texts and files, without framing."""
    total = sum(len(part) for part in payload_parts(content))
    numbers = [v for v in _values(content) if not isinstance(v, str | bytes)]
    return total + 8 * len(numbers)


def payload_sha256(content: RecordDict) -> str:
    """Hexadecimal SHA-256 of a message's payload: of its `payload_parts`, one after the other."""
    digest = hashlib.sha256()
    for part in payload_parts(content):
        digest.update(part)
    return digest.hexdigest()


def payload_parts(content: RecordDict) -> Iterator[bytes]:
    """A message's arrays (numpy's .npy format) in their order, then its texts and files."""
    for arrays in content.array_records.values():
        yield from (array.data for array in arrays.values())
    for value in _values(content):
        if isinstance(value, str | bytes):
            yield value.encode(errors="replace") if isinstance(value, str) else value


def _values(content: RecordDict) -> Iterator[str | bytes | bool | float]:
    """Flower lets a record hold numbers and lists too, which the agreed messages never do."""
    for record in content.config_records.values():
        for value in record.values():
            yield from value if isinstance(value, list) else [value]
