"""Three hundred labelled wishes in five languages, and the kinds of words that turn something down."""

from collections import Counter

import numpy as np
import pytest

from palate.client.recommending.facets import facets_of
from palate.client.wishes.lexicon import LANGUAGES, lexicon_of
from palate.client.wishes.moods import MOODS
from palate.client.wishes.reader import RequestReader
from palate.data.title_index import TitleIndex

from . import labelled_wishes as labelled

LEAST_SATISFIED = 0.95
TURNS_DOWN = {"not", "lack", "except", "lack_after", "less", "neutral", "only"}
KINDS_WITH_NEGATION = TURNS_DOWN | {"obscure", "short", "long", "at_most", "at_least", "until", "genre"}


@pytest.fixture(scope="module")
def known():
    return labelled.films()


@pytest.fixture(scope="module")
def box(known):
    return labelled.person_of(labelled.catalogue_of(known))


@pytest.mark.parametrize("half", ["blind.txt", "known.txt"])
def test_wishes_are_satisfied_in_each_language_and_none_is_inverted(half, known, box):
    recommender, person = box
    failed, of = {}, Counter()
    for wish in labelled.wishes(half):
        of[wish.language] += 1
        found = labelled.failures(wish, person.recommend(recommender.reader.read(wish.text)), known)
        if found:
            failed.setdefault(wish.language, {})[wish.text] = found
    assert of == dict.fromkeys(LANGUAGES, 30)
    inverted = [text for own in failed.values() for text, found in own.items() if "inverted" in str(found)]
    assert inverted == []
    for language in LANGUAGES:
        own = failed.get(language, {})
        assert len(own) <= (1 - LEAST_SATISFIED) * of[language], own


def test_a_reader_that_hears_no_negation_is_found_out(known, box):
    recommender, person = box
    inverted = 0
    for wish in labelled.wishes("blind.txt"):
        asked = recommender.reader.read(wish.text)
        deaf = type(asked)(genres=(*asked.genres, *asked.without), every=asked.every)
        inverted += "inverted" in str(labelled.failures(wish, person.recommend(deaf), known))
    assert inverted > 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_phrase_both_steers_and_means_nothing(language):
    for phrase, kinds in lexicon_of(language).exact.items():
        steers = kinds.keys() & (TURNS_DOWN | {"or", "break"})
        assert not (steers and kinds.keys() & {"glue", "genre", "mood"}), phrase


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each != "zh"])
def test_no_phrase_swallows_a_word_that_turns_down(language):
    exact = lexicon_of(language).exact
    turns_down = {phrase for phrase, kinds in exact.items() if "not" in kinds and " " not in phrase}
    for phrase, kinds in exact.items():
        assert not turns_down & set(phrase.split()) or kinds.keys() & KINDS_WITH_NEGATION, phrase


def test_every_language_has_words_for_each_mood():
    for language in LANGUAGES:
        named = {kinds["mood"] for kinds in lexicon_of(language).exact.values() if "mood" in kinds}
        assert named == set(MOODS), language


@pytest.mark.parametrize(
    ("wish", "asked"),
    [
        ("blorby horror", "blorby"),
        ("horror nauseates me", "nauseates"),
        ("give westerns a wide berth", "berth"),
        ("Musicals kann ich nicht verknusen", "verknusen"),
        ("les westerns me gonflent", "gonflent"),
        ("los musicales me aburren", "aburren"),
        ("对恐怖片没胃口", "胃口"),
    ],
)
def test_a_genre_beside_an_unknown_word_is_asked_about_and_never_applied(wish, asked, box):
    request = box[0].reader.read(wish)
    assert not request.genres
    assert asked in " ".join(request.questions())
    assert request.unsure


def test_what_a_catalogue_cannot_tell_is_asked_about():
    titles = ("Heat (1995)", "Up (2009)")
    years = np.array([1995, 2009], dtype=np.int32)
    bare = labelled.Catalogue(("a", "b"), titles, (("Crime",), ("Comedy",)), years, ("", ""))
    reader = RequestReader(facets_of(bare), TitleIndex(titles, years))
    request = reader.read("a comedy with Tom Hanks under 90 minutes")
    assert request.genres == ("genre: Comedy",)
    assert set(request.not_understood) == {"Tom", "Hanks", "under 90 minutes"}


def test_parts_can_be_dropped_one_by_one(box):
    recommender, _ = box
    catalogue = recommender.catalogue
    request = recommender.reader.read("a comedy or a western from the 90s, no romance, not too long")
    parts = list(request.parts(catalogue))
    assert parts == ["Comedy", "Western", "from 1990 to 1999", "up to 100 minutes", "not Romance"]
    for number, part in enumerate(parts):
        left = list(request.dropped([part], catalogue).parts(catalogue))
        assert left == parts[:number] + parts[number + 1 :]
    assert not request.dropped(parts, catalogue).asks


@pytest.mark.parametrize(
    ("wish", "genres", "without"),
    [
        ("\u6ca1\u6709\u6050\u6016\u7684\u79d1\u5e7b\u7247", ("genre: Sci-Fi",), ()),
        ("\u4e0d\u6050\u6016\u7684\u79d1\u5e7b\u7247", ("genre: Sci-Fi",), ()),
        ("\u4e0d\u60f3\u770b\u6050\u6016\u7684\u79d1\u5e7b\u7247", (), ("genre: Sci-Fi",)),
        ("\u6ca1\u6709\u6050\u6016\u7684\u548c\u8840\u8165\u7684\u79d1\u5e7b\u7247", ("genre: Sci-Fi",), ()),
    ],
)
def test_a_chinese_attribute_is_turned_down_without_what_it_describes(box, wish, genres, without):
    asked = box[0].reader.read(wish)
    assert (asked.genres, asked.without) == (genres, without)
    assert asked.moods
    assert {mood.name for mood in asked.moods} <= {"not scary", "not bloody"}
