#!/bin/sh
# Makes fedqana_edge_pb2.py, its .pyi and fedqana_edge_pb2_grpc.py anew after a change of the .proto.
#
# Newer generators make code that refuses the protobuf and grpcio that FedQANA runs with, so the
# generator's version is fixed; it lives in an environment of its own, in the temporary folder.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet grpcio-tools==1.71.2
cd "$root"
# From the root of the packages: the generated import then names the package.
"$tools/bin/python" -m grpc_tools.protoc -I . \
    --python_out=. --pyi_out=. --grpc_python_out=. edge_client/local_service/fedqana_edge.proto
