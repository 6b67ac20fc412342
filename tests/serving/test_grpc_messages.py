"""Our words for gRPC are the protocol's own."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.house.repository import run_python
from tritonclient.grpc import model_config_pb2, service_pb2

from trimtab.errors import ConflictError
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_port import hold_port

CONFIGURATION = {"ModelConfig", "ModelInput", "ModelOutput", "ModelVersionPolicy"}


def fields(message: Any) -> dict[str, Any]:
    """Names, numbers and types of a message's fields, and of the messages in it."""
    own = {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in message.fields
    }
    nested = message.nested_types if message.name not in CONFIGURATION else ()
    return {**own, **{each.name: fields(each) for each in nested}}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_names_numbers_and_types_of_the_protocol(name: str) -> None:
    ours = MESSAGES[name].DESCRIPTOR
    known = {
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
        **service_pb2.DESCRIPTOR.message_types_by_name,
    }
    theirs = known[name]
    assert ours.full_name == theirs.full_name
    if name in CONFIGURATION:  # of which a part is told
        told = fields(ours)
        assert told == {field: found for field, found in fields(theirs).items() if field in told}
    else:
        assert fields(ours) == fields(theirs)


def test_datatypes_have_the_numbers_of_the_protocol() -> None:
    ours = MESSAGES["ModelInput"].DESCRIPTOR.fields_by_name["data_type"].enum_type
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    assert ours.full_name == theirs.full_name
    assert {value.name: value.number for value in ours.values} == {
        value.name: value.number for value in theirs.values
    }


def test_a_gateway_without_grpc_loads_none_of_it() -> None:
    code = (
        "import sys, trimtab.serving.worker; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    )
    assert run_python(code).stdout.split() == ["False", "False"]


@pytest.mark.parametrize("missing", ["grpc", "google.protobuf", "google"])
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from trimtab.errors import MissingExtraError
from trimtab.serving.grpc_port import check_grpc
try:
    check_grpc()
except MissingExtraError as error:
    print(error)
"""
    assert "pip install 'trimtab[grpc]'" in run_python(code).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="ports are shared in this way on Linux")
def test_a_held_port_is_nobody_elses() -> None:
    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConflictError, match="gateway_grpc_port"):
            hold_port("127.0.0.1", port)
