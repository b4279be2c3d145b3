"""Whom a command acts as and which node it asks.

Lives here: `Access`, made from `--dir --as [--node]` or `--identity [--endpoint]`, the decorator that gives these
options to a command, and what a client's errors look like to a user. May not live here: what is asked (the commands),
the connection itself (node.client).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import grpc

from clearing.errors import REMEDIES
from node.cli.errors import CheckFailedError, CliError, WrongUseError
from node.cli.options import ActAs, Endpoint, IdentityDir, NetworkDir, NodeName, ask_passphrase
from node.client import (
    CallError,
    Client,
    ClientError,
    EvidenceError,
    NotAnchoredError,
    OutcomeUnknownError,
    RejectedError,
    TlsError,
)
from node.client.calls import read_failure, typed
from node.client.session import TIMEOUT_S
from node.keys import SigningKey
from node.profile import IdentityDirectory
from node.settings import check_dialled_endpoint
from node.testnet.layout import LocalNetwork

Rest = ParamSpec("Rest")

RUNS = "Check that the node runs and that the endpoint is right."
"""What to do when a node does not answer."""

LATE = "It was given up in time: ask again; `clearing call --timeout` waits longer."
"""What to do when a node did not answer, or a stream did not end, within the time allowed."""

_RESUME = "It is kept in the outbox: `clearing resume` sends it again; it counts once."
_ANCHORED = (
    "Wait for the anchor and its confirmations: `clearing anchor list`; --depth asks for fewer."
)
_EITHER = "Give --dir DIR --as NAME for a test network of this machine, or --identity DIR [--endpoint HOST:PORT]."


@dataclass(frozen=True, slots=True)
class Access:
    """An identity, and the endpoints at which it asks, in this order."""

    identity: IdentityDirectory
    endpoints: tuple[str, ...]

    @property
    def name(self) -> str:
        """The registered name of the party."""
        return self.identity.profile.name

    def client(self, timeout_s: float = TIMEOUT_S) -> Client:
        """Return a client of this party, to be closed after use; nothing is sent yet.

        Raises: SetupError: a file of the identity is not as it must be; DecodeError: no endpoint.
        """
        return Client(
            self.identity,
            endpoints=self.endpoints,
            signer=self.signing_key,
            timeout_s=timeout_s,
        )

    def signing_key(self) -> SigningKey:
        """Open the party's signing key; asks for its passphrase where no key file opens it.

        Raises: SetupError: it does not open.
        """
        if self.identity.profile.key_file_path is not None:
            return self.identity.signing_key()
        return self.identity.signing_key(ask_passphrase(f"{self.name}'s signing key"))


def told(error: ClientError) -> CliError:
    """Return what to tell the user about a failed call: the node's own code, sentence and remedy where it gave them."""
    if isinstance(error, RejectedError):
        rows = [
            {"item": item, "code": code.name, "remedy": REMEDIES[code]}
            for item, code in error.items
        ]
        return CheckFailedError(
            error.reason, error.fault.message, error.remedy, rows, error.bad_items or len(rows)
        )
    if isinstance(error, CallError):
        return CheckFailedError(error.reason, error.fault.message, error.remedy)
    if isinstance(error, OutcomeUnknownError):
        return CheckFailedError("OUTCOME_UNKNOWN", str(error), _RESUME)
    if isinstance(error, EvidenceError):
        return CheckFailedError("EVIDENCE", str(error), "Trust nothing that this node says.")
    if isinstance(error, NotAnchoredError):
        return CheckFailedError("NOT_ANCHORED", str(error), _ANCHORED)
    if isinstance(error, TlsError):
        return CheckFailedError("TLS", str(error), "Check --identity, --endpoint and the clock.")
    return CheckFailedError(type(error).__name__.removesuffix("Error").upper(), str(error), RUNS)


def told_rpc(error: grpc.RpcError) -> CliError:
    """Return what to tell the user about a call that failed below the client."""
    status, message, fault = read_failure(error)
    if fault is None:
        is_late = status is grpc.StatusCode.DEADLINE_EXCEEDED
        return CheckFailedError(
            status.name, message or "the call failed", LATE if is_late else RUNS
        )
    return told(typed(fault))


def open_access(
    network_dir: Path | None,
    act_as: str | None,
    node_name: str | None,
    endpoint: str | None,
    identity_dir: Path | None,
) -> Access:
    """Return the access that the options describe.

    Raises: WrongUseError: they contradict each other or say too little; CheckFailedError: the node does not run;
        SetupError: a file is not as it must be; DecodeError: no endpoint.
    """
    if network_dir is not None and identity_dir is None:
        network = LocalNetwork.open(network_dir)
        if act_as is None:
            names = ", ".join(party.name for party in network.parties[:8])
            raise WrongUseError("USAGE", "--dir needs --as", f"Name a party: {names}, ...")
        if endpoint is not None:
            raise WrongUseError("USAGE", "--endpoint does not go with --dir", "Use --node NAME.")
        opened = IdentityDirectory.open(network.identity_path(act_as))
        asked = (node_name,) if node_name else network.plan.operators
        running = [name for name in asked if network.process(name).pid() is not None]
        # Else the command would knock for half a minute at a door behind which nobody is.
        if not running:
            raise CheckFailedError(
                "UNAVAILABLE",
                f"node {asked[0]} of {network_dir} does not run",
                f"Start it: clearing testnet up --dir {network_dir}",
            )
        return Access(opened, tuple(network.endpoint(name) for name in running))
    if identity_dir is not None and network_dir is None:
        if act_as is not None or node_name is not None:
            raise WrongUseError("USAGE", "--as and --node go with --dir only", _EITHER)
        opened = IdentityDirectory.open(identity_dir)
        if endpoint is None:
            return Access(opened, opened.profile.endpoints)
        check_dialled_endpoint(endpoint)
        return Access(opened, (endpoint,))
    if network_dir is not None:
        raise WrongUseError("USAGE", "--dir and --identity exclude each other", _EITHER)
    raise WrongUseError("USAGE", "it is not said which network and as whom", _EITHER)


def with_access(
    command: Callable[Concatenate[Access, Rest], None],
) -> Callable[..., None]:
    """Give a command the connection options in place of its first parameter, which receives the Access.

    typer reads a command's options from its signature, so the result carries one that names both.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(open_access_options, eval_str=True).parameters.values())
    names = [parameter.name for parameter in shared]

    def run(**values: Any) -> None:
        access = open_access(**{name: values.pop(name) for name in names})
        try:
            command(access, **values)  # type: ignore[call-arg]  # typer passes exactly the parameters declared
        except ClientError as error:
            raise told(error) from error

    parameters = sorted([*own, *shared], key=lambda parameter: parameter.kind)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    return run


def open_access_options(
    *,
    network_dir: NetworkDir = None,
    act_as: ActAs = None,
    node_name: NodeName = None,
    endpoint: Endpoint = None,
    identity_dir: IdentityDir = None,
) -> None:
    """Declare the options; only the signature counts."""
