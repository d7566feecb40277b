"""POST /telegram. test_messages.py has the limits of what the bot says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import permutations
from typing import TYPE_CHECKING, cast

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
from tests.conftest import ROOT, TEMPLATE, LocalRun
from tests.steps import assert_problem
from tests.telegram.chat import (
    ANNA,
    BORIS,
    CHAT,
    SENT,
    Chat,
    Fields,
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

REPORT, COMMENT = "Самокат #4567 не отвечает", "Позвонил в мастерскую"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
UNKNOWN_HEX = UNKNOWN.replace("-", "")
BY_ANNA, BY_BORIS = "telegram:11 Анна Петрова", "telegram:22 Boris"
BOT = {"id": 99, "is_bot": True, "first_name": "Incidents"}
PHOTO: dict[str, object] = {"photo": [{"file_id": "1", "file_unique_id": "1", "width": 1, "height": 1}]}
DOCUMENT: dict[str, object] = {"document": {"file_id": "1", "file_unique_id": "1"}}


class Room:
    """A chat with the bot, and the API behind the bot."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        self.chat = Chat()

    def say(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Call | None:
        return deliver(self.api, self.chat.message(text, by, **fields))

    def tap(self, button: str, by: Fields = ANNA) -> Call | None:
        return deliver(self.api, self.chat.tap(button, by))

    def record(self, text: str = REPORT, by: Fields = ANNA) -> tuple[str, dict[str, str]]:
        """Report an incident; return its id, and the buttons below the answer."""
        below = buttons(sent(self.say(f"/incident {text}", by)))
        return next(iter(below.values())).split(":")[1], below

    def incidents(self) -> list[dict[str, str]]:
        incidents: list[dict[str, str]] = self.api.get("/incidents?limit=100").json()
        return incidents

    def descriptions(self) -> list[str]:
        """Of every incident, the oldest first."""
        return [incident["description"] for incident in reversed(self.incidents())]

    def history(self, incident_id: str) -> list[tuple[str, str | None]]:
        """Each version's comment or else its status, and who made it."""
        entries = self.api.get(f"/incidents/{incident_id}/history").json()
        return [(entry["comment"] or entry["status"], entry["by"]) for entry in entries]


@pytest.fixture
def room(api: httpx.Client) -> Room:
    return Room(api)


def deliver_to_function(update: Fields, **authorizer: str) -> Call | None:
    """Send an update to the function, without HTTP; return what the bot is to do."""
    status, answer = invoke.call("telegram.receive_telegram", "POST /telegram", update, authorizer)
    assert status == 200
    return call(answer)


def logged(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], list[str]]:
    """What is logged of the last request, and the metrics that it counts."""
    line: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line, re.findall(r'"Name": "(\w+)"', json.dumps(line.get("_aws")))


# ---- reports


def test_a_report_is_answered_with_its_incident_and_buttons(room: Room) -> None:
    answer = sent(room.say(f"/incident {REPORT}", message_id=7))
    (incident,) = room.incidents()
    number = derived_id("telegram-message", str(CHAT), "7")
    assert [incident[name] for name in ("id", "description", "source", "status")] == [
        number,
        REPORT,
        "operator",
        "open",
    ]
    assert room.history(number) == [("open", BY_ANNA)]
    assert (answer.text, answer.chat_id) == (f"{REPORT}\n\nСтатус: открыт, Анна Петрова\n{number}", CHAT)
    assert answer.reply_parameters
    assert (answer.reply_parameters.message_id, answer.reply_parameters.allow_sending_without_reply) == (7, True)
    assert buttons(answer) == {
        "В работу": f"in_progress:{number}:1",
        "Решён": f"resolved:{number}:1",
        "Закрыть": f"closed:{number}:1",
        "Обновить": f"refresh:{number}:1",
    }


# Telegram ends a command at the first character that is none of its own.
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
def test_what_follows_the_command_is_the_report(room: Room, said: str, description: str) -> None:
    sent(room.say(said))
    sent(room.say("/incident", reply_to_message=room.chat.written(said, BORIS)))
    assert room.descriptions() == [description] * 2


@pytest.mark.parametrize("attached", [PHOTO, DOCUMENT], ids=["photo", "document"])
def test_a_caption_that_begins_with_the_command_is_a_report(room: Room, attached: dict[str, object]) -> None:
    sent(room.say(caption=f"/incident {REPORT}", **attached))
    assert room.say(caption=REPORT, **attached) is None
    assert room.descriptions() == [REPORT]


