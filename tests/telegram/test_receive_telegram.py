"""POST /telegram."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from string import Formatter
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

import dynamodb
import store
from incident import ID_PATTERN, Change, HistoryEntry, Incident, NewIncident, Source, Status, derived_id, new_id
from infra.local import template
from infra.local.event import http_event
from infra.local.gateway import Gateway
from telegram import messages
from tests.conftest import ROOT, TEMPLATE, LocalRun
from tests.invoke import answer_of
from tests.steps import assert_problem, report
from tests.telegram.chat import (
    ANNA,
    BORIS,
    CHAT,
    Chat,
    Fields,
    alerted,
    body,
    buttons,
    call,
    deliver,
    edited,
    message_id,
    reacted,
    sent,
    text,
    units,
)

if TYPE_CHECKING:
    from aiogram.methods import EditMessageText, SendMessage
    from types_boto3_dynamodb import DynamoDBClient

    from tests.telegram.chat import Call

REPORT = "Самокат #4567 не отвечает"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
PHOTO = [{"file_id": "1", "file_unique_id": "1", "width": 1, "height": 1}]
DOCUMENT = {"file_id": "1", "file_unique_id": "1"}


@pytest.fixture
def chat() -> Chat:
    return Chat()


def listed(api: httpx.Client) -> list[dict[str, str]]:
    incidents: list[dict[str, str]] = api.get("/incidents?limit=100").json()
    return incidents


def history(api: httpx.Client, incident_id: str) -> list[tuple[str, str | None]]:
    """Who gave the incident which status, from the first to the last."""
    return [(entry["status"], entry["by"]) for entry in api.get(f"/incidents/{incident_id}/history").json()]


def record(api: httpx.Client, chat: Chat, text: str = REPORT, by: Fields = ANNA) -> tuple[str, dict[str, str]]:
    """Report an incident; return its id, and the buttons below the answer."""
    (before, answer) = len(listed(api)), deliver(api, chat.message(f"/incident {text}", by))
    incidents = listed(api)
    assert len(incidents) == before + 1
    return incidents[0]["id"], buttons(sent(answer))


def deliver_to_function(update: Fields | str, authorizer: dict[str, object] | None = None) -> Call | None:
    """Send an update to the function, without HTTP; return what the bot is to do."""
    content = update if isinstance(update, str) else body(update)
    event = http_event(
        "POST",
        "/telegram",
        route_key="POST /telegram",
        headers={"Content-Type": "application/json"},
        body=content.encode(),
        authorizer=authorizer,
    )
    status, _, answer = answer_of("telegram.receive_telegram", event)
    assert status == 200
    return call(json.loads(answer))


# ---- reports


def test_a_report_is_answered_with_its_incident_and_buttons(api: httpx.Client, chat: Chat) -> None:
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}", fields={"message_id": 7})))
    (incident,) = listed(api)
    assert (incident["description"], incident["source"], incident["status"]) == (REPORT, "operator", "open")
    assert history(api, incident["id"]) == [("open", "telegram:11 Анна Петрова")]
    assert answer.text == f"{REPORT}\n\nСтатус: открыт, Анна Петрова\n{incident['id']}"
    assert answer.chat_id == CHAT
    assert answer.reply_parameters
    assert answer.reply_parameters.message_id == 7
    assert answer.reply_parameters.allow_sending_without_reply
    assert buttons(answer) == {
        "В работу": f"in_progress:{incident['id']}:1",
        "Решён": f"resolved:{incident['id']}:1",
        "Закрыть": f"closed:{incident['id']}:1",
        "Обновить": f"refresh:{incident['id']}:1",
    }


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (f"/incident {REPORT}", REPORT),
        (f"/incident@incident_bot {REPORT}", REPORT),
        (f"/INCIDENT\n{REPORT}\nсо вчерашнего дня ", f"{REPORT}\nсо вчерашнего дня"),
        ("/incident /incidents", "/incidents"),
        ("/incident 4567", "4567"),
        ("/incident " + "ё" * 4086, "ё" * 4086),
        ("/incident <b>*_`{}%s\\n&amp;", "<b>*_`{}%s\\n&amp;"),
        # Telegram ends a command at the first character that is none of its own.
        ("/incident: pump", "pump"),
        ("/incident, pump", "pump"),
        ("/incident-pump", "pump"),
        ("/incident — pump", "pump"),
        ("/incident@our_bot: pump", "pump"),
        ("/incident🔥", "🔥"),
        ("/incident 🔥 pump", "🔥 pump"),
        ("/incident -5 °C", "-5 °C"),
    ],
)
def test_what_follows_the_command_is_the_report(api: httpx.Client, chat: Chat, text: str, description: str) -> None:
    sent(deliver(api, chat.message(text)))
    assert [incident["description"] for incident in listed(api)] == [description]


def test_a_report_full_of_links_is_taken(api: httpx.Client, chat: Chat) -> None:
    links = [
        {"type": "text_link", "offset": 10 + number, "length": 1, "url": f"https://example.com/{'x' * 2000}"}
        for number in range(100)
    ]
    update = chat.message("/incident " + "x" * 4086, fields={"entities": links})
    assert len(body(update)) > 128 * 1024
    sent(deliver(api, update))
    assert len(listed(api)) == 1


@pytest.mark.parametrize("attached", [{"photo": PHOTO}, {"document": DOCUMENT}], ids=["photo", "document"])
def test_a_caption_that_begins_with_the_command_is_a_report(
    api: httpx.Client, chat: Chat, attached: dict[str, object]
) -> None:
    sent(deliver(api, chat.message(fields={"caption": f"/incident {REPORT}", **attached})))
    assert [incident["description"] for incident in listed(api)] == [REPORT]
    assert deliver(api, chat.message(fields={"caption": REPORT, **attached})) is None
    assert len(listed(api)) == 1


@pytest.mark.parametrize(
    "reported",
    [
        {"text": REPORT},
        {"caption": REPORT, "photo": PHOTO},
        {"text": f"/incident {REPORT}"},
        {"text": f"/incident: {REPORT}"},
    ],
)
def test_the_command_as_a_reply_reports_that_message_once(
    api: httpx.Client, chat: Chat, reported: dict[str, object]
) -> None:
    message = chat.written(by=BORIS, fields=reported)
    for by in (ANNA, BORIS):
        answer = sent(deliver(api, chat.message("/incident", by, {"reply_to_message": message})))
        assert answer.text.startswith(f"{REPORT}\n\n")
    (incident,) = listed(api)
    assert (incident["id"], incident["description"]) == (derived_id("telegram-message", str(CHAT), "1"), REPORT)
    assert history(api, incident["id"]) == [("open", "telegram:11 Анна Петрова")]


def test_the_commands_own_text_takes_precedence_over_the_reply(api: httpx.Client, chat: Chat) -> None:
    sent(deliver(api, chat.message(f"/incident {REPORT}", fields={"reply_to_message": chat.written("Доброе утро")})))
    assert [incident["description"] for incident in listed(api)] == [REPORT]


ORIGIN = {"type": "hidden_user", "date": 1, "sender_user_name": "Zoe"}
QUOTE = {"text": REPORT, "position": 0, "is_manual": True}


@pytest.mark.parametrize(
    "fields",
    [
        {
            "quote": QUOTE,
            "external_reply": {"origin": ORIGIN, "chat": {"id": CHAT, "type": "supergroup"}, "message_id": 5},
        },
        {"quote": QUOTE, "external_reply": {"origin": ORIGIN}},
        {"quote": QUOTE, "reply_to_message": Chat().written(f"Доброе утро! {REPORT}")},
    ],
)
def test_a_quote_replied_to_with_the_command_is_a_report(api: httpx.Client, chat: Chat, fields: Fields) -> None:
    update = chat.message("/incident", fields=fields)
    for _ in range(2):
        sent(deliver(api, update))
    assert [incident["description"] for incident in listed(api)] == [REPORT]


@pytest.mark.parametrize("text", ["/incident", "/incident@incident_bot", "/incident \n ", "/incident."])
@pytest.mark.parametrize("replied", [False, True])
def test_the_command_alone_is_answered_with_how_to_use_it(
    api: httpx.Client, chat: Chat, text: str, *, replied: bool
) -> None:
    # In a group with topics, a message in a topic replies to the one that made the topic, which has no text.
    fields = {"reply_to_message": chat.written(fields={"photo": PHOTO})} if replied else {}
    assert sent(deliver(api, chat.message(text, ANNA, fields))).text == messages.RUSSIAN.usage
    assert sent(deliver(api, chat.message(text, BORIS, fields))).text == messages.ENGLISH.usage
    assert listed(api) == []


@pytest.mark.parametrize("text", ["\u2800", "\u200b\u200d", "x\x00", "\x1b[31m"])
def test_an_invalid_report_is_answered_with_the_reason(api: httpx.Client, chat: Chat, text: str) -> None:
    assert sent(deliver(api, chat.message(f"/incident {text}"))).text == messages.RUSSIAN.not_a_report
    assert listed(api) == []


def test_an_answer_goes_to_the_topic_of_the_message(api: httpx.Client, chat: Chat) -> None:
    answer = sent(deliver(api, chat.message("/incidents", fields={"message_thread_id": 9, "is_topic_message": True})))
    assert answer.message_thread_id == 9
    # Elsewhere it names a thread of replies, to which no message can be sent by number.
    assert sent(deliver(api, chat.message("/incidents", fields={"message_thread_id": 9}))).message_thread_id is None


@pytest.mark.usefixtures("table")
def test_the_bot_reports_as_the_source_of_its_key(chat: Chat) -> None:
    update = chat.message(f"/incident {REPORT}")
    sent(deliver_to_function(update, {"lambda": {"caller": "telegram", "source": "partner"}}))
    assert [incident.source for incident in store.newest([Status.OPEN], 10)] == [Source.PARTNER]


def test_a_number_that_comes_again_is_another_report(api: httpx.Client) -> None:
    """In basic groups and private chats each bot account counts the messages for itself."""
    reports = [("The old bot's pump", 1_700_000_000), ("The new bot's conveyor", 1_795_428_000)]
    updates = [
        Chat(4567).message(f"/incident {said}", fields={"message_id": 5, "date": date}) for said, date in reports
    ]
    for update in [*updates, *updates]:
        said = str(json.loads(body(update))["message"]["text"]).removeprefix("/incident ")
        assert text(sent(deliver(api, update))).startswith(said)
    assert {incident["description"] for incident in listed(api)} == {said for said, _ in reports}


def test_an_edited_message_is_not_recorded_again(api: httpx.Client, chat: Chat) -> None:
    for fields in ({"text": REPORT}, {"text": f"{REPORT}!", "edit_date": 1_795_428_001}):
        replied = chat.written(fields={"message_id": 900, **fields})
        sent(deliver(api, chat.message("/incident", fields={"reply_to_message": replied})))
    assert [incident["description"] for incident in listed(api)] == [REPORT]


SENDERS = {"id": -100777, "type": "channel", "title": "Plant news"}


@pytest.mark.parametrize(
    ("stand_in", "fields", "by"),
    [
        (1087968824, {"sender_chat": {"id": CHAT, "type": "supergroup", "title": "Plant"}}, f"telegram:{CHAT} Plant"),
        (
            1087968824,
            {"sender_chat": {"id": CHAT, "type": "supergroup", "title": "Plant"}, "author_signature": "Duty lead"},
            f"telegram:{CHAT} Duty lead",
        ),
        (136817688, {"sender_chat": SENDERS}, "telegram:-100777 Plant news"),
        (777000, {"sender_chat": SENDERS, "is_automatic_forward": True}, "telegram:-100777 Plant news"),
        (22, {"sender_chat": SENDERS}, "telegram:22 Group"),
    ],
)
def test_a_chat_stands_behind_a_stand_in(api: httpx.Client, chat: Chat, stand_in: int, fields: Fields, by: str) -> None:
    user = {"id": stand_in, "is_bot": True, "first_name": "Group"}
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}", user, fields)))
    (incident,) = listed(api)
    assert history(api, incident["id"]) == [("open", by)]
    assert f"Status: open, {by.partition(' ')[2]}\n" in text(answer)


def test_the_same_number_in_two_chats_is_two_messages(api: httpx.Client) -> None:
    for number in (CHAT, 4567):
        sent(deliver(api, Chat(number).message(f"/incident {REPORT}")))
    assert len({incident["id"] for incident in listed(api)}) == 2


# ---- buttons


def test_a_button_sets_the_status_and_shows_who_did(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    answer = edited(deliver(api, chat.tap(below["В работу"], BORIS, message_id=77)))
    incident = api.get(f"/incidents/{incident_id}").json()
    assert (incident["status"], incident["version"]) == ("in_progress", 2)
    assert history(api, incident_id) == [("open", "telegram:11 Анна Петрова"), ("in_progress", "telegram:22 Boris")]
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


def test_every_status_is_one_tap_away_from_every_other(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    for status in ["closed", "open", "in_progress", "closed", "resolved", "in_progress", "open", "resolved", "open"]:
        (button,) = [data for data in below.values() if data.startswith(f"{status}:")]
        below = buttons(edited(deliver(api, chat.tap(button))))
        assert api.get(f"/incidents/{incident_id}").json()["status"] == status
        assert {data.partition(":")[0] for data in below.values()} == {*Status, "refresh"} - {status}


def test_a_tap_on_an_outdated_message_changes_nothing(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    deliver(api, chat.tap(below["В работу"], BORIS))
    changed = api.get(f"/incidents/{incident_id}").json()
    alert = alerted(deliver(api, chat.tap(below["Закрыть"], ANNA)))
    assert "«в работе» (Boris)" in alert
    assert api.get(f"/incidents/{incident_id}").json() == changed
    # The next tap brings the message up to date, and the one after it changes the incident.
    answer = edited(deliver(api, chat.tap(below["Обновить"], ANNA)))
    assert "Статус: в работе, Boris" in text(answer)
    edited(deliver(api, chat.tap(buttons(answer)["Закрыть"], ANNA)))
    assert [status for status, _ in history(api, incident_id)] == ["open", "in_progress", "closed"]


def test_a_second_tap_for_the_same_status_shows_the_first(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    deliver(api, chat.tap(below["В работу"], BORIS))
    assert "Статус: в работе, Boris" in text(edited(deliver(api, chat.tap(below["В работу"], ANNA))))
    assert len(history(api, incident_id)) == 2


def test_a_change_through_the_api_is_told_as_well(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    api.patch(f"/incidents/{incident_id}", json={"status": "resolved"})
    assert "«решён» (кто-то другой)" in alerted(deliver(api, chat.tap(below["Закрыть"])))
    assert "Статус: решён\n" in text(edited(deliver(api, chat.tap(below["Обновить"]))))


def test_refreshing_an_unchanged_message_is_an_alert(api: httpx.Client, chat: Chat) -> None:
    _, below = record(api, chat)
    assert alerted(deliver(api, chat.tap(below["Обновить"]))) == messages.RUSSIAN.up_to_date


@pytest.mark.parametrize(
    "button", ["", "x", "closed", "closed::1", "lost:{id}:1", "closed:{id}:0", "closed:{id}", "closed:{id}:1:1", "{id}"]
)
def test_a_button_of_another_form_changes_nothing(api: httpx.Client, chat: Chat, button: str) -> None:
    incident_id, _ = record(api, chat)
    assert alerted(deliver(api, chat.tap(button.format(id=incident_id)))) == messages.RUSSIAN.unknown_button
    assert len(history(api, incident_id)) == 1


@pytest.mark.parametrize("action", [*Status, "refresh"])
def test_a_button_of_an_unknown_incident_is_an_alert(api: httpx.Client, chat: Chat, action: str) -> None:
    assert alerted(deliver(api, chat.tap(f"{action}:{UNKNOWN}:1"))) == messages.RUSSIAN.not_found
    assert listed(api) == []


def test_an_incident_that_takes_no_more_changes_is_an_alert(
    api: httpx.Client, chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    incident_id, below = record(api, chat)
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert alerted(deliver(api, chat.tap(below["Закрыть"]))) == messages.RUSSIAN.too_much
    assert metrics(last_line(capsys)) == ["Conflicts"]
    assert len(history(api, incident_id)) == 1


def test_what_becomes_of_a_report_is_counted(api: httpx.Client, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    update = chat.message(f"/incident {REPORT}")
    for metric in ("IncidentsCreated", "Replays"):
        deliver(api, update)
        line = last_line(capsys)
        assert metrics(line) == [metric]
        assert line.get("source") == ("operator" if metric == "IncidentsCreated" else None)
        assert line["incident_id"] == listed(api)[0]["id"]


def test_what_a_tap_does_is_counted(api: httpx.Client, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    incident_id, below = record(api, chat)
    close = chat.tap(below["Закрыть"])
    deliver(api, close)
    line = last_line(capsys)
    assert (metrics(line), line["status"], line["incident_id"]) == (
        ["StatusesSet", "TimeToResolve"],
        "closed",
        incident_id,
    )
    deliver(api, close)
    line = last_line(capsys)
    assert (metrics(line), line["incident_id"]) == ([], incident_id)
    deliver(api, chat.tap(below["В работу"]))
    assert metrics(last_line(capsys)) == ["Conflicts"]


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What is logged of the last request."""
    line: dict[str, str] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def metrics(line: Mapping[str, object]) -> list[str]:
    """The names of the metrics that a line counts."""
    return re.findall(r'"Name": "(\w+)"', json.dumps(line.get("_aws")))


