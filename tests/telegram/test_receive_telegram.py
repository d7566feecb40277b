"""POST /telegram."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dynamodb as functions_dynamodb
import store
from incident import ID_PATTERN, Incident, NewIncident, Source, Status, derived_id, new_id
from infra.local import template
from telegram.messages import ENGLISH, RUSSIAN
from tests import invoke
from tests.conftest import ROOT, TEMPLATE
from tests.steps import assert_problem, overwrite
from tests.telegram.chat import (
    ANNA,
    BORIS,
    BOT,
    CHAT,
    REPORT,
    Chat,
    Fields,
    Room,
    alerted,
    body,
    buttons,
    call,
    deliver,
    edited,
    reacted,
    sent,
    text,
    units,
)

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

    from tests.telegram.chat import Call

COMMENT = "Позвонил в мастерскую"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
UNKNOWN_HEX = UNKNOWN.replace("-", "")
BY_ANNA, BY_BORIS = "telegram:11 Анна Петрова", "telegram:22 Boris"
PHOTO: dict[str, object] = {"photo": [{"file_id": "1", "file_unique_id": "1", "width": 1, "height": 1}]}
REPORTED = Chat().message(f"/incident {REPORT}")
INCIDENT = derived_id("telegram-message", str(CHAT), "2")
"""The id of the incident that `REPORTED` records."""


def deliver_to_function(update: Fields, **authorizer: str) -> Call | None:
    """Send an update to the function, without HTTP; return the bot's call."""
    status, answer = invoke.call("telegram.receive_telegram", "POST /telegram", update, authorizer)
    assert status == 200
    return call(answer)


def logged(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], list[str]]:
    """The last request's log line, and the names of its metrics."""
    line: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line, re.findall(r'"Name": "(\w+)"', json.dumps(line.get("_aws")))


# ---- reports


def test_a_report_is_answered_with_its_incident_and_buttons(room: Room) -> None:
    answer = sent(room.say(f"/incident {REPORT}", message_id=7))
    (incident,) = room.incidents()
    number = incident["id"]
    assert number == derived_id("telegram-message", str(CHAT), "7")
    assert (incident["description"], incident["source"], incident["status"]) == (REPORT, "operator", "open")
    assert room.history(number) == [("open", BY_ANNA)]
    assert (answer.text, answer.chat_id) == (f"{REPORT}\n\nСтатус: открыт, Анна Петрова\n{number}", CHAT)
    assert answer.reply_parameters
    assert (answer.reply_parameters.message_id, answer.reply_parameters.allow_sending_without_reply) == (7, True)
    assert list(buttons(answer)) == ["В работу", "Решён", "Закрыть", "Обновить"]


# Telegram ends a command at the first character that a command cannot contain.
SEPARATORS = [" ", "\n", ":", ": ", ", ", "... ", "-", " — ", " − ", " : ", "@our_bot ", "@our_bot: "]
TEXTS = [
    " /incidents",
    " 4567",
    " <b>*_`{}%s\\n&amp;",
    "🔥",
    " 🔥 pump",
    " -5 °C",
    " :-( pump",
    "(pump)",
    "@our_bot@mia",
]


@pytest.mark.parametrize(
    ("said", "description"),
    [
        (f"/INCIDENT {REPORT}\nсо вчерашнего дня ", f"{REPORT}\nсо вчерашнего дня"),
        ("/incident " + "ё" * 4086, "ё" * 4086),
        *[(f"/incident{separator}pump", "pump") for separator in SEPARATORS],
        *[(f"/incident{said}", said.removeprefix("@our_bot").strip()) for said in TEXTS],
    ],
)
def test_the_text_after_the_command_is_the_report(room: Room, said: str, description: str) -> None:
    sent(room.say(said))
    sent(room.say("/incident", reply_to_message=room.chat.written(said, BORIS)))
    assert room.descriptions() == [description] * 2


