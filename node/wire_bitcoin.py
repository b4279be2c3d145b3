"""What the wire says of Bitcoin: legs, mined coin, and actions of governance as lines for people.

Lives here: those. May not live here: other messages (wire.py).
"""

from __future__ import annotations

from clearing.bitcoin.next_header import BitcoinNetwork, header_hash
from clearing.bitcoin.settlement import Payee
from clearing.bitcoin.transaction import shown
from clearing.errors import DecodeError, invariant
from clearing.rules.bitcoin_terms import PayoutKind
from clearing.rules.legs import Leg, NamedCoins
from clearing.rules.mined import Batch, Draw
from clearing.rules.registry import Action, ActionKind
from node.pb.v1 import participant_pb2
from node.queries_bitcoin import LegRow, MinedCoin

BITCOIN_ACTIONS = (
    ActionKind.SET_BITCOIN_CHAIN,
    ActionKind.SET_ROUTE,
    ActionKind.SET_MINER,
    ActionKind.SET_PAYOUT_SCRIPT,
    ActionKind.SET_TAX_RULE,
)

AMOUNT_DIGITS_MAX = 58
"""A net position has 192 bits; what is more than all coin goes by the agent, and is shown all the same."""


def leg_message(row: LegRow) -> participant_pb2.GetLegResponse:
    """Return a leg, without the head that it is as of."""
    return participant_pb2.GetLegResponse(
        leg=row.leg.encode(),
        payers=[
            participant_pb2.LegPayer(
                participant=number,
                debit_sat=str(debit),
                coins=b"" if named is None else named.encode(),
            )
            for number, debit, named in row.payers
        ],
        payees=[
            participant_pb2.LegPayee(
                participant=one.participant, amount_sat=str(one.amount_sat), script=one.script
            )
            for one in row.payees
        ],
    )


def leg_of(cycle: int, message: participant_pb2.GetLegResponse) -> LegRow:
    """Read a leg.

    Raises: DecodeError: a field that is none.
    """
    payers = tuple(
        (
            one.participant,
            _satoshi(one.debit_sat),
            NamedCoins.decode(one.coins) if one.coins else None,
        )
        for one in message.payers
    )
    payees = tuple(
        Payee(one.participant, _satoshi(one.amount_sat), one.script) for one in message.payees
    )
    return LegRow(cycle, Leg.decode(message.leg), payers, payees)


def _satoshi(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > AMOUNT_DIGITS_MAX:
        raise DecodeError("an amount in satoshi is a decimal string")
    return int(text)


def mined_message(coin: MinedCoin) -> participant_pb2.ListMinedCoinResponse:
    """Return declared mined coin, without the head that it is as of."""
    return participant_pb2.ListMinedCoinResponse(
        batches=[
            participant_pb2.MinedBatch(miner=miner, log_index=index, batch=batch.encode())
            for miner, index, batch in coin.batches
        ],
        draws=[one.encode() for one in coin.draws],
    )


def mined_of(message: participant_pb2.ListMinedCoinResponse) -> MinedCoin:
    """Read declared mined coin.

    Raises: DecodeError: a row that is none.
    """
    batches = tuple((one.miner, one.log_index, Batch.decode(one.batch)) for one in message.batches)
    return MinedCoin(batches, tuple(Draw.decode(one) for one in message.draws))


def bitcoin_action_text(action: Action) -> str:
    """Return one of BITCOIN_ACTIONS as one line for people."""
    subject = action.subject
    match action.kind:
        case ActionKind.SET_BITCOIN_CHAIN:
            network = BitcoinNetwork(subject["network"]).name
            block = shown(header_hash(subject["header"]))
            return f"follow Bitcoin {network} from block {block} at height {subject['height']}"
        case ActionKind.SET_ROUTE if not subject["by_transaction"]:
            return f"settle asset {subject['asset']} through the settlement agent"
        case ActionKind.SET_ROUTE:
            return (
                f"settle asset {subject['asset']} by one transaction a cycle, {subject['depth']} blocks deep, "
                f"signed within {subject['signing_ms']} ms, at most {subject['fee_rate_max']} sat/kvB"
            )
        case ActionKind.SET_MINER if not subject["active"]:
            return f"take participant {subject['participant']} out of the register of miners"
        case ActionKind.SET_MINER:
            return f"register participant {subject['participant']} as miner in {subject['region']}"
        case ActionKind.SET_PAYOUT_SCRIPT:
            verb = "register" if subject["active"] else "take out"
            kind = PayoutKind(subject["kind"]).name
            script = subject["script"][: subject["script_bytes"]].hex()
            return f"{verb} {kind} payout script {script} of participant {subject['participant']}"
        case _:
            invariant(action.kind is ActionKind.SET_TAX_RULE, f"no words for {action.kind.name}")
            return f"tax {subject['remaining_ppm']} ppm of what remains and {subject['used_ppm']} ppm of what is used"