def test_a_report_full_of_links_is_taken(room: Room) -> None:
    url = f"https://example.com/{'x' * 2000}"
    links = [{"type": "text_link", "offset": 10 + number, "length": 1, "url": url} for number in range(100)]
    sent(room.say("/incident " + "x" * 4086, entities=links))
    assert len(room.descriptions()) == 1


@pytest.mark.parametrize("reported", [{"text": REPORT}, {"caption": REPORT, **PHOTO}])
def test_the_command_as_a_reply_reports_that_message_once(room: Room, reported: dict[str, object]) -> None:
    message = room.chat.written("", BORIS, message_id=7, **reported)
    for by in (ANNA, BORIS):
        assert text(sent(room.say("/incident", by, reply_to_message=message))).startswith(f"{REPORT}\n\n")
    (incident,) = room.incidents()
    assert incident["id"] == derived_id("telegram-message", str(CHAT), "7")
    assert room.history(incident["id"]) == [("open", BY_ANNA)]


def test_the_commands_own_text_takes_precedence_over_the_reply(room: Room) -> None:
    sent(room.say(f"/incident {REPORT}", reply_to_message=room.chat.written("Доброе утро")))
    assert room.descriptions() == [REPORT]


def quoting(said: str, replied: Fields, *, manual: bool = True) -> dict[str, object]:
    """The fields of a message that quotes another."""
    return {"quote": {"text": said, "position": 0, "is_manual": manual}, **replied}


WHOLE = "Насос течёт. Конвейер стоит. Лампа\nмигает."
PARTS = ["Насос течёт", "Конвейер стоит", "Лампа\nмигает"]
HERE = {"reply_to_message": Chat().written(WHOLE, message_id=5)}
# In a group with topics, a message in a topic replies to the one that made the topic, which has no text.
TOPIC = {"reply_to_message": Chat().written(forum_topic_created={"name": "Plant", "icon_color": 1})}
HIDDEN = {"external_reply": {"origin": {"type": "hidden_user", "date": 1, "sender_user_name": "Zoe"}}}
OTHER_TOPIC = {
    "external_reply": {**HIDDEN["external_reply"], "chat": {"id": CHAT, "type": "supergroup"}, "message_id": 5}
}


@pytest.mark.parametrize(
    ("replies", "descriptions"),
    [
        ([quoting("pump", OTHER_TOPIC)], ["pump"]),
        ([quoting("/incident: pump", HIDDEN), quoting("belt", HIDDEN)], ["pump", "belt"]),
        ([quoting("pump", {**HIDDEN, **TOPIC}, manual=False)], ["pump"]),
        # What somebody chose to quote is a report beside the message, any other quote stands for its message.
        ([HERE, *[quoting(part, HERE) for part in PARTS]], [WHOLE, *PARTS]),
        ([quoting(WHOLE, OTHER_TOPIC, manual=False), quoting("Насос", HERE, manual=False)], [WHOLE]),
    ],
)
def test_a_quote_is_reported_once(room: Room, replies: list[dict[str, object]], descriptions: list[str]) -> None:
    for by in (ANNA, BORIS):
        for fields in replies:
            sent(room.say("/incident", by, **fields))
    assert room.descriptions() == descriptions


OTHER_CHAT = {"external_reply": {**HIDDEN["external_reply"], "chat": {"id": -7, "type": "supergroup"}, "message_id": 5}}


@pytest.mark.parametrize(
    ("quoted", "where"), [(HERE, [CHAT, 5, SENT]), (OTHER_CHAT, [-7, 5, 1]), (HIDDEN, [CHAT, 0, 1])]
)
def test_a_quote_is_known_by_its_message_and_words(room: Room, quoted: Fields, where: list[int]) -> None:
    sent(room.say("/incident", **quoting(PARTS[2], quoted)))
    expected = derived_id("telegram-quote", *map(str, where), json.dumps(PARTS[2]))
    assert [incident["id"] for incident in room.incidents()] == [expected]


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
    # Elsewhere it names a thread of replies, to which no message can be sent by number.
    assert sent(room.say("/incidents", message_thread_id=9)).message_thread_id is None


@pytest.mark.usefixtures("table")
def test_the_bot_reports_as_the_source_of_its_key() -> None:
    sent(deliver_to_function(REPORTED, caller="telegram", source="partner"))
    assert [incident.source for incident in store.newest([Status.OPEN], 10)] == [Source.PARTNER]


def test_a_number_that_comes_again_is_another_report(room: Room) -> None:
    """In basic groups and private chats each bot account counts the messages for itself."""
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


