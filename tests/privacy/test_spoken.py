"""Keys as words: two lists in turn, as the PGP word list has them, from a hash that anybody can compute again."""

from __future__ import annotations

from hashlib import sha256

from palate.privacy import spoken as module
from palate.privacy.spoken import COUNT, same_words, spoken


def test_the_words_are_those_of_the_list_at_the_bytes_of_the_hash():
    """Of key 00...00, computed here without the code that is tested; first, middle and last words of both lists."""
    two, three = module._TWO_SYLLABLES.split(), module._THREE_SYLLABLES.split()
    assert len(set(two)) == len(set(three)) == 256
    assert not set(two) & set(three)
    assert [(two[at], three[at]) for at in (0, 0x80, 0xFF)] == [
        ("aardvark", "adroitness"),
        ("merit", "intention"),
        ("zulu", "yucatan"),
    ]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in (b"palate/spoken/1", bytes(32)))
    digest = sha256(framed).digest()[:COUNT]
    assert spoken(bytes(32)).split() == [(two, three)[at % 2][byte] for at, byte in enumerate(digest)]
    assert spoken(bytes(32)) == "spellbind unravel transit yucatan gremlin infancy crumpled burlington seabird escapade"


def test_words_are_the_same_however_they_were_written_down_and_others_where_one_is_missing_or_moved():
    words = spoken(bytes(32))
    assert same_words(words, words.title().replace(" ", "-"))
    assert same_words(words, f"  {words.replace(' ', ', ')} ")
    first, second, *rest = words.split()
    for others in ((second, first, *rest), (second, *rest), (first, second, *rest, first)):
        assert not same_words(words, " ".join(others))
    assert not same_words(words, spoken(bytes(31) + b"\x01"))
