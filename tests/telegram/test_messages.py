"""What the bot says, and Telegram's limits."""

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


def test_every_status_has_words() -> None:
    for words in (ENGLISH, RUSSIAN):
        assert set(words.statuses) == set(words.actions) == set(Status), "functions/telegram/messages.py"


def test_every_word_has_its_translation() -> None:
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


@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN])
def test_every_alert_fits(words: Words) -> None:
    longest = max(words.statuses, key=lambda status: len(words.statuses[status]))
    conflict = messages.conflict_alert(words, entry(2, "telegram:1 " + "🛴" * 47, longest))
    for alert in (words.too_much, words.not_found, words.up_to_date, words.unknown_button, conflict):
        assert units(alert) <= messages.MAX_ALERT == MAX_TEXT["answerCallbackQuery"]


@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN])
def test_a_list_never_fits_all_that_it_asks_for(words: Words) -> None:
    shortest = incident("x").model_copy(update={"created_at": (datetime.now(UTC) - timedelta(days=1)).isoformat()})
    assert "/incidents_" in messages.list_text(words, [shortest] * messages.MAX_LISTED)


@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN])
def test_a_list_takes_all_the_room_that_a_message_has(words: Words) -> None:
    def shown(*lengths: int) -> str:
        return messages.list_text(words, [incident("x" * length) for length in lengths])

    around = units(shown(1)) - units(words.active) - 1
    rest = units(f"\n\n{words.older.format(f'/incidents_{0:032}')}")
    share, remainder = divmod(4096 - units(words.active) - rest, 30)
    excerpts = [share - around] * 29
    full = shown(*excerpts, share - around + remainder)
    assert (full.count("/incident_"), units(full) + rest) == (30, 4096)
    assert shown(*excerpts, share - around + remainder + 1).count("/incident_") == 29


@pytest.mark.parametrize(("length", "shown"), [(100, "x" * 100), (101, "x" * 99 + "…")])
def test_a_list_has_100_characters_of_a_description(length: int, shown: str) -> None:
    assert f": {shown}\n" in messages.list_text(ENGLISH, [incident("x" * length)])


@pytest.mark.parametrize(("length", "shown"), [(200, "x" * 200), (201, "x" * 199 + "…")])
def test_a_history_has_200_characters_of_a_comment(length: int, shown: str) -> None:
    history = [entry(), entry(2, "on call", comment="x" * length)]
    assert messages.incident_text(ENGLISH, incident("x"), history).endswith(f":00 on call: {shown}")


def test_the_longest_incident_takes_all_the_room_of_a_message() -> None:
    history = [entry(by=f"telegram:{2**52 - 1} {'🛴' * 20}") for _ in range(41)]
    text = messages.incident_text(ENGLISH, incident("🛴" * 10_000), history)
    assert 4096 - 2 <= units(text) <= MAX_TEXT["sendMessage"]
    description, _, rest = text.partition("\n\n")
    assert description == "🛴" * (len(description) - 1) + "…"
    assert len(description) > 1000
    # The newest changes are there, and how many are not.
    (left_out,) = re.findall(r"… earlier changes: (\d+)\n", rest)
    assert int(left_out) + rest.count("\n20") == 41
    assert rest.count("\n20") > 10
    assert rest.endswith("open, " + "🛴" * 20)


@pytest.mark.parametrize(("length", "fitting"), [(60, 20), (61, 19)])
def test_a_history_takes_all_the_room_that_it_has(length: int, fitting: int) -> None:
    # Twenty lines of 59 with the line feeds between them make 1,199.
    fixed = len("2026-11-24 10:00 open, ")
    history = [entry(by="x" * (size - fixed)) for size in (length, *[59] * 19)]
    text = messages.incident_text(ENGLISH, incident("x"), history)
    assert text.count("open, xx") == 1 + fitting
    assert ("earlier changes: 1\n" in text) == (fitting == 19)