def test_a_caption_that_begins_with_the_command_is_a_report(room: Room) -> None:
    sent(room.say(caption=f"/incident {REPORT}", **PHOTO))
    assert room.say(caption=REPORT, **PHOTO) is None
    assert room.descriptions() == [REPORT]


def test_a_report_may_have_a_hundred_links(room: Room) -> None:
    url = f"https://example.com/{'x' * 2000}"
    links = [{"type": "text_link", "offset": 10 + number, "length": 1, "url": url} for number in range(100)]
    sent(room.say("/incident " + "x" * 4086, entities=links))


@pytest.mark.parametrize("reported", [{"text": REPORT}, {"caption": REPORT, **PHOTO}], ids=["text", "caption"])
def test_the_command_as_a_reply_reports_that_message_once(room: Room, reported: dict[str, object]) -> None:
    message = room.chat.written("", BORIS, message_id=7, **reported)
    for by in (ANNA, BORIS):
        assert text(sent(room.say("/incident", by, reply_to_message=message))).startswith(f"{REPORT}\n\n")
    (incident,) = room.incidents()
    assert incident["id"] == derived_id("telegram-message", str(CHAT), "7")
    assert room.history(incident["id"]) == [("open", BY_ANNA)]


def test_the_command_in_reply_to_the_bot_shows_the_incident(room: Room) -> None:
    answer = room.say(f"/incident {REPORT}")
    assert text(sent(room.say("/incident", **answer_to(answer)))) == text(sent(answer))
    assert room.descriptions() == [REPORT]


def test_the_commands_own_text_takes_precedence_over_the_reply(room: Room) -> None:
    sent(room.say(f"/incident {REPORT}", reply_to_message=room.chat.written("Доброе утро")))
    assert room.descriptions() == [REPORT]


def quoting(said: str, replied: Fields, *, manual: bool = True) -> dict[str, object]:
    """The fields of a message that quotes another; `manual` if its sender chose the quote."""
    return {"quote": {"text": said, "position": 0, "is_manual": manual}, **replied}


def external(date: int = 1, **fields: object) -> Fields:
    origin = {"type": "hidden_user", "date": date, "sender_user_name": "Zoe"}
    return {"external_reply": {"origin": origin, **fields}}


WHOLE = "Насос течёт. Конвейер стоит. Лампа\nмигает."
PARTS = ["Насос течёт", "Конвейер стоит", "Лампа\nмигает"]
HERE = {"reply_to_message": Chat().written(WHOLE, message_id=5)}
# A message in a topic replies to the one that created the topic, which has no text.
TOPIC = {"reply_to_message": Chat().written(forum_topic_created={"name": "Plant", "icon_color": 1})}
HIDDEN = external()
OTHER_TOPIC = external(chat={"id": CHAT, "type": "supergroup"}, message_id=5)
OTHER_CHAT = external(chat={"id": -7, "type": "supergroup"}, message_id=5)


@pytest.mark.parametrize(
    ("replies", "descriptions"),
    [
        ([quoting("/incident: pump", HIDDEN), quoting("belt", HIDDEN)], ["pump", "belt"]),
        ([quoting("pump", {**HIDDEN, **TOPIC}, manual=False)], ["pump"]),
        ([quoting("pump", each) for each in (HERE, OTHER_TOPIC, OTHER_CHAT, HIDDEN, external(2))], ["pump"] * 5),
        ([HERE, *[quoting(part, HERE) for part in PARTS]], [WHOLE, *PARTS]),
        ([quoting(WHOLE, OTHER_TOPIC, manual=False), quoting("Насос", HERE, manual=False)], [WHOLE]),
    ],
    ids=["hidden sender", "in a topic", "several messages", "chosen beside the message", "instead of the message"],
)
def test_a_quote_is_reported_once(room: Room, replies: list[dict[str, object]], descriptions: list[str]) -> None:
    for by in (ANNA, BORIS):
        for fields in replies:
            sent(room.say("/incident", by, **fields))
    assert room.descriptions() == descriptions


