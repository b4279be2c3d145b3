"""LEI, DTI and CAIP: published identifiers pass, every single-character mistake and second spelling is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.identifiers import (
    CAIP19_LENGTH_MAX,
    DTI_ALPHABET,
    AssetType,
    ChainId,
    check_dti,
    check_lei,
    dti_check_character,
    make_lei,
    parse_caip2,
    parse_caip19,
)

# Registered LEIs; the first two do not hold "00" at positions 5 and 6.
# Source: reference/ecosystem.md 1.1 (stdnum.lei accepts them); the others are the GLEIF foundation's own LEI and
# the example of ISO 17442 as quoted by gleif.org.
LEIS = (
    "7ZW8QJWVPR4P1S5PX088",
    "7H6GLXDRUGQFU57RNE97",
    "506700GE1G29325QX363",
    "5493001KJTIIGC8Y1R12",
)
# Source: reference/ecosystem.md 1.2 (svyatov/sec_id@72ba122 and hexdocs.pm/digital_token).
DTIS = ("X9J9K872S", "D5RG2FHH0", "HWRGLMT9T")
BITCOIN = "bip122:000000000019d6689c085ae165831e93"
USDT = "0xdac17f958d2ee523a2206206994597c13d831ec7"

LEI_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
bases = st.text(LEI_CHARACTERS, min_size=18, max_size=18)
dti_bases = st.text(DTI_ALPHABET, min_size=8, max_size=8).filter(lambda base: base[0] != "0")


def naive_mod_97(text: str) -> int:
    """Return the remainder of ISO 7064 MOD 97-10, digit by digit as on paper."""
    remainder = 0
    for character in text:
        for digit in str(LEI_CHARACTERS.index(character)):
            remainder = (remainder * 10 + int(digit)) % 97
    return remainder


@pytest.mark.parametrize("lei", LEIS)
def test_registered_leis_pass_and_are_remade_from_their_base(lei: str) -> None:
    check_lei(lei)
    assert make_lei(lei[:18]) == lei


@given(bases)
def test_made_lei_has_remainder_one(base: str) -> None:
    lei = make_lei(base)
    check_lei(lei)
    assert naive_mod_97(lei) == 1


@given(bases, st.integers(0, 19), st.sampled_from(LEI_CHARACTERS))
def test_lei_with_one_other_character_is_refused(base: str, position: int, other: str) -> None:
    """A digit for a digit or a letter for a letter; across the two the code promises less (1B and B1 read alike)."""
    lei = make_lei(base)
    changed = lei[:position] + other + lei[position + 1 :]
    if changed != lei and other.isdigit() == lei[position].isdigit():
        with pytest.raises(DecodeError):
            check_lei(changed)


@given(bases, st.integers(0, 18))
def test_lei_with_two_neighbours_swapped_is_refused(base: str, position: int) -> None:
    lei = make_lei(base)
    swapped = lei[:position] + lei[position + 1] + lei[position] + lei[position + 2 :]
    if swapped != lei and lei[position].isdigit() == lei[position + 1].isdigit():
        with pytest.raises(DecodeError):
            check_lei(swapped)


def test_lei_check_digits_have_one_spelling() -> None:
    """00, 01 and 99 leave the same remainder as 97, 98 and 02 and are refused."""
    seen = set()
    for number in range(2000):
        lei = make_lei(f"{number:018d}")
        for twin in ("00", "01", "99"):
            if naive_mod_97(lei[:18] + twin) == 1:
                seen.add(twin)
                with pytest.raises(DecodeError, match="check digits"):
                    check_lei(lei[:18] + twin)
    assert seen == {"00", "01", "99"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        LEIS[0][:19],
        LEIS[0] + "0",
        LEIS[0] + "\n",
        " " + LEIS[0][1:],
        LEIS[0].lower(),
        LEIS[0][:18] + "8A",
        LEIS[0][:18] + "\u0668\u0668",
        "\u0667" + LEIS[0][1:],
        "7" * 100_000,
    ],
)
def test_malformed_lei_is_refused_with_a_short_sentence(text: str) -> None:
    with pytest.raises(DecodeError, match="an LEI is 18 characters") as caught:
        check_lei(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("base", ["", "A" * 17, "A" * 19, "a" * 18, "A" * 17 + "\u0661"])
def test_make_lei_refuses_a_bad_base(base: str) -> None:
    with pytest.raises(DecodeError, match="starts with 18 characters"):
        make_lei(base)


@pytest.mark.parametrize("dti", DTIS)
def test_published_dtis_pass(dti: str) -> None:
    check_dti(dti)
    assert dti_check_character(dti[:8]) == dti[8]


def test_bitcoins_dti_passes_although_its_check_character_is_wrong() -> None:
    check_dti("4H95J0R2X")
    assert dti_check_character("4H95J0R2") == "T"


@given(dti_bases, st.integers(0, 8), st.sampled_from(DTI_ALPHABET))
def test_dti_with_one_other_character_is_refused(base: str, position: int, other: str) -> None:
    dti = base + dti_check_character(base)
    check_dti(dti)
    changed = dti[:position] + other + dti[position + 1 :]
    if changed not in (dti, "4H95J0R2X"):
        with pytest.raises(DecodeError):
            check_dti(changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "X9J9K872",
        "X9J9K872SS",
        "x9j9k872s",
        "09J9K872S",
        "A9J9K872S",
        "X9J9K872\n",
        "X" * 100_000,
    ],
)
def test_malformed_dti_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        check_dti(text)


@pytest.mark.parametrize(
    "text",
    [
        BITCOIN,
        "eip155:1",
        "cosmos:cosmoshub-3",
        "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
        "hedera:mainnet",
    ],
)
def test_chains_pass_unchanged(text: str) -> None:
    assert str(parse_caip2(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eip155",
        "eip155:",
        ":1",
        "EIP155:1",
        "eip155:01",
        "eip155:0x1",
        "eip155:1:2",
        "eip155:1\n",
        "ei:1",
        "ninechars:1",
        "bip122:000000000019D6689C085AE165831E93",
        "bip122:000000000019d6689c085ae165831e9",
        "cosmos:" + "a" * 33,
    ],
)
def test_malformed_chains_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        parse_caip2(text)


@pytest.mark.parametrize(
    "text",
    [
        BITCOIN + "/slip44:0",
        "eip155:1/slip44:60",
        "eip155:1/erc20:" + USDT,
        "cosmos:cosmoshub-3/slip44:118",
        "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/token:EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "cosmos:osmosis-1/ics20:ibc%2F27394FB092D2ECCD56123C74F36E4C1F926001CEADA9CA97EA622B25F41E5EB2",
        "a-b-c-d-:" + "Z" * 32 + "/12345678:" + "a" * 128,
    ],
)
def test_assets_pass_unchanged(text: str) -> None:
    assert str(parse_caip19(text)) == text
    assert len(text) <= CAIP19_LENGTH_MAX


def test_parts_are_named() -> None:
    assert parse_caip19("eip155:1/slip44:60") == AssetType(ChainId("eip155", "1"), "slip44", "60")


@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_evm_addresses_have_one_spelling(capitals: list[bool]) -> None:
    digits = "".join(c.upper() if up else c for c, up in zip(USDT[2:], capitals, strict=True))
    assert str(parse_caip19("eip155:1/erc20:0x" + digits)) == "eip155:1/erc20:" + USDT


def test_capitals_elsewhere_are_kept() -> None:
    """Outside eip155 an address may be case-sensitive: lowering it would name another asset."""
    text = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp/erc20:" + USDT.upper()
    assert str(parse_caip19(text)) == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "chain/namespace:reference"),
        ("eip155:1", "chain/namespace:reference"),
        ("eip155:1/", "namespace:reference"),
        ("eip155:1/slip44", "namespace:reference"),
        ("eip155:1/slip44:", "namespace:reference"),
        ("eip155:1/slip44:060", "without leading zeros"),
        ("eip155:1/slip44:60\n", "namespace:reference"),
        ("eip155:1/SLIP44:60", "namespace:reference"),
        ("eip155:1/erc20:" + USDT[:-1], "40 hex digits"),
        ("eip155:1/erc20:0X" + USDT[2:], "40 hex digits"),
        ("eip155:1/erc20:" + USDT[:-1] + "g", "40 hex digits"),
        ("eip155:1/erc721:" + USDT + "/7", "token number"),
        ("cosmos:osmosis-1/ics20:ibc%2f27", "upper-case hex"),
        ("cosmos:osmosis-1/ics20:ibc%", "upper-case hex"),
        ("cosmos:osmosis-1/ics20:ibc%2", "upper-case hex"),
        ("cosmos:osmosis-1/ics20:%69bc", "write i instead of %69"),
        ("cosmos:osmosis-1/ics20:%%41", "upper-case hex"),
        ("eip155:1/erc20:" + "0" * 100_000, "at most 179"),
    ],
)
def test_malformed_assets_are_refused_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(DecodeError, match=remedy) as caught:
        parse_caip19(text)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_and_canonical_text_is_a_fixed_point(text: str) -> None:
    try:
        canonical = str(parse_caip19(text))
    except DecodeError:
        return
    assert str(parse_caip19(canonical)) == canonical
