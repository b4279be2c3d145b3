"""The exception tree and the reject codes of the clearing core.

Lives here: every way in which the core can say no. May not live here: any rule, any I/O.

    ClearingError
      DecodeError            bytes or text that are not one of our canonical records
      VerificationError      a signature, proof, checkpoint, cosignature or certificate does not hold
      InvariantViolation     our own defect: the node must stop, keep the block and report

A user's mistake in a well-formed submission or instruction is no exception but a value: a `RejectCode`.
"""

from __future__ import annotations

import enum


class ClearingError(Exception):
    """Base of every exception that the clearing core raises on purpose."""


class DecodeError(ClearingError):
    """Bytes or text are not a canonical record: wrong length, reserved bits set, unknown version or kind."""


class VerificationError(ClearingError):
    """A signature, proof, checkpoint, cosignature or certificate does not hold."""


class InvariantViolation(ClearingError):  # noqa: N818 - the name says what happened, not what kind of class it is
    """The core contradicts itself: a defect of ours, never a user's mistake; whoever catches it stops the node."""


def invariant(condition: bool, why: str) -> None:  # noqa: FBT001 - reads as a statement at the call site
    """Stop the node when `condition` does not hold.

    Raises: InvariantViolation: with `why`. Unlike `assert` it survives `python -O`.
    """
    if not condition:
        raise InvariantViolation(why)


class RejectCode(enum.IntEnum):
    """Why a submission, an item of it, or an instruction was refused.

    The numbers are stable: they are written to clients' books and never reused. Where several apply, the
    lowest number is reported: the order of the members is the order of precedence.
    """

    OK = 0

    # what the transaction itself is
    MALFORMED = 100
    UNKNOWN_ACTOR = 101
    BAD_SIGNATURE = 102
    COMMITMENT_MISMATCH = 103
    EXISTS_DIFFERENT = 104

    # what the actor may do
    NOT_LICENSED = 200
    ROLE_NOT_ALLOWED = 201
    NOT_A_PARTY = 202

    # an item of a submission
    ITEM_VERSION = 300
    ITEM_KIND = 301
    ITEM_FLAGS = 302
    SAME_PARTY = 303
    SUBMITTER_NOT_PARTY = 304
    UNKNOWN_PARTICIPANT = 305
    PARTICIPANT_NOT_LICENSED = 306
    UNKNOWN_ASSET = 307
    ZERO_AMOUNT = 308
    DUE_PASSED = 309
    BOOK_FULL = 310
    SUBMITTER_BOOK_FULL = 311

    # a selection of items
    UNKNOWN_SUBMISSION = 400
    UNKNOWN_ITEM = 401
    NOTHING_SELECTED = 402
    ITEM_STATE = 403
    TOO_MANY_DRAWS = 404

    # cycles and settlement
    NOTHING_TO_NET = 500
    UNKNOWN_INSTRUCTION = 501
    NOT_FUNDED = 502
    INSTRUCTION_STATE = 503
    NO_SETTLEMENT_AGENT = 504
    NO_SOLUTION_AWAITED = 510
    SOLUTION_INVALID = 511
    SOLUTION_NOT_OPTIMAL = 512

    # governance
    UNKNOWN_PROPOSAL = 600
    PROPOSAL_CLOSED = 601
    ALREADY_APPROVED = 602
    ACTION_UNKNOWN_SUBJECT = 603
    ACTION_DUPLICATE = 604
    ACTION_VALUE = 605
    GOVERNANCE_STRANDED = 606

    # validators
    VALIDATOR_ROLE = 620
    VALIDATOR_KEY_TAKEN = 621
    VALIDATORS_TOO_FEW = 622
    VALIDATORS_TOO_MANY = 623
    VALIDATOR_TOO_STRONG = 624
    VALIDATORS_CHANGE_TOO_GREAT = 625

    # anchors
    ANCHOR_ORDER = 700
    ANCHOR_STATE = 701
    ANCHOR_CHECKPOINTS = 702
    ANCHOR_EVIDENCE = 703
    # the bitcoin chain
    BITCOIN_NOT_SET = 730
    HEADER_UNCONNECTED = 731
    HEADER_INVALID = 732
    HEADERS_KNOWN = 733
    BLOCK_NOT_IN_CHAIN = 734
    BITCOIN_PROOF_INVALID = 735
    TOO_SHALLOW = 736
    NOTHING_WATCHED = 737

    # settlement by transaction
    SETTLES_BY_TRANSACTION = 740
    NO_SUCH_LEG = 741
    LEG_STATE = 742
    LEG_NOT_READY = 743
    NOT_A_PAYER = 744
    COIN_IN_USE = 745
    TOO_MANY_COINS = 746
    COINS_SHORT = 747
    FEE_RATE = 748
    DEADLINE_AHEAD = 749
    NO_ROUTE = 750
    SCRIPT_PROOF_INVALID = 751

    # mined coin
    NOT_A_MINER = 770
    COIN_DECLARED = 771
    COIN_IMMATURE = 772
    PAYOUT_SCRIPT_UNKNOWN = 773
    UNKNOWN_BATCH = 774
    BATCH_STATE = 775
    MINED_COIN_SHORT = 776


