"""Trust policies: whose signatures make a checkpoint valid (C2SP tlog-policy).

Lives here: the policy as a value, its text, and the judgement over a signed checkpoint. May not
live here: where keys come from, what to do when a quorum is missing.
Invariants: names are unique, defined before they are used, and member of at most one group: a
witness counts in one way only, and judging needs no recursion. `Policy.parse` accepts every image
of `Policy.encode`.
Source: C2SP tlog-policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import SignatureType, VerifierKey
from clearing.log.note import Note, VerifiedSignature
from clearing.log.text import decode_decimal

QUORUM_NONE = "none"
POLICY_BYTES_MAX = 1_000_000
ENTRIES_MAX = 1024  # of logs, of witnesses, of groups; C2SP asks for at least 32 of each

_WITNESS_TYPES = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44)
_NOT_IN_TOKENS = re.compile(r"[\x00-\x20\x7f]")
_NOT_IN_LINES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Log:
    """A log whose checkpoints are accepted: its key, named as its origin, and its URL or ""."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner: its name inside the policy, its key (type 4 or 6), and its URL or ""."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses and groups that count as one when at least `threshold` of them count."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who made a note valid: its checkpoint, the log's signature, and the cosignatures.

    `cosignatures` maps the policy name of every witness that cosigned, in the policy's order, to
    its latest verified cosignature.
    """

    checkpoint: Checkpoint
    log: VerifiedSignature
    cosignatures: Mapping[str, VerifiedSignature]


@dataclass(frozen=True, slots=True)
class Policy:
    """Which logs are accepted, which witnesses are known, and which of them must have cosigned.

    `quorum` is the name of a witness or group, or "none". Several logs may share an origin, each
    operator of one log having its own key; no two logs and no two witnesses share a key.

    Raises: DecodeError: a rule of the format is broken.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def __post_init__(self) -> None:
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > ENTRIES_MAX:
            raise DecodeError(f"policy has more than {ENTRIES_MAX} logs, witnesses or groups")
        _check_keys("log", [log.key for log in self.logs])
        _check_keys("witness", [witness.key for witness in self.witnesses])
        for witness in self.witnesses:
            if witness.key.type not in _WITNESS_TYPES:
                raise DecodeError(f"witness {witness.name!r} needs a cosignature key (type 4 or 6)")
        urls = [log.url for log in self.logs] + [witness.url for witness in self.witnesses]
        for url in filter(None, urls):
            _check_token(url, "URL")
        names = _Names()
        for witness in self.witnesses:
            names.define(witness.name)
        for group in self.groups:
            names.define_group(group)
        names.check_quorum(self.quorum)

    @classmethod
    def of_log(cls, *keys: VerifierKey) -> Policy:
        """Return the policy that accepts any of these log keys and asks for no cosignature."""
        return cls(tuple(Log(key) for key in keys), (), (), QUORUM_NONE)

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy file.

        Raises: DecodeError: longer than 1,000,000 bytes; a last line without newline (a file cut
        off there could mean something else); a line that breaks a rule, with its number.
        """
        if len(data) > POLICY_BYTES_MAX:
            raise DecodeError(f"policy is longer than {POLICY_BYTES_MAX} bytes")
        if not data.endswith(b"\n"):
            raise DecodeError("policy must end in a newline: is the file complete?")
        reader = _Reader()
        # Octets above 0x7F are opaque to the format; surrogateescape carries them through unread.
        for number, line in enumerate(data.decode("utf-8", "surrogateescape")[:-1].split("\n"), 1):
            try:
                reader.read(line)
            except DecodeError as error:
                raise DecodeError(f"policy line {number}: {error}") from error
        if reader.quorum is None:
            raise DecodeError("policy has no quorum line")
        return cls(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)

    def encode(self) -> bytes:
        """Return the policy as text: logs, witnesses, groups, quorum, one a line."""
        lines = [["log", log.key.vkey, log.url] for log in self.logs]
        lines += [["witness", entry.name, entry.key.vkey, entry.url] for entry in self.witnesses]
        lines += [
            ["group", entry.name, str(entry.threshold), *entry.members] for entry in self.groups
        ]
        lines += [["quorum", self.quorum]]
        text = "".join(" ".join(filter(None, words)) + "\n" for words in lines)
        return text.encode("utf-8", "surrogateescape")

    def check(self, note: Note) -> Quorum:
        """Judge a signed checkpoint.

        Returns: who counted, and the checkpoint, which may be trusted from here on.

        Raises: DecodeError: the note's text is no checkpoint. VerificationError: a signature of a
        known key does not verify, no listed log of this origin signed, or the quorum is not met:
        the message names the groups that lack members, and the members.
        """
        checkpoint = Checkpoint.parse(note.text)
        witness_keys = [witness.key for witness in self.witnesses]
        signatures = note.verified_by([log.key for log in self.logs] + witness_keys)
        log_keys = [log.key for log in self.logs if log.key.name == checkpoint.origin]
        log = next((signature for signature in signatures if signature.key in log_keys), None)
        if log is None:
            raise VerificationError(f"no known log of origin {checkpoint.origin!r} has signed")
        latest: dict[VerifierKey, VerifiedSignature] = {}
        for signature in sorted(signatures, key=lambda signature: signature.timestamp_s or 0):
            latest[signature.key] = signature
        counted = {w.name: latest[w.key] for w in self.witnesses if w.key in latest}
        self.check_quorum(counted)
        return Quorum(checkpoint, log, counted)

    def check_quorum(self, counted: Iterable[str]) -> None:
        """Judge witnesses, given by their names in this policy, without a note.

        Raises: VerificationError: they do not make the quorum; the message names what is missing.
        """
        satisfied = dict.fromkeys(counted)
        for group in self.groups:  # members come before their group
            if sum(member in satisfied for member in group.members) >= group.threshold:
                satisfied[group.name] = None
        if self.quorum == QUORUM_NONE or self.quorum in satisfied:
            return
        groups = {group.name: group for group in self.groups}
        reasons, pending = [], [self.quorum]
        while pending:
            name = pending.pop()
            if name not in groups:
                continue
            group = groups[name]
            absent = [member for member in group.members if member not in satisfied]
            present = len(group.members) - len(absent)
            lacks = ", ".join(map(repr, absent))
            reasons.append(f"{name!r} has {present} of {group.threshold}, lacks {lacks}")
            pending.extend(reversed(absent))
        why = "; ".join(reasons) or "that witness has not cosigned"
        raise VerificationError(f"quorum {self.quorum!r} is not met: {why}")


class _Names:
    """The names that a policy has defined so far, and which of them are members of a group."""

    def __init__(self) -> None:
        self._is_member: dict[str, bool] = {}

    def define(self, name: str) -> None:
        """Take a new name. Raises: DecodeError: no token, or taken."""
        _check_token(name, "name")
        if name == QUORUM_NONE or name in self._is_member:
            raise DecodeError(f"name {name!r} is taken")
        self._is_member[name] = False

    def define_group(self, group: Group) -> None:
        """Take a group's name, its members known by then and members of nothing else. Raises: DecodeError: otherwise."""
        size = len(group.members)
        if not 1 <= group.threshold <= size:
            raise DecodeError(f"group {group.name!r} cannot ask for {group.threshold} of {size}")
        for member in group.members:
            if member not in self._is_member:
                raise DecodeError(f"member {member!r} of {group.name!r} is not defined before it")
            if self._is_member[member]:
                raise DecodeError(f"{member!r} is a member already; a name may be one only once")
            self._is_member[member] = True
        self.define(group.name)

    def check_quorum(self, name: str) -> None:
        """Accept "none" or a defined name. Raises: DecodeError: otherwise."""
        if name != QUORUM_NONE and name not in self._is_member:
            raise DecodeError(f"quorum {name!r} is not defined before it")


