"""The table made ready: whatever is there, whatever came since, and nothing that does not belong together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from palate.client.fleet.profile import FleetProfile
from palate.client.fleet.tables import TRAINING as KEPT_TRAINING
from palate.client.fleet.tables import read_table, table_keeper
from palate.client.owner.opening import NO_NAMES, NO_TABLE, NO_TRAINING, open_catalogue, open_recommender
from palate.client.vault import HEADS, TABLES, Vault, heads
from palate.client.vault.errors import VaultTampered
from palate.data.catalogue import Catalogue
from palate.data.form_index import FormIndex
from palate.errors import RunError
from palate.models.scores.base import Shape
from palate.models.scores.registry import SCORE_MODELS, initial_head
from palate.models.table import ItemTable
from palate.models.training import LocalTraining


def test_a_title_is_the_same_row_to_what_recommends_and_to_what_trains(owner):
    films = pl.DataFrame(
        {
            "item": ["Heat (1995)", "f1", "f2", "f3", "f4"],
            "title": [None, "Heat (1995)", "Ran\u00a0(1985)", "Red\x1b", "Casino"],
        }
    )
    films.write_parquet(owner.folder.catalogue)
    table_keeper(owner.folder.table)(ItemTable(np.ones((5, 1), dtype=np.float32), np.eye(5, dtype=np.float32)))
    trains = Catalogue.from_parquet(owner.folder.catalogue.read_bytes(), hint="").rows
    with Vault.open(owner.folder.vault) as vault:
        rows = open_recommender(owner.folder, vault).catalogue.rows
    asked = [
        *(f"title:{title}" for title in films["title"]),
        *films["item"],
        "title:Red\ufffd",
        "title:Ran\ufffd(1985)",
    ]
    assert [trains.get(key) for key in asked] == [rows.get(key) for key in asked]
    assert (rows["Heat (1995)"], rows.get("title:Heat (1995)"), rows["title:Casino"]) == (0, None, 4)


def test_preparing_is_done_once_and_again_when_the_files_change(owner, monkeypatch):
    with Vault.open(owner.folder.vault) as vault:
        first = open_recommender(owner.folder, vault)
        assert first.notes == ()
        with monkeypatch.context() as patched:
            patched.setattr(Catalogue, "from_parquet", None)  # would fail if it were read again
            again = open_recommender(owner.folder, vault)
        assert again.catalogue.rows == first.catalogue.rows
        assert again.groups == first.groups
        table = read_table(owner.folder.table)
        popular = np.concatenate([table.fixed[:, :1] + 1, table.fixed[:, 1:]], axis=1)
        table_keeper(owner.folder.table)(ItemTable(popular, 2 * table.learned))
        with monkeypatch.context() as patched:
            patched.setattr(Catalogue, "from_parquet", None)
            assert open_recommender(owner.folder, vault).table_hash != first.table_hash
        table_keeper(owner.folder.table)(ItemTable(table.fixed[:, :3].copy(), table.learned))
        assert open_recommender(owner.folder, vault).space.rows.shape[1] == 3 + table.dim


def test_what_is_kept_for_next_time_is_sealed(owner):
    owner("recommend")
    with Vault.open(owner.folder.vault) as vault:
        assert b"Casino (1995)" in vault.get(TABLES, "shelf")
    for path in owner.folder.vault.iterdir():
        assert b"Casino (1995)" not in path.read_bytes()


def test_before_the_first_table_genres_and_years_recommend_and_it_is_said(owner):
    owner.folder.table.unlink()
    found = owner.json("recommend")
    assert found["table_notes"] == [NO_TABLE]
    assert found["table"] is None
    assert sum("Crime" in line["genres"] for line in found["recommendations"]) >= 8
    owner("profile")


def test_with_nothing_to_go_by_the_next_step_is_named(owner):
    films = pl.read_parquet(owner.folder.catalogue).select("item", "title")
    films.write_parquet(owner.folder.catalogue)
    owner.folder.table.unlink()
    code, text = owner.ends("recommend")
    assert (code, "neither genres nor years" in text, "palate client join" in text) == (11, True, True)
    owner.folder.catalogue.unlink()
    code, text = owner.ends("recommend")
    assert (code, "palate client try" in text) == (11, True)


def test_before_the_first_round_all_works_that_needs_no_table(owner):
    films = pl.read_parquet(owner.folder.catalogue).select("item", "title")
    films.write_parquet(owner.folder.catalogue)
    owner.folder.table.unlink()
    assert owner.json("search", "heat")["matches"][0]["title"] == "Heat (1995)"
    assert "added" in owner("add", "Heat (1995)")
    assert "liked" in owner("like", "casino")
    assert "hidden" in owner("hide", films["title"][3])
    assert "Heat (1995)" in owner("history", "--n", "0")
    assert "taken out" in owner("remove", "heat 1995")
    assert owner.json("profile")["sentence"] == "nothing is known yet"


def test_before_there_is_a_catalogue_titles_are_kept_as_typed_and_found_in_a_later_one(owner):
    kept, table = owner.folder.catalogue.read_bytes(), owner.folder.table.read_bytes()
    owner.folder.catalogue.unlink()
    owner.folder.table.unlink()
    assert "no catalogue yet" in owner("search", "heat")
    assert "added" in owner("add", "blade runner 2049")
    assert "is not in your history" in owner("remove", "up")
    assert "disliked" in owner("dislike", "casino")
    assert "blade runner 2049" in owner("history")
    assert owner.json("profile")["interests"] == []
    assert owner.ends("add", " ")[0] == 2
    owner.folder.catalogue.write_bytes(kept)
    owner.folder.table.write_bytes(table)
    assert "Casino (1995)" in owner("history")


def test_without_the_runs_parameters_the_usual_ones_are_used_and_it_is_said(owner):
    with Vault.open(owner.folder.vault) as vault:
        KEPT_TRAINING.write(vault, '{"model": "gmf", "of a later version": 1}')
    assert owner.json("recommend")["table_notes"] == [NO_TRAINING]


def test_a_table_of_other_items_is_refused_and_columns_without_names_are_mentioned(owner):
    table = read_table(owner.folder.table)
    table_keeper(owner.folder.table)(ItemTable(table.fixed[:-1].copy(), table.learned[:-1].copy()))
    code, text = owner.ends("recommend")
    assert (code, "239 items, the catalogue 240" in text) == (11, True)
    table_keeper(owner.folder.table)(ItemTable(table.fixed[:, :-1].copy(), table.learned))
    assert owner.json("recommend")["table_notes"] == [NO_NAMES]


def test_a_catalogue_that_is_not_the_fleets_is_refused(owner, monkeypatch):
    profile = SimpleNamespace(welcome=SimpleNamespace(catalogue_sha256="00" * 32))
    monkeypatch.setattr(FleetProfile, "load", lambda _: profile)
    code, text = owner.ends("recommend")
    assert (code, "not the fleet's" in text) == (11, True)


def test_a_damaged_catalogue_or_table_ends_with_a_hint(owner):
    kept = owner.folder.catalogue.read_bytes()
    owner.folder.catalogue.write_bytes(b"PAR1 not really")
    assert owner.ends("recommend")[0] == 10
    owner.folder.catalogue.write_bytes(kept)
    owner.folder.table.write_bytes(b"no table")
    assert owner.ends("recommend")[0] == 11


@pytest.fixture
def trained(owner):
    training = LocalTraining(model="neumf", hidden=4)
    table = read_table(owner.folder.table)
    shape = Shape(fixed_dim=table.fixed_dim, dim=table.dim, hidden=training.hidden)
    rng = np.random.default_rng(5)
    fresh = initial_head("neumf", "whole", shape)
    state = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in fresh.items()}
    with Vault.open(owner.folder.vault) as vault:
        KEPT_TRAINING.write(vault, training.model_dump_json())
        vault.put(HEADS, heads.head_name(training), heads.pack_head(training, shape, state))
    return training, table, state


def test_a_trained_head_counts_in_lists_and_reasons_add_up(owner, trained):
    training, table, state = trained
    with Vault.open(owner.folder.vault) as vault:
        read = heads.read_head(vault, training, table)
        assert {name: value.tolist() for name, value in read.items()} == {
            name: value.tolist() for name, value in state.items()
        }
        tensors = {name: torch.from_numpy(value)[None] for name, value in state.items()}
        nonlinear = SCORE_MODELS["neumf"].batched_nonlinear(tensors, torch.from_numpy(table.rows)[None])[0]
        np.testing.assert_allclose(open_recommender(owner.folder, vault).head_scores, nonlinear, atol=1e-4)
    for line in owner.json("recommend", "--explain")["recommendations"]:
        assert abs(sum(term["value"] for term in line["sources"]) - line["score"]) < 1e-5


def test_a_model_that_is_not_installed_here_is_an_error_and_its_head_is_never_dropped_in_silence(owner, trained):
    training, _, _ = trained
    with Vault.open(owner.folder.vault) as vault:
        KEPT_TRAINING.write(vault, training.model_copy(update={"model": "theirs"}).model_dump_json())
    code, printed = owner.ends("recommend")[:2]
    assert code == 2
    assert "unknown model 'theirs'" in printed


def test_a_head_of_another_shape_is_absent_and_one_that_is_none_is_reported(owner, trained):
    training, table, _ = trained
    with Vault.open(owner.folder.vault) as vault:
        assert heads.read_head(vault, training.model_copy(update={"hidden": 5}), table) is None
        assert heads.read_head(vault, training.model_copy(update={"model": "gmf"}), table) is None
        data = vault.get(HEADS, "neumf/whole")
        for wrong in (b"", data[:40], data[:-4], data[:8] + b"[]" + data[10:], b"\x02" + bytes(7) + b"[]"):
            vault.put(HEADS, "neumf/whole", wrong)
            with pytest.raises(VaultTampered):
                heads.read_head(vault, training, table)
    assert owner.ends("recommend")[0] == 14


def test_recommending_needs_a_catalogue(owner):
    owner.folder.catalogue.unlink()
    with Vault.open(owner.folder.vault) as vault, pytest.raises(RunError, match="no catalogue yet"):
        open_recommender(owner.folder, vault)


def test_forms_of_titles_are_kept_for_one_catalogue_and_made_anew_for_another(owner, monkeypatch):
    made = []
    monkeypatch.setattr(FormIndex, "of", staticmethod(lambda *given, of=FormIndex.of: (made.append(1), of(*given))[1]))
    for titles in (("Heat (1995)", "Alien (1979)"), ("Heat (1995)", "Casino (1995)")):
        owner.folder.catalogue.write_bytes(Catalogue.of(titles).to_parquet())
        for _ in range(2):
            with Vault.open(owner.folder.vault) as vault:
                catalogue = open_catalogue(owner.folder, vault)
                assert catalogue.title_index.identify(titles[1]) == (1, "exact")
    assert len(made) == 2
