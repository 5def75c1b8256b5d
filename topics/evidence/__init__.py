"""Tamper evidence: what a log holds hashes to roots that are signed, so no change stays hidden.

Every record of the topics that are kept for ever is a leaf of a Merkle tree, one a partition
(RFC 6962); roots are signed with Ed25519 as checkpoints (c2sp.org/tlog-checkpoint).
"""

from madlog.topics.evidence.bundle import Bundled, write_bundle
from madlog.topics.evidence.check import Finding, Published, Verdict, check_evidence
from madlog.topics.evidence.errors import (
    BadBundle,
    BadCheckpoint,
    BadKey,
    EvidenceBroken,
    EvidenceError,
    HashesDamaged,
    NotPublished,
)
from madlog.topics.evidence.keeper import Keeper, Kept, covered_topics
from madlog.topics.evidence.keys import make_key, read_key
from madlog.topics.evidence.notes import Checkpoint, SigningKey, VerifierKey
from madlog.topics.evidence.publishing import consistency, publish, read_published
from madlog.topics.evidence.tiles import Tiles, Tree

__all__ = (
    "BadBundle",
    "BadCheckpoint",
    "BadKey",
    "Bundled",
    "Checkpoint",
    "EvidenceBroken",
    "EvidenceError",
    "Finding",
    "HashesDamaged",
    "Keeper",
    "Kept",
    "NotPublished",
    "Published",
    "SigningKey",
    "Tiles",
    "Tree",
    "Verdict",
    "VerifierKey",
    "check_evidence",
    "consistency",
    "covered_topics",
    "make_key",
    "publish",
    "read_key",
    "read_published",
    "write_bundle",
)