REMEDIES: dict[RejectCode, str] = {
    RejectCode.OK: "Nothing to do.",
    RejectCode.MALFORMED: "Build the bytes as the README's layout tables say, or use the client library.",
    RejectCode.UNKNOWN_ACTOR: "Use the registry number of a registered participant.",
    RejectCode.BAD_SIGNATURE: "Sign with the key that is registered now, for this network.",
    RejectCode.COMMITMENT_MISMATCH: "Recompute the commitment over the body that is sent, then sign again.",
    RejectCode.EXISTS_DIFFERENT: "This client id was used for other bytes; choose a new one for a new request.",
    RejectCode.NOT_LICENSED: "The licence is suspended, withdrawn or expired; ask the ministry.",
    RejectCode.ROLE_NOT_ALLOWED: "The role of this participant may not do this; see the table of roles.",
    RejectCode.NOT_A_PARTY: "Only the parties of the item or instruction may do this.",
    RejectCode.ITEM_VERSION: "Set version to 1.",
    RejectCode.ITEM_KIND: "Set kind to one of the listed kinds of obligation.",
    RejectCode.ITEM_FLAGS: "Set flags to 0, or to 1 where an asset that can be is paid with mined coin.",
    RejectCode.SAME_PARTY: "Debtor and creditor must differ.",
    RejectCode.SUBMITTER_NOT_PARTY: "Submit only obligations that you owe or are owed.",
    RejectCode.UNKNOWN_PARTICIPANT: "Debtor and creditor must be registered with a role that may owe.",
    RejectCode.PARTICIPANT_NOT_LICENSED: "The counterparty's licence is not in force; leave the item out.",
    RejectCode.UNKNOWN_ASSET: "Use the number of a registered asset.",
    RejectCode.ZERO_AMOUNT: "The amount must be at least one smallest unit.",
    RejectCode.DUE_PASSED: "The due time must lie after the block's time, or be 0 for none.",
    RejectCode.BOOK_FULL: "Too many open obligations; wait for the next cycle to settle.",
    RejectCode.SUBMITTER_BOOK_FULL: "Too much of yours is open; put more into one submission, rescind some, wait for a cycle, or ask governance for more.",
    RejectCode.UNKNOWN_SUBMISSION: "Use the log index that the submission's receipt names.",
    RejectCode.UNKNOWN_ITEM: "Item numbers run from 0 to one less than the submission's count.",
    RejectCode.NOTHING_SELECTED: "No item of the submission is open to this instruction by you.",
    RejectCode.ITEM_STATE: "The items have moved on; read their state and select only those that qualify.",
    RejectCode.TOO_MANY_DRAWS: "Name fewer items that are paid with mined coin, or owe less in one: together they touch too many declared coins.",
    RejectCode.NOTHING_TO_NET: "No affirmed obligation of licensed parties is open; affirm some first.",
    RejectCode.UNKNOWN_INSTRUCTION: "Use CYCLE:NUMBER of a settlement instruction that exists.",
    RejectCode.NOT_FUNDED: "Pay-outs start when every pay-in of the cycle is confirmed.",
    RejectCode.INSTRUCTION_STATE: "The settlement instruction has moved on; read its state.",
    RejectCode.NO_SETTLEMENT_AGENT: "No central bank's licence is in force; ask the ministry.",
    RejectCode.NO_SOLUTION_AWAITED: "Solve only a set-off that a cycle at its cut-off waits for, once.",
    RejectCode.SOLUTION_INVALID: "Discharge no pair beyond what it owes, and let nobody pay beyond cover and cap.",
    RejectCode.SOLUTION_NOT_OPTIMAL: "Show potentials that prove the discharge to be the greatest.",
    RejectCode.UNKNOWN_PROPOSAL: "Use the log index of an open proposal.",
    RejectCode.PROPOSAL_CLOSED: "The proposal was enacted or has lapsed; propose again.",
    RejectCode.ALREADY_APPROVED: "Your approval is on record; another governor must approve.",
    RejectCode.ACTION_UNKNOWN_SUBJECT: "The participant or asset of an action is not registered.",
    RejectCode.ACTION_DUPLICATE: "A name, LEI, key or CAIP-19 of an action is registered already.",
    RejectCode.ACTION_VALUE: "A value of an action is outside its range or fails its check digits.",
    RejectCode.GOVERNANCE_STRANDED: "Too few licensed governors would remain to reach the quorum.",
    RejectCode.VALIDATOR_ROLE: "Only a ministry, a central bank or an operator may be a validator.",
    RejectCode.VALIDATOR_KEY_TAKEN: "This key is somebody's, or was another's once; make a new one for the consensus engine.",
    RejectCode.VALIDATORS_TOO_FEW: "Fewer than four validators would remain; appoint another one first.",
    RejectCode.VALIDATORS_TOO_MANY: "The set of validators is full; remove one first.",
    RejectCode.VALIDATOR_TOO_STRONG: "One validator would have a third of the power or more; spread it.",
    RejectCode.VALIDATORS_CHANGE_TOO_GREAT: "More than a third of the power would change at once; take steps.",
    RejectCode.ANCHOR_ORDER: "Report a node's anchors, and each anchor's changes, one after the other.",
    RejectCode.ANCHOR_STATE: "The anchor cannot move so; read its state and report what follows it.",
    RejectCode.ANCHOR_CHECKPOINTS: "List checkpoints beyond the last anchor's, ascending, under their commitment.",
    RejectCode.ANCHOR_EVIDENCE: "Show the header with its work and the proof of the anchor's transaction in it.",
    RejectCode.BITCOIN_NOT_SET: "No Bitcoin chain is followed yet; governance sets one first.",
    RejectCode.HEADER_UNCONNECTED: "Report the headers in between first, from one that is known.",
    RejectCode.HEADER_INVALID: "A header lacks the work, difficulty or time that its chain demands.",
    RejectCode.HEADERS_KNOWN: "These headers are known; report newer ones.",
    RejectCode.BLOCK_NOT_IN_CHAIN: "The best chain known here does not hold this block; report its headers first.",
    RejectCode.BITCOIN_PROOF_INVALID: "Make the proof anew from the block; it does not show what it should.",
    RejectCode.TOO_SHALLOW: "Show it again when the block is as deep as a payment must be.",
    RejectCode.NOTHING_WATCHED: "The transaction concerns no leg and no declared coin; nothing to do.",
    RejectCode.SETTLES_BY_TRANSACTION: "This instruction settles by the cycle's transaction, not by the agent.",
    RejectCode.NO_SUCH_LEG: "This cycle has no leg that settles by transaction.",
    RejectCode.LEG_STATE: "The leg has moved on; read its state.",
    RejectCode.LEG_NOT_READY: "First all other pay-ins are confirmed and every payer names its coins.",
    RejectCode.NOT_A_PAYER: "Only a net payer of this leg may do or be named so.",
    RejectCode.COIN_IN_USE: "A running leg holds this coin; name another.",
    RejectCode.TOO_MANY_COINS: "Name fewer coins; their number and their sum are limited.",
    RejectCode.COINS_SHORT: "Name coins that cover what you owe and the fee at its greatest rate.",
    RejectCode.FEE_RATE: "Choose a rate between 1,000 and the greatest that governance allows.",
    RejectCode.DEADLINE_AHEAD: "The payer has time until the leg's deadline.",
    RejectCode.NO_ROUTE: "This asset does not settle by transaction; no script is needed.",
    RejectCode.SCRIPT_PROOF_INVALID: "Sign the message of this network, LEI and asset with the script's key (BIP 322).",
    RejectCode.NOT_A_MINER: "Only registered miners declare, and owe what is paid with, mined coin.",
    RejectCode.COIN_DECLARED: "This output was declared before; it gives its amount once.",
    RejectCode.COIN_IMMATURE: "Declare it when its block has 100 confirmations.",
    RejectCode.PAYOUT_SCRIPT_UNKNOWN: "Governance registers payout scripts of miners and pools first.",
    RejectCode.UNKNOWN_BATCH: "Name miner and log index of a declaration.",
    RejectCode.BATCH_STATE: "The declaration was attested already.",
    RejectCode.MINED_COIN_SHORT: "The debtor's counted mined coin does not cover these items.",
}
"""What to do about each code, in one sentence; complete, a test sees to it."""
