"""The anchor wallet's keys: two descriptors, their scripts, and signatures on inputs that spend them.

Lives here: derivation and signing. May not live here: which coins there are (wallet.py), what is built (transactions.py).

    wpkh([fingerprint/84h/COINh/0h]xpub/BRANCH/*)     BIP 84
    tr([fingerprint/86h/COINh/0h]xpub/BRANCH/*)       BIP 86

Branch 0 receives, branch 1 takes change. Only SIGHASH_ALL and SIGHASH_DEFAULT are signed.
Source: BIP 32, 44, 84, 86, 380; embit 0.8.0.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from embit.bip32 import HDKey
from embit.networks import NETWORKS
from embit.psbt import PSBT
from embit.script import Script, Witness, p2tr, p2wpkh
from embit.transaction import Transaction, TransactionOutput

from clearing.errors import invariant
from node.keys import SigningKey
from node.workers.anchoring.network import Network

PURPOSE = b"clearing/bitcoin-wallet/v1\0"

_EMBIT_NAMES = {
    Network.MAIN: "main",
    Network.TESTNET4: "test",
    Network.SIGNET: "signet",
    Network.REGTEST: "regtest",
}


class Kind(enum.IntEnum):
    """A kind of script, by the number of the BIP that says how its keys are derived."""

    WPKH = 84
    TR = 86


class Branch(enum.IntEnum):
    """What addresses are for."""

    RECEIVE = 0
    CHANGE = 1


@dataclass(frozen=True, slots=True, order=True)
class KeyPath:
    """Which key of the wallet: kind, branch, and number in the branch."""

    kind: Kind
    branch: Branch
    index: int


class Keyring:
    """The wallet's keys on one network; shows scripts and addresses, never a private key."""

    def __init__(self, key: SigningKey, network: Network) -> None:
        """Derive the accounts from a sealed key that serves nothing else."""
        self._params = NETWORKS[_EMBIT_NAMES[network]]
        root = HDKey.from_seed(key.derive(PURPOSE), version=self._params["xprv"])
        self._fingerprint: bytes = root.my_fingerprint
        coin = self._params["bip32"]
        self._accounts = {kind: root.derive(f"m/{kind.value}h/{coin}h/0h") for kind in Kind}
        self._coin = coin
        self._branches = {
            (kind, branch): self._accounts[kind].child(branch.value)
            for kind in Kind
            for branch in Branch
        }

    def __repr__(self) -> str:
        """Return the class's name and fingerprint."""
        return f"Keyring({self._fingerprint.hex()})"

    def descriptors(self) -> list[str]:
        """Return the public descriptors, receive and change of each kind, as any descriptor wallet reads them."""
        found = []
        for kind, branch in self._branches:
            account = self._accounts[kind].to_public(self._params["xpub"]).to_base58()
            origin = f"[{self._fingerprint.hex()}/{kind.value}h/{self._coin}h/0h]"
            name = "wpkh" if kind is Kind.WPKH else "tr"
            found.append(f"{name}({origin}{account}/{branch.value}/*)")
        return found

    def script(self, path: KeyPath) -> bytes:
        """Return the script of a key's outputs."""
        public = self._branches[path.kind, path.branch].child(path.index).get_public_key()
        made = p2wpkh(public) if path.kind is Kind.WPKH else p2tr(public)
        return bytes(made.data)

    def address(self, path: KeyPath) -> str:
        """Return the address of a key's outputs."""
        return str(Script(self.script(path)).address(self._params))

    def sign(self, transaction: Transaction, spent: Sequence[tuple[KeyPath, int]]) -> Transaction:
        """Return `transaction` with a witness on every input.

        spent: key and amount in satoshi of each input's output, in order.
        """
        psbt = PSBT(transaction)
        for scope, (path, amount_sat) in zip(psbt.inputs, spent, strict=True):
            scope.witness_utxo = TransactionOutput(amount_sat, Script(self.script(path)))
        for number, (path, _) in enumerate(spent):
            key = self._branches[path.kind, path.branch].child(path.index).key
            if path.kind is Kind.TR:
                psbt.sign_input_with_tapkey(key, number)
                witness = psbt.inputs[number].final_scriptwitness
            else:
                signature = key.sign(psbt.sighash(number)).serialize() + b"\x01"
                witness = Witness([signature, key.get_public_key().sec()])
            invariant(witness is not None, "the anchor wallet signs its own outputs")
            transaction.vin[number].witness = witness
        return transaction
