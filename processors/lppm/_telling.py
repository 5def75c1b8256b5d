"""Which words tell labels apart, found by what each word says of texts it was not counted in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from madlog.processors.lppm._sparse import Table
from madlog.processors.lppm.text import WORD

__all__ = ("telling_words",)


def telling_words(table: Table, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each name of the table whether it is a word that tells labels apart.

    A word does if it says half a bit about the label of a text on average, or an eighth of what
    there is to know where that is less. Each text is left out of the counts that judge it, so
    that a rare word is not believed for standing with one label.
    """
    names = sorted(set(labels))
    place = {name: number for number, name in enumerate(names)}
    targets = np.array([place[label] for label in labels], np.int64)
    shares = np.bincount(targets, minlength=len(names)) / len(targets)
    owners = np.repeat(np.arange(len(table)), np.diff(table.starts))
    pairs = table.columns.astype(np.int64) * len(names) + targets[owners]
    found, counts = np.unique(pairs, return_counts=True)
    columns, label = found // len(names), found % len(names)
    size = len(table.names)
    having = np.bincount(columns, weights=counts, minlength=size)
    # Before any text was seen a word is worth one text a label, in the labels' own shares.
    prior = len(names) * shares[label]
    others = having[columns] - 1 + len(names)
    bits = counts * np.log2((counts - 1 + prior) / (others * shares[label]))
    mean = np.bincount(columns, weights=bits, minlength=size) / np.maximum(having, 1)
    enough = min(0.5, -float((shares * np.log2(shares)).sum()) / 8)
    single = np.array([name.startswith(WORD) and " " not in name for name in table.names], np.bool_)
    # Float sums may miss an exact 0 by their last digit.
    told: NDArray[np.bool_] = single & (having > 0) & (mean >= enough - 1e-9)
    return told
