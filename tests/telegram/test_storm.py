"""A storm: 2,000 incidents within a minute, then all resolved, under a virtual clock and Telegram's limits."""

from zlib import crc32

import pytest

import dynamodb
import store
from dynamodb import Unavailable
from incident import Change, Incident, NewIncident, Source, Status, new_id
from telegram import bot
from tests.telegram.chat import BORIS, CHAT, Room, answered
from tests.telegram.fake_telegram import Clock, Telegram, notify

INCIDENTS = 2000


class Storm:
    """The incidents, and a stream's shards, which have the ids of the changed ones."""

    def __init__(self, clock: Clock, shards: int) -> None:
        self.clock = clock
        self.shards: list[list[str]] = [[] for _ in range(shards)]
        self.over = False

    def record(self, incident_id: str) -> None:
        self.shards[crc32(incident_id.encode()) % len(self.shards)].append(incident_id)

    def rage(self) -> None:
        """Create the incidents within a minute, few at first, and resolve them within four seconds."""
        ids = [new_id() for _ in range(INCIDENTS)]
        for number, each in enumerate(ids, 1):
            new = NewIncident(description=f"Point {number} does not answer", source=Source.MONITORING)
            store.add(Incident.report(new, id=each), "alertmanager")
            self.record(each)
            if number == 3 or number % 100 == 0:
                self.clock.sleep(4 if number == 3 else 2.8)
        for number, each in enumerate(ids, 1):
            store.change(each, Change(status=Status.RESOLVED), "alertmanager")
            self.record(each)
            if number % 500 == 0:
                self.clock.sleep(1)
        self.over = True

    def consume(self, shard: list[str]) -> None:
        """Hand batches to the function, and a failed one again, as Lambda does."""
        while not self.over or shard:
            self.clock.sleep(3)
            if batch := shard[:1000]:
                try:
                    notify(*batch)
                except (bot.TryLater, Unavailable):
                    self.clock.sleep(1)
                else:
                    del shard[: len(batch)]


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_a_storm_is_announced_within_three_minutes(
    room: Room, telegram: Telegram, clock: Clock, shards: int, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # moto copies its whole table for each transaction; the local run's database reads only the items concerned.
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint=database, read_timeout=20))
    clock.now += shards * 86_400  # the database still has what the previous storm left
    storm, began = Storm(clock, shards), clock.now

    def tap() -> None:
        clock.sleep(30)
        number = next(number for number, message in telegram.chats[CHAT].items() if "reply_markup" in message)
        button = telegram.buttons(number)["Start work"]
        answered(room.tap(button, BORIS, number))
        storm.record(button.split(":")[1])
        clock.sleep(30)
        assert "in progress, Boris" in str(telegram.chats[CHAT][number]["text"])

    clock.run(storm.rage, tap, *(lambda shard=shard: storm.consume(shard) for shard in storm.shards))
    texts = telegram.shown()
    singles = [text for text in texts if not text.startswith("New incidents: ")]
    digests = [text for text in texts if text not in singles]
    assert sum(int(text.split()[2].strip(",")) for text in digests) + len(singles) == INCIDENTS
    assert all(", of which 0 are open" in text for text in digests)
    assert all("Status: resolved" in text for text in singles)
    print(f"{shards} shards: {clock.now - began:.0f} s, {len(telegram.calls)} calls, {telegram.throttled} throttled")
    assert clock.now - began <= 180
    assert len(telegram.calls) + telegram.throttled <= 60
