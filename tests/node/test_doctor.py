"""Doctor names what is wrong with a node's directory, one fault at a time, and never fails itself."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

from clearing.log.policy import Group, Log, Policy, Witness
from node.config import NodeConfig, ReplicaRole
from node.doctor import NO_STORE, Finding, StoreFacts, StoreUnread, examine
from node.keys import CosignerSigner, LogSigner, Passphrase, SigningKey, create_key_file
from node.pki import Authority, Validity

NETWORK = "clearing.example"
NOW = datetime.now(UTC)
NOW_MS = NOW.timestamp() * 1000 // 1
CHECKS = [
    "private_files", "data_directory", "certificate", "certificate_expiry", "signing_keys", "consensus_engine",
    "clock", "disk_free", "map_use", "fsync", "python", "libraries",
]  # fmt: skip


def valid_for(days: int) -> Validity:
    return Validity(NOW - timedelta(minutes=5), NOW + timedelta(days=days))


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    """A leader's directory, complete and sound."""
    here = tmp_path / "node"
    here.mkdir()
    (here / "data").mkdir(mode=0o700)
    secret = create_key_file(here / "seal.key")
    config = NodeConfig(
        network=NETWORK,
        node_name="central-bank",
        role=ReplicaRole.LEADER,
        data_dir=here / "data",
        tls_authority_path=here / "ca.pem",
        tls_certificate_path=here / "cert.pem",
        tls_key_path=here / "key.pem",
        signing_key_path=here / "signing.key",
        log_key_path=here / "log.key",
        key_file_path=secret.path,
        policy_path=here / "policy",
    )
    # counted from NOW: this runs long after the module was read
    authority = Authority.create(here, NETWORK, valid_for(1000))
    authority.issue(config.identity, valid_for(365)).write(here)
    log = LogSigner(SigningKey.create(here / "log.key", secret), f"{NETWORK}/log")
    cosigner = CosignerSigner(SigningKey.create(here / "signing.key", secret), f"{NETWORK}/node/a")
    policy = Policy((Log(log.key),), (Witness("a", cosigner.key),), (Group("q", 1, ("a",)),), "q")
    (here / "policy").write_bytes(policy.encode())
    return config


def found(
    config: NodeConfig,
    now: datetime = NOW,
    store: StoreFacts | StoreUnread = NO_STORE,
    passphrase: Passphrase | None = None,
) -> dict[str, Finding]:
    """Return the findings by name, having checked that all checks were made."""
    findings = examine(config, now, store, passphrase)
    assert [finding.name for finding in findings] == CHECKS
    assert all(finding.sentence for finding in findings)
    return {finding.name: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if not finding.ok]


def facts(behind_s: int = 0, used: int = 100 << 20, size: int = 1 << 30) -> StoreFacts:
    return StoreFacts(int(NOW_MS) + behind_s * 1000, used, size)


def test_sound_node_has_no_complaints(config: NodeConfig) -> None:
    for store in (NO_STORE, facts()):
        findings = found(config, store=store)
        # Whether this machine's disk is fast enough is not what is tested.
        assert [name for name in failed(findings) if name != "fsync"] == []
    assert "fsync of 4 KiB takes" in findings["fsync"].sentence
    assert "9 % of a map of 1,024 MiB" in findings["map_use"].sentence
    assert list(config.data_dir.iterdir()) == []
    assert f"grpcio {metadata.version('grpcio')}" in findings["libraries"].sentence


def test_a_full_disk_is_said_without_a_path(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    finding = found(config)["fsync"]
    assert not finding.ok
    assert "None" not in finding.sentence
    assert "No space left on device; check space" in finding.sentence


def reachable(name: str) -> Callable[[Path], None]:
    return lambda here: (here / name).chmod(0o640)


def missing(name: str) -> Callable[[Path], None]:
    return lambda here: (here / name).unlink()


def junk(name: str) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        (here / name).write_bytes(b"junk")

    return spoil


def another_key(name: str) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        (here / name).unlink()
        SigningKey.create(here / name, create_key_file(here / "other.key"))
        (here / "other.key").replace(here / "seal.key")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "names", "sentence"),
    [
        (reachable("key.pem"), ["private_files", "certificate"], "key.pem has mode 0640"),
        (reachable("signing.key"), ["private_files", "signing_keys"], "signing.key has mode 0640"),
        (reachable("log.key"), ["private_files", "signing_keys"], "log.key has mode 0640"),
        (reachable("seal.key"), ["private_files", "signing_keys"], "seal.key has mode 0640"),
        (missing("log.key"), ["private_files", "signing_keys"], "log.key does not exist"),
        (missing("policy"), ["signing_keys"], "policy does not exist"),
        (missing("cert.pem"), ["certificate", "certificate_expiry"], "cert.pem does not exist"),
        (missing("ca.pem"), ["certificate"], "ca.pem does not exist"),
        (junk("policy"), ["signing_keys"], ""),
        (junk("cert.pem"), ["certificate", "certificate_expiry"], "no certificate in PEM"),
        (junk("signing.key"), ["signing_keys"], "is not a sealed key"),
        (another_key("signing.key"), ["signing_keys"], "is no witness of"),
        (lambda here: (here / "data").chmod(0o755), ["data_directory"], "data has mode 0755"),
        (
            lambda here: shutil.rmtree(here / "data"),
            ["data_directory", "disk_free", "fsync"],
            "data is no directory",
        ),
    ],
)
def test_each_fault_is_found(
    config: NodeConfig, spoil: Callable[[Path], None], names: list[str], sentence: str
) -> None:
    spoil(config.policy_path.parent)
    findings = found(config)
    assert [name for name in failed(findings) if name in names or name != "fsync"] == names
    assert sentence in findings[names[0]].sentence