def test_the_same_number_in_two_chats_is_two_messages(room: Room) -> None:
    for room.chat in (Chat(), Chat(4567)):
        sent(room.say(f"/incident {REPORT}"))
    assert room.descriptions() == [REPORT] * 2


# ---- who it was

PLANT: dict[str, object] = {"sender_chat": {"id": CHAT, "type": "supergroup", "title": "Plant"}}
NEWS: dict[str, object] = {"sender_chat": {"id": -100777, "type": "channel", "title": "Plant news"}}


@pytest.mark.parametrize(
    ("stand_in", "fields", "by"),
    [
        (1087968824, PLANT, f"telegram:{CHAT} Plant"),
        (1087968824, {**PLANT, "author_signature": "Duty lead"}, f"telegram:{CHAT} Duty lead"),
        (136817688, NEWS, "telegram:-100777 Plant news"),
        (777000, {**NEWS, "is_automatic_forward": True}, "telegram:-100777 Plant news"),
    ],
)
def test_a_stand_in_is_named_after_its_chat(room: Room, stand_in: int, fields: dict[str, object], by: str) -> None:
    answer = text(sent(room.say(f"/incident {REPORT}", {**BOT, "id": stand_in}, **fields)))
    assert room.history(room.incidents()[0]["id"]) == [("open", by)]
    assert f"Status: open, {by.partition(' ')[2]}\n" in answer


@pytest.mark.parametrize(
    "name", ["Ё" * 64 + " " + "ж" * 64, "😀" * 64, "a" + "中" * 63, "a" * 100, "Анна\n\tМария  \u202eПетрова", "x"]
)
def test_a_name_is_cut_to_what_a_history_takes(room: Room, name: str) -> None:
    incident_id, _ = room.record(by={"id": 2**52 - 1, "is_bot": False, "first_name": name})
    full = f"telegram:{2**52 - 1} {' '.join(name.split())}"
    ((_, by),) = room.history(incident_id)
    assert by
    assert full.startswith(by)
    assert (len(by), len(by.encode())) <= (100, 200)
    # As much of the name as is allowed, down to one character of four bytes.
    assert by == full or len(by) == 100 or len(by.encode()) > 196


# ---- buttons


def test_a_button_sets_the_status_and_shows_who_did(room: Room) -> None:
    incident_id, below = room.record()
    answer = edited(deliver(room.api, room.chat.tap(below["В работу"], BORIS, message_id=77)))
    incident = room.api.get(f"/incidents/{incident_id}").json()
    assert (incident["status"], incident["version"]) == ("in_progress", 2)
    assert room.history(incident_id) == [("open", BY_ANNA), ("in_progress", BY_BORIS)]
    assert (answer.chat_id, answer.message_id) == (CHAT, 77)
    assert text(answer).startswith(f"{REPORT}\n\nStatus: in progress, Boris\n{incident_id}\n\nHistory (UTC)\n")
    minute = incident["updated_at"][:16].replace("T", " ")
    assert text(answer).endswith(f"open, Анна Петрова\n{minute} in progress, Boris")
    assert buttons(answer) == {
        "Reopen": f"open:{incident_id}:2",
        "Resolve": f"resolved:{incident_id}:2",
        "Close": f"closed:{incident_id}:2",
        "Refresh": f"refresh:{incident_id}:2",
    }


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
    # The next tap brings the message up to date, and the one after it changes the incident.
    answer = edited(room.tap(below["Обновить"]))
    assert "Статус: решён\n" in text(answer)
    assert alerted(room.tap(buttons(answer)["Обновить"])) == RUSSIAN.up_to_date
    edited(room.tap(buttons(answer)["Закрыть"]))
    assert [status for status, _ in room.history(incident_id)] == ["open", "in_progress", "resolved", "closed"]


@pytest.mark.parametrize(
    "button", ["", "x", "closed", "closed::1", "lost:{id}:1", "closed:{id}:0", "closed:{id}", "closed:{id}:1:1", "{id}"]
)
def test_a_button_of_another_form_changes_nothing(room: Room, button: str) -> None:
    incident_id, _ = room.record()
    assert alerted(room.tap(button.format(id=incident_id))) == RUSSIAN.unknown_button
    assert len(room.history(incident_id)) == 1


@pytest.mark.parametrize("action", [*Status, "refresh"])
def test_a_button_of_an_unknown_incident_is_an_alert(room: Room, action: str) -> None:
    assert alerted(room.tap(f"{action}:{UNKNOWN}:1")) == RUSSIAN.not_found