@pytest.mark.parametrize(
    "user",
    [
        {"first_name": "Ё" * 64, "last_name": "ж" * 64},
        {"first_name": "😀" * 64, "last_name": "🛴" * 64},
        {"first_name": "a" + "中" * 63},
        {"first_name": "a" * 64, "last_name": "b" * 64},
        {"first_name": "Анна\n\tМария ", "last_name": " \u202eПетрова"},
        {"first_name": "x"},
    ],
)
def test_a_name_is_cut_to_what_a_history_takes(api: httpx.Client, chat: Chat, user: dict[str, str]) -> None:
    who = {"id": 2**52 - 1, "is_bot": False, **user}
    incident_id, below = record(api, chat, by=who)
    edited(deliver(api, chat.tap(below["Close"], who)))
    full = f"telegram:{2**52 - 1} " + " ".join(" ".join(user.values()).split())
    for _, by in history(api, incident_id):
        assert by
        assert full.startswith(by)
        assert len(by) <= 100
        assert len(by.encode()) <= 200
        # As much of the name as is allowed, down to one character of four bytes.
        assert by == full or len(by) == 100 or len(by.encode()) > 196


# ---- comments


def bots(message: SendMessage | EditMessageText, number: int = 900) -> dict[str, object]:
    """The bot's message, as Telegram repeats it in a reply."""
    me = {"id": 99, "is_bot": True, "first_name": "Incidents"}
    return {
        "message_id": number,
        "date": 1,
        "chat": {"id": CHAT, "type": "supergroup"},
        "from": me,
        "text": text(message),
    }