def test_the_ids_of_quotes_never_change(room: Room) -> None:
    for each in (OTHER_CHAT, HIDDEN):
        sent(room.say("/incident", **quoting("pump", each)))
    assert {each["id"] for each in room.incidents()} == {
        "0a147cfb-0c79-59f4-bb9d-54b7ebb06c92",
        "1a1309ae-b90e-5015-b92b-d7f81fa82b95",
    }


@pytest.mark.parametrize("said", ["", "@incident_bot", " \n ", ".", " ?", " —"])
def test_the_command_alone_is_answered_with_its_usage(room: Room, said: str) -> None:
    for fields in ({}, TOPIC, HIDDEN):
        assert text(sent(room.say(f"/incident{said}", **fields))) == RUSSIAN.usage
    assert room.incidents() == []


@pytest.mark.parametrize("said", ["\u2800", "\u200b\u200d", "x\x00", "\x1b[31m"])
def test_an_invalid_report_is_answered_with_the_reason(room: Room, said: str) -> None:
    assert text(sent(room.say(f"/incident {said}"))) == RUSSIAN.not_a_report
    assert room.incidents() == []


def test_an_answer_goes_to_the_topic_of_the_message(room: Room) -> None:
    assert sent(room.say("/incidents", message_thread_id=9, is_topic_message=True)).message_thread_id == 9
    # Without topics, the number is that of a thread of replies, to which the bot cannot send.
    assert sent(room.say("/incidents", message_thread_id=9)).message_thread_id is None


@pytest.mark.usefixtures("table")
def test_the_source_is_that_of_the_access_key() -> None:
    sent(deliver_to_function(REPORTED, caller="telegram", source="partner"))
    assert [incident.source for incident in store.newest([Status.OPEN], 10)] == [Source.PARTNER]


def test_a_reused_message_number_is_another_report(room: Room) -> None:
    """In basic groups and private chats, each bot account numbers the messages itself."""
    room.chat = Chat(4567)
    reports = [(1_700_000_000, "The old bot's pump"), (1_795_428_000, "The new bot's conveyor")]
    for date, said in reports * 2:
        message = room.chat.written(f"/incident {said}", message_id=5, date=date)
        for fields in (message, {"text": "/incident", "reply_to_message": message}):
            assert text(sent(room.say(**fields))).startswith(said)
    assert room.descriptions() == [said for _, said in reports]
    assert room.incidents()[0]["id"] == derived_id("telegram-message", "4567", "5", str(reports[1][0]))


def test_an_edited_message_is_not_recorded_again(room: Room) -> None:
    message = room.chat.written(REPORT)
    for fields in ({}, {"text": f"{REPORT}!", "edit_date": 1_795_428_001}):
        sent(room.say("/incident", reply_to_message={**message, **fields}))
    assert room.descriptions() == [REPORT]


# ---- authors

PLANT: dict[str, object] = {"sender_chat": {"id": CHAT, "type": "supergroup", "title": "Plant"}}


@pytest.mark.parametrize(("signature", "name"), [({}, "Plant"), ({"author_signature": "Duty lead"}, "Duty lead")])
def test_a_report_in_a_chats_name_has_that_author(room: Room, signature: dict[str, object], name: str) -> None:
    answer = text(sent(room.say(f"/incident {REPORT}", BOT, **PLANT, **signature)))
    assert room.history(room.incidents()[0]["id"]) == [("open", f"telegram:{CHAT} {name}")]
    assert f"Status: open, {name}\n" in answer


