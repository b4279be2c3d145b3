"""`clearing call`: any RPC of the wire, with JSON in and JSON out.

Lives here: finding the method, JSON to protobuf and back. May not live here: any particular RPC.

JSON is protobuf's own mapping: field names as in the proto files, bytes in base64, 64-bit integers as texts. A stream is
not made one JSON list by --json: it may have no end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from node.cli.errors import WrongUseError
from node.cli.options import read_standard_input
from node.cli.session import Access, told_rpc, with_access
from node.client.session import sync_channel
from node.pb.v1 import anchor_pb2, audit_pb2, operator_pb2, participant_pb2, replication_pb2

_FILES = (participant_pb2, audit_pb2, anchor_pb2, operator_pb2, replication_pb2)


def services() -> Iterator[ServiceDescriptor]:
    """Yield the services of the wire, in the order of their files."""
    for file in _FILES:
        yield from file.DESCRIPTOR.services_by_name.values()


def find_method(name: str) -> MethodDescriptor:
    """Return the method called `name`: Method, Service/Method or clearing.v1.Service/Method, or with dots.

    Raises: WrongUseError: there is none; the sentence lists all.
    """
    wanted = name.strip("/").replace("/", ".")
    methods = [method for service in services() for method in service.methods]
    for method in methods:
        full = method.full_name
        if wanted == full or full.endswith("." + wanted):
            return method
    known = ", ".join(f"{m.containing_service.name}/{m.name}" for m in methods)
    raise WrongUseError("UNKNOWN_METHOD", f"no method {name!r}", f"Use one of: {known}.")


def read_request(method: MethodDescriptor, text: str) -> Any:
    """Return the request message that the JSON `text` describes.

    Raises: WrongUseError: not JSON, or not this message.
    """
    request = GetMessageClass(method.input_type)()
    try:
        fields_given = json.loads(text or "{}")
        if not isinstance(fields_given, dict):
            raise json_format.ParseError("a request is a JSON object")
        json_format.ParseDict(fields_given, request)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        fields = ", ".join(field.name for field in method.input_type.fields) or "none"
        raise WrongUseError(
            "BAD_REQUEST", str(error), f"Fields of {method.input_type.name}: {fields}."
        ) from error
    return request


@with_access
def call(
    access: Access,
    method: Annotated[str, typer.Argument(help="Such as GetRegistry or AuditService/GetRegistry.")],
    request: Annotated[
        str, typer.Argument(help="The request as JSON; - reads it from standard input.")
    ] = "{}",
    timeout_s: Annotated[
        int,
        typer.Option("--timeout", help="Seconds until the call is given up.", min=1, max=86_400),
    ] = 30,
    _errors_too: Annotated[
        bool, typer.Option("--json", help="Print errors as JSON too; answers always are.")
    ] = False,
) -> None:
    """Call any RPC of a node and print its answer as JSON; a stream prints one line an answer.

    The methods and their fields are described in the proto files.
    """
    found = find_method(method)
    text = read_standard_input() if request == "-" else request
    message = read_request(found, text)
    channel = sync_channel(access.identity.tls, access.endpoints[0])
    try:
        for answer in _answers(channel, found, message, timeout_s):
            _print(answer, one_line=bool(found.server_streaming))
    except grpc.RpcError as error:
        raise told_rpc(error) from error
    finally:
        channel.close()


def _answers(
    channel: grpc.Channel, method: MethodDescriptor, request: Any, timeout_s: int
) -> Iterable[Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer_class = GetMessageClass(method.output_type)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub: Any = make(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_class.FromString,
    )
    answer = stub(request, timeout=timeout_s)
    return answer if method.server_streaming else (answer,)


def _print(answer: Any, *, one_line: bool) -> None:
    facts = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    sys.stdout.write(json.dumps(facts, indent=None if one_line else 2) + "\n")