def comments(api: httpx.Client, incident_id: str) -> list[tuple[str, str | None, str | None]]:
    entries = api.get(f"/incidents/{incident_id}/history").json()
    return [(entry["status"], entry["by"], entry["comment"]) for entry in entries]


@pytest.mark.parametrize(
    "fields", [{"text": "Позвонил в мастерскую"}, {"caption": "Позвонил в мастерскую", "photo": PHOTO}]
)
def test_a_reply_to_the_bots_message_is_a_comment(api: httpx.Client, chat: Chat, fields: dict[str, object]) -> None:
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}")))
    (incident,) = listed(api)
    update = chat.message(by=BORIS, fields={"reply_to_message": bots(answer), **fields})
    for _ in range(3):
        reaction = reacted(deliver(api, update))
    assert (reaction.chat_id, reaction.message_id) == (CHAT, message_id(update))
    # Repeated after another change, it still is one comment; written anew, it is another.
    api.patch(f"/incidents/{incident['id']}", json={"status": "in_progress"})
    deliver(api, update)
    deliver(api, chat.message(by=BORIS, fields={"reply_to_message": bots(answer), "date": 4_000_000_000, **fields}))
    assert comments(api, incident["id"]) == [
        ("open", "telegram:11 Анна Петрова", None),
        ("open", "telegram:22 Boris", "Позвонил в мастерскую"),
        ("in_progress", None, None),
        ("in_progress", "telegram:22 Boris", "Позвонил в мастерскую"),
    ]
    shown = text(edited(deliver(api, chat.tap(f"refresh:{incident['id']}:1", ANNA))))
    assert "Статус: в работе\n" in shown
    assert " Boris: Позвонил в мастерскую\n" in shown