@pytest.mark.parametrize(
    "name", ["Ё" * 64 + " " + "ж" * 64, "😀" * 64, "a" + "中" * 63, "a" * 100, "Анна\n\tМария  \u202eПетрова", "x"]
)
def test_a_history_shortens_a_long_name(room: Room, name: str) -> None:
    incident_id, _ = room.record(REPORT, {"id": 2**52 - 1, "is_bot": False, "first_name": name})
    full = f"telegram:{2**52 - 1} {' '.join(name.split())}"
    ((_, by),) = room.history(incident_id)
    assert by
    assert full.startswith(by)
    assert (len(by), len(by.encode())) <= (100, 200)
    # Another character might have four bytes.
    assert by == full or len(by) == 100 or len(by.encode()) > 196


# ---- buttons


def test_a_button_sets_the_status_and_shows_who_did(room: Room) -> None:
    incident_id, below = room.record()
    answer = edited(room.tap(below["В работу"], BORIS, 77))
    shown = text(answer)
    incident = room.api.get(f"/incidents/{incident_id}").json()
    assert (incident["status"], incident["version"]) == ("in_progress", 2)
    assert room.history(incident_id) == [("open", BY_ANNA), ("in_progress", BY_BORIS)]
    assert (answer.chat_id, answer.message_id) == (CHAT, 77)
    assert shown.startswith(f"{REPORT}\n\nStatus: in progress, Boris\n{incident_id}\n\nHistory (UTC)\n")
    minute = incident["updated_at"][:16].replace("T", " ")
    assert shown.endswith(f"open, Анна Петрова\n{minute} in progress, Boris")


def test_every_status_is_one_tap_away_from_every_other(room: Room) -> None:
    incident_id, _ = room.record()
    for before, after in permutations(Status, 2):
        room.api.patch(f"/incidents/{incident_id}", json={"status": before})
        shown = buttons(sent(room.say(f"/incident {incident_id}"))).values()
        below = {data.partition(":")[0]: data for data in shown}
        assert below.keys() == {*Status, "refresh"} - {before}
        edited(room.tap(below[after]))
        assert room.incidents()[0]["status"] == after


def test_a_tap_on_an_outdated_message_changes_nothing(room: Room) -> None:
    incident_id, below = room.record()
    room.tap(below["В работу"], BORIS)
    assert "«в работе» (Boris)" in alerted(room.tap(below["Закрыть"]))
    room.api.patch(f"/incidents/{incident_id}", json={"status": "resolved"})
    assert "«решён» (кто-то другой)" in alerted(room.tap(below["Закрыть"]))
    answer = edited(room.tap(below["Обновить"]))
    assert "Статус: решён\n" in text(answer)
    assert alerted(room.tap(buttons(answer)["Обновить"])) == RUSSIAN.up_to_date
    edited(room.tap(buttons(answer)["Закрыть"]))
    assert [status for status, _ in room.history(incident_id)] == ["open", "in_progress", "resolved", "closed"]


UNREADABLE = ["", "x", "closed", "closed::1", "lost:{id}:1", "closed:{id}:0", "closed:{id}", "closed:{id}:1:1", "{id}"]


@pytest.mark.parametrize(
    ("button", "alert"),
    [
        *[(button, RUSSIAN.unknown_button) for button in UNREADABLE],
        *[(f"{action}:{UNKNOWN}:1", RUSSIAN.not_found) for action in ("closed", "refresh")],
    ],
)
def test_a_wrong_button_is_an_alert(room: Room, button: str, alert: str) -> None:
    incident_id, _ = room.record()
    assert alerted(room.tap(button.format(id=incident_id))) == alert
    assert len(room.history(incident_id)) == 1


def test_a_status_without_words_is_shown_by_its_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (RUSSIAN.statuses, RUSSIAN.actions):
        monkeypatch.delitem(words, Status.CLOSED)
    _, below = room.record()
    assert "Статус: closed" in text(edited(room.tap(below["closed"])))


# ---- comments


def answer_to(message: Call | None, **fields: object) -> dict[str, object]:
    """The fields that make a message a reply to the bot's."""
    assert message
    return {"reply_to_message": Chat().written(text(message), BOT, **fields)}


