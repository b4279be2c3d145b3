"""Identifiers of parties and assets, each with one spelling: LEI, DTI, CAIP-2 and CAIP-19.

Lives here: grammar, check characters and canonical spelling. May not live here: which identifiers
are registered (rules/), how wide they are in a record (records/).

Invariant: two spellings of one party or asset never both pass, because they would become two
parties or two assets. Each refusal is a DecodeError whose sentence says what to write instead; the
text itself is shown at most 64 characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clearing.errors import DecodeError

LEI_LENGTH = 20
"""Characters of a legal entity identifier: 18 and two check digits."""

DTI_LENGTH = 9
"""Characters of a digital token identifier: 8 and one check character."""

DTI_ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXZ"
"""The 30 characters of a DTI, in order of value; no vowels, no Y."""

DTI_GRANDFATHERED = ("4H95J0R2X",)
"""DTIs issued with a check character that does not hold: Bitcoin's own.

Source: svyatov/sec_id@72ba122 lib/sec_id/dti.rb.
"""

CAIP19_LENGTH_MAX = 179
"""Greatest length of a CAIP-19 asset type: chain 8 + 1 + 32, slash, asset 8 + 1 + 128."""

_LEI_BASE = re.compile(r"[0-9A-Z]{18}")
_LEI_DIGITS = re.compile(r"[0-9]{2}")
_NAMESPACE = re.compile(r"[-a-z0-9]{3,8}")
_CHAIN_REFERENCE = re.compile(r"[-_a-zA-Z0-9]{1,32}")
_ASSET_REFERENCE = re.compile(r"[-.%a-zA-Z0-9]{1,128}")
_PERCENT = re.compile(r"%(.{0,2})")
_ESCAPE = re.compile(r"[0-9A-F]{2}")
_UNRESERVED = re.compile(r"[-.a-zA-Z0-9]")
_EVM_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_GENESIS_PREFIX = re.compile(r"[0-9a-f]{32}")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_EVM_TOKENS = ("erc20", "erc721", "erc1155")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


def make_lei(base: str) -> str:
    """Return the legal entity identifier of 18 characters `base`, its two check digits appended.

    The check digits are ISO 7064 MOD 97-10 over the base with letters A to Z read as 10 to 35.
    Positions 5 and 6 are free: LEIs registered before 2014 do not hold the "00" that later practice
    put there.
    Raises: DecodeError: `base` is not 18 characters of 0-9 and A-Z.
    Source: ISO 17442-1; ISO/IEC 7064.
    """
    if not _LEI_BASE.fullmatch(base):
        raise DecodeError(f"an LEI starts with 18 characters of 0-9 and A-Z, got {_shown(base)}")
    number = int("".join(str(int(character, 36)) for character in base))
    return f"{base}{98 - number * 100 % 97:02d}"


def check_lei(text: str) -> None:
    """Accept `text` when it is a legal entity identifier: 20 characters, check digits right.

    Check digits 00, 01 and 99 are refused although the remainder may be 1: they would be second
    spellings of 97, 98 and 02, which are what ISO 7064 computes.
    Raises: DecodeError: wrong length, characters or check digits; the sentence says which.
    Source: ISO 17442-1; ISO/IEC 7064.
    """
    if (
        len(text) != LEI_LENGTH
        or not _LEI_BASE.fullmatch(text[:18])
        or not _LEI_DIGITS.fullmatch(text[18:])
    ):
        raise DecodeError(
            f"an LEI is 18 characters of 0-9 and A-Z and 2 digits, without spaces, got {_shown(text)}"
        )
    if make_lei(text[:18]) != text:
        raise DecodeError(
            f"the check digits of LEI {text} do not hold: look for a mistyped character"
        )


def dti_check_character(base: str) -> str:
    """Return the check character of the 8 characters `base` of a digital token identifier.

    ISO 7064 hybrid system MOD 31,30 over `DTI_ALPHABET`.
    Raises: DecodeError: `base` is not 8 characters of the alphabet, or starts with 0.
    Source: ISO 24165-1; checked against X9J9K872S, D5RG2FHH0 and HWRGLMT9T.
    """
    if len(base) != DTI_LENGTH - 1 or base[0] == "0" or any(c not in DTI_ALPHABET for c in base):
        raise DecodeError(
            f"a DTI starts with 8 characters of {DTI_ALPHABET}, the first not 0, got {_shown(base)}"
        )
    product = 30
    for character in base:
        product = ((product + DTI_ALPHABET.index(character)) % 30 or 30) * 2 % 31
    return DTI_ALPHABET[(1 - product) % 30]


def check_dti(text: str) -> None:
    """Accept `text` when it is a digital token identifier: 9 characters, the last a check.

    Raises: DecodeError: wrong length, characters or check character; the sentence says which.
    Source: ISO 24165-1; `DTI_GRANDFATHERED`.
    """
    if text in DTI_GRANDFATHERED:
        return
    if len(text) != DTI_LENGTH:
        raise DecodeError(f"a DTI is {DTI_LENGTH} characters, got {_shown(text)}")
    if dti_check_character(text[:8]) != text[8]:
        raise DecodeError(
            f"the check character of DTI {_shown(text)} does not hold: look for a mistyped character"
        )


@dataclass(frozen=True, slots=True)
class ChainId:
    """A CAIP-2 chain: `namespace` (such as eip155 or bip122) and the chain's `reference` in it.

    Made by `parse_caip2`; str() gives the canonical text.
    """

    namespace: str
    reference: str

    def __str__(self) -> str:
        """Return the canonical text, `namespace:reference`."""
        return f"{self.namespace}:{self.reference}"


@dataclass(frozen=True, slots=True)
class AssetType:
    """A CAIP-19 asset type: chain, asset `namespace` (slip44, erc20) and `reference` in it.

    Made by `parse_caip19`; str() gives the canonical text.
    """

    chain: ChainId
    namespace: str
    reference: str

    def __str__(self) -> str:
        """Return the canonical text, `chain/namespace:reference`."""
        return f"{self.chain}/{self.namespace}:{self.reference}"


def parse_caip2(text: str) -> ChainId:
    """Parse a CAIP-2 chain identifier; the accepted text is canonical.

    eip155 references are decimal without leading zeros; bip122 references are 32 lower-case hex
    digits.
    Raises: DecodeError: not the grammar, or a second spelling; the sentence says what to write.
    Source: CAIP-2; namespaces.chainagnostic.org eip155 and bip122.
    """
    namespace, colon, reference = text.partition(":")
    if (
        not colon
        or not _NAMESPACE.fullmatch(namespace)
        or not _CHAIN_REFERENCE.fullmatch(reference)
    ):
        raise DecodeError(
            f"a CAIP-2 chain is namespace:reference, such as eip155:1, got {_shown(text)}"
        )
    if namespace == "eip155" and not _DECIMAL.fullmatch(reference):
        raise DecodeError(
            f"an eip155 chain is its decimal chain number without leading zeros, such as eip155:1, got {_shown(text)}"
        )
    if namespace == "bip122" and not _GENESIS_PREFIX.fullmatch(reference):
        raise DecodeError(
            f"a bip122 chain is the first 32 lower-case hex digits of its genesis block hash, got {_shown(text)}"
        )
    return ChainId(namespace, reference)


def _check_percent(reference: str, text: str) -> None:
    for found in _PERCENT.findall(reference):
        # A lone % or lower-case digits would be further spellings of one character.
        if not _ESCAPE.fullmatch(found):
            raise DecodeError(
                f"after % write two upper-case hex digits, such as %5F, in {_shown(text)}"
            )
        # So would a character that needs no escape.
        character = chr(int(found, 16))
        if _UNRESERVED.fullmatch(character):
            raise DecodeError(f"write {character} instead of %{found} in {_shown(text)}")


def parse_caip19(text: str) -> AssetType:
    """Parse a CAIP-19 asset type into canonical form: EVM contract addresses in lower case.

    The EIP-55 capitals of an EVM address are accepted and dropped, not checked (that takes
    Keccak-256, which the standard library lacks): whoever enters an address compares it with the
    issuer's. Asset identifiers with a token number (`.../erc721:0x.../7`) are refused: what is
    cleared here is fungible.
    Raises: DecodeError: not the grammar, or a spelling that cannot be made canonical; the sentence
    says what to write.
    Source: CAIP-19, CAIP-20 (slip44); namespaces.chainagnostic.org eip155; RFC 3986 section 6.2.2
    (percent signs).
    """
    if len(text) > CAIP19_LENGTH_MAX:
        raise DecodeError(
            f"a CAIP-19 asset is at most {CAIP19_LENGTH_MAX} characters, got {len(text)}"
        )
    chain_text, slash, asset = text.partition("/")
    if not slash:
        raise DecodeError(
            f"a CAIP-19 asset is chain/namespace:reference, such as eip155:1/slip44:60, got {_shown(text)}"
        )
    chain = parse_caip2(chain_text)
    # One token of a collection is not fungible, so it cannot be netted.
    if "/" in asset:
        raise DecodeError(
            f"leave out the token number: only fungible assets are cleared, got {_shown(text)}"
        )
    namespace, colon, reference = asset.partition(":")
    if (
        not colon
        or not _NAMESPACE.fullmatch(namespace)
        or not _ASSET_REFERENCE.fullmatch(reference)
    ):
        raise DecodeError(
            f"after the chain write namespace:reference, such as slip44:60 or erc20:0x..., got {_shown(text)}"
        )
    _check_percent(reference, text)
    if namespace == "slip44" and not _DECIMAL.fullmatch(reference):
        raise DecodeError(
            f"a slip44 reference is a decimal number without leading zeros, got {_shown(text)}"
        )
    if chain.namespace == "eip155" and namespace in _EVM_TOKENS:
        if not _EVM_ADDRESS.fullmatch(reference):
            raise DecodeError(
                f"an {namespace} reference is 0x and 40 hex digits, got {_shown(text)}"
            )
        reference = reference.lower()
    return AssetType(chain, namespace, reference)