@pytest.mark.parametrize(
    "replied",
    [
        {"from": ANNA},  # a person's message that has an id
        {"text": "Hello"},
        {"text": ""},
        None,
    ],
)
def test_another_reply_is_no_comment(api: httpx.Client, chat: Chat, replied: Fields | None) -> None:
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}")))
    (incident,) = listed(api)
    fields = {} if replied is None else {"reply_to_message": bots(answer) | dict(replied)}
    assert deliver(api, chat.message("Позвонил", fields=fields)) is None
    assert len(comments(api, incident["id"])) == 1


def test_a_reply_that_cannot_be_stored_says_why(api: httpx.Client, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}")))

    def reply(said: str, **replied: object) -> str:
        fields = {"reply_to_message": bots(answer) | replied}
        return text(sent(deliver(api, chat.message(said, fields=fields))))

    assert reply("x" * 1_001) == reply("\u2800") == messages.RUSSIAN.not_a_comment
    assert reply("x", text=UNKNOWN) == messages.RUSSIAN.not_found
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert reply("x") == messages.RUSSIAN.too_much


# ---- repetitions


def test_a_repeated_report_is_one_incident(api: httpx.Client, chat: Chat) -> None:
    update = chat.message(f"/incident {REPORT}")
    answers = [sent(deliver(api, update)) for _ in range(10)]
    assert len({answer.text for answer in answers}) == 1
    assert len(listed(api)) == 1


