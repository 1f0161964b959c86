"""The words of a request: genres by their many names, moods as more of some genres and less of others.

A short public list, made by hand: it needs no model and can be read. Where a text encoder is installed, words that are
not in it are compared with the names of the genres (`client/recommending/request_reader.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from palate.data.titles import plain


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEGATIONS = _set(
    "not no without nothing never nor none non zero except excluding avoid hate hates hated dislike disliked dont isnt "
    "doesnt less fewer neither minus skip"
)
GLUE = _set(
    "or and nor too very so that is a an the any anything much more of from in film films movie movies book "
    "books want made kind please really to be it much its"
)
ARTICLES = _set("a an the")
DEGREES = _set("really very too so much even also")
LIKE = _set("like resembling loved love liked enjoyed enjoy")
ALL = _set("anything everything all")
"""Before "but" they make it a negation: "anything but horror"."""
VERBS = _set("like love enjoy want")
"""With a negation before them they turn down what follows, "I don't like horror"; after something else that was turned
down they begin anew: "I hate horror and love drama"."""
LIKE_OF = {"similar": "to", "such": "as", "fan": "of", "reminds": "of", "style": "of", "akin": "to", "close": "to"}
THINGS = _set(
    "film films movie movies book books thing things item items title titles suggestion suggestions "
    "recommendation recommendations show shows song songs album albums product products pick picks"
)
_NUMBER_WORDS = "one two three four five six seven eight nine ten"
NUMBERS = {word: value for value, word in enumerate(_NUMBER_WORDS.split(), start=1)}
STOP = _set(
    "a an the i im id ill we me my you us it its is are be was am do does did can could would should will want "
    "wants need give show find recommend suggest watch see read hear buy get some something anything someone "
    "any stuff one ones thing things film films movie movies book books item items that this these those with "
    "of for from in on at to by as and or but nor so too very really quite just please maybe perhaps rather "
    "more most much bit little kind kinds sort like likes loved love liked enjoyed similar such than then "
    "there here about which who what when how tonight today evening weekend time good great nice best better "
    "also only even still again made era period style mood feel feeling feels tell let have has had between "
    "not no without nothing never none non except avoid less fewer old older around early late mid dont want "
    "zero hate hates hated dislike disliked neither all everything "
    "looking lets title titles story stories pick picks top s t"
)

_SAME = (
    ("adventure", "adventurous"),
    ("animation", "animated", "anime", "cartoon"),
    ("childrens", "children", "child", "kids", "kid", "family", "kids and family", "for kids", "for children"),
    ("comedy", "comic", "comedic"),
    ("crime", "gangster", "heist", "mafia", "mob", "detective"),
    ("documentary", "documentaries", "docu", "non fiction"),
    ("drama", "dramatic"),
    ("fantasy", "fantastical"),
    ("film noir", "noir"),
    ("history", "historical", "period drama"),
    ("musical", "music"),
    ("mystery", "whodunit", "whodunnit"),
    ("romance", "romantic", "love story"),
    ("sci fi", "science fiction", "scifi", "sf"),
    ("sport", "sports"),
    ("western", "cowboy"),
    ("biography", "biographical", "biopic"),
)
COMPOUNDS = {
    "rom com": ("romance", "comedy"),
    "romcom": ("romance", "comedy"),
    "dramedy": ("drama", "comedy"),
    "space opera": ("sci fi", "adventure"),
}


@dataclass(frozen=True)
class Mood:
    """What a mood means in genres: more of some, less of others."""

    more: tuple[str, ...]
    less: tuple[str, ...] = ()


def _mood(more: str, less: str = "") -> Mood:
    return Mood(tuple(filter(None, more.split("; "))), tuple(filter(None, less.split("; "))))


MOODS: dict[str, Mood] = {
    phrase: mood
    for phrases, mood in (
        (
            "light, lighter, lighthearted, light hearted, cheerful, easy, easygoing, fun, happy, happier, breezy, "
            "uplifting, feelgood, feel good",
            _mood("comedy; romance; childrens", "horror; war; crime; thriller"),
        ),
        (
            "dark, darker, bleak, gloomy, gritty, grim, grittier, cynical, moody, sinister",
            _mood("film noir; crime; horror; thriller", "comedy; childrens; musical"),
        ),
        ("funny, funnier, hilarious, witty, humorous, silly, goofy, laugh, laughs", _mood("comedy")),
        (
            "scary, scarier, creepy, frightening, spooky, terrifying, eerie, gory, bloody",
            _mood("horror; thriller", "childrens; comedy"),
        ),
        (
            "tense, tenser, suspenseful, suspense, gripping, thrilling, twisty, edge of my seat, edge of your seat",
            _mood("thriller; mystery; crime"),
        ),
        ("exciting, explosive, epic, swashbuckling, adrenaline, fast paced", _mood("action; adventure")),
        (
            "serious, heavier, heavy, weighty, deep, deeper, profound, intense",
            _mood("drama; history; documentary; war", "comedy; childrens"),
        ),
        (
            "warm, warmer, heartwarming, heart warming, cosy, cozy, sweet, gentle, tender, charming",
            _mood("romance; comedy; childrens; drama", "horror; war; crime"),
        ),
        ("real, true, factual, informative, educational", _mood("documentary; biography; history")),
        ("wholesome, innocent, clean, harmless", _mood("childrens; animation", "horror; thriller; crime; war")),
        (
            "clever, smart, intelligent, thoughtful, cerebral, brainy, mindbending, mind bending, puzzling, strange, "
            "weird",
            _mood("mystery; sci fi; drama", "action"),
        ),
        (
            "sad, sadder, tearjerker, tear jerker, melancholic, moving, touching, tragic, emotional",
            _mood("drama; romance; war", "comedy; action"),
        ),
        (
            "calm, calmer, quiet, relaxing, relaxed, slow, slower, soothing, peaceful",
            _mood("drama; romance; documentary", "action; horror; thriller; war"),
        ),
        ("violent, violence", _mood("action; war; crime; horror", "childrens; romance")),
        ("magical, magic, dreamy, fairy", _mood("fantasy; animation; childrens")),
        ("futuristic, space, robots, aliens, alien, spaceships", _mood("sci fi")),
        ("singing, songs, dancing", _mood("musical")),
    )
    for phrase in phrases.split(", ")
}
OLD = _set("old older classic classics vintage oldie oldies")
RECENT = _set("recent modern contemporary")
NEW = _set("new newer newest latest")
POPULAR = _set("popular famous mainstream blockbuster blockbusters hits")
OBSCURE = _set("obscure unknown underrated overlooked rare niche indie gem gems")
MIXED = _set("different diverse varied mixed mix variety surprise surprising unusual")


def stems(word: str) -> tuple[str, ...]:
    """Forms under which a word may be listed: itself, and its singular."""
    forms = [word]
    if word.endswith("ies") and len(word) > 4:
        forms.append(f"{word[:-3]}y")
    if word.endswith("s") and len(word) > 3:
        forms.append(word[:-1])
    return tuple(forms)


def genre_words(genres: Iterable[str]) -> dict[str, str]:
    """Every phrase by which one of these genres may be called, in plain words, and the genre as it is written."""
    words: dict[str, str] = {}
    written = {plain(genre): genre for genre in genres}
    for name, genre in written.items():
        words.setdefault(name, genre)
    for group in _SAME:
        own = [written[name] for name in group if name in written]
        if own:
            words.update({name: words.get(name, own[0]) for name in group})
    return words
