"""A fleet that lives: two runs in a row over TLS, with real devices, a helper, new items and people, two budgets."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from palate.audit.ledger_audit import audit_ledgers
from palate.audit.opening import open_source
from palate.client.fleet import enrolling, public_times
from palate.client.fleet.folder import DeviceFolder
from palate.client.fleet.identity import DeviceKeys
from palate.client.fleet.member import Member, take_part
from palate.client.fleet.public_times import FIRST_SECONDS, AtPublicTimes
from palate.client.fleet.round_log import RoundLog
from palate.client.fleet.status import status_of as device_status
from palate.client.fleet.status_text import status_lines
from palate.client.fleet.tables import read_table
from palate.client.fleet.transport import agent
from palate.client.fleet.transport.pacing import Pace
from palate.client.fleet.worker import Contribution, noise_alone
from palate.client.vault import Vault
from palate.data.catalogue import Catalogue
from palate.errors import RunError
from palate.privacy.aggregators.offer import CollectionOffer
from palate.privacy.enrolment import EnrolmentRequest, Welcome
from palate.server.fleet.certifying import propose
from palate.server.fleet.config import load_config
from palate.server.fleet.folder import FleetFolder, read_key
from palate.server.fleet.next_run import begin_next_run, promised_in_all
from palate.server.fleet.operation import FINISHED
from palate.server.fleet.serving import opened
from palate.server.fleet.setup import make_fleet, welcome
from palate.server.fleet.state import FleetState
from palate.server.fleet.summary import rounds_of, status_of
from palate.server.helper.config import checked_config
from palate.server.helper.folder import HelperFolder, make_helper, trust
from palate.server.helper.folder import opened as open_helper
from palate.server.helper.http import HelperServer

FAST = Pace(busy_poll_seconds=0.02, idle_poll_seconds=0.1, first_retry_seconds=0.05, max_retry_seconds=0.2)
DAY = 86_400
PEOPLE, ITEMS = 10, 40


class NoiseTrainer:
    """A device without a person: noise alone, as when a computation fails."""

    def contribute(self, plan, history, head) -> Contribution:
        return Contribution(noise_alone(plan.update_size, plan.terms), None)

    def use_catalogue(self, sha256: str) -> None:
        pass

    def close(self) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class LivingFleet:
    """A helper, a leader and devices, each in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.shift = root, 0
        self.running: list[agent.FleetAgent] = []
        self.answered: list[float] = []
        self.helper, port = HelperFolder(root / "helper"), free_port()
        make_helper(self.helper, checked_config({"fleet": "books", "address": f"localhost:{port}", "port": port}))
        port = free_port()
        given = {
            "name": "books",
            "run": "books-1",
            "epsilon": 8.0,
            "listen": {"address": f"localhost:{port}", "bind": "127.0.0.1", "port": port},
            "cohort": {"devices": PEOPLE},
            "schedule": {"rounds": 1, "dim": 2},
            "privacy": {"spare_rounds": 0},  # so that one run uses a budget up
            "deadlines": {"receipt_seconds": 5.0},
        }
        self.fleet = FleetFolder(root / "fleet")
        make_fleet(self.fleet, self.items("items.csv", range(ITEMS)), given, helper=self.helper.card.read_bytes())
        trust(self.helper, self.fleet.leader_card.read_bytes())
        self.devices = [self.enrol(number) for number in range(PEOPLE)]

    def items(self, name: str, rows) -> Path:
        path = self.root / name
        path.write_text("item,genres\n" + "".join(f"i{row:03},{('War', 'Drama')[row % 2]}\n" for row in rows))
        return path

    def enrol(self, number: int) -> DeviceFolder:
        """Make a device; number 0 allows one run for life, 1 the same every 30 days, the others two runs."""
        folder = DeviceFolder(self.root / f"device-{number}")
        enrolling.begin(folder)
        with Vault.open(folder.vault) as vault:
            keys = DeviceKeys.load(vault)
            request = EnrolmentRequest.open(keys.request.sign(keys.signing))
        with open_helper(self.helper) as service:
            certificate = service.admit([propose(self.fleet, request)])[0].to_bytes()
        read, catalogue = Welcome.unpack(welcome(self.fleet, request, certificate=certificate).archive)
        wishes = ({"epsilon": 8.0}, {"epsilon": 8.0, "every": "30d"})[number] if number < 2 else {"epsilon": 30.0}
        enrolling.accept(folder, read, catalogue, enrolling.limits_for(read, smallest_cohort=3, **wishes))
        return folder

    @contextmanager
    def agents(self):
        """All devices take part until the run is over for them; those that refuse it are stopped."""
        runs: dict[int, str | None] = {}

        def live(number: int, folder: DeviceFolder) -> None:
            with folder.locked(), Member.opened(folder) as member:
                runs[number] = take_part(member)

        threads = [threading.Thread(target=live, args=each, daemon=True) for each in enumerate(self.devices)]
        for thread in threads:
            thread.start()
        yield runs
        for each in self.running:
            each.stop()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()

    def run(self, *, ending: int) -> dict[int, str | None]:
        """Run the fleet's current run to its end, and wait until it is over for so many devices."""
        with ExitStack() as stack:
            service = stack.enter_context(open_helper(self.helper))
            port = self.helper.load_config().port
            stack.enter_context(HelperServer(service, self.helper.tls, host="127.0.0.1", port=port))
            with opened(self.fleet) as server, self.agents() as runs:
                assert server.operation.run() == FINISHED
                deadline = time.monotonic() + 120
                while len(runs) < ending and time.monotonic() < deadline:
                    time.sleep(0.05)
            return runs