@pytest.mark.parametrize("fields", [{"text": COMMENT}, {"caption": COMMENT, **PHOTO}], ids=["text", "caption"])
def test_a_reply_to_the_bots_message_is_a_comment(room: Room, fields: dict[str, object]) -> None:
    answer = room.say(f"/incident {REPORT}")
    incident_id = room.incidents()[0]["id"]
    comment = room.chat.message("", BORIS, message_id=7, **answer_to(answer), **fields)
    for _ in range(2):
        reaction = reacted(deliver(room.api, comment))
    assert (reaction.chat_id, reaction.message_id) == (CHAT, 7)
    # Repeated after another change, it is still the same comment; a later message is another one.
    room.api.patch(f"/incidents/{incident_id}", json={"status": "in_progress", "comment": "Еду"})
    reacted(deliver(room.api, comment))
    said = (COMMENT, BY_BORIS)
    assert room.history(incident_id) == [("open", BY_ANNA), said, ("Еду", None)]
    reacted(room.say("", BORIS, date=4_000_000_000, **answer_to(answer), **fields))
    assert room.history(incident_id) == [("open", BY_ANNA), said, ("Еду", None), said]
    shown = text(edited(room.tap(f"refresh:{incident_id}:1")))
    assert len(re.findall(rf" \d\d:\d\d Boris: {COMMENT}$", shown, re.MULTILINE)) == 2


@pytest.mark.parametrize("replied", [{"from": ANNA}, {"text": "Hello"}, {"text": ""}])
def test_another_reply_is_no_comment(room: Room, replied: dict[str, object]) -> None:
    answer = room.say(f"/incident {REPORT}")
    assert room.say(COMMENT, **answer_to(answer, **replied)) is None
    assert len(room.history(room.incidents()[0]["id"])) == 1


