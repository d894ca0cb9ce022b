"""The generated modules are what the .proto says; needs no generator."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

import edge_client.local_service as package
from edge_client.local_service import fedqana_edge_pb2 as pb
from edge_client.local_service import fedqana_edge_pb2_grpc as services
from edge_client.local_service.referral import Head, ReferReason

FOLDER = Path(package.__file__).parent
PROTO = (FOLDER / "fedqana_edge.proto").read_text()
TEXT = re.sub(r"//[^\n]*", "", PROTO)

_KINDS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def blocks(kind: str) -> dict[str, str]:
    """Bodies of the top-level blocks of a kind, by name."""
    found = {}
    for match in re.finditer(rf"^{kind} (\w+) \{{", TEXT, re.M):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(TEXT[end], 0)
            end += 1
        found[match[1]] = TEXT[match.end() : end - 1]
    return found


def fields_in(descriptor: Descriptor) -> set[tuple[str, str, str, str]]:
    """Label, type, name and number of a message's fields."""
    return {
        (
            "repeated" if field.label == FieldDescriptor.LABEL_REPEATED else "",
            _KINDS.get(field.type) or (field.message_type or field.enum_type).name,
            field.name,
            str(field.number),
        )
        for field in descriptor.fields
    }


def test_messages() -> None:
    written = blocks("message")
    assert set(written) == set(pb.DESCRIPTOR.message_types_by_name)
    for name, body in written.items():
        expected = {
            (label.strip(), kind, field, number)
            for label, kind, field, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body)
        }
        assert fields_in(pb.DESCRIPTOR.message_types_by_name[name]) == expected, name


def test_oneofs() -> None:
    assert re.findall(r"oneof (\w+)", TEXT) == ["label"]
    (oneof,) = pb.DESCRIPTOR.message_types_by_name["CorrectRequest"].oneofs
    assert oneof.name == "label" and [f.name for f in oneof.fields] == ["diagnosis", "forget"]


def test_enums() -> None:
    written = blocks("enum")
    assert set(written) == set(pb.DESCRIPTOR.enum_types_by_name)
    for name, body in written.items():
        values = {v.name: str(v.number) for v in pb.DESCRIPTOR.enum_types_by_name[name].values}
        assert dict(re.findall(r"(\w+) = (\d+);", body)) == values


def test_methods() -> None:
    written = blocks("service")
    assert set(written) == set(pb.DESCRIPTOR.services_by_name) == {"EdgeClient"}
    service = pb.DESCRIPTOR.services_by_name["EdgeClient"]
    found = {(m.name, m.input_type.name, m.output_type.name) for m in service.methods}
    pattern = r"rpc (\w+)\((\w+)\) returns \((\w+)\);"
    assert set(re.findall(pattern, written["EdgeClient"])) == found
    for name, _, _ in found:
        assert callable(getattr(services.EdgeClientServicer, name))
    assert pb.DESCRIPTOR.package == re.findall(r"^package ([\w.]+);", TEXT, re.M)[0]


def test_type_hints() -> None:
    stub = (FOLDER / "fedqana_edge_pb2.pyi").read_text()
    classes = dict(
        re.findall(r"^class (\w+)\(_message\.Message\):\n +__slots__ = \((.*)\)", stub, re.M)
    )
    assert set(classes) == set(pb.DESCRIPTOR.message_types_by_name)
    for name, slots in classes.items():
        fields = [field.name for field in pb.DESCRIPTOR.message_types_by_name[name].fields]
        assert re.findall(r'"(\w+)"', slots) == fields


def test_the_generator_is_the_one_of_the_script() -> None:
    version = re.findall(r"grpcio-tools==([\d.]+)", (FOLDER / "make_stubs.sh").read_text())
    assert version == [services.GRPC_GENERATED_VERSION]


@pytest.mark.parametrize(
    ("prefix", "enum", "own"),
    [("HEAD_", "Head", Head), ("REFER_REASON_", "ReferReason", ReferReason)],
)
def test_enums_of_the_program_are_those_of_the_proto(
    prefix: str, enum: str, own: type[Head] | type[ReferReason]
) -> None:
    names = pb.DESCRIPTOR.enum_types_by_name[enum].values_by_name
    assert {prefix + member.name for member in own} == set(names) - {f"{prefix}UNSPECIFIED"}


def test_every_message_field_and_method_is_explained() -> None:
    lines = PROTO.splitlines()
    bare = [
        line.strip()
        for before, line in pairwise(lines)
        if re.match(r" *(repeated )?\w+( \w+)? = \d+;| *(rpc|oneof|enum|message|service) ", line)
        and "//" not in before
    ]
    assert bare == []