def test_a_repeated_tap_is_one_change(api: httpx.Client, chat: Chat) -> None:
    incident_id, below = record(api, chat)
    update = chat.tap(below["В работу"])
    assert len({text(edited(deliver(api, update))) for _ in range(5)}) == 1
    # Others go on meanwhile: who taps is not told that somebody else was faster.
    api.patch(f"/incidents/{incident_id}", json={"status": "resolved"})
    assert all("Статус: решён\n" in text(edited(deliver(api, update))) for _ in range(5))
    assert [status for status, _ in history(api, incident_id)] == ["open", "in_progress", "resolved"]


REPORTED = Chat().message(f"/incident {REPORT}")
INCIDENT = derived_id("telegram-message", str(CHAT), "2")
BY_ANNA, BY_BORIS = "telegram:11 Анна Петрова", "telegram:22 Boris"
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


def commands(text: str) -> list[str]:
    return re.findall(r"^/incident_[0-9a-f]{32}$", text, re.MULTILINE)


def test_a_list_has_active_incidents_newest_first(api: httpx.Client, chat: Chat) -> None:
    first, second = record(api, chat, "Точка не\nотвечает ")[0], record(api, chat, "Отчёт не выгрузился")[0]
    closed, _ = record(api, chat, "Закрытый")
    api.patch(f"/incidents/{closed}", json={"status": "closed"})
    api.patch(f"/incidents/{first}", json={"status": "in_progress"})
    answer = sent(deliver(api, chat.message("/incidents@incident_bot")))
    assert answer.text == (
        f"Открытые и в работе, сначала новые:\n\nтолько что, открыт: Отчёт не выгрузился\n/incident_{second.replace('-', '')}"
        f"\n\nтолько что, в работе: Точка не отвечает\n/incident_{first.replace('-', '')}"
    )
    assert not buttons(answer)


def test_a_list_of_nothing_says_so(api: httpx.Client, chat: Chat) -> None:
    assert sent(deliver(api, chat.message("/incidents"))).text == messages.RUSSIAN.none_active
    assert sent(deliver(api, chat.message("/incidents", BORIS))).text == messages.ENGLISH.none_active


@pytest.mark.parametrize(
    ("description", "by", "number"),
    [
        ("x", ANNA, 75),
        ("Самокат не отвечает. " * 20, BORIS, 40),
        ("🛴" * 10_000, ANNA, 40),
        pytest.param("x", BORIS, 100, marks=pytest.mark.slow),
        pytest.param("Самокат не отвечает. " * 20, ANNA, 100, marks=pytest.mark.slow),
        pytest.param("🛴" * 10_000, BORIS, 100, marks=pytest.mark.slow),
    ],
    ids=["short-ru", "long-en", "emoji-ru", "short-en", "long-ru", "emoji-en"],
)
def test_a_long_list_leads_to_the_rest(
    api: httpx.Client, chat: Chat, description: str, by: Fields, number: int
) -> None:
    ids = [store.add(open_incident(description), None).id for _ in range(number)]
    found: list[str] = []
    messages_sent = 0
    command = "/incidents"
    while command:
        messages_sent += 1
        answer = sent(deliver(api, chat.message(command, by)))
        shown = commands(answer.text)
        found += [each.removeprefix("/incident_") for each in shown]
        following = re.findall(r"/incidents_[0-9a-f]{32}$", answer.text)
        if following:
            # One more would not have fitted.
            longest = max(len(item) for item in answer.text.split("\n\n")[1:-1])
            assert units(answer.text) + units(description[:99]) + longest > 4096
            assert following == [f"/incidents_{found[-1]}"]
        command = following[0] if following else ""
    assert messages_sent > 1
    # Each once, those of one millisecond in the order of their ids.
    assert found == [incident["id"].replace("-", "") for incident in listed(api)]
    assert {each.replace("-", "") for each in ids} == set(found)


