"""What a text is near to in meaning, as features joined to its words: vectors of words, added up.

The vectors come with the package `wordllama` (MIT; 32,000 pieces of words, 256 numbers each, made
from the input embeddings of Llama 2 and Phi 3), which `pip install "madlog[embedding]"` brings.
Only its two files are read, nothing of it is run, and nothing is ever downloaded. All is integers
but the final 1/4096ths, so a text has the same features on every CPU.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import isqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from madlog.processors.errors import NoEmbedding
from madlog.processors.lppm._sparse import ONE
from madlog.processors.lppm.text import ends

__all__ = ("MEANING", "Embedding", "WordVectors", "installed")

MEANING = "e:"  # begins the name of a feature that is one number of a vector
_STEPS = 1024  # to 1.0, in the vectors of pieces
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_VECTORS = "weights/l2_supercat_256.safetensors"
_CURE = 'run pip install "madlog[embedding]"'


class Embedding(Protocol):
    """Gives a text features that say what it is near to."""

    @property
    def name(self) -> str:
        """What tells it from any other: a model that learned with one is served with that one."""

    def row(self, text: str) -> dict[str, float]:
        """Return a text's features, of length 1 together; none for a text without any."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The sum of the vectors of a text's pieces; `vectors` is a row of integers a piece."""

    name: str
    _tokenizer: Any
    _vectors: NDArray[np.int32]

    def row(self, text: str) -> dict[str, float]:
        """Return a text's features, of length 1 together; none for a text without any."""
        pieces = self._tokenizer.encode(ends(text), add_special_tokens=False).ids
        total = self._vectors[pieces].sum(axis=0, dtype=np.int64).tolist()
        length = isqrt(sum(value * value for value in total))
        if not length:
            return {}
        return {
            f"{MEANING}{place:03}": value * ONE // length / ONE for place, value in enumerate(total)
        }


@cache
def installed() -> WordVectors:
    """Return the vectors of the installed package; raises NoEmbedding where it is not there."""
    found = find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        raise NoEmbedding(f"no embedding is installed: {_CURE}")
    folder = Path(found.submodule_search_locations[0])
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        vectors = load_file(folder / _VECTORS)["embedding.weight"]
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        told = hashlib.sha256((folder / _VECTORS).read_bytes())
        told.update((folder / _TOKENIZER).read_bytes())
    except (ImportError, OSError, KeyError, ValueError) as error:
        raise NoEmbedding(f"the installed embedding cannot be read ({error}): {_CURE}") from error
    rows = np.rint(vectors.astype(np.float64) * _STEPS).astype(np.int32)
    return WordVectors(f"wordllama-256-{told.hexdigest()[:16]}", tokenizer, rows)
