"""The JSON-RPC calls: Bitcoin Core's names, parameters, answers and error numbers.

Lives here: one function a call, and the table of them. May not live here: HTTP, what a call does to the chain (chain.py).

Calls of Core: what the clearing node, stock `ots`, and a person with a Bitcoin command line need. Two are our own:
    generatebranch HEIGHT BLOCKS [ADDRESS] [TRANSACTIONS]   mine a competing branch on the active chain's block HEIGHT
    setfees ESTIMATE [MINIMUM]                              what estimatesmartfee says and what the mempool asks, BTC/kvB
Source: Bitcoin Core 30 RPC reference; src/rpc/protocol.h for the numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from bitcoin.core import CBlock, CTransaction
from embit.base import EmbitError
from embit.script import Script, address_to_scriptpubkey

from clearing.errors import ClearingError
from node.regtest.chain import ANYONE_SCRIPT, Chain
from node.regtest.kernel import BlockRefusedError, shown
from node.regtest.mempool import Entry, TransactionRefusedError, decode, vsize_of

MISC_ERROR = -1
TYPE_ERROR = -3
INVALID_ADDRESS_OR_KEY = -5
INVALID_PARAMETER = -8
DESERIALIZATION_ERROR = -22
METHOD_NOT_FOUND = -32601

SATOSHI = 100_000_000
GENERATE_BLOCKS_MAX = 20_000
MAX_FEE_RATE_SAT_PER_KVB = 10_000_000
_DIFFICULTY = 4.656542373906925e-10

Parameters = Sequence[Any] | Mapping[str, Any]


class RpcError(ClearingError):
    """A call is refused; `code` is Bitcoin Core's number."""

    def __init__(self, code: int, message: str) -> None:
        """Refuse with Core's number and words."""
        super().__init__(message)
        self.code = code


def btc(amount_sat: int) -> Decimal:
    """Return satoshi as BTC, exactly; the server writes it with eight decimals."""
    return Decimal(amount_sat) / SATOSHI


