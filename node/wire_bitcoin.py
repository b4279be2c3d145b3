"""What the wire says of Bitcoin: actions of governance as lines for people.

Lives here: those. May not live here: other messages (wire.py).
"""

from __future__ import annotations

from clearing.bitcoin.next_header import BitcoinNetwork, header_hash
from clearing.bitcoin.transaction import shown
from clearing.errors import invariant
from clearing.rules.bitcoin_terms import PayoutKind
from clearing.rules.registry import Action, ActionKind

BITCOIN_ACTIONS = (
    ActionKind.SET_BITCOIN_CHAIN,
    ActionKind.SET_ROUTE,
    ActionKind.SET_MINER,
    ActionKind.SET_PAYOUT_SCRIPT,
    ActionKind.SET_TAX_RULE,
)


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
