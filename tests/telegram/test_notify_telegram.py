"""notify_telegram, called with records of the stream, alarms and the schedule."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSRequest

import store
from dynamodb import Unavailable
from incident import new_id
from telegram import bot, deliveries, notify_telegram
from telegram.messages import RUSSIAN
from tests.steps import overwrite, report
from tests.telegram.chat import BORIS, BOT, CHAT, REPORT, Room, alerted, answered, buttons, edited, reacted
from tests.telegram.fake_telegram import OTHER, TOKEN, Answer, Clock, Telegram, handle, notify, refused

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


def create(api: httpx.Client, description: str = REPORT) -> str:
    return report(api, description)["id"]


def set_status(api: httpx.Client, incident_id: str, status: str) -> None:
    assert api.patch(f"/incidents/{incident_id}", json={"status": status}).status_code == 200


def before_next(part: str, act: Callable[[], object]) -> None:
    """Act just before the function's next request to DynamoDB whose body contains this part."""
    events = store.client.meta.events

    def watch(request: AWSRequest, **_: object) -> None:
        if part in str(request.data):
            events.unregister("request-created.dynamodb", watch)
            act()

    events.register("request-created.dynamodb", watch)


def crash() -> None:
    raise Unavailable


# ---- one message for each incident and chat


def test_one_message_shows_the_incident_as_it_changes(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    for _ in range(2):
        notify(incident_id, incident_id)
    assert telegram.shown() == [f"{REPORT}\n\nStatus: open\n{incident_id}"]
    (number,) = telegram.chats[CHAT]
    assert "Start work" in telegram.buttons(number)
    set_status(api, incident_id, "in_progress")
    api.patch(f"/incidents/{incident_id}", json={"comment": "On my way"})
    for _ in range(2):
        notify(incident_id)
    (text,) = telegram.shown()
    assert "Status: in progress\n" in text
    assert text.endswith(": On my way")
    assert "Reopen" in telegram.buttons(number)
    assert telegram.methods() == ["sendMessage", "editMessageText"]


def test_a_changed_report_is_announced_as_a_reply_to_it(room: Room, telegram: Telegram) -> None:
    incident_id, _ = room.record(REPORT, BORIS, message_id=7)
    notify(incident_id)
    assert telegram.calls == []
    for status in ("in_progress", "resolved"):
        set_status(room.api, incident_id, status)
        notify(incident_id)
    assert telegram.methods() == ["sendMessage", "editMessageText"]
    assert telegram.calls[0]["reply_parameters"] == {"message_id": 7, "allow_sending_without_reply": True}
    assert "reply_markup" in telegram.calls[0]


@pytest.mark.parametrize("by", ["tap", "comment"])
def test_the_reply_to_a_report_becomes_its_message(room: Room, telegram: Telegram, by: str) -> None:
    incident_id, below = room.record(REPORT, BORIS)
    shown = f"{REPORT}\n{incident_id}"
    telegram.chats[CHAT] = {7: {"text": shown, "chat_id": CHAT}}
    if by == "tap":
        changed = edited(room.tap(below["Start work"], BORIS, 7))
        answered(room.tap(buttons(changed)["Resolve"], BORIS, 7))
    else:
        reacted(room.say("On my way", BORIS, reply_to_message=room.chat.written(shown, BOT, message_id=7)))
    notify(incident_id)
    assert telegram.methods() == ["editMessageText"]
    assert ("Status: resolved, Boris" if by == "tap" else "Boris: On my way") in telegram.shown()[0]


def test_the_webhook_edits_another_message_about_the_incident(room: Room, telegram: Telegram) -> None:
    incident_id = create(room.api)
    notify(incident_id)
    edited(room.tap(f"resolved:{incident_id}:1", BORIS, 99))
    notify(incident_id)
    assert "resolved, Boris" in telegram.shown()[0]


def test_a_tap_on_an_outdated_message_is_answered_at_once(room: Room, telegram: Telegram) -> None:
    incident_id = create(room.api)
    notify(incident_id)
    (number,) = telegram.chats[CHAT]
    set_status(room.api, incident_id, "closed")
    assert alerted(room.tap(f"resolved:{incident_id}:1", BORIS, number)).startswith("Not changed")
    assert "Status: closed" in str(edited(room.tap(f"closed:{incident_id}:1", BORIS, number)).text)


def test_a_chat_may_be_a_topic_and_has_a_language(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [f"{CHAT}/42"])
    monkeypatch.setattr(notify_telegram, "WORDS", RUSSIAN)
    notify(create(api))
    assert telegram.calls[0]["message_thread_id"] == 42
    assert "Статус: открыт" in telegram.shown()[0]


def test_a_report_from_a_closed_topic_goes_to_the_chat(room: Room, telegram: Telegram) -> None:
    incident_id, _ = room.record(REPORT, BORIS, message_thread_id=77, is_topic_message=True)
    set_status(room.api, incident_id, "in_progress")
    telegram.faults = [refused(400, "Bad Request: TOPIC_CLOSED")]
    notify(incident_id, create(room.api))
    assert [each.get("message_thread_id") for each in telegram.calls] == [77, None, None]
    assert len(telegram.shown()) == 2


# ---- failures


TRANSIENT = {
    "throttled": refused(429, "Too Many Requests: retry after 3", retry_after=3),
    "failed": refused(500, "Internal Server Error"),
    "unauthorized": refused(401, "Unauthorized"),
    "HTML": Answer(502, "<html>"),
    "no object": Answer(200, "[]"),
    "unreadable header": Answer(502, "{}", header=b"no header at all\r\n"),
    "closed connection": Answer(),
}


@pytest.mark.parametrize("name", [*TRANSIENT, pytest.param("timeout", marks=pytest.mark.slow)])
def test_a_failing_chat_is_retried_after_the_others(api: httpx.Client, two_chats: Telegram, name: str) -> None:
    two_chats.faults_of = {CHAT: TRANSIENT.get(name, Answer(stalls=True))}
    incident_id = create(api)
    with pytest.raises(bot.TryLater):
        notify(incident_id)
    assert len(two_chats.shown(OTHER)) == 1
    two_chats.faults_of = {}
    notify(incident_id)
    assert two_chats.methods(OTHER) == ["sendMessage"]
    assert len(two_chats.shown()) == 1


def test_nothing_is_sent_before_retry_after(api: httpx.Client, telegram: Telegram, clock: Clock) -> None:
    telegram.faults = [refused(429, "Too Many Requests: retry after 30", retry_after=30)]
    incident_id, began = create(api), clock.now
    for _ in range(2):
        with pytest.raises(bot.TryLater):
            notify(incident_id, timeout=20)
    assert len(telegram.calls) == 1
    notify(incident_id)
    assert clock.now >= began + 30
    assert len(telegram.shown()) == 1


def test_an_edit_without_an_answer_may_be_repeated(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    notify(incident_id)
    set_status(api, incident_id, "closed")
    telegram.faults = [Answer(done=True)]
    with pytest.raises(bot.TryLater):
        notify(incident_id)
    for _ in range(2):
        notify(incident_id)
    assert telegram.methods() == ["sendMessage", "editMessageText", "editMessageText"]
    assert len(telegram.shown()) == 1


@pytest.mark.parametrize("reason", ["message to edit not found", "message can't be edited"])
def test_a_message_that_cannot_be_edited_is_sent_again(api: httpx.Client, telegram: Telegram, reason: str) -> None:
    incident_id = create(api)
    notify(incident_id)
    telegram.faults = [refused(400, f"Bad Request: {reason}")]
    for status in ("in_progress", "resolved"):
        set_status(api, incident_id, status)
        notify(incident_id)
    assert telegram.methods() == ["sendMessage", "editMessageText", "sendMessage", "editMessageText"]
    assert "Status: resolved" in telegram.shown()[1]
    assert "reply_markup" in telegram.calls[2]


def test_a_crash_may_repeat_a_message(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    before_next("SET message", crash)
    with pytest.raises(Unavailable):
        notify(incident_id)
    notify(incident_id)
    set_status(api, incident_id, "closed")
    notify(incident_id)
    assert [text.splitlines()[2] for text in telegram.shown()] == ["Status: open", "Status: closed"]


def test_a_supergroup_replaces_its_group(api: httpx.Client, telegram: Telegram) -> None:
    ids = [create(api), create(api)]
    notify(ids[0])
    (number,) = telegram.chats[CHAT]
    telegram.chats[-100777] = {number: {"text": "about something else", "chat_id": -100777}}
    telegram.faults_of = {CHAT: refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100777)}
    set_status(api, ids[0], "closed")
    with pytest.raises(bot.TryLater):
        notify(ids[0])
    for incident_id in ids:
        notify(incident_id)
    assert telegram.methods() == ["sendMessage", "editMessageText"]
    other, closed, opened = telegram.shown(-100777)
    assert other == "about something else", "messages have other numbers in a supergroup"
    assert "Status: closed" in closed
    assert "Status: open" in opened


@pytest.mark.parametrize("listed", [[CHAT, -100777], [-100777, CHAT]])
def test_both_ids_of_a_moved_group_are_one_chat(
    room: Room, telegram: Telegram, listed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id, _ = room.record(REPORT, BORIS)
    deliveries.remember_move(str(CHAT), "-100777")
    monkeypatch.setattr(notify_telegram, "CHATS", [str(each) for each in listed])
    notify(incident_id, create(room.api, "another"))
    assert [text.partition("\n")[0] for text in telegram.shown(-100777)] == ["another"]


KICKED = refused(403, "Forbidden: bot was kicked from the supergroup chat")
REASONS = ["chat not found", "not enough rights to send text messages to the chat", "message thread not found"]
UNREACHABLE = [KICKED, *(refused(400, f"Bad Request: {reason}") for reason in REASONS)]


@pytest.mark.parametrize("fault", UNREACHABLE, ids=["kicked", *REASONS])
def test_an_unreachable_chat_delays_no_other(
    api: httpx.Client, two_chats: Telegram, fault: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    two_chats.faults_of = {CHAT: fault}
    ids = [create(api), create(api)]
    capsys.readouterr()
    notify(*ids)
    assert len(two_chats.shown(OTHER)) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    unreachable = [(line["chat_id"], line["unreachable"]) for line in lines if "chat_id" in line]
    assert unreachable == [(str(CHAT), json.loads(fault.body)["description"])]
    assert len({line["request_id"] for line in lines}) == 1
    assert lines[-1]["ChatsUnreachable"] == 1
    two_chats.faults_of = {}
    set_status(api, ids[0], "resolved")
    notify(ids[0])
    assert len(two_chats.shown()) == 1, "once the bot is back, the chat gets the next change"


def test_what_cannot_be_sent_is_skipped(
    api: httpx.Client, telegram: Telegram, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, without_history, too_long, good = new_id(), create(api), create(api), create(api, "good")
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": damaged}, "position": {"S": "x"}, "incident": {"M": {}}})
    overwrite(dynamodb, without_history, "history", {"L": [{"M": {"status": {"S": "paused"}}}]})
    telegram.faults = [refused(400, "Bad Request: message is too long")]
    capsys.readouterr()
    notify(damaged, without_history, too_long, good)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    skipped = {line["incident_id"]: line["skipped"] for line in lines if "skipped" in line}
    assert skipped == {
        damaged: "no incident",
        without_history: "damaged history",
        too_long: "Bad Request: message is too long",
    }
    assert lines[-1]["NotificationsSkipped"] == 3
    assert [text.partition("\n")[0] for text in telegram.shown()] == ["good"]


def test_a_deleted_incident_is_skipped(api: httpx.Client, telegram: Telegram, dynamodb: DynamoDBClient) -> None:
    incident_id = create(api)
    before_next("SET calls", lambda: dynamodb.delete_item(TableName=store.TABLE, Key={"id": {"S": incident_id}}))
    notify(incident_id)
    assert telegram.calls == []


# ---- the token


def test_no_log_or_exception_contains_the_token(
    api: httpx.Client, telegram: Telegram, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    incident_id = create(api)
    reasons = []
    for fault in TRANSIENT.values():  # after "unauthorized", the token is read again
        telegram.faults = [fault]
        with pytest.raises(bot.TryLater) as failed:
            notify(incident_id)
        reasons.append(str(failed.getrepr(chain=True)))
    printed = capsys.readouterr()
    for text in (caplog.text, printed.out, printed.err, *reasons):
        assert TOKEN.partition(":")[2] not in text


def test_a_refused_token_is_read_again(api: httpx.Client, telegram: Telegram) -> None:
    incident_id, ssm = create(api), boto3.client("ssm")
    telegram.faults = [refused(401, "Unauthorized")]
    ssm.put_parameter(Name="/token", Value="123:revoked", Overwrite=True)
    for _ in range(2):
        with pytest.raises(bot.TryLater):
            notify(incident_id)
    ssm.put_parameter(Name="/token", Value=TOKEN, Overwrite=True)
    notify(incident_id)
    assert len(telegram.shown()) == 1


# ---- many at once


def test_more_than_eight_new_incidents_make_a_digest(api: httpx.Client, telegram: Telegram) -> None:
    notify(*(create(api) for _ in range(8)))
    assert len(telegram.shown()) == 8
    notify(*(create(api) for _ in range(9)))
    assert len(telegram.shown()) == 9
    assert telegram.shown()[8].startswith("New incidents: 9, of which 9 are open or in progress.\n\nopen: ")


def test_each_chat_has_its_own_digest(api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [create(api) for _ in range(9)]
    for chat in (CHAT, OTHER):  # in the same second, which numbers the digest
        monkeypatch.setattr(notify_telegram, "CHATS", [str(chat)])
        notify(*ids)
        (text,) = telegram.shown(chat)
        assert text.startswith("New incidents: 9, of which 9 are open")


def test_a_busy_chat_gets_a_digest_earlier(api: httpx.Client, telegram: Telegram) -> None:
    for _ in range(3):
        notify(*(create(api) for _ in range(6)))
    assert len(telegram.shown()) == 10 + 1
    assert telegram.shown()[10].startswith("New incidents: 8, of which 8 are open")
    notify(create(api))
    assert len(telegram.shown()) == 12, "one alone is no digest"


def test_a_digest_counts_each_incident_once(api: httpx.Client, telegram: Telegram) -> None:
    ids = [create(api, f"Point {number}") for number in range(60)]
    for part in (ids[:40], ids[20:], ids):
        notify(*part)
    (text,) = telegram.shown()
    assert text.startswith("New incidents: 60, of which 60 are open or in progress.")
    named = [line.split()[2] for line in text.splitlines() if line.startswith("open: Point")]
    assert named == [str(number) for number in range(35)]
    assert text.endswith("/incidents")
    for each in ids[:50]:
        set_status(api, each, "resolved")
    notify(*ids[:50])
    notify(*ids)
    (text,) = telegram.shown()
    assert text.startswith("New incidents: 60, of which 10 are open or in progress.")
    assert text.count("resolved: Point") == 35


def test_a_tapped_incident_of_a_digest_gets_its_own_message(room: Room, telegram: Telegram) -> None:
    ids = [create(room.api) for _ in range(9)]
    notify(*ids)
    below = buttons(room.say(f"/incident {ids[0]}", BORIS))
    telegram.chats[CHAT][5000] = {"text": "as answered", "chat_id": CHAT}
    edited(room.tap(below["Resolve"], BORIS, 5000))
    notify(ids[0])
    digest, own = telegram.shown()
    assert "of which 8 are open" in digest
    assert "resolved, Boris" in own


def test_a_digest_is_closed_after_ten_minutes(api: httpx.Client, telegram: Telegram, clock: Clock) -> None:
    for _ in range(2):
        notify(*(create(api) for _ in range(9)))
        clock.now += 601
    assert len(telegram.shown()) == 2


@pytest.mark.parametrize("step", ["send", "count", "remember"])
def test_a_digest_survives_a_crash(api: httpx.Client, telegram: Telegram, step: str) -> None:
    ids = [create(api) for _ in range(120)]
    if step == "send":
        telegram.faults = [Answer()]
    elif step == "count":  # between two transactions
        before_next("TransactItems", lambda: before_next("TransactItems", crash))
    else:
        before_next("SET message", crash)
    with pytest.raises((Unavailable, bot.TryLater)):
        notify(*ids)
    notify(*ids)
    assert telegram.shown()[-1].startswith("New incidents: 120, of which 120 are open")


def test_concurrent_functions_share_the_calls_of_a_minute(telegram: Telegram, clock: Clock) -> None:
    before_next("SET calls", lambda: deliveries.claim_call(str(CHAT), clock.now))
    assert deliveries.claim_call(str(CHAT), clock.now) == deliveries.CALL_INTERVAL
    assert telegram.calls == []


@pytest.mark.parametrize("first", [0, 40], ids=["the same incidents", "other incidents"])
def test_concurrent_functions_count_each_incident_once(api: httpx.Client, telegram: Telegram, first: int) -> None:
    ids = [create(api, "x" * 48) for _ in range(80)]
    before_next("TransactItems", lambda: notify(*ids[first:]))
    notify(*ids[:40])
    (text,) = telegram.shown()
    assert text.startswith("New incidents: 80, of which 80 are open")
    assert text.count("/incident_") == 35


def test_only_the_faster_function_sends_a_digest(api: httpx.Client, telegram: Telegram, clock: Clock) -> None:
    ids = [create(api) for _ in range(9)]

    def overtake() -> None:
        clock.now += deliveries.DIGEST_LEASE + 1
        notify(*ids)

    before_next("SET calls", overtake)
    notify(*ids)
    assert telegram.methods() == ["sendMessage"]


def test_a_digest_that_others_keep_busy_is_counted_later(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api) for _ in range(9)]
    cancelled = store.client.exceptions.TransactionCanceledException({}, "TransactWriteItems")
    with monkeypatch.context() as busy:
        busy.setattr(store.client, "transact_write_items", mock.Mock(side_effect=cancelled))
        with pytest.raises(Unavailable):
            notify(*ids)
    notify(*ids)
    assert len(telegram.shown()) == 1


def test_a_refused_digest_is_skipped(api: httpx.Client, telegram: Telegram, capsys: pytest.CaptureFixture[str]) -> None:
    telegram.faults = [refused(400, "Bad Request: message is too long")]
    notify(*(create(api) for _ in range(9)))
    assert '"skipped": "Bad Request: message is too long"' in capsys.readouterr().out


# ---- reminders


def test_a_reminder_lists_incidents_oldest_first(
    room: Room, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_telegram, "PAGE", 2)
    handle({})
    assert telegram.calls == []
    ids = [create(room.api, f"Point {number}") for number in range(4)]
    room.record("Reported here", BORIS)
    notify(ids[0], ids[1])
    set_status(room.api, ids[1], "resolved")
    handle({})
    text = telegram.shown()[-1]
    assert text.startswith("Incidents open or in progress: 4.\n\nOf these, never announced in a chat: 2.")
    unannounced, _, rest = text.partition("Oldest first:")
    assert [line.split(": ")[1] for line in unannounced.splitlines() if ", open: " in line] == ["Point 2", "Point 3"]
    listed = [line.split(": ")[1] for line in rest.splitlines() if ", open: " in line]
    assert listed == ["Point 0", "Point 2", "Point 3", "Reported here"]


def test_an_announcement_in_one_of_the_chats_is_enough(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify(create(api))
    notify(*(create(api) for _ in range(9)))
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    handle({})
    for chat in (CHAT, OTHER):
        assert telegram.shown(chat)[-1].startswith("Incidents open or in progress: 10.\n\nOldest first:")


def test_an_unsent_digest_announces_nothing(api: httpx.Client, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: KICKED}
    notify(*(create(api) for _ in range(9)))
    telegram.faults_of = {}
    handle({})
    assert "never announced in a chat: 9." in telegram.shown()[0]


# ---- alarms


def alarm(text: str) -> dict[str, object]:
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": text}}]}


def test_a_repeated_alarm_is_sent_once(two_chats: Telegram) -> None:
    two_chats.faults_of = {CHAT: refused(500, "Internal Server Error")}
    with pytest.raises(bot.TryLater):
        handle(alarm("Slow"), request_id="1")
    two_chats.faults_of = {}
    handle(alarm("Slow"), request_id="1")
    assert two_chats.shown() == two_chats.shown(OTHER) == ["Slow"]
    handle(alarm("Slow"), request_id="2")
    handle(alarm("Slow"), request_id="1")
    assert two_chats.shown() == ["Slow", "Slow"]


def test_an_alarm_is_sent_in_its_own_words(telegram: Telegram) -> None:
    latency = {"AlarmName": "Latency", "AlarmDescription": "One in a hundred is slow.", "NewStateValue": "ALARM"}
    for text in (json.dumps(latency), json.dumps(latency | {"NewStateValue": "OK"}), "words of a person"):
        handle(alarm(text))
    assert telegram.shown() == ["🚨 Latency: ALARM\n\nOne in a hundred is slow.", "✅ Latency: OK", "words of a person"]
    assert not any("reply_markup" in each for each in telegram.calls)


def test_an_unreachable_chat_raises_no_alarm_about_an_alarm(
    two_chats: Telegram, capsys: pytest.CaptureFixture[str]
) -> None:
    two_chats.faults_of = {CHAT: KICKED}
    handle(alarm("The chat is unreachable"))
    assert two_chats.shown(OTHER) == ["The chat is unreachable"]
    assert "ChatsUnreachable" not in capsys.readouterr().out