def open_incident(description: str) -> Incident:
    return Incident.report(NewIncident(description=description, source=Source.PARTNER), id=new_id())


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
    now = datetime(2026, 11, 24, 10, 0, 0, 123000, UTC)
    time = (now - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert messages.age(messages.RUSSIAN, time, now) == russian
    assert messages.age(messages.ENGLISH, time, now) == english


@pytest.mark.parametrize(
    "command", ["/incident {id}", "/incident@incident_bot  {ID}\n", "/incident_{hex}", "/incident_{hex}@b"]
)
def test_an_id_shows_the_incident_with_its_buttons_and_history(api: httpx.Client, chat: Chat, command: str) -> None:
    incident_id, below = record(api, chat)
    deliver(api, chat.tap(below["Решён"], BORIS))
    answer = sent(
        deliver(
            api, chat.message(command.format(id=incident_id, ID=incident_id.upper(), hex=incident_id.replace("-", "")))
        )
    )
    assert answer.text.startswith(f"{REPORT}\n\nСтатус: решён, Boris\n{incident_id}\n\nИстория (UTC)\n")
    assert answer.text.count("\n2") == 2
    assert f"closed:{incident_id}:2" in buttons(answer).values()
    assert len(listed(api)) == 1


@pytest.mark.parametrize(
    "command", [f"/incident {UNKNOWN}", f"/incident_{UNKNOWN.replace('-', '')}", f"/incidents_{'0' * 32}"]
)
def test_an_unknown_id_is_answered_with_a_sentence(api: httpx.Client, chat: Chat, command: str) -> None:
    assert sent(deliver(api, chat.message(command))).text == messages.RUSSIAN.not_found
    assert listed(api) == []


def test_the_longest_incident_with_the_longest_history_fits(api: httpx.Client, chat: Chat) -> None:
    incident = report(api, "🛴" * 10_000)
    who = {"id": 2**52 - 1, "is_bot": False, "first_name": "🛴" * 64, "last_name": "x" * 64}
    statuses = [Status.CLOSED, Status.OPEN] * 20
    for status in statuses:
        store.change(incident["id"], Change(status=status), f"telegram:{who['id']} {'🛴' * 20}", None)
    answer = sent(deliver(api, chat.message(f"/incident {incident['id']}", who)))
    assert 4096 - 2 <= units(answer.text) <= 4096
    description, _, rest = answer.text.partition("\n\n")
    assert description == "🛴" * (len(description) - 1) + "…"
    assert len(description) > 1000
    # The newest changes are there, and how many are not.
    (left_out,) = re.findall(r"… earlier changes: (\d+)\n", rest)
    assert int(left_out) + rest.count("\n20") == 41
    assert rest.count("\n20") > 10
    assert rest.endswith("open, " + "🛴" * 20)


# ---- what is not for the bot


def ignored(capsys: pytest.CaptureFixture[str]) -> list[dict[str, JsonValue]]:
    """What is logged of the updates that were ignored, and counted as such."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line.get("UpdatesIgnored") == 1 and "_aws" in line]


def test_chats_that_are_not_listed_get_nothing(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    incident_id, _ = record(api, Chat())
    for stranger in (Chat(-CHAT), Chat(-100), Chat(int(f"{CHAT}1")), Chat(11)):
        for update in (
            stranger.message(f"/incident {REPORT}"),
            stranger.message("/incidents"),
            stranger.message(f"/incident {incident_id}"),
            stranger.message("/incident", fields={"reply_to_message": stranger.written(REPORT)}),
            stranger.tap(f"closed:{incident_id}:1"),
            stranger.tap(f"refresh:{incident_id}:2"),
        ):
            assert deliver(api, update) is None
            (line,) = ignored(capsys)
            assert line["chat_id"] == str(stranger.id)
            assert REPORT not in json.dumps(line, ensure_ascii=False)
    assert len(listed(api)) == 1
    assert len(history(api, incident_id)) == 1


def other_updates() -> list[Fields]:
    chat = Chat()
    report = chat.written(f"/incident {REPORT}")
    return [
        {"update_id": 1, "edited_message": report},
        {"update_id": 1, "channel_post": report},
        {"update_id": 1},
        chat.message("Доброе утро"),
        chat.message(f"Самокат: /incident {REPORT}"),
        chat.message(f"/incidental {REPORT}"),
        chat.message("/incident_123"),
        chat.message("/start"),
        chat.message(fields={"photo": PHOTO}),
        chat.message(fields={"new_chat_title": REPORT}),
        chat.message(fields={"migrate_to_chat_id": -100999}),
    ]


@pytest.mark.parametrize("update", other_updates(), ids=lambda update: json.dumps(update)[:60])
def test_other_updates_get_nothing_and_are_counted(
    api: httpx.Client, update: Fields, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deliver(api, update) is None
    assert len(ignored(capsys)) == 1
    assert listed(api) == []


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"update_id": 1, "something_new": {"chat": {"id": CHAT}, "text": "/incident x"}},
        {"message": None},
        {"message": {"chat": {"id": CHAT}, "text": "/incident x"}},
        {"message": {"message_id": 1, "chat": {"id": str(CHAT)}, "from": {"id": 1}, "text": "/incident x"}},
        {"message": {"message_id": 1.5, "chat": {"id": CHAT}, "from": {"id": 1}, "text": "/incident x"}},
        {"message": {"message_id": 1, "chat": {"id": CHAT}, "from": {"id": 1}, "text": "/incident \ud83d"}},
        {"callback_query": {"id": "1", "from": {"id": 1}, "data": f"closed:{UNKNOWN}:1", "inline_message_id": "1"}},
    ],
)
def test_an_update_of_another_shape_gets_nothing(api: httpx.Client, update: dict[str, object]) -> None:
    assert deliver(api, json.dumps(update)) is None
    assert listed(api) == []


def test_what_is_no_update_is_refused(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert_problem(api.post("/telegram", content=b"{", headers=headers), 400)
    for value in (b"[]", b"1", b"null", b'"x"'):
        assert_problem(api.post("/telegram", content=value, headers=headers), 422)


# ---- failures


@pytest.mark.parametrize(
    "update",
    [
        lambda chat: chat.message(f"/incident {REPORT}"),
        lambda chat: chat.message("/incidents"),
        lambda chat: chat.message(f"/incidents_{UNKNOWN.replace('-', '')}"),
        lambda chat: chat.message(f"/incident {UNKNOWN}"),
        lambda chat: chat.tap(f"closed:{UNKNOWN}:1"),
        lambda chat: chat.tap(f"refresh:{UNKNOWN}:1"),
    ],
)
def test_when_dynamodb_fails_telegram_is_to_repeat_the_update(
    api: httpx.Client, chat: Chat, update: Callable[[Chat], Fields], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint="http://127.0.0.1:9"))
    headers = {"Content-Type": "application/json"}
    response = api.post("/telegram", content=body(update(chat)), headers=headers)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


# ---- words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ru", messages.RUSSIAN),
        ("ru-RU", messages.RUSSIAN),
        ("en", messages.ENGLISH),
        ("de", messages.ENGLISH),
        ("rup", messages.ENGLISH),  # Aromanian
        (None, messages.ENGLISH),
    ],
)
def test_the_words_are_of_the_senders_language(
    api: httpx.Client, chat: Chat, code: str | None, words: messages.Words
) -> None:
    who = {"id": 1, "is_bot": False, "first_name": "x"} | ({"language_code": code} if code else {})
    assert sent(deliver(api, chat.message("/incident", who))).text == words.usage


def test_a_status_without_words_is_shown_by_its_name(
    api: httpx.Client, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half a recipe, or a rollback."""
    for each in (messages.RUSSIAN.statuses, messages.RUSSIAN.actions):
        monkeypatch.delitem(each, Status.OPEN)
        monkeypatch.delitem(each, Status.CLOSED)
    incident_id, below = record(api, chat)
    assert below["closed"] == f"closed:{incident_id}:1"
    assert "Статус: closed" in text(edited(deliver(api, chat.tap(below["closed"]))))
    assert ", open: " not in text(sent(deliver(api, chat.message("/incidents"))))


def test_every_word_has_its_translation() -> None:
    for name in messages.Words._fields:
        english, russian = getattr(messages.ENGLISH, name), getattr(messages.RUSSIAN, name)
        if isinstance(english, str):
            pairs = [(english, russian)]
        else:
            assert english.keys() == russian.keys()
            pairs = [(english[key], russian[key]) for key in english]
        for here, there in pairs:
            assert placeholders(here) == placeholders(there), name
            assert not re.search("[а-яё]", here, re.IGNORECASE), name
            assert re.search("[а-яё]", there, re.IGNORECASE), name


def placeholders(text: str) -> int:
    return sum(name is not None for _, name, _, _ in Formatter().parse(text))


@pytest.mark.parametrize("words", [messages.ENGLISH, messages.RUSSIAN])
def test_every_alert_fits(words: messages.Words) -> None:
    alerts = [words.too_much, words.not_found, words.up_to_date, words.unknown_button]
    longest = max(words.statuses, key=lambda status: len(words.statuses[status]))
    entry = HistoryEntry(
        version=2, status=longest, at="2026-11-24T10:00:00.000Z", by="telegram:1 " + "🛴" * 47, comment=None
    )
    alerts.append(messages.conflict_alert(words, entry))
    assert all(units(alert) <= messages.MAX_ALERT for alert in alerts)


@pytest.mark.parametrize("words", [messages.ENGLISH, messages.RUSSIAN])
def test_a_list_never_fits_all_that_it_asks_for(words: messages.Words) -> None:
    shortest = open_incident("x").model_copy(update={"created_at": (datetime.now(UTC) - timedelta(days=1)).isoformat()})
    assert "/incidents_" in messages.list_text(words, [shortest] * messages.MAX_LISTED)


@pytest.mark.parametrize("words", [messages.ENGLISH, messages.RUSSIAN])
def test_a_list_takes_all_the_room_that_a_message_has(words: messages.Words) -> None:
    def shown(*lengths: int) -> str:
        return messages.list_text(words, [open_incident("x" * length) for length in lengths])

    around = units(shown(1)) - units(words.active) - 1
    rest = units(f"\n\n{words.older.format(f'/incidents_{0:032}')}")
    share, remainder = divmod(4096 - units(words.active) - rest, 30)
    excerpts = [share - around] * 29
    full = shown(*excerpts, share - around + remainder)
    assert (full.count("/incident_"), units(full) + rest) == (30, 4096)
    assert shown(*excerpts, share - around + remainder + 1).count("/incident_") == 29


@pytest.mark.parametrize(("description", "excerpt"), [("x" * 100, "x" * 100), ("x" * 101, "x" * 99 + "…")])
def test_a_list_has_100_characters_of_a_description(description: str, excerpt: str) -> None:
    assert f": {excerpt}\n" in messages.list_text(messages.ENGLISH, [open_incident(description)])


def test_a_history_takes_all_the_room_that_it_has() -> None:
    incident = open_incident("x")
    entry = HistoryEntry(version=1, status=Status.OPEN, at=incident.created_at, by="x", comment=None)
    line = "2026-11-24 10:00 open, "
    # Twenty lines of 59 with the line feeds between them make 1,199.
    names = ["x" * (59 - len(line))] * 19
    for last, expected in (("x" * (60 - len(line)), 20), ("x" * (61 - len(line)), 19)):
        history = [entry.model_copy(update={"by": name}) for name in (last, *names)]
        text = messages.incident_text(messages.ENGLISH, incident, history)
        assert text.count("open, xx") == 1 + expected
        assert ("earlier changes: 1\n" in text) == (expected == 19)


# ---- where it is deployed


def test_the_default_deployment_has_no_such_route(serve: Callable[[Gateway], str]) -> None:
    response = httpx.post(f"{serve(Gateway())}/telegram", json={})
    assert (response.status_code, response.json()) == (404, {"message": "Not Found"})


@pytest.mark.parametrize("chats", ["-1001234567890", "4567", "-1,2,-3", ""])
def test_the_parameter_is_a_list_of_chats(chats: str) -> None:
    TEMPLATE.check({"TelegramChats": chats})


@pytest.mark.parametrize("chats", [",", "1,", "1, 2", "@group", "-", "1\n", "1 2", "*"])
def test_the_parameter_is_nothing_else(chats: str) -> None:
    with pytest.raises(template.ParameterError):
        TEMPLATE.check({"TelegramChats": chats})


# ---- a conversation, and what the documents say of one

PAGE = (ROOT / "infra/integrations.md").read_text().partition("\n## Telegram\n")[2].partition("\n## ")[0]


def test_a_conversation_with_the_local_run(run_local: Callable[..., LocalRun], chat: Chat) -> None:
    api = run_local("--parameters", f"TelegramChats={CHAT}").client
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}", ANNA)))
    edited(deliver(api, chat.tap(buttons(answer)["В работу"], BORIS)))
    assert "«в работе» (Boris)" in alerted(deliver(api, chat.tap(buttons(answer)["Решён"], ANNA)))
    refreshed = edited(deliver(api, chat.tap(buttons(answer)["Обновить"], ANNA)))
    edited(deliver(api, chat.tap(buttons(refreshed)["Решён"], ANNA)))
    sent(
        deliver(
            api, chat.message("/incident", BORIS, {"reply_to_message": chat.written("The report was not exported")})
        )
    )
    shown = text(sent(deliver(api, chat.message("/incidents", BORIS))))
    second, first = api.get("/incidents").json()
    assert [(each["description"], each["status"]) for each in (first, second)] == [
        (REPORT, "resolved"),
        ("The report was not exported", "open"),
    ]
    assert commands(shown) == [f"/incident_{second['id'].replace('-', '')}"]
    assert history(api, first["id"]) == [("open", BY_ANNA), ("in_progress", BY_BORIS), ("resolved", BY_ANNA)]
    assert history(api, second["id"]) == [("open", BY_BORIS)]
    assert deliver(api, Chat(4567).message(f"/incident {REPORT}")) is None
    assert len(api.get("/incidents").json()) == 2


