"""A small catalogue of well-known films, written as public catalogues write them."""

from __future__ import annotations

import numpy as np
import pytest

from palate.data.catalogue import Catalogue

FILMS = """
Heat (1995)|Action,Crime,Thriller
Casino (1995)|Drama,Thriller
Matrix, The (1999)|Action,Sci-Fi,Thriller
Seven (Se7en) (1995)|Crime,Thriller
Godfather, The (1972)|Action,Crime,Drama
Godfather: Part II, The (1974)|Action,Crime,Drama
Terminator 2: Judgment Day (1991)|Action,Sci-Fi,Thriller
Terminator, The (1984)|Action,Sci-Fi,Thriller
Toy Story (1995)|Animation,Children's,Comedy
Good, The Bad and The Ugly, The (1966)|Action,Western
12 Angry Men (1957)|Drama
Alien (1979)|Action,Horror,Sci-Fi,Thriller
Sabrina (1995)|Comedy,Romance
Sabrina (1954)|Comedy,Romance
Up (2009)|Animation
Misérables, Les (1998)|Drama,Musical
Titanic (1997)|Drama,Romance
Casablanca (1942)|Drama,Romance,War
Hidden, The (1987)|Action,Horror,Sci-Fi
Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)|Drama
Thin Blue Line, The (1988)|Documentary
Horror Hotel (a.k.a. The City of the Dead) (1960)|Horror
Pride & Prejudice (2005)|Drama,Romance
Untitled|
"""


@pytest.fixture(scope="session")
def films() -> Catalogue:
    """Twenty-four films; the last has neither genre nor year."""
    lines = [line.partition("|") for line in FILMS.strip().splitlines()]
    titles = tuple(title for title, _, _ in lines)
    return Catalogue(
        ids=tuple(f"film-{place}" for place in range(len(lines))),
        titles=titles,
        genres=tuple(tuple(filter(None, genres.split(","))) for _, _, genres in lines),
        years=np.array([int(title[-5:-1]) if title.endswith(")") else 0 for title in titles], dtype=np.int32),
        texts=("",) * len(lines),
    )