def test_certificate_is_judged_at_the_given_time(config: NodeConfig) -> None:
    assert found(config)["certificate_expiry"].sentence.endswith("days")
    soon = found(config, NOW + timedelta(days=340))
    assert soon["certificate"].ok
    assert not soon["certificate_expiry"].ok
    assert "have a new one issued" in soon["certificate_expiry"].sentence
    late = found(config, NOW + timedelta(days=366))
    assert "expired on" in late["certificate"].sentence
    early = found(config, NOW - timedelta(days=1))
    assert "set the clock" in early["certificate"].sentence


def test_short_lived_certificate_is_fine_for_two_thirds_of_its_life(config: NodeConfig) -> None:
    here = config.policy_path.parent
    (here / "cert.pem").unlink()
    (here / "key.pem").unlink()
    Authority.load(here).issue(config.identity, Validity.days_from_now(9)).write(here)
    assert found(config, NOW + timedelta(days=5))["certificate_expiry"].ok
    assert not found(config, NOW + timedelta(days=7))["certificate_expiry"].ok


def test_certificate_of_another_node_is_found(config: NodeConfig) -> None:
    other = dataclasses.replace(config, node_name="ministry")
    findings = found(other)
    assert not findings["certificate"].ok
    assert "spiffe://clearing.example/node/ministry" in findings["certificate"].sentence


def test_why_a_database_is_not_read_is_told(config: NodeConfig) -> None:
    open_elsewhere = StoreUnread(ok=True, sentence="a running process has the database open")
    findings = found(config, store=open_elsewhere)
    assert findings["map_use"].ok
    assert findings["map_use"].sentence == open_elsewhere.sentence
    damaged = found(config, store=StoreUnread(ok=False, sentence="the file ends too early"))
    assert "map_use" in failed(damaged)
    assert damaged["map_use"].sentence == "the file ends too early"


def test_clock_behind_the_last_block_is_found(config: NodeConfig) -> None:
    assert found(config, store=facts(behind_s=0))["clock"].ok
    assert (
        found(config, store=facts(behind_s=-3600))["clock"].sentence
        == "the clock is 3600 s after the last block"
    )
    behind = found(config, store=facts(behind_s=120))["clock"]
    assert not behind.ok
    assert "behind the last block" in behind.sentence


def test_disk_below_the_reserve_is_found(config: NodeConfig) -> None:
    free = shutil.disk_usage(config.data_dir).free
    greedy = dataclasses.replace(config, free_disk_bytes_min=min(64 << 40, free * 4))
    findings = found(greedy, store=facts(used=1 << 29))
    assert not findings["disk_free"].ok
    assert findings["map_use"].ok
    assert not found(greedy, store=facts(used=99 << 20, size=100 << 20))["map_use"].ok
    assert found(config, store=facts(used=99 << 20, size=100 << 20))["map_use"].ok


def test_keys_under_a_passphrase_need_it(config: NodeConfig) -> None:
    sealed = dataclasses.replace(config, key_file_path=None)
    findings = found(sealed)
    assert failed({"signing_keys": findings["signing_keys"]}) == ["signing_keys"]
    assert "none was given" in findings["signing_keys"].sentence
    wrong = found(sealed, passphrase=Passphrase("some passphrase"))["signing_keys"]
    assert "sealed by a key file" in wrong.sentence


def test_follower_has_no_log_key(config: NodeConfig) -> None:
    follower = dataclasses.replace(
        config, role=ReplicaRole.WITNESS, log_key_path=None, leader_endpoint="a:1", leader_name="b"
    )
    finding = found(follower)["signing_keys"]
    assert finding.ok
    assert finding.sentence == "the signing key opens and is a witness of the policy"


def test_old_library_is_found(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        return {"grpcio": "1.9.99", "lmdb": real(name)}.get(name, real(name))

    monkeypatch.setattr(metadata, "version", version)
    finding = found(config)["libraries"]
    assert not finding.ok
    assert finding.sentence.startswith("grpcio 1.9.99 is installed, >=1.")