def _hash(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise RpcError(TYPE_ERROR, f"{what} must be a string")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32 or len(text) != 64:
        raise RpcError(INVALID_PARAMETER, f"{what} must be of length 64 and hexadecimal")
    return value[::-1]


def _raw(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise RpcError(DESERIALIZATION_ERROR, "argument must be hexadecimal string") from error


def _whole(value: Any, what: str, least: int, greatest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RpcError(TYPE_ERROR, f"{what} must be a whole number")
    if not least <= value <= greatest:
        raise RpcError(INVALID_PARAMETER, f"{what} out of range: {least} to {greatest}")
    return value


def _rate_sat(value: Any, what: str) -> int:
    try:
        rate = Decimal(str(value)) * SATOSHI
    except InvalidOperation as error:
        raise RpcError(TYPE_ERROR, f"{what} must be an amount in BTC/kvB") from error
    if not 0 <= rate <= SATOSHI:
        raise RpcError(INVALID_PARAMETER, f"{what} out of range: 0 to 1 BTC/kvB")
    return int(rate)


def _script(address: Any) -> bytes:
    try:
        return bytes(address_to_scriptpubkey(address).data)
    except (EmbitError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise RpcError(INVALID_ADDRESS_OR_KEY, f"Invalid address: {str(address)[:100]}") from error


def _address(script: bytes) -> str | None:
    try:
        return str(Script(script).address(_REGTEST))
    except (EmbitError, ValueError, IndexError):
        return None


_REGTEST = {"bech32": "bcrt", "p2pkh": b"\x6f", "p2sh": b"\xc4"}


class Calls:
    """The calls on one chain."""

    def __init__(self, chain: Chain) -> None:
        """Answer from `chain`."""
        self._chain = chain
        self._table: dict[str, Callable[..., Any]] = {
            name: getattr(self, name) for name in dir(self) if not name.startswith("_")
        }
        del self._table["call"]

    def call(self, method: str, parameters: Parameters) -> Any:
        """Answer one call with what JSON can carry, amounts as Decimal.

        Raises: RpcError: with Bitcoin Core's number.
        """
        function = self._table.get(method)
        if function is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        try:
            if isinstance(parameters, Mapping):
                bound = inspect.signature(function).bind(**parameters)
            else:
                bound = inspect.signature(function).bind(*parameters)
        except TypeError as error:
            given = inspect.signature(function)
            raise RpcError(MISC_ERROR, f"{method}{given} was called otherwise: {error}") from error
        try:
            with self._chain.lock:
                return function(*bound.args, **bound.kwargs)
        except TransactionRefusedError as error:
            raise RpcError(error.code, str(error)) from error
        except BlockRefusedError as error:
            raise RpcError(MISC_ERROR, str(error)) from error

    # -- the chain

    def getblockcount(self) -> int:
        """Height of the tip."""
        return self._chain.kernel.height

    def getbestblockhash(self) -> str:
        """Hash of the tip."""
        return shown(self._chain.kernel.tip)

    def getblockhash(self, height: Any) -> str:
        """Hash of the active chain's block at a height."""
        if not isinstance(height, int) or not 0 <= height <= self._chain.kernel.height:
            raise RpcError(INVALID_PARAMETER, "Block height out of range")
        return shown(self._chain.kernel.hash_at(height))

    def getblockchaininfo(self) -> dict[str, Any]:
        """What chain this is and where it stands."""
        kernel = self._chain.kernel
        header = kernel.header(kernel.tip)
        return {
            "chain": "regtest",
            "blocks": kernel.height,
            "headers": kernel.height,
            "bestblockhash": shown(kernel.tip),
            "bits": header[72:76][::-1].hex(),
            "difficulty": _DIFFICULTY,
            "time": int.from_bytes(header[68:72], "little"),
            "mediantime": self._chain.median_time(kernel.tip),
            "verificationprogress": 1,
            "initialblockdownload": False,
            "chainwork": f"{2 * (kernel.height + 1):064x}",
            "pruned": False,
            "warnings": ["embedded regtest chain, for tests and demonstrations only"],
        }

    def _known(self, blockhash: Any) -> bytes:
        found = _hash(blockhash, "blockhash")
        if not self._chain.kernel.knows(found):
            raise RpcError(INVALID_ADDRESS_OR_KEY, "Block not found")
        return found

    def getblockheader(self, blockhash: Any, verbose: Any = True) -> str | dict[str, Any]:
        """A block's header, in hexadecimal or taken apart; blocks beside the active chain too."""
        found = self._known(blockhash)
        header = self._chain.kernel.header(found)
        return self._header_facts(found, header) if verbose else header.hex()

    def _header_facts(self, found: bytes, header: bytes) -> dict[str, Any]:
        kernel = self._chain.kernel
        height, active = kernel.height_of(found), kernel.is_active(found)
        facts = {
            "hash": shown(found),
            "confirmations": kernel.height - height + 1 if active else -1,
            "height": height,
            "version": int.from_bytes(header[:4], "little"),
            "versionHex": header[:4][::-1].hex(),
            "merkleroot": shown(header[36:68]),
            "time": int.from_bytes(header[68:72], "little"),
            "mediantime": self._chain.median_time(found),
            "nonce": int.from_bytes(header[76:80], "little"),
            "bits": header[72:76][::-1].hex(),
            "difficulty": _DIFFICULTY,
            "chainwork": f"{2 * (height + 1):064x}",
        }
        if height:
            facts["previousblockhash"] = shown(header[4:36])
        if active and height < kernel.height:
            facts["nextblockhash"] = shown(kernel.hash_at(height + 1))
        return facts

    def getblock(self, blockhash: Any, verbosity: Any = 1) -> str | dict[str, Any]:
        """A block, in hexadecimal (0) or taken apart with txids (1)."""
        found = self._known(blockhash)
        level = _whole(
            int(verbosity) if isinstance(verbosity, bool) else verbosity, "verbosity", 0, 1
        )
        raw = self._chain.kernel.block(found)
        if not level:
            return raw.hex()
        block = CBlock.deserialize(raw)
        return self._header_facts(found, raw[:80]) | {
            "size": len(raw),
            "nTx": len(block.vtx),
            "tx": [shown(one.GetTxid()) for one in block.vtx],
        }

    def submitblock(self, hexdata: Any, dummy: Any = None) -> str | None:
        """Take a block in; null where it is accepted, else why not."""
        try:
            return None if self._chain.submit(_raw(hexdata)) else "duplicate"
        except BlockRefusedError as error:
            if str(error) == "Block decode failed":
                raise RpcError(DESERIALIZATION_ERROR, str(error)) from error
            return str(error).partition(",")[0]

    # -- transactions

    def getrawmempool(self, verbose: Any = False) -> list[str] | dict[str, Any]:
        """What is unconfirmed."""
        entries = list(self._chain.mempool)
        if verbose:
            return {shown(entry.txid): self._entry_facts(entry) for entry in entries}
        return [shown(entry.txid) for entry in entries]

    def getmempoolinfo(self) -> dict[str, Any]:
        """How much is unconfirmed, and the least fee."""
        pool = self._chain.mempool
        return {
            "loaded": True,
            "size": len(pool),
            "bytes": pool.size_bytes,
            "mempoolminfee": btc(pool.min_fee_sat_per_kvb),
            "minrelaytxfee": btc(pool.min_fee_sat_per_kvb),
            "fullrbf": True,
        }

    def getmempoolentry(self, txid: Any) -> dict[str, Any]:
        """One unconfirmed transaction."""
        found = _hash(txid, "txid")
        if found not in self._chain.mempool:
            raise RpcError(INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
        return self._entry_facts(self._chain.mempool.entry(found))

    def _entry_facts(self, entry: Entry) -> dict[str, Any]:
        pool = self._chain.mempool
        above, below = pool.ancestors(entry), pool.descendants(entry.txid)
        return {
            "vsize": entry.vsize,
            "weight": 4 * entry.vsize,
            "time": entry.time_s,
            "height": self._chain.kernel.height,
            "ancestorcount": len(above) + 1,
            "descendantcount": len(below) + 1,
            "fees": {"base": btc(entry.fee_sat), "modified": btc(entry.fee_sat)},
            "depends": [shown(name[:32]) for name in entry.spent if name[:32] in pool],
            "spentby": sorted(
                shown(txid)
                for txid in below
                if any(n[:32] == entry.txid for n in pool.entry(txid).spent)
            ),
            "bip125-replaceable": True,
        }

    def gettxout(self, txid: Any, n: Any, include_mempool: Any = True) -> dict[str, Any] | None:
        """An unspent output, or null where there is none or it is spent."""
        index = _whole(n, "n", 0, 2**32 - 1)
        coin = self._chain.output(_hash(txid, "txid"), index, with_mempool=bool(include_mempool))
        if coin is None:
            return None
        script: dict[str, Any] = {"hex": coin.script.hex()}
        address = _address(coin.script)
        return {
            "bestblock": self.getbestblockhash(),
            "confirmations": max(0, self._chain.kernel.height - coin.height + 1),
            "value": btc(coin.amount_sat),
            "scriptPubKey": script | ({"address": address} if address else {}),
            "coinbase": coin.is_coinbase,
        }

    def getrawtransaction(self, txid: Any, verbose: Any = False, blockhash: Any = None) -> str:
        """An unconfirmed transaction, or one of the block that is named, in hexadecimal."""
        found = _hash(txid, "txid")
        if verbose:
            raise RpcError(INVALID_PARAMETER, "only the hexadecimal form is served: verbose=false")
        if blockhash is not None:
            for one in CBlock.deserialize(self._chain.kernel.block(self._known(blockhash))).vtx:
                if one.GetTxid() == found:
                    return str(one.serialize().hex())
        elif found in self._chain.mempool:
            return self._chain.mempool.entry(found).raw.hex()
        raise RpcError(INVALID_ADDRESS_OR_KEY, "No such mempool transaction; name its blockhash")

    def sendrawtransaction(self, hexstring: Any, maxfeerate: Any = "0.10") -> str:
        """Take an unconfirmed transaction in and return its txid."""
        raw = _raw(hexstring)
        with self._chain.lock:
            txid = decode(raw).GetTxid()
            # As Core: what is here already is no error.
            if txid in self._chain.mempool:
                return shown(txid)
            entry, _ = self._chain.mempool.judge(raw)
            most = _rate_sat(maxfeerate, "maxfeerate")
            if most and entry.fee_sat * 1000 > most * entry.vsize:
                raise RpcError(
                    -25, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
                )
            return shown(self._chain.send(raw).txid)

    def testmempoolaccept(self, rawtxs: Any, maxfeerate: Any = "0.10") -> list[dict[str, Any]]:
        """Say of one transaction whether it would be taken in."""
        if not isinstance(rawtxs, list) or len(rawtxs) != 1:
            raise RpcError(INVALID_PARAMETER, "give a list of one transaction: no packages here")
        raw = _raw(rawtxs[0])
        transaction: CTransaction = decode(raw)
        fact = {"txid": shown(transaction.GetTxid())}
        try:
            entry, _ = self._chain.mempool.judge(raw)
        except TransactionRefusedError as error:
            return [fact | {"allowed": False, "reject-reason": str(error)}]
        fees = {"base": btc(entry.fee_sat)}
        return [fact | {"allowed": True, "vsize": vsize_of(transaction), "fees": fees}]

    def estimatesmartfee(
        self, conf_target: Any, estimate_mode: Any = "economical"
    ) -> dict[str, Any]:
        """The fee rate set by setfees; without one, what a young chain says."""
        target = _whole(conf_target, "conf_target", 1, 1008)
        rate = self._chain.fee_estimate_sat_per_kvb
        if rate is None:
            return {"errors": ["Insufficient data or no feerate found"], "blocks": target}
        return {"feerate": btc(rate), "blocks": target}

    # -- mining

    def generatetoaddress(self, nblocks: Any, address: Any, maxtries: Any = None) -> list[str]:
        """Mine blocks whose rewards go to an address."""
        count = _whole(nblocks, "nblocks", 0, GENERATE_BLOCKS_MAX)
        return [shown(one) for one in self._chain.mine(count, _script(address))]

    def generate(self, nblocks: Any) -> list[str]:
        """Mine blocks whose rewards go to nobody, as btcd's call of this name does with its own address."""
        count = _whole(nblocks, "nblocks", 0, GENERATE_BLOCKS_MAX)
        return [shown(one) for one in self._chain.mine(count)]

    def generatebranch(
        self, height: Any, nblocks: Any, address: Any = None, transactions: Any = ()
    ) -> list[str]:
        """Mine a competing branch on top of the active chain's block at `height`."""
        fork = _whole(height, "height", 0, self._chain.kernel.height)
        count = _whole(nblocks, "nblocks", 0, GENERATE_BLOCKS_MAX)
        script = _script(address) if address is not None else ANYONE_SCRIPT
        raws = [_raw(one) for one in transactions]
        return [shown(one) for one in self._chain.branch(fork, count, script, raws)]

    def setfees(self, estimate: Any, minimum: Any = None) -> None:
        """Set what estimatesmartfee says (null: nothing) and the least fee of the mempool, in BTC/kvB."""
        rate = None if estimate is None else _rate_sat(estimate, "estimate")
        if minimum is not None:
            self._chain.mempool.min_fee_sat_per_kvb = _rate_sat(minimum, "minimum")
        self._chain.fee_estimate_sat_per_kvb = rate
