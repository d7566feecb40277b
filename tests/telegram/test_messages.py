"""The bot's texts and Telegram's limits."""

import re
from datetime import UTC, datetime, timedelta
from string import Formatter

import pytest

from incident import HistoryEntry, Incident, NewIncident, Source, Status, new_id
from telegram import messages
from telegram.messages import ENGLISH, RUSSIAN, Words
from tests.telegram.chat import MAX_TEXT, units

NOW = datetime(2026, 11, 24, 10, 0, 0, 123000, UTC)


def incident(description: str) -> Incident:
    return Incident.report(NewIncident(description=description, source=Source.PARTNER), id=new_id())


def entry(version: int = 1, by: str = "x", status: Status = Status.OPEN, comment: str | None = None) -> HistoryEntry:
    return HistoryEntry(version=version, status=status, at="2026-11-24T10:00:00.123Z", by=by, comment=comment)


def test_every_text_is_translated() -> None:
    assert set(ENGLISH.statuses) == set(ENGLISH.actions) == set(Status), "functions/telegram/messages.py"
    for name in Words._fields:
        english, russian = getattr(ENGLISH, name), getattr(RUSSIAN, name)
        pairs = [(english, russian)] if isinstance(english, str) else [(english[key], russian[key]) for key in english]
        for here, there in pairs:
            assert placeholders(here) == placeholders(there), name
            assert not re.search("[а-яё]", here, re.IGNORECASE), name
            assert re.search("[а-яё]", there, re.IGNORECASE), name


def placeholders(text: str) -> int:
    return sum(name is not None for _, name, _, _ in Formatter().parse(text))


@pytest.mark.parametrize(
    ("ago", "russian", "english"),
    [
        (timedelta(seconds=-3), "только что", "just now"),  # clocks differ
        (timedelta(seconds=59), "только что", "just now"),
        (timedelta(seconds=60), "1 мин", "1 min"),
        (timedelta(minutes=59, seconds=59), "59 мин", "59 min"),
        (timedelta(hours=1), "1 ч", "1 h"),
        (timedelta(hours=47, minutes=59), "1 д", "1 d"),
        (timedelta(days=400), "400 д", "400 d"),
    ],
)
def test_an_age_is_in_the_largest_whole_unit(ago: timedelta, russian: str, english: str) -> None:
    time = (NOW - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert (messages.age(RUSSIAN, time, NOW), messages.age(ENGLISH, time, NOW)) == (russian, english)


@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN], ids=["English", "Russian"])
def test_every_alert_fits(words: Words) -> None:
    longest = max(words.statuses, key=lambda status: len(words.statuses[status]))
    conflict = messages.conflict_alert(words, entry(2, "telegram:1 " + "🛴" * 47, longest))
    for alert in (words.too_much, words.not_found, words.up_to_date, words.unknown_button, conflict):
        assert units(alert) <= MAX_TEXT["answerCallbackQuery"]


@pytest.mark.parametrize("excess", [0, 1])
def test_lists_and_histories_shorten_long_texts(excess: int) -> None:
    def shown(length: int) -> str:
        return "x" * (length - 1) + ("…" if excess else "x")

    assert f": {shown(100)}\n" in messages.list_text(ENGLISH, [incident("x" * (100 + excess))])
    history = [entry(), entry(2, "on call", comment="x" * (200 + excess))]
    assert messages.incident_text(ENGLISH, incident("x"), history).endswith(f":00 on call: {shown(200)}")


def test_the_longest_incident_fills_the_message() -> None:
    history = [entry(by=f"telegram:{2**52 - 1} {'🛴' * 20}") for _ in range(41)]
    text = messages.incident_text(ENGLISH, incident("🛴" * 10_000), history)
    assert 4096 - 2 <= units(text) <= MAX_TEXT["sendMessage"]
    description, _, rest = text.partition("\n\n")
    assert description == "🛴" * (len(description) - 1) + "…"
    assert len(description) > 1000
    # The newest changes are shown, the others counted.
    (left_out,) = re.findall(r"… earlier changes: (\d+)\n", rest)
    assert int(left_out) + rest.count("\n20") == 41
    assert rest.count("\n20") > 10
    assert rest.endswith("open, " + "🛴" * 20)


def test_a_long_reminder_fills_the_message() -> None:
    active = [incident("x" * 200)] * 40
    text = messages.reminder_text(ENGLISH, active, active)
    assert text.startswith("Incidents open or in progress: 40.\n\nOf these, never announced in a chat: 40.")
    assert 4096 - 200 < units(text) <= MAX_TEXT["sendMessage"]
    assert text.endswith("/incidents")