def as_shown(who: str, what: str, keys: Call | None = None) -> str:
    """A message as the page draws it."""
    rows = [*buttons(keys)]
    lines = [*what.splitlines(), *(["", " ".join(f"[{key}]" for key in rows[:-1]), f"[{rows[-1]}]"] if rows else [])]
    return "\n".join(f"{who if number == 0 else '':10}{line}".rstrip() for number, line in enumerate(lines))


def test_the_page_shows_a_true_conversation(api: httpx.Client, chat: Chat) -> None:
    anna = {"id": 11, "is_bot": False, "first_name": "Anna"}
    answer = sent(deliver(api, chat.message(f"/incident {REPORT}", BORIS)))
    changed = edited(deliver(api, chat.tap(buttons(answer)["Start work"], anna)))
    drawn = [
        as_shown("Boris", f"/incident {REPORT}"),
        as_shown("the bot", text(answer), answer),
        as_shown("Anna", "taps [Start work]"),
        as_shown("the bot", text(changed), changed),
    ]
    (page,) = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert without_times_and_ids(page) == without_times_and_ids("\n\n".join(drawn))


def without_times_and_ids(shown: str) -> str:
    return re.sub(ID_PATTERN, "ID", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", shown))


def test_the_page_shows_what_the_local_run_answers(api: httpx.Client) -> None:
    ((update, answer),) = re.findall(r"^\$ curl .* -d '(.*)'\n(.*)\n```", PAGE, re.MULTILINE)
    response = api.post("/telegram", content=update, headers={"Content-Type": "application/json"})
    assert call(response.json())
    assert without_times_and_ids(response.text) == without_times_and_ids(answer)
