"""What an operator should know before starting a node, or when one behaves oddly.

Lives here: checks of a node's files, certificate, keys, clock, disk and libraries. May not live
here: printing (cli), the database itself (store and `audit fsck`): what is known of it is passed
in.

Invariants: a check that fails is a finding, never an exception; nothing is changed, but for a file
that `fsync` writes, measures and removes; no finding shows secret bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata

from clearing.errors import ClearingError
from clearing.log.policy import Policy
from node.config import NodeConfig
from node.errors import SetupError
from node.files import read_private, read_public
from node.keys import KeyFile, Passphrase, Secret, SigningKey
from node.pki import load_certificate
from node.sequencer.cometbft import binary
from node.sequencer.cometbft.home import block_zero_of, read_keys

EXPIRY_WARNING_DAYS = 30
"""A certificate's end is announced this long before, or a third of its life, whichever is later."""

CLOCK_TOLERANCE_MS = 1_000
"""How far the clock may be behind the last block."""

FSYNC_WRITES = 16
FSYNC_MS_MAX = 50.0
"""Median above which a node is too slow for its promises: submitted to final in 500 ms takes
several in a row."""

MAP_PERCENT_MAX = 90
"""Use of the map above which it will grow soon."""

DISTRIBUTION = "clearing-ledger"
_REQUIREMENT = re.compile(r"(?P<name>[-._A-Za-z0-9]+)(?P<bound>>=[0-9.]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result: stable name, whether it passed, what was seen and what to do."""

    name: str
    ok: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What is known of a node's database: time of the last block, use and size of the map."""

    last_block_time_ms: int
    map_used_bytes: int
    map_size_bytes: int


@dataclass(frozen=True, slots=True)
class StoreUnread:
    """Why nothing is known of a node's database, in a sentence, and whether that is as it should be."""

    ok: bool
    sentence: str


NO_STORE = StoreUnread(ok=True, sentence="no database yet")


def examine(
    config: NodeConfig,
    now: datetime,
    store: StoreFacts | StoreUnread = NO_STORE,
    passphrase: Passphrase | None = None,
) -> list[Finding]:
    """Check a node's directory and machine, in a second or two.

    `now` is the machine's time, with zone; `store` says what is known of the database, or why nothing is;
    `passphrase` opens the keys where the configuration names no key file.
    Returns: one finding a check, always the same checks in the same order.
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("private_files", lambda: _private_files(config)),
        ("data_directory", lambda: _data_directory(config)),
        ("certificate", lambda: _certificate(config, now)),
        ("certificate_expiry", lambda: _certificate_expiry(config, now)),
        ("signing_keys", lambda: _signing_keys(config, passphrase)),
        ("consensus_engine", lambda: _consensus_engine(config)),
        ("clock", lambda: _clock(now, store)),
        ("disk_free", lambda: _disk_free(config)),
        ("map_use", lambda: _map_use(config, store)),
        ("fsync", lambda: _fsync(config)),
        ("python", _python),
        ("libraries", _libraries),
    )
    return [_finding(name, check) for name, check in checks]


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, sentence=check())
    except ClearingError as error:
        return Finding(name, ok=False, sentence=str(error))
    except OSError as error:
        # An open file that fails names no path: the disk behind it does.
        if error.filename is None:
            sentence = (
                f"reading or writing failed: {error.strerror}; check space and health of the disk"
            )
        else:
            sentence = f"{error.filename}: {error.strerror}; check the path and its rights"
        return Finding(name, ok=False, sentence=sentence)


def _private_files(config: NodeConfig) -> str:
    paths = [
        config.tls_key_path,
        config.signing_key_path,
        config.log_key_path,
        config.instruction_key_path,
        config.bitcoin_key_path,
        config.key_file_path,
    ]
    present = [path for path in paths if path is not None]
    for path in present:
        read_private(path)
    return f"{len(present)} private files are reached by their owner alone"


def _data_directory(config: NodeConfig) -> str:
    path = config.data_dir
    if not path.is_dir():
        raise SetupError(f"{path} is no directory: run `clearing node init`, or mount the disk")
    mode = path.stat().st_mode & 0o777
    # The bodies in it are not public.
    if mode & 0o077:
        raise SetupError(
            f"{path} has mode {mode:04o}, so others than its owner reach it: run chmod 700 {path}"
        )
    return f"{path} is reached by its owner alone"


def _consensus_engine(config: NodeConfig) -> str:
    home = config.consensus_dir
    if home is None:
        return "this node is no operator and needs no consensus engine"
    keys = read_keys(home)
    network_id = block_zero_of(home).delta.network_id
    program = binary.find(config.cometbft_path)
    if program is None:
        raise SetupError(
            f"{binary.NAME} {binary.VERSION} is not on PATH: install it, or have `clearing node run` build it with Go"
        )
    return f"{program} is {binary.VERSION}; node id {keys.node_id}, network {network_id.hex()[:16]}"


def _certificate(config: NodeConfig, now: datetime) -> str:
    config.tls.check(now)
    shown = config.tls.identity()
    if shown != config.identity:
        raise SetupError(
            f"{config.tls_certificate_path} names {shown.uri}, the configuration {config.identity.uri}: make them agree"
        )
    return f"the certificate holds and names {shown.uri}"


def _certificate_expiry(config: NodeConfig, now: datetime) -> str:
    certificate = load_certificate(config.tls_certificate_path)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    warning = min(timedelta(days=EXPIRY_WARNING_DAYS), (end - start) / 3)
    told = f"the certificate ends on {end:%Y-%m-%d %H:%M} UTC, in {(end - now).days} days"
    if end - now < warning:
        raise SetupError(f"{told}: have a new one issued and put it in place")
    return told


def _signing_keys(config: NodeConfig, passphrase: Passphrase | None) -> str:
    secret: Secret | None = (
        passphrase if config.key_file_path is None else KeyFile(config.key_file_path)
    )
    if secret is None:
        raise SetupError(
            "the keys are sealed by a passphrase and none was given: give it to have them checked"
        )
    policy = Policy.parse(read_public(config.policy_path))
    cosigner = SigningKey.load(config.signing_key_path, secret)
    # A cosignature that the policy does not know counts for nothing.
    if cosigner.public_key not in {witness.key.public_key for witness in policy.witnesses}:
        raise SetupError(
            f"{config.signing_key_path} is no witness of {config.policy_path}: use the network's policy"
        )
    for path in (config.instruction_key_path, config.bitcoin_key_path):
        if path is not None:
            SigningKey.load(path, secret)
    if config.log_key_path is None:
        return "the signing key opens and is a witness of the policy"
    log = SigningKey.load(config.log_key_path, secret)
    if log.public_key not in {known.key.public_key for known in policy.logs}:
        raise SetupError(
            f"{config.log_key_path} is not the log of {config.policy_path}: use the network's policy"
        )
    return "the signing keys open and are a witness and the log of the policy"


def _clock(now: datetime, store: StoreFacts | StoreUnread) -> str:
    if isinstance(store, StoreUnread):
        return (
            f"the clock says {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC; no block to compare with"
        )
    ahead_ms = (now - datetime.fromtimestamp(0, UTC)) // timedelta(
        milliseconds=1
    ) - store.last_block_time_ms
    # Block time never goes back: the next block would have to wait for the clock.
    if ahead_ms < -CLOCK_TOLERANCE_MS:
        raise SetupError(
            f"the clock is {-ahead_ms // 1000} s behind the last block: set it, and check the time service"
        )
    return f"the clock is {max(ahead_ms, 0) // 1000} s after the last block"


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"


def _disk_free(config: NodeConfig) -> str:
    free = shutil.disk_usage(config.data_dir).free
    told = f"{_mib(free)} free, {_mib(config.free_disk_bytes_min)} are kept in reserve"
    # From here on new entries are refused.
    if free < config.free_disk_bytes_min:
        raise SetupError(
            f"{told}: free space on the disk of {config.data_dir}, or move it to a larger one"
        )
    return told


def _map_use(config: NodeConfig, store: StoreFacts | StoreUnread) -> str:
    if isinstance(store, StoreUnread):
        if not store.ok:
            raise SetupError(store.sentence)
        return store.sentence
    percent = store.map_used_bytes * 100 // max(store.map_size_bytes, 1)
    told = f"{percent} % of a map of {_mib(store.map_size_bytes)} is used"
    # The map grows by itself as long as the disk can hold what is used once more.
    free = shutil.disk_usage(config.data_dir).free
    if percent > MAP_PERCENT_MAX and free < store.map_used_bytes + config.free_disk_bytes_min:
        raise SetupError(
            f"{told} and the disk has {_mib(free)} free: move {config.data_dir} to a larger disk"
        )
    return f"{told}; it grows by itself"


def _fsync(config: NodeConfig) -> str:
    """Measure what one durable write of 4 KiB costs on the disk of the data directory."""
    took_ms = []
    with tempfile.NamedTemporaryFile(dir=config.data_dir, prefix=".doctor.") as file:
        for _ in range(FSYNC_WRITES):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - started) * 1000)
    median = statistics.median(took_ms)
    told = f"fsync of 4 KiB takes {median:.2f} ms (median of {FSYNC_WRITES}; {max(took_ms):.2f} ms at most)"
    if median > FSYNC_MS_MAX:
        raise SetupError(
            f"{told}: the disk is too slow to acknowledge submissions in time; use a local SSD"
        )
    return told


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise SetupError(
            f"{DISTRIBUTION} is not installed, so nothing says what it needs: run `make install`"
        ) from error


def _python() -> str:
    required = _distribution().metadata["Requires-Python"]
    version = ".".join(str(part) for part in sys.version_info[:3])
    if not _satisfies(version, required):
        raise SetupError(
            f"Python {version} runs, {required} is required: make the environment with a newer one"
        )
    return f"Python {version}, {required} is required"


def _libraries() -> str:
    """Compare what is installed with what this distribution asks for."""
    told = []
    for requirement in _distribution().requires or ():
        match = _REQUIREMENT.fullmatch(requirement)
        # Only plain lower bounds are compared: what has a condition may rightly be absent here.
        if match is None:
            continue
        try:
            version = metadata.version(match["name"])
        except metadata.PackageNotFoundError:
            version = "none"
        if not _satisfies(version, match["bound"]):
            raise SetupError(
                f"{match['name']} {version} is installed, {match['bound']} is required: run `make install`"
            )
        told.append(f"{match['name']} {version}")
    return ", ".join(told)


def _satisfies(version: str, bound: str) -> bool:
    """Return whether the numbers of `version` are at least those of `bound`, ">=1.2.3"."""
    return _numbers(version) >= _numbers(bound.removeprefix(">="))


def _numbers(version: str) -> list[int]:
    """Return the leading numbers of a version, without zeros at the end: 15.0 is 15."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