def test_a_status_without_words_is_shown_by_its_name(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (RUSSIAN.statuses, RUSSIAN.actions):
        for status in (Status.OPEN, Status.CLOSED):
            monkeypatch.delitem(words, status)
    _, below = room.record()
    assert ", open: " in text(sent(room.say("/incidents")))
    answer = edited(room.tap(below["closed"]))
    assert "Статус: closed" in text(answer)
    assert "open" in buttons(answer)
    assert "«closed»" in alerted(room.tap(below["В работу"]))


# ---- comments


def answer_to(message: Call | None, **fields: object) -> dict[str, object]:
    """The field of a reply to the bot's message."""
    assert message
    return {"reply_to_message": Chat().written(text(message), BOT, **fields)}


@pytest.mark.parametrize("fields", [{"text": COMMENT}, {"caption": COMMENT, **PHOTO}])
def test_a_reply_to_the_bots_message_is_a_comment(room: Room, fields: dict[str, object]) -> None:
    answer = room.say(f"/incident {REPORT}")
    incident_id = room.incidents()[0]["id"]
    comment = room.chat.message("", BORIS, message_id=7, **answer_to(answer), **fields)
    for _ in range(3):
        reaction = reacted(deliver(room.api, comment))
    assert (reaction.chat_id, reaction.message_id) == (CHAT, 7)
    # Repeated after another change, it still is one comment; written anew, it is another.
    room.api.patch(f"/incidents/{incident_id}", json={"status": "in_progress", "comment": "Еду"})
    reacted(deliver(room.api, comment))
    reacted(room.say("", BORIS, date=4_000_000_000, **answer_to(answer), **fields))
    said = (COMMENT, BY_BORIS)
    assert room.history(incident_id) == [("open", BY_ANNA), said, ("Еду", None), said]
    shown = text(edited(room.tap(f"refresh:{incident_id}:1")))
    assert "Статус: в работе\n" in shown
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

REPORTED = Chat().message(f"/incident {REPORT}")
INCIDENT = derived_id("telegram-message", str(CHAT), "2")


def test_what_an_update_does_is_counted(
    room: Room, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closes = room.chat.tap(f"closed:{INCIDENT}:1")
    for update, expected, field in [
        (REPORTED, ["IncidentsCreated"], ("source", "operator")),
        (REPORTED, ["Replays"], ("incident_id", INCIDENT)),
        (closes, ["StatusesSet", "TimeToResolve"], ("status", "closed")),
        (closes, [], ("incident_id", INCIDENT)),
        (room.chat.tap(f"in_progress:{INCIDENT}:1"), ["Conflicts"], ("status_code", 200)),
    ]:
        deliver(room.api, update)
        line, metrics = logged(capsys)
        assert metrics == expected
        assert field in line.items()
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert alerted(room.tap(f"open:{INCIDENT}:2")) == RUSSIAN.too_much
    assert logged(capsys)[1] == ["Conflicts"]


TAPS = [
    (1, "in_progress", ANNA, BY_ANNA),
    (1, "closed", BORIS, BY_BORIS),
    (2, "resolved", BORIS, BY_BORIS),
    (2, "open", ANNA, BY_ANNA),
    (3, "in_progress", ANNA, BY_ANNA),
]
"""Taps on the buttons of a message with this version: the status, and who taps."""


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


@pytest.mark.parametrize(
    ("description", "number"),
    [("x", 100), ("Самокат не отвечает. " * 20, 40), ("🛴" * 10_000, 40)],
    ids=["x", "text", "🛴"],
)
def test_a_long_list_leads_to_the_rest(room: Room, description: str, number: int) -> None:
    new = NewIncident(description=description, source=Source.PARTNER)
    for _ in range(number):
        store.add(Incident.report(new, id=new_id()), None)
    found: list[str] = []
    following = ["/incidents"]
    while following:
        answer = text(sent(room.say(following[0])))
        found += re.findall(r"^/incident_([0-9a-f]{32})$", answer, re.MULTILINE)
        following = re.findall(r"/incidents_[0-9a-f]{32}$", answer)
        if following:
            # One more would not have fitted.
            longest = max(len(item) for item in answer.split("\n\n")[1:-1])
            assert units(answer) + units(description[:99]) + longest > 4096
            assert following == [f"/incidents_{found[-1]}"]
            assert len(found) < number
    # Each once, those of one millisecond in the order of their ids.
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


def test_the_words_are_of_the_senders_language(room: Room) -> None:
    english = ("en", "de", "rup", None)  # rup is Aromanian
    for code, words in [("ru", RUSSIAN), ("ru-RU", RUSSIAN), *[(code, ENGLISH) for code in english]]:
        who = {"id": 1, "is_bot": False, "first_name": "x"} | ({"language_code": code} if code else {})
        assert text(sent(room.say("/incident", who))) == words.usage


# ---- what is not for the bot


def test_chats_that_are_not_listed_get_nothing(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    incident_id, _ = room.record()
    for stranger in (Chat(-CHAT), Chat(-100), Chat(int(f"{CHAT}1")), Chat(11)):
        for update in (
            stranger.message(f"/incident {REPORT}"),
            stranger.message("/incidents"),
            stranger.message("/incident", reply_to_message=stranger.written(REPORT)),
            stranger.message(COMMENT, reply_to_message=stranger.written(incident_id, BOT)),
            stranger.tap(f"closed:{incident_id}:1"),
        ):
            assert deliver(room.api, update) is None
            line, metrics = logged(capsys)
            assert (metrics, line["chat_id"]) == (["UpdatesIgnored"], str(stranger.id))
            assert REPORT not in json.dumps(line, ensure_ascii=False)
    assert room.history(incident_id) == [("open", BY_ANNA)]
    assert len(room.incidents()) == 1


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
def test_other_updates_get_nothing_and_are_counted(
    room: Room, update: Fields, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deliver(room.api, update) is None
    assert logged(capsys)[1] == ["UpdatesIgnored"]
    assert room.incidents() == []


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


def ways(value: object) -> Iterator[list[str]]:
    """The names that lead to every field of an object, and to those of the objects in it."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield [name]
        yield from ([name, *rest] for rest in ways(inner))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_an_update_with_an_odd_field_is_no_error(update: Fields) -> None:
    """Telegram would repeat it for a day, and hold back those that follow."""
    deliver_to_function(REPORTED)
    for *way, name in ways(update):
        for odd in ODD:
            changed = inner = deepcopy(dict(update))
            for each in way:
                inner = cast("dict[str, object]", inner[each])
            inner[name] = odd
            deliver_to_function(changed)


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
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


# ---- a conversation, and what the documents say of one

PAGE = (ROOT / "infra/integrations.md").read_text().partition("\n## Telegram\n")[2].partition("\n## ")[0]


def test_a_conversation_with_the_local_run(run_local: Callable[..., LocalRun]) -> None:
    room = Room(run_local("--parameters", f"TelegramChats={CHAT}").client)
    incident_id, below = room.record()
    answer = edited(room.tap(below["В работу"], BORIS))
    reacted(room.say(COMMENT, **answer_to(answer)))
    assert incident_id.replace("-", "") in text(sent(room.say("/incidents")))
    room.chat = Chat(4567)
    assert room.say(f"/incident {REPORT}") is None
    assert room.descriptions() == [REPORT]
    assert room.history(incident_id) == [("open", BY_ANNA), ("in_progress", BY_BORIS), (COMMENT, BY_ANNA)]


def as_shown(who: str, what: str, keys: Call | None = None) -> str:
    """A message as the page draws it."""
    rows = [*buttons(keys)]
    lines = [*what.splitlines(), *(["", " ".join(f"[{key}]" for key in rows[:-1]), f"[{rows[-1]}]"] if rows else [])]
    return "\n".join(f"{who if number == 0 else '':10}{line}".rstrip() for number, line in enumerate(lines))


def test_the_page_shows_a_true_conversation(room: Room) -> None:
    answer = sent(room.say(f"/incident {REPORT}", BORIS))
    changed = edited(room.tap(buttons(answer)["Start work"], {"id": 11, "is_bot": False, "first_name": "Anna"}))
    drawn = [
        as_shown("Boris", f"/incident {REPORT}"),
        as_shown("the bot", text(answer), answer),
        as_shown("Anna", "taps [Start work]"),
        as_shown("the bot", text(changed), changed),
    ]
    (page,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert without_times_and_ids(page) == without_times_and_ids("\n\n".join(drawn)), "infra/integrations.md"


def without_times_and_ids(shown: str) -> str:
    return re.sub(ID_PATTERN, "ID", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", shown))


def test_the_page_shows_what_the_local_run_answers(api: httpx.Client) -> None:
    ((update, answer),) = re.findall(r"^\$ curl .* -d '(.*)'\n(.*)\n```", PAGE, re.MULTILINE)
    response = api.post("/telegram", content=update, headers={"Content-Type": "application/json"})
    assert call(response.json())
    assert without_times_and_ids(response.text) == without_times_and_ids(answer), "infra/integrations.md"