@dataclass(slots=True)
class _Reader:
    """What the lines of a policy file have defined so far."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    names: _Names = field(default_factory=_Names)

    def read(self, line: str) -> None:
        """Take one line without its newline."""
        if _NOT_IN_LINES.search(line):
            raise DecodeError("control characters other than tab are not allowed")
        words = line.replace("\t", " ").split(" ")
        match [word for word in words if word]:
            case []:
                return
            case [word, *_] if word.startswith("#"):
                return
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(Log(VerifierKey.parse(vkey), *url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self.names.define(name)
                self.witnesses.append(Witness(name, VerifierKey.parse(vkey), *url))
            case ["group", name, count, *members] if members:
                group = Group(name, _threshold(count, len(members)), tuple(members))
                self.names.define_group(group)
                self.groups.append(group)
            case ["quorum", name]:
                if self.quorum is not None:
                    raise DecodeError("there is a quorum line already")
                self.names.check_quorum(name)
                self.quorum = name
            case _:
                raise DecodeError(
                    "expected log VKEY [URL], witness NAME VKEY [URL], "
                    "group NAME all|any|K MEMBER..., or quorum NAME"
                )


def _threshold(count: str, size: int) -> int:
    if count == "all":
        return size
    return 1 if count == "any" else decode_decimal(count, "threshold")


def _check_token(token: str, what: str) -> None:
    if not token or _NOT_IN_TOKENS.search(token):
        raise DecodeError(f"{what} {token!r} must be non-empty, without spaces and controls")


def _check_keys(what: str, keys: Iterable[VerifierKey]) -> None:
    """Raise DecodeError when two keys wrap the same public key, whatever their names and types."""
    names: dict[bytes, str] = {}
    for key in keys:
        if key.public_key in names:
            raise DecodeError(
                f"{what} keys named {names[key.public_key]!r} and {key.name!r} are the same key"
            )
        names[key.public_key] = key.name
