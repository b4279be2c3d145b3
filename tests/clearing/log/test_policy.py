"""Policies: the format's rules, and quorums judged against counting done naively."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import SignatureType, VerifierKey
from clearing.log.note import Note, Signature, sign
from clearing.log.policy import ENTRIES_MAX, Group, Log, Policy, Witness
from tests.clearing.log.support import (
    GOLDEN,
    SeedSigner,
    log_signer,
    pq_witness_signer,
    witness_signer,
)

LOG = log_signer()
OTHER_OPERATOR = log_signer(b"\x77" * 32)
WITNESSES = [witness_signer(number) for number in range(1, 7)]
TEXT = Checkpoint(LOG.key.name, 3, bytes(range(32))).text
LOG_LINE = sign(TEXT, LOG)
COSIGNATURES = [sign(TEXT, witness, 1700000000) for witness in WITNESSES]
W = [witness.key.vkey for witness in WITNESSES]

EXAMPLE = f"""
# the example of C2SP tlog-policy, with keys
log {LOG.key.vkey}

witness X1 {W[0]}
witness X2 {W[1]} https://x2.example/
\twitness  X3\t{W[2]}
group X-witnesses 2 X1 X2 X3

witness Y1 {W[3]}
witness Y2 {W[4]}
witness Y3 {W[5]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
""".encode()


def note_of(*numbers: int) -> Note:
    """The checkpoint signed by the log and by these witnesses, counted from 0."""
    return Note(TEXT, (LOG_LINE, *(COSIGNATURES[number] for number in numbers)))


def vkey(number: int) -> str:
    """A vkey of its own that nobody can sign for."""
    key_type = SignatureType.COSIGNATURE_ED25519
    return VerifierKey(f"w{number}", key_type, number.to_bytes(32, "big")).vkey


def test_the_example_of_the_specification_is_read():
    policy = Policy.parse(EXAMPLE)
    assert [log.key for log in policy.logs] == [LOG.key]
    assert [witness.name for witness in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert policy.witnesses[1].url == "https://x2.example/"
    assert [(group.name, group.threshold) for group in policy.groups] == [
        ("X-witnesses", 2),
        ("Y-witnesses", 1),
        ("X-and-Y", 2),
    ]
    assert policy.quorum == "X-and-Y"
    assert Policy.parse(policy.encode()) == policy


@pytest.mark.parametrize("numbers", [(0, 1, 3), (1, 2, 4), (0, 1, 2, 3, 4, 5), (5, 2, 0)])
def test_a_quorum_of_the_example_is_accepted(numbers):
    quorum = Policy.parse(EXAMPLE).check(note_of(*numbers))
    assert quorum.checkpoint.size == 3
    assert quorum.log.key == LOG.key
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert list(quorum.cosignatures) == [names[number] for number in sorted(numbers)]
    assert {cosignature.timestamp_s for cosignature in quorum.cosignatures.values()} == {1700000000}


@pytest.mark.parametrize(
    ("numbers", "lacking"),
    [
        (
            (0, 1),
            [
                "'X-and-Y' has 1 of 2, lacks 'Y-witnesses'",
                "'Y-witnesses' has 0 of 1, lacks 'Y1', 'Y2', 'Y3'",
            ],
        ),
        ((0, 3, 4, 5), ["'X-witnesses' has 1 of 2, lacks 'X2', 'X3'"]),
        (
            (),
            [
                "lacks 'X-witnesses', 'Y-witnesses'",
                "'X-witnesses' has 0 of 2",
                "'Y-witnesses' has 0 of 1",
            ],
        ),
    ],
)
def test_what_lacks_is_named(numbers, lacking):
    with pytest.raises(VerificationError) as caught:
        Policy.parse(EXAMPLE).check(note_of(*numbers))
    for text in lacking:
        assert text in str(caught.value)


def test_a_quorum_may_be_one_witness_or_none():
    one = f"log {LOG.key.vkey}\nwitness a {W[0]}\nwitness b {W[1]}\n"
    Policy.parse(f"{one}quorum a\n".encode()).check(note_of(0))
    with pytest.raises(VerificationError, match="that witness has not cosigned"):
        Policy.parse(f"{one}quorum a\n".encode()).check(note_of(1))
    assert list(Policy.parse(f"{one}quorum none\n".encode()).check(note_of()).cosignatures) == []


def test_the_golden_note_meets_its_policy():
    text = f"log {GOLDEN['log_vkey']}\nwitness w1 {GOLDEN['witness_vkey']}\nquorum w1\n"
    quorum = Policy.parse(text.encode()).check(Note.parse(GOLDEN["note"].encode()))
    assert quorum.cosignatures["w1"].timestamp_s == GOLDEN["timestamp_s"]


def test_several_operators_may_sign_under_one_origin():
    policy = Policy.of_log(LOG.key, OTHER_OPERATOR.key)
    for signer in (LOG, OTHER_OPERATOR):
        assert policy.check(Note(TEXT, (sign(TEXT, signer),))).log.key == signer.key
    both = Note(TEXT, (sign(TEXT, OTHER_OPERATOR), sign(TEXT, LOG)))
    assert policy.check(both).log.key == OTHER_OPERATOR.key
    with pytest.raises(VerificationError):
        Policy.of_log(OTHER_OPERATOR.key).check(Note(TEXT, (LOG_LINE,)))


def test_a_log_counts_under_its_own_origin_only():
    elsewhere = SeedSigner("other.example/log", SignatureType.ED25519, b"\x01" * 32)
    policy = Policy.of_log(LOG.key, elsewhere.key)
    with pytest.raises(VerificationError, match="no known log of origin"):
        policy.check(Note(TEXT, (sign(TEXT, elsewhere),)))


def test_without_a_log_signature_cosignatures_count_for_nothing():
    with pytest.raises(VerificationError, match="no known log of origin"):
        Policy.parse(EXAMPLE).check(Note(TEXT, tuple(COSIGNATURES)))


def test_one_bad_line_of_a_known_witness_rejects_the_note():
    bad = Signature(COSIGNATURES[5].name, COSIGNATURES[5].key_id, bytes(72))
    with pytest.raises(VerificationError, match="does not verify"):
        Policy.parse(EXAMPLE).check(note_of(0, 1, 3).with_signatures(bad))


def test_a_witness_counts_once_however_often_it_signs():
    policy = Policy.parse(EXAMPLE)
    again = [sign(TEXT, WITNESSES[0], time_s) for time_s in (9, 1700000007, 8)]
    with pytest.raises(VerificationError, match="'X-witnesses' has 1 of 2"):
        policy.check(note_of(0, 3).with_signatures(*again))
    quorum = policy.check(note_of(0, 1, 3).with_signatures(*again))
    assert quorum.cosignatures["X1"].timestamp_s == 1700000007


def test_ml_dsa_witnesses_count_like_others():
    witness = pq_witness_signer(1)
    text = f"log {LOG.key.vkey}\nwitness pq {witness.key.vkey}\nquorum pq\n"
    quorum = Policy.parse(text.encode()).check(Note(TEXT, (LOG_LINE, sign(TEXT, witness, 5))))
    assert quorum.cosignatures["pq"].key == witness.key


def test_a_note_that_is_no_checkpoint_is_malformed():
    with pytest.raises(DecodeError):
        Policy.of_log(LOG.key).check(Note("text\n", (sign("text\n", LOG),)))


def satisfied(policy: Policy, name: str, cosigned: set[str]) -> bool:
    """The definition of witnessing, written as the recursion it is."""
    for group in policy.groups:
        if group.name == name:
            count = sum(satisfied(policy, member, cosigned) for member in group.members)
            return count >= group.threshold
    return name in cosigned


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    count = draw(st.integers(1, 6))
    witnesses = [Witness(f"w{i}", WITNESSES[i].key) for i in range(count)]
    free = [witness.name for witness in witnesses]
    groups: list[Group] = []
    while free and draw(st.booleans()):
        members = tuple(draw(st.lists(st.sampled_from(free), min_size=1, unique=True)))
        group = Group(f"g{len(groups)}", draw(st.integers(1, len(members))), members)
        groups.append(group)
        free = [name for name in free if name not in members] + [group.name]
    names = [entry.name for entry in (*witnesses, *groups)]
    quorum = draw(st.sampled_from([*names, "none"]))
    return Policy((Log(LOG.key),), tuple(witnesses), tuple(groups), quorum)


@settings(max_examples=80)
@given(policies(), st.sets(st.integers(0, 5)))
def test_quorums_are_judged_as_defined_and_policies_round_trip(policy, numbers):
    assert Policy.parse(policy.encode()) == policy
    cosigned = {f"w{number}" for number in numbers}
    note = note_of(*sorted(numbers))
    if policy.quorum == "none" or satisfied(policy, policy.quorum, cosigned):
        counted = policy.check(note).cosignatures
        assert set(counted) == {w.name for w in policy.witnesses} & cosigned
    else:
        with pytest.raises(VerificationError, match=f"quorum '{policy.quorum}' is not met"):
            policy.check(note)


A, B = W[0], W[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "newline"),
        ("quorum none", "newline"),
        ("\n", "no quorum line"),
        (f"witness a {A}\n", "no quorum line"),
        ("quorum none\nquorum none\n", "line 2: there is a quorum line already"),
        ("quorum a\n", "line 1: quorum 'a' is not defined"),
        (f"quorum a\nwitness a {A}\n", "line 1: quorum 'a' is not defined"),
        ("quorum\n", "line 1: expected"),
        ("quorum none none\n", "line 1: expected"),
        ("Quorum none\n", "line 1: expected"),
        ("witness a\n", "line 1: expected"),
        (f"witness a {A} url more\n", "line 1: expected"),
        ("log\n", "line 1: expected"),
        (f"log {LOG.key.vkey} url more\n", "line 1: expected"),
        ("log rubbish\n", "line 1: verifier key"),
        (f"witness none {A}\nquorum none\n", "line 1: name 'none' is taken"),
        (f"witness a {A}\nwitness a {B}\nquorum a\n", "line 2: name 'a' is taken"),
        (f"witness a {A}\ngroup a any a\nquorum a\n", "line 2: name 'a' is taken"),
        (f"witness a {A}\nwitness b {A}\nquorum a\n", "the same key"),
        (f"witness a {LOG.key.vkey}\nquorum a\n", "cosignature key"),
        (f"log {LOG.key.vkey}\nlog {LOG.key.vkey}\nquorum none\n", "the same key"),
        (f"witness a {A}\ngroup g 0 a\nquorum g\n", "line 2: group 'g' cannot ask for 0 of 1"),
        (f"witness a {A}\ngroup g 2 a\nquorum g\n", "line 2: group 'g' cannot ask for 2 of 1"),
        (f"witness a {A}\ngroup g -1 a\nquorum g\n", "line 2: threshold"),
        (f"witness a {A}\ngroup g 01 a\nquorum g\n", "line 2: threshold"),
        (f"witness a {A}\ngroup g some a\nquorum g\n", "line 2: threshold"),
        ("group g any\nquorum g\n", "line 1: expected"),
        ("group g any g\nquorum g\n", "line 1: member 'g' of 'g' is not defined"),
        (f"group g any a\nwitness a {A}\nquorum g\n", "line 1: member 'a' of 'g' is not defined"),
        (f"witness a {A}\ngroup g any none\nquorum g\n", "line 2: member 'none'"),
        (f"witness a {A}\ngroup g any a a\nquorum g\n", "line 2: 'a' is a member already"),
        (
            f"witness a {A}\ngroup g any a\ngroup h any a\nquorum h\n",
            "line 3: 'a' is a member already",
        ),
        ("quorum none\r\n", "line 1: control characters"),
        ("# \x00\nquorum none\n", "line 1: control characters"),
        ("# \x7f\nquorum none\n", "line 1: control characters"),
    ],
)
def test_policies_that_break_a_rule_are_refused_with_line_and_reason(text, reason):
    with pytest.raises(DecodeError, match=reason):
        Policy.parse(text.encode())


def test_a_key_under_two_names_and_types_is_still_a_duplicate():
    other = VerifierKey("renamed", SignatureType.COSIGNATURE_ED25519, WITNESSES[0].key.public_key)
    text = f"witness a {A}\nwitness b {other.vkey}\nquorum none\n"
    with pytest.raises(DecodeError, match="the same key"):
        Policy.parse(text.encode())


def test_octets_above_127_are_opaque_and_kept():
    name = b"\xff\xe2\x84\xaa"
    data = b"witness " + name + b" " + A.encode() + b" h\xe9\nquorum " + name + b"\n"
    assert Policy.parse(b"# \x80\n" + data).encode() == data
    kelvin = f"witness \u212a {A}\nquorum K\n".encode()
    with pytest.raises(DecodeError, match="quorum 'K'"):
        Policy.parse(kelvin)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a\tb", "none"])
def test_names_that_a_line_cannot_carry_are_refused(name):
    with pytest.raises(DecodeError):
        Policy((), (Witness(name, WITNESSES[0].key),), (), "none")


@pytest.mark.parametrize("url", ["a b", "a\nquorum none"])
def test_urls_that_a_line_cannot_carry_are_refused(url):
    with pytest.raises(DecodeError):
        Policy((Log(LOG.key, url),), (), (), "none")


def test_policies_of_32_and_more_entries_are_taken_up_to_a_limit():
    for count in (32, ENTRIES_MAX):
        lines = [f"witness n{i} {vkey(i)}" for i in range(count)]
        names = " ".join(f"n{i}" for i in range(count))
        text = "\n".join([*lines, f"group g all {names}", "quorum g\n"])
        policy = Policy.parse(text.encode())
        assert policy.groups[0].threshold == count
    lines = [f"witness n{i} {vkey(i)}" for i in range(ENTRIES_MAX + 1)]
    with pytest.raises(DecodeError, match="more than"):
        Policy.parse("\n".join([*lines, "quorum none\n"]).encode())
    with pytest.raises(DecodeError, match="longer"):
        Policy.parse(b"#" * 1_000_001 + b"\n")


def test_names_that_could_upset_a_terminal_are_escaped_in_messages():
    name = b"\xff\xc2\x9b"
    data = b"log " + LOG.key.vkey.encode() + b"\nwitness " + name + b" " + A.encode() + b"\n"
    with pytest.raises(VerificationError) as caught:
        Policy.parse(data + b"group g all " + name + b"\nquorum g\n").check(note_of(1))
    assert str(caught.value).isascii()
    with pytest.raises(DecodeError) as refused:
        Policy.parse(data + b"quorum " + name + b"\xfe\n")
    assert str(refused.value).isascii()


def test_deep_nesting_needs_no_recursion():
    depth = ENTRIES_MAX
    lines = [f"log {LOG.key.vkey}", f"witness n {A}", "group g0 all n"]
    lines += [f"group g{i} all g{i - 1}" for i in range(1, depth)]
    policy = Policy.parse("\n".join([*lines, f"quorum g{depth - 1}\n"]).encode())
    policy.check(note_of(0))
    with pytest.raises(VerificationError, match="'g0' has 0 of 1, lacks 'n'"):
        policy.check(note_of(1))