def test_a_comment_that_cannot_be_stored_says_why(
    room: Room, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = room.say(f"/incident {REPORT}")
    for said in ("x" * 1_001, "\u2800"):
        assert text(sent(room.say(said, **answer_to(answer)))) == RUSSIAN.not_a_comment
    assert text(sent(room.say("x", **answer_to(answer, text=UNKNOWN)))) == RUSSIAN.not_found
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert text(sent(room.say("x", **answer_to(answer)))) == RUSSIAN.too_much
    assert logged(capsys)[1] == ["Conflicts"]


# ---- repetitions


def test_every_change_and_conflict_is_counted(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closes = room.chat.tap(f"closed:{INCIDENT}:1")
    known: Fields = {"incident_id": INCIDENT}
    comments = room.chat.message(COMMENT, reply_to_message=room.chat.written(f"{REPORT}\n{INCIDENT}", BOT))
    cases: list[tuple[Fields, list[str], Fields]] = [
        (REPORTED, ["IncidentsCreated"], {**known, "source": "operator"}),
        (REPORTED, ["Replays"], known),
        (closes, ["StatusesSet", "TimeToResolve"], {**known, "status": "closed"}),
        (closes, [], known),
        (comments, [], known),
        (room.chat.tap(f"in_progress:{INCIDENT}:1"), ["Conflicts"], {"status_code": 200}),
    ]
    for update, expected, fields in cases:
        deliver(room.api, update)
        line, metrics = logged(capsys)
        assert metrics == expected
        assert line.items() >= fields.items()
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert alerted(room.tap(f"open:{INCIDENT}:3")) == RUSSIAN.too_much
    assert logged(capsys)[1] == ["Conflicts"]


TAPS = [
    (1, "in_progress", ANNA, BY_ANNA),
    (1, "closed", BORIS, BY_BORIS),
    (2, "resolved", BORIS, BY_BORIS),
    (2, "open", ANNA, BY_ANNA),
    (3, "in_progress", ANNA, BY_ANNA),
]
"""Taps: the version that the message shows, the status to set, who taps."""


@pytest.mark.usefixtures("table")
@given(order=st.lists(st.none() | st.sampled_from(TAPS), max_size=12))
@example([None, TAPS[0], TAPS[2], None, *TAPS, TAPS[4], None, *TAPS])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_repeated_reports_and_taps_in_any_order_count_once(
    dynamodb: DynamoDBClient, order: list[tuple[int, str, Fields, str] | None]
) -> None:
    """None stands for the report."""
    dynamodb.delete_item(TableName=template.TABLE, Key={"id": {"S": INCIDENT}})
    expected: list[tuple[str, str]] = []
    for tap in order:
        if tap is None:
            sent(deliver_to_function(REPORTED))
            expected = expected or [("open", BY_ANNA)]
            continue
        version, status, user, by = tap
        answer = deliver_to_function(Chat().tap(f"{status}:{INCIDENT}:{version}", user))
        if len(expected) == version and expected[-1][0] != status:
            expected.append((status, by))
        mine = (status, by) in expected[version : version + 1]
        if expected and (mine or expected[-1][0] == status):
            edited(answer)
        else:
            alerted(answer)
    incidents = store.newest(list(Status), 10)
    assert [incident.id for incident in incidents] == [INCIDENT] * bool(expected)
    if expected:
        assert [(entry.status, entry.by) for entry in store.get_with_history(INCIDENT)[1]] == expected


def test_telegram_does_not_repeat_an_update_about_a_damaged_incident(
    room: Room, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = sent(deliver(room.api, REPORTED))
    overwrite(dynamodb, INCIDENT, "history", {"L": [{"M": {"status": {"S": "paused"}}}]})
    assert alerted(room.tap(f"refresh:{INCIDENT}:1")) == RUSSIAN.damaged
    assert logged(capsys)[1] == ["DamagedItems"]
    overwrite(dynamodb, INCIDENT, "incident.status", {"S": "paused"})
    for update in (
        REPORTED,
        room.chat.message(f"/incident {INCIDENT}"),
        room.chat.message(COMMENT, **answer_to(answer)),
    ):
        assert text(sent(deliver(room.api, update))) == RUSSIAN.damaged
        assert logged(capsys)[1] == ["DamagedItems"]
    assert alerted(room.tap(f"closed:{INCIDENT}:1")) == RUSSIAN.damaged


# ---- lists, and single incidents


def test_a_list_has_active_incidents_newest_first(room: Room) -> None:
    assert text(sent(room.say("/incidents"))) == RUSSIAN.none_active
    (first, _), (second, _), (closed, _) = (room.record(each) for each in ("Точка не\nотвечает ", REPORT, "Закрытый"))
    room.api.patch(f"/incidents/{closed}", json={"status": "closed"})
    room.api.patch(f"/incidents/{first}", json={"status": "in_progress"})
    for command in ("/incidents@incident_bot", "/incidents."):
        answer = sent(room.say(command))
        assert answer.text == (
            f"Открытые и в работе, сначала новые:\n\nтолько что, открыт: {REPORT}\n/incident_{second.replace('-', '')}"
            f"\n\nтолько что, в работе: Точка не отвечает\n/incident_{first.replace('-', '')}"
        )
        assert not buttons(answer)


@pytest.mark.parametrize(("description", "number"), [("x", 100), ("🛴" * 10_000, 40)], ids=["short", "long"])
def test_a_long_list_leads_to_the_rest(room: Room, description: str, number: int) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    new = NewIncident(description=description, source=Source.PARTNER)
    for _ in range(number):
        store.add(Incident.report(new, id=new_id()).model_copy(update={"created_at": yesterday}), None)
    found: list[str] = []
    following = ["/incidents"]
    while following:
        answer = text(sent(room.say(following[0], BORIS)))
        found += re.findall(r"^/incident_([0-9a-f]{32})$", answer, re.MULTILINE)
        following = re.findall(r"/incidents_[0-9a-f]{32}$", answer)
        assert not following or units(answer) > 4096 - 200
    # Those of one millisecond are in the order of their ids.
    assert found == [incident["id"].replace("-", "") for incident in room.incidents()]


@pytest.mark.parametrize("command", [" {id}", "@incident_bot: {ID}\n", "_{hex}", "_{hex}@our_bot"])
def test_an_id_shows_the_incident_with_its_buttons_and_history(room: Room, command: str) -> None:
    incident_id, below = room.record()
    room.tap(below["Решён"], BORIS)
    command = command.format(id=incident_id, ID=incident_id.upper(), hex=incident_id.replace("-", ""))
    answer = sent(room.say(f"/incident{command}"))
    assert answer.text.startswith(f"{REPORT}\n\nСтатус: решён, Boris\n{incident_id}\n\nИстория (UTC)\n")
    assert answer.text.count("\n2") == 2
    assert f"closed:{incident_id}:2" in buttons(answer).values()
    assert len(room.incidents()) == 1


@pytest.mark.parametrize("command", [f"/incident {UNKNOWN}", f"/incident_{UNKNOWN_HEX}", f"/incidents_{UNKNOWN_HEX}"])
def test_an_unknown_id_is_answered_with_a_sentence(room: Room, command: str) -> None:
    assert text(sent(room.say(command))) == RUSSIAN.not_found
    assert room.incidents() == []


def test_the_bot_speaks_the_senders_language(room: Room) -> None:
    english = ("en", "de", "rup", None)  # rup is Aromanian
    for code, words in [("ru", RUSSIAN), ("ru-RU", RUSSIAN), *[(code, ENGLISH) for code in english]]:
        who = {"id": 1, "is_bot": False, "first_name": "x"} | ({"language_code": code} if code else {})
        assert text(sent(room.say("/incident", who))) == words.usage


# ---- updates that the bot ignores


def test_the_bot_ignores_chats_that_are_not_listed(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    incident_id, _ = room.record()
    for stranger in (Chat(-CHAT), Chat(-100), Chat(int(f"{CHAT}1")), Chat(11)):
        for update in (
            stranger.message(f"/incident {REPORT}"),
            stranger.message("/incidents"),
            stranger.message(COMMENT, reply_to_message=stranger.written(incident_id, BOT)),
            stranger.tap(f"closed:{incident_id}:1"),
        ):
            assert deliver(room.api, update) is None
            line, metrics = logged(capsys)
            assert (metrics, line["chat_id"]) == (["UpdatesIgnored"], str(stranger.id))
            assert REPORT not in json.dumps(line, ensure_ascii=False)
    assert len(room.incidents()) == len(room.history(incident_id)) == 1


NO_COMMANDS = ["Доброе утро", "Самокат: /incident x", "/start", "/incidental x", "/incidentё x", "/incident_123"]
NO_COMMANDS += ["/incident/x", "/incident<x", "/incident@ab x", "/incident@our_botё", "/ıncident x"]


@pytest.mark.parametrize(
    "update",
    [
        {"update_id": 1},
        {"update_id": 1, "edited_message": Chat().written(f"/incident {REPORT}")},
        {"update_id": 1, "channel_post": Chat().written(f"/incident {REPORT}")},
        *[Chat().message(said) for said in NO_COMMANDS],
        *[Chat().message(**fields) for fields in (PHOTO, {"new_chat_title": REPORT}, {"migrate_to_chat_id": -100999})],
    ],
    ids=lambda update: json.dumps(update)[-60:],
)
def test_other_updates_are_ignored_and_counted(room: Room, update: Fields, capsys: pytest.CaptureFixture[str]) -> None:
    assert deliver(room.api, update) is None
    assert logged(capsys)[1] == ["UpdatesIgnored"]
    assert room.incidents() == []


# ---- errors

UPDATES: dict[str, Fields] = {
    "a report": Chat().message(f"/incident {REPORT}", **PLANT, author_signature="x", edit_date=1),
    "a quote": Chat().message("/incident", **quoting("pump", HERE)),
    "an external quote": Chat().message("/incident", **quoting("pump", OTHER_TOPIC)),
    "a comment": Chat().message(COMMENT, reply_to_message=Chat().written(INCIDENT, BOT)),
    "a list": Chat().message(f"/incidents_{UNKNOWN_HEX}"),
    "an id": Chat().message(f"/incident {INCIDENT}"),
    "a tap": Chat().tap(f"closed:{INCIDENT}:1"),
    "a refresh": Chat().tap(f"refresh:{INCIDENT}:1"),
}
ODD: list[object] = [None, True, -1, 2**70, 1.5, "", "\ud83d", "x" * 5000, [], {}]
every_update = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())


def fields_in(value: dict[str, object]) -> Iterator[tuple[dict[str, object], str]]:
    """The fields of an object and of the objects in it, as pairs of object and name."""
    for name, inner in value.items():
        yield value, name
        if isinstance(inner, dict):
            yield from fields_in(inner)


@pytest.mark.usefixtures("table")
@every_update
def test_an_update_with_an_odd_field_is_no_error(update: Fields) -> None:
    """Telegram would repeat it for a day, and hold back later updates."""
    deliver_to_function(REPORTED)
    changed = deepcopy(dict(update))
    for owner, name in list(fields_in(changed)):
        value = owner[name]
        for odd in ODD:
            owner[name] = odd
            deliver_to_function(changed)
        owner[name] = value


@every_update
def test_telegram_repeats_an_update_when_dynamodb_fails(
    api: httpx.Client, update: Fields, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", functions_dynamodb.connect(1, endpoint="http://127.0.0.1:9"))
    response = api.post("/telegram", content=body(update), headers={"Content-Type": "application/json"})
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


def test_the_parameter_is_a_list_of_chats() -> None:
    for chats in ("-1001234567890", "4567", "-1,2,-3", "", "-1001234567890/42,5"):
        TEMPLATE.check({"TelegramChats": chats})
    for wrong in (",", "1,", "1, 2", "@group", "-", "1\n", "1 2", "*", "1/", "/42", "1/2/3"):
        with pytest.raises(template.ParameterError):
            TEMPLATE.check({"TelegramChats": wrong})


# ---- the conversation in infra/integrations.md

PAGE = (ROOT / "infra/integrations.md").read_text().partition("\n## Telegram\n")[2].partition("\n## ")[0]


def drawn(made: Call) -> str:
    """A message of the bot as the page draws it."""
    *statuses, refresh = buttons(made)
    return f"{text(made)}\n\n{' '.join(f'[{status}]' for status in statuses)}\n[{refresh}]"


def without_times_and_ids(shown: str) -> str:
    return re.sub(ID_PATTERN, "ID", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", shown))


def test_the_page_shows_a_true_conversation(room: Room) -> None:
    answer = sent(room.say(f"/incident {REPORT}", BORIS))
    changed = edited(room.tap(buttons(answer)["Start work"], {"id": 11, "is_bot": False, "first_name": "Anna"}))
    conversation = "\n\n".join([f"/incident {REPORT}", drawn(answer), "taps [Start work]", drawn(changed)])
    (page,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    page = "\n".join(line[len("the bot   ") :] for line in page.splitlines())
    assert without_times_and_ids(page) == without_times_and_ids(conversation), "infra/integrations.md"


def test_the_page_shows_what_the_local_run_answers(api: httpx.Client) -> None:
    ((update, answer),) = re.findall(r"^\$ curl .* -d '(.*)'\n(.*)\n```", PAGE, re.MULTILINE)
    response = api.post("/telegram", content=update, headers={"Content-Type": "application/json"})
    assert call(response.json())
    assert without_times_and_ids(response.text) == without_times_and_ids(answer), "infra/integrations.md"
