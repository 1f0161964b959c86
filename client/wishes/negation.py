"""What a wish turns down: every "no", "ohne", "pas" or 不要 is bound to the parts that it is about.

Scope is read within a clause, in the manner of NegEx (Chapman et al. 2001): a word that turns something down holds for
the next part, and for those that are joined to it by "or" and "and"; where no part follows it in its clause, for the
parts before it ("Horror mag ich nicht"). "Not" before a word of the other kind, "without" or "tired of", takes it back.
Where an unknown word leaves open what is turned down, the parts of the clause are *unclear*: they change nothing, and
are asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from palate.client.recommending.requests import Request
from palate.client.wishes.tokens import Token

Bound = Literal["", "not", "less"]
_TURNS_DOWN = "not lack except less"
_DENYING = frozenset({"\u4e0d", "\u6ca1\u6709", "\u6ca1", "\u65e0", "\u975e", "\u4e0d\u5e26", "\u4e0d\u542b"})
"""Chinese words that deny what follows, not the wish for it."""


@dataclass(eq=False)
class Part:
    """Something that a wish names.

    Attributes
    ----------
    want, refuse, less
        What is asked for if it is wanted, refused, or wanted less; `refuse` is None where that cannot be said, `less`
        where it is the same as refused.
    facets
        Genres that it names, or its mood.
    end
        The token after it.
    bound
        What it was bound to.
    unclear
        Token that leaves open whether it is wanted, -1 where none does.
    """

    want: Request
    refuse: Request | None = None
    less: Request | None = None
    facets: tuple[str, ...] = ()
    end: int = 0
    bound: Bound = field(default="")
    unclear: int = -1

    @property
    def chosen(self) -> Request:
        """What is asked for as it is bound."""
        if self.bound == "less" and self.less is not None:
            return self.less
        return self.want if not self.bound else self.refuse or Request()


def bind(tokens: Sequence[Token], parts: Mapping[int, Part], unknown: set[int]) -> list[tuple[int, int]]:
    """Bind all that turns down.

    Parameters
    ----------
    tokens
        The wish.
    parts
        What it names, by first token; `bound` and `unclear` are set.
    unknown
        Tokens that nobody knows.

    Returns
    -------
    list
        Spans of tokens that turn down nothing that is known; they are to be asked about.
    """
    scope = _Scope(tokens, parts, unknown)
    at = 0
    while at < len(tokens):
        at = scope.read(at)
    scope.close(final=True)
    return scope.left


class _Scope:
    """The word that holds now, and what it has been bound to."""

    def __init__(self, tokens: Sequence[Token], parts: Mapping[int, Part], unknown: set[int]) -> None:
        self._tokens, self._parts, self._unknown = tokens, parts, unknown
        self.left: list[tuple[int, int]] = []
        self._clause: list[Part] = []
        self._before: list[Part] = []  # of the clause before a comma
        self._prefers = ""
        self._release()

    def _release(self) -> None:
        """Hold nothing any more."""
        self._holds, self._at, self._bound, self._strange = "", -1, False, -1

    def read(self, at: int) -> int:
        """Read the token here; returns the next one."""
        token, part = self._tokens[at], self._parts.get(at)
        if part is not None:
            self._meet(part)
            if self._bound and self._is_attribute(part):
                self._release()
            return part.end
        joined = any(n >= 0 and self._tokens[n].any("and") for n in (at - 1, at - 2))
        if token.any("prefer"):
            self._prefers = "less" if token.any("more") else "lack"
        if at in self._unknown:
            self._strange = at
            if self._bound:
                self._release()
        elif token.any("other") and self._prefers and self._clause and not self._holds:
            self._holds, self._at, self._prefers = self._prefers, at, ""
        elif token.any("lack_after") and self._after(at):
            pass
        elif token.any(", ."):
            self._mark(at)
        elif token.any("break"):
            self.close()
        elif token.any(_TURNS_DOWN):
            self._turn_down(at, token)
        elif (
            token.any("only")
            or ((self._bound or joined) and token.any("want more") and not token.any("prep or and"))
            or (self._bound and ((token.any("prep") and not token.any("or and glue")) or self._is_chinese_head(at)))
        ):
            self._release()
        return at + 1

    def _meet(self, part: Part) -> None:
        if self._holds:
            part.bound = "less" if self._holds == "less" else "not"
            if part.bound == "not" and part.refuse is None:
                self.left.append((self._at, part.end))
            self._bound = True
        self._clause.append(part)

    def _turn_down(self, at: int, token: Token) -> None:
        kind = next(kind for kind in ("less", "except", "lack", "not") if token.any(kind))
        if self._holds and not self._bound:
            if self._holds == "not" and kind in ("lack", "except"):
                self._release()  # "not without", "nothing except"
                return
            if kind == "not":  # "ohne kein"
                return
        if self._holds == "except" and kind == "not" and not self._parts_follow(at):
            for part in self._clause:  # "apart from comedies I want nothing"
                part.bound = ""
            self._release()
            return
        self._release()
        self._holds, self._at = kind, at

    def _parts_follow(self, at: int) -> bool:
        end = next((n for n in range(at, len(self._tokens)) if self._tokens[n].any(", . break")), len(self._tokens))
        return any(at < place < end for place in self._parts)

    def _after(self, at: int) -> bool:
        """Bind to what stands just before, and what is joined to it: "horror-free", "war and violence excluded"."""
        place, chain = at, list[Part]()
        while True:
            small = "- glue thing and or ," if chain or not any(p.end == place for p in self._parts.values()) else ""
            before = place - 1
            part = next((part for start, part in self._parts.items() if start <= before < part.end), None)
            if part is not None:
                chain.append(part)
                place = next(start for start, each in self._parts.items() if each is part)
            elif before >= 0 and self._tokens[before].any(small) and not (chain and self._tokens[before].any(",")):
                place = before
            else:
                break
        for part in chain:
            part.bound = "not"
        if chain and self._holds and not self._bound:
            self._release()
        return bool(chain)

    def _mark(self, at: int) -> None:
        """Read a comma or another mark. Some carry on what was turned down, or the topic: "Horror? Never!"."""
        listed = self._tokens[at].said == "\u3001"
        if self._bound and (listed or (self._tokens[at].any(",") and self._list_goes_on(at + 1))):
            return
        if self._holds and not self._bound and at == self._at + 1 and not self._clause and not self._before:
            self._release()  # "no, thank you"
        self.close(final=not self._tokens[at].any(",") and self._tokens[at].said not in "?:\uff1f\uff1a")

    def _list_goes_on(self, at: int) -> bool:
        """Whether a comma stands in a list with an "or": "no horror, war or westerns"."""
        at = self._small(at)
        if at not in self._parts:
            return at < len(self._tokens) and self._tokens[at].any("or")
        at = self._small(self._parts[at].end)
        if at >= len(self._tokens):
            return False
        return self._tokens[at].any("or") or (self._tokens[at].any(",") and self._list_goes_on(at + 1))

    def _small(self, at: int) -> int:
        while at < len(self._tokens) and at not in self._parts and self._tokens[at].any("glue thing"):
            at += 1
        return at

    def _is_chinese_head(self, at: int) -> bool:
        """Whether what was turned down describes what follows: 不要爱情的喜剧 is a comedy."""
        return self._tokens[at].said.endswith("\u7684") and any(place > at for place in self._parts)

    def _is_attribute(self, part: Part) -> bool:
        """Whether a part and the word that denies it describe what follows: 没有恐怖的科幻片 is science fiction.

        After a verb of wanting they do not: 不想看恐怖的科幻片 turns down both.
        """
        denies = self._tokens[self._at].said in _DENYING
        return denies and self._tokens[part.end - 1].said.endswith("\u7684") and part.end in self._parts

    def close(self, *, final: bool = False) -> None:
        """End a clause: what holds and is bound to nothing is about what came before it, or asked about."""
        if self._holds and not self._bound:
            strange = self._strange > self._at
            if strange and self._holds in ("lack", "except"):  # its object follows: "except Blorb"
                about = []
            else:
                about = [part for part in self._clause or self._before if not part.bound]
            for part in about:
                if strange:
                    part.unclear = self._strange
                elif part.refuse is not None:
                    part.bound = "less" if self._holds == "less" else "not"
            if strange or not (about or any(part.bound for part in self._clause or self._before)):
                self.left.append((self._at, max(self._strange, self._at) + 1))
        self._before = [] if final else [*self._clause] or self._before
        self._clause, self._prefers = [], ""
        self._release()
