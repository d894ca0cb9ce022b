"""Instructions and answers as Flower messages; the one place that knows Flower's records.

Flower 1.41's Message API: a message carries a RecordDict of an ArrayRecord (weights), and
ConfigRecords (JSON text, file contents as bytes).
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import ValidationError

from common.errors import SiteRefused
from common.messages import ASKS, KINDS, Answer, Instruction, Kind

MESSAGE_TYPES: dict[Kind, str] = {
    "handshake": "query.handshake",
    "train": "train",
    "evaluate": "evaluate",
    "deploy": "query.deploy",
    "share": "query.share",
    "final": "query.final",
}
"""Flower routes by these; queries carry an action's name."""


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


def pack_instruction(instruction: Instruction) -> RecordDict:
    """An instruction as the content of a message."""
    content = RecordDict({"instruction": ConfigRecord({"ask": instruction.ask.model_dump_json()})})
    if instruction.arrays:
        content["arrays"] = to_array_record(instruction.arrays)
    if instruction.files:
        content["files"] = ConfigRecord(dict(instruction.files))
    if instruction.teacher:
        content["teacher"] = to_array_record(instruction.teacher)
    return content


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
            from_array_record(arrays) if arrays is not None else {},
            {str(n): bytes(v) for n, v in files.items()} if files is not None else {},
            from_array_record(teacher) if teacher is not None else {},
        )
    except (KeyError, ValidationError, TypeError) as error:
        raise SiteRefused("bad-instruction", "the coordinator's message is malformed") from error


def pack_answer(answer: Answer) -> RecordDict:
    """A site's answer as the content of a reply."""
    content = RecordDict({"answer": ConfigRecord({"reply": answer.reply, "error": answer.error})})
    if answer.arrays:
        content["arrays"] = to_array_record(answer.arrays)
    return content


def unpack_answer(content: RecordDict) -> Answer:
    """A site's answer; SiteRefused where it has not the agreed form."""
    try:
        said = content.config_records["answer"]
        arrays = content.array_records.get("arrays")
        return Answer(
            str(said["reply"]),
            str(said["error"]),
            from_array_record(arrays) if arrays is not None else {},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SiteRefused("malformed", "the reply is not an answer") from error


def payload_bytes(content: RecordDict) -> int:
    """Size of a message's payload in bytes: arrays, texts and files, without framing."""
    total = sum(len(a.data) for record in content.array_records.values() for a in record.values())
    for record in content.config_records.values():
        for value in record.values():
            total += sum(map(_bytes_of, value if isinstance(value, list) else [value]))
    return total


def _bytes_of(value: str | bytes | bool | float) -> int:
    """Flower lets a record hold numbers too, which the agreed messages never do."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    return len(value) if isinstance(value, bytes) else 8