@pytest.fixture
def living(tmp_path, monkeypatch):
    monkeypatch.setenv("PALATE_KEYRING", "file")
    kind = agent.FleetAgent

    def begun(*args, **kwargs):
        made.running.append(kind(*args, **kwargs, pace=FAST))
        return made.running[-1]

    monkeypatch.setattr(agent, "FleetAgent", begun)

    class Timed(AtPublicTimes):
        def handle(self, message, *, plan, table):
            began = time.monotonic()
            answer = super().handle(message, plan=plan, table=table)
            made.answered.extend([time.monotonic() - began] * message.step.opens_a_round)
            return answer

    monkeypatch.setattr(public_times, "AtPublicTimes", Timed)
    monkeypatch.setattr(Member, "worker", lambda self, **_: NoiseTrainer())
    made = LivingFleet(tmp_path)
    monkeypatch.setattr(RoundLog, "latest_time", lambda self: int(time.time()) + made.shift)
    return made


def test_two_runs_in_a_row_with_new_items_new_people_and_two_kinds_of_budget(living):
    assert set(living.run(ending=PEOPLE).values()) == {"books-1"}
    assert len(living.answered) >= 2 * PEOPLE, "in both rounds"
    assert min(living.answered) >= FIRST_SECONDS, "at public times"
    first = read_table(living.devices[0].table)
    spent = [device_status(folder).budget.life_nano for folder in living.devices]
    assert len(set(spent)) == 1

    # 5% new items, one that goes, 10% new people, and a month later
    catalogue = living.items("more.csv", (*range(1, ITEMS), ITEMS, ITEMS + 1))
    made = begin_next_run(living.fleet, {}, catalogue=catalogue)
    assert (made.before, made.items, made.new, made.gone) == ("books-1", ITEMS + 1, 2, 1)
    assert made.learned == ITEMS - 1
    living.devices.append(living.enrol(PEOPLE))
    living.shift = 31 * DAY
    assert status_of(living.fleet)["rounds_applied"] == 0
    config = load_config(living.fleet.config)
    assert (config.schedule.dim, config.content.items, config.cohort.devices) == (2, ITEMS + 1, PEOPLE)

    ended = living.run(ending=PEOPLE)
    assert {run for number, run in ended.items() if number} == {made.run}
    assert ended[0] is None, "for a device that refuses it, a run does not end"
    statuses = [device_status(folder) for folder in living.devices]
    took_part = [sum(each.run == made.run and each.ended == "released" for each in one.rounds) for one in statuses]
    assert took_part == [0, *[2] * PEOPLE]
    # the owner of a budget for life is told why; the other's budget was renewed
    assert any("is left of" in each["why"] for each in statuses[0].refusals)
    assert statuses[0].budget.life_nano == spent[0]
    text = "\n".join(status_lines(statuses[0]))
    assert f"run {made.run} plans 2 rounds within epsilon 8" in text
    assert "it refuses rounds that cost more than that" in text
    alike = partial(pytest.approx, rel=1e-4)  # the second run asks one device more, and shares are whole numbers
    assert statuses[1].budget.windows == 2
    assert statuses[1].budget.spent_nano == alike(spent[1])
    assert statuses[1].budget.life_nano == statuses[2].budget.life_nano == alike(2 * spent[1])
    assert statuses[PEOPLE].budget.life_nano == alike(spent[2]), "who joined later paid for one run"

    # the register grew with the first round after the new device was enrolled
    state = FleetState(living.fleet.state)
    leader = read_key(living.fleet.server_key).public_key().public_bytes_raw()
    offers = [CollectionOffer.open(each.offer, leader) for each in state.rounds()]
    state.close()
    assert [offer.most_reports for offer in offers] == [PEOPLE, PEOPLE, PEOPLE + 1, PEOPLE + 1]
    assert len({offer.register_hash for offer in offers}) == 2

    # rounds go on in one record; the server's ledger counts both runs, and so does what it says
    rows = rounds_of(living.fleet)
    assert [(row["round"], row["run"]) for row in rows] == [
        (0, "books-1"), (1, "books-1"), (2, made.run), (3, made.run)
    ]  # fmt: skip
    assert rows[3]["epsilon_spent"] == alike(rows[1]["epsilon_spent"])
    assert rows[3]["epsilon_spent_in_all_runs"] > rows[3]["epsilon_spent"]
    found = status_of(living.fleet)
    assert found["epsilon_spent"] <= found["epsilon_budget"] < found["epsilon_spent_in_all_runs"]
    assert found["epsilon_spent_in_all_runs"] <= promised_in_all(living.fleet, config)
    audited = audit_ledgers(open_source(str(living.fleet.ledger), None), None)
    assert not audited.faults

    # every device has the new catalogue and the table of its items; the log goes on
    tables = [read_table(folder.table) for folder in living.devices[1:]]
    assert {each.content_hash for each in tables} == {found["table"]}
    assert tables[0].num_items == ITEMS + 1 != first.num_items
    for folder in living.devices:
        assert Catalogue.from_parquet(folder.catalogue.read_bytes(), hint="").ids[-1] == f"i{ITEMS + 1:03}"
    kept = living.fleet.runs / "books-1"
    assert sorted(path.name for path in kept.iterdir()) == [
        "catalogue.parquet", "checkpoint.safetensors", "fleet.toml", "item_table.safetensors", "rounds.jsonl",
        "settings.json",
    ]  # fmt: skip


def test_a_run_that_is_under_way_is_not_replaced_unasked(living):
    with pytest.raises(RunError, match="books-1 is under way: 0 of 2 rounds are done") as refused:
        begin_next_run(living.fleet, {})
    assert "--unfinished" in refused.value.hint
    with opened(living.fleet), pytest.raises(RunError, match="another palate server runs this fleet"):
        begin_next_run(living.fleet, {}, unfinished=True)
    made = begin_next_run(living.fleet, {"epsilon": 4.0}, unfinished=True)
    assert (made.learned, load_config(living.fleet.config).epsilon) == (0, 4.0)
    with opened(living.fleet) as server:
        assert server.config.run == made.run
