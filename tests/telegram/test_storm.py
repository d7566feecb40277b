"""A storm: 2,000 incidents within a minute, then all of them resolved, on a virtual clock and a Telegram with its limits."""

from zlib import crc32

import httpx
import pytest
from pydantic_core import from_json

import dynamodb
import store
from dynamodb import Unavailable
from incident import Change, Incident, NewIncident, Source, Status, new_id
from telegram import bot
from tests.telegram.chat import BORIS, CHAT, Chat, answered, buttons, call, deliver
from tests.telegram.fake_telegram import Clock, Telegram, tell

INCIDENTS = 2000


class Storm:
    """The incidents, and the shards of the stream that has their changes."""

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
        """Call the function with batches, and with the same one again if it fails, as Lambda does."""
        while not self.over or shard:
            self.clock.sleep(3)
            if batch := shard[:1000]:
                try:
                    tell(*batch)
                except (bot.TryLater, Unavailable):
                    self.clock.sleep(1)
                else:
                    del shard[: len(batch)]


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_a_storm_is_told_within_three_minutes(
    api: httpx.Client,
    telegram: Telegram,
    clock: Clock,
    shards: int,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # moto copies its whole table for each transaction, the local run's database only what a request is about.
    monkeypatch.setattr(store, "client", dynamodb.connect(parse=from_json, endpoint=database, read_timeout=20))
    clock.now += shards * 86_400  # the database has what the storm before has left
    storm, began = Storm(clock, shards), clock.now

    def tap() -> None:
        clock.sleep(30)
        number, message = next(each for each in telegram.chats[CHAT].items() if "reply_markup" in each[1])
        button = buttons(call({"method": "sendMessage", **message}))["Start work"]
        answered(deliver(api, Chat().tap(button, BORIS, message_id=number)))
        storm.record(button.split(":")[1])
        clock.sleep(30)
        assert "in progress, Boris" in str(telegram.chats[CHAT][number]["text"])

    clock.run(storm.rage, tap, *(lambda shard=shard: storm.consume(shard) for shard in storm.shards))
    texts = telegram.shown(CHAT)
    singles = [text for text in texts if not text.startswith("New incidents: ")]
    digests = [text for text in texts if text not in singles]
    assert sum(int(text.split()[2].strip(",")) for text in digests) + len(singles) == INCIDENTS
    assert all(", of which 0 are open" in text for text in digests)
    assert all("Status: resolved" in text for text in singles)
    print(f"{shards} shards: {clock.now - began:.0f} s, {len(telegram.calls)} calls, {telegram.throttled} throttled")
    assert clock.now - began <= 180
    assert len(telegram.calls) + telegram.throttled <= 60
