"""Telling the chats, against a Telegram with its limits. test_messages.py has the limits of what the bot says."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, cast

import httpx
import pytest

import dynamodb as functions_dynamodb
import store
from dynamodb import Unavailable
from incident import new_id
from telegram import bot, notify_telegram, told
from telegram.messages import RUSSIAN
from tests.steps import report
from tests.telegram.chat import BORIS, CHAT, Chat, alerted, answered, buttons, call, deliver, edited, reacted, sent
from tests.telegram.fake_telegram import Clock, Fault, Telegram, handle, refused, tell

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

OTHER = 4567
BOT = {"id": 1, "is_bot": True, "first_name": "Incidents"}


def create(api: httpx.Client, description: str = "Самокат #4567 не отвечает", status: str = "open") -> str:
    return str(report(api, description, status=status)["id"])


def set_status(api: httpx.Client, incident_id: str, status: str) -> None:
    assert api.patch(f"/incidents/{incident_id}", json={"status": status}).status_code == 200


# ---- one message for each incident and chat


def test_an_incident_is_announced_and_its_message_kept_true(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    for _ in range(2):
        tell(incident_id, incident_id)
    (message,) = telegram.chats[CHAT].values()
    assert str(message["text"]) == f"Самокат #4567 не отвечает\n\nStatus: open\n{incident_id}"
    assert list(buttons(call({"method": "sendMessage", **message}))) == ["Start work", "Resolve", "Close", "Refresh"]
    set_status(api, incident_id, "in_progress")
    api.patch(f"/incidents/{incident_id}", json={"comment": "On my way"})
    for _ in range(2):
        tell(incident_id)
    (text,) = telegram.shown(CHAT)
    assert "Status: in progress\n" in text
    assert text.endswith(": On my way")
    assert telegram.methods(CHAT) == ["sendMessage", "editMessageText"]


def test_the_chat_of_a_report_is_answered_when_somebody_else_changes_it(api: httpx.Client, telegram: Telegram) -> None:
    shown = sent(deliver(api, message := Chat().message("/incident The point does not answer", BORIS)))
    incident_id = next(iter(buttons(shown).values())).split(":")[1]
    tell(incident_id)
    assert telegram.calls == []
    set_status(api, incident_id, "in_progress")
    tell(incident_id)
    set_status(api, incident_id, "resolved")
    tell(incident_id)
    assert telegram.methods(CHAT) == ["sendMessage", "editMessageText"]
    reply = cast("dict[str, int]", telegram.calls[0]["reply_parameters"])
    assert reply["message_id"] == cast("dict[str, int]", message["message"])["message_id"]


@pytest.mark.parametrize("by", ["tap", "comment"])
def test_the_answer_to_a_report_is_adopted(api: httpx.Client, telegram: Telegram, by: str) -> None:
    chat = Chat()
    shown = sent(deliver(api, chat.message("/incident The point does not answer", BORIS)))
    telegram.chats[CHAT] = {7: {"text": shown.text, "chat_id": CHAT}}
    incident_id = next(iter(buttons(shown).values())).split(":")[1]
    if by == "tap":
        changed = edited(deliver(api, chat.tap(buttons(shown)["Start work"], BORIS, message_id=7)))
        answered(deliver(api, chat.tap(buttons(changed)["Resolve"], BORIS, message_id=7)))
    else:
        replied = {"message_id": 7, "date": 1, "chat": chat.chat, "from": BOT, "text": shown.text}
        reacted(deliver(api, chat.message("On my way", BORIS, reply_to_message=replied)))
    tell(incident_id)
    assert telegram.methods(CHAT) == ["editMessageText"]
    assert ("Status: resolved, Boris" if by == "tap" else "Boris: On my way") in telegram.shown(CHAT)[0]


def test_a_message_that_is_not_the_chats_own_is_edited_by_the_webhook(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    tell(incident_id)
    edited(deliver(api, Chat().tap(f"resolved:{incident_id}:1", BORIS, message_id=99)))
    tell(incident_id)
    assert "resolved, Boris" in telegram.shown(CHAT)[0]


def test_a_conflict_is_told_to_whoever_taps(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    tell(incident_id)
    (number,) = telegram.chats[CHAT]
    set_status(api, incident_id, "closed")
    alert = alerted(deliver(api, Chat().tap(f"resolved:{incident_id}:1", BORIS, message_id=number)))
    assert alert.startswith("Not changed")


def test_a_chat_may_be_a_topic_and_has_one_language(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [f"{CHAT}/42"])
    monkeypatch.setattr(notify_telegram, "WORDS", RUSSIAN)
    tell(create(api))
    assert telegram.calls[0]["message_thread_id"] == 42
    assert "Статус: открыт" in telegram.shown(CHAT)[0]


def test_a_tap_that_changes_nothing_shows_what_there_is(api: httpx.Client, telegram: Telegram) -> None:
    ids = [create(api) for _ in range(9)]
    tell(*ids)
    shown = deliver(api, Chat().message(f"/incident_{ids[0].replace('-', '')}", BORIS))
    set_status(api, ids[0], "resolved")
    tell(ids[0])
    changed = edited(deliver(api, Chat().tap(buttons(shown)["Resolve"], BORIS, message_id=5000)))
    assert "Status: resolved" in str(changed.text)
    assert len(telegram.shown(CHAT)) == 1


def test_the_topic_of_a_report_may_be_closed(api: httpx.Client, telegram: Telegram) -> None:
    message = Chat().message("/incident In a topic", BORIS, message_thread_id=77, is_topic_message=True)
    incident_id = next(iter(buttons(sent(deliver(api, message))).values())).split(":")[1]
    set_status(api, incident_id, "in_progress")
    telegram.faults = [refused(400, "Bad Request: TOPIC_CLOSED")]
    tell(incident_id, create(api))
    assert [each.get("message_thread_id") for each in telegram.calls] == [77, None, None]
    assert len(telegram.shown(CHAT)) == 2


# ---- what fails


SENDS_AGAIN = [
    refused(429, "Too Many Requests: retry after 3", retry_after=3),
    refused(500, "Internal Server Error"),
    refused(401, "Unauthorized"),
    Fault("HTML", 502, "<html>"),
    Fault("no object", 200, "[]"),
    Fault("a header that cannot be read", 502, "{}", header=b"no header at all\r\n"),
    Fault("cut"),
]


@pytest.mark.parametrize("fault", SENDS_AGAIN)
def test_what_passes_is_tried_again_after_the_other_chats(
    api: httpx.Client, telegram: Telegram, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    telegram.faults_of = {CHAT: fault}
    incident_id = create(api)
    with pytest.raises(bot.TryLater):
        tell(incident_id)
    assert len(telegram.shown(OTHER)) == 1
    telegram.faults_of = {}
    tell(incident_id)
    assert telegram.methods(OTHER) == ["sendMessage"]
    assert len(telegram.shown(CHAT)) == 1


def test_a_chat_is_left_alone_as_long_as_telegram_says(api: httpx.Client, telegram: Telegram, clock: Clock) -> None:
    telegram.faults = [refused(429, "Too Many Requests: retry after 30", retry_after=30)]
    incident_id, began = create(api), clock.now
    for _ in range(2):
        with pytest.raises(bot.TryLater):
            tell(incident_id, timeout=20)
    assert len(telegram.calls) == 1
    tell(incident_id)
    assert clock.now >= began + 30
    assert len(telegram.shown(CHAT)) == 1


def test_a_telegram_that_does_not_answer_is_tried_again(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot._http.connection_pool_kw["timeout"], "_read", 0.2)
    telegram.faults = [Fault("stalls", stalls=True)]
    incident_id = create(api)
    with pytest.raises(bot.TryLater):
        tell(incident_id)
    tell(incident_id)
    assert len(telegram.shown(CHAT)) == 1


def test_an_edit_whose_answer_was_lost_is_a_success(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    tell(incident_id)
    set_status(api, incident_id, "closed")
    telegram.faults = [Fault("cut after the work", done=True)]
    with pytest.raises(bot.TryLater):
        tell(incident_id)
    tell(incident_id)
    assert len(telegram.shown(CHAT)) == 1
    tell(incident_id)
    assert len(telegram.calls) == 3


def test_a_message_that_is_gone_is_sent_anew(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    tell(incident_id)
    telegram.chats[CHAT].clear()
    for status in ("in_progress", "resolved"):
        set_status(api, incident_id, status)
        tell(incident_id)
    assert telegram.methods(CHAT) == ["sendMessage", "editMessageText", "sendMessage", "editMessageText"]
    assert "Status: resolved" in telegram.shown(CHAT)[0]


def test_a_crash_before_a_message_is_remembered_sends_it_twice_and_keeps_one(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = create(api)
    with monkeypatch.context() as crash:

        def fail(*_: object) -> None:
            raise Unavailable

        crash.setattr(told, "remember", fail)
        with pytest.raises(Unavailable):
            tell(incident_id)
    tell(incident_id)
    set_status(api, incident_id, "closed")
    tell(incident_id)
    assert [text.splitlines()[2] for text in telegram.shown(CHAT)] == ["Status: open", "Status: closed"]


def test_a_group_that_has_become_a_supergroup_is_followed(api: httpx.Client, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100777)}
    ids = [create(api), create(api)]
    with pytest.raises(bot.TryLater):
        tell(ids[0])
    tell(ids[0])
    tell(ids[1])
    assert telegram.methods(CHAT) == ["sendMessage"]
    assert telegram.methods(-100777) == ["sendMessage", "sendMessage"]


def test_messages_have_other_numbers_in_a_supergroup(api: httpx.Client, telegram: Telegram) -> None:
    incident_id = create(api)
    tell(incident_id)
    (number,) = telegram.chats[CHAT]
    telegram.chats[-100777] = {number: {"text": "about something else", "chat_id": -100777}}
    telegram.faults_of = {CHAT: refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100777)}
    set_status(api, incident_id, "closed")
    with pytest.raises(bot.TryLater):
        tell(incident_id)
    tell(incident_id)
    assert telegram.shown(-100777)[0] == "about something else"
    assert "Status: closed" in telegram.shown(-100777)[1]


UNREACHABLE = [
    refused(403, "Forbidden: bot was kicked from the supergroup chat"),
    refused(400, "Bad Request: chat not found"),
    refused(400, "Bad Request: not enough rights to send text messages to the chat"),
    refused(400, "Bad Request: message thread not found"),
]


@pytest.mark.parametrize("fault", UNREACHABLE)
def test_a_chat_that_has_thrown_the_bot_out_stops_nobody(
    api: httpx.Client,
    telegram: Telegram,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    telegram.faults_of = {CHAT: fault}
    ids = [create(api), create(api)]
    capsys.readouterr()
    tell(*ids)
    assert len(telegram.shown(OTHER)) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["chat_id"] for line in lines if "chat_id" in line] == [str(CHAT)]
    assert lines[-1]["ChatsUnreachable"] == 1
    telegram.faults_of = {}
    set_status(api, ids[0], "resolved")
    tell(ids[0])
    assert len(telegram.shown(CHAT)) == 1, "once the bot is back, the next change is told"


def test_what_can_never_be_told_is_passed(
    api: httpx.Client, telegram: Telegram, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, refused_one, good = new_id(), create(api, "refused"), create(api, "good")
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": damaged}, "position": {"S": "x"}, "incident": {"M": {}}})
    telegram.faults = [refused(400, "Bad Request: message is too long")]
    capsys.readouterr()
    tell(damaged, refused_one, good)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["incident_id"] for line in lines if "skipped" in line} == {damaged, refused_one}
    assert lines[-1]["NotificationsSkipped"] == 2
    assert [text.partition("\n")[0] for text in telegram.shown(CHAT)] == ["good"]


# ---- the token


def test_the_token_is_in_no_log_and_no_exception(
    api: httpx.Client,
    telegram: Telegram,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    incident_id = create(api)
    reasons = []
    for fault in SENDS_AGAIN:
        telegram.faults = [fault]
        with pytest.raises(bot.TryLater) as failed:
            tell(incident_id)
        reasons.append(repr(failed.getrepr(chain=True, style="long", showlocals=False)))
    monkeypatch.setattr(bot, "API_URL", "http://127.0.0.1:9")
    with pytest.raises(bot.TryLater) as failed:
        tell(incident_id)
    reasons.append(str(failed.getrepr(chain=True)))
    printed = capsys.readouterr()
    assert "urllib3" not in caplog.text.replace("botocore.vendored", "")
    for text in (caplog.text, printed.out, printed.err, *reasons):
        assert "AAtheToken" not in text


def test_a_refused_token_is_read_again(api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot._Token, "value", "123:revoked")
    incident_id = create(api)
    with pytest.raises(bot.TryLater):
        tell(incident_id)
    tell(incident_id)
    assert len(telegram.shown(CHAT)) == 1


# ---- many at once


def test_eight_new_incidents_are_announced_singly_and_nine_in_one_message(
    api: httpx.Client, telegram: Telegram
) -> None:
    tell(*(create(api) for _ in range(8)))
    assert len(telegram.shown(CHAT)) == 8
    tell(*(create(api) for _ in range(9)))
    assert len(telegram.shown(CHAT)) == 9
    assert telegram.shown(CHAT)[8].startswith("New incidents: 9, of which 9 are open or in progress.\n\nopen: ")


def test_singles_make_way_when_the_chat_has_had_many(api: httpx.Client, telegram: Telegram) -> None:
    for _ in range(3):
        tell(*(create(api) for _ in range(6)))
    assert len(telegram.shown(CHAT)) == 10 + 1
    assert telegram.shown(CHAT)[10].startswith("New incidents: 8, of which 8 are open")
    tell(create(api))
    assert len(telegram.shown(CHAT)) == 12, "one alone is no digest"


def test_a_digest_counts_each_incident_once_and_is_kept_true(api: httpx.Client, telegram: Telegram) -> None:
    ids = [create(api, f"Point {number}") for number in range(60)]
    for part in (ids[:40], ids[20:], ids):
        tell(*part)
    (text,) = telegram.shown(CHAT)
    assert text.startswith("New incidents: 60, of which 60 are open or in progress.")
    assert [line.split()[2] for line in text.splitlines() if line.startswith("open: Point")] == [
        str(number) for number in range(35)
    ]
    assert text.endswith("/incidents")
    for each in ids[:50]:
        set_status(api, each, "resolved")
    tell(*ids[:50])
    tell(*ids)
    (text,) = telegram.shown(CHAT)
    assert text.startswith("New incidents: 60, of which 10 are open or in progress.")
    assert text.count("resolved: Point") == 35


def test_an_incident_of_a_digest_that_is_shown_and_tapped_has_a_message_of_its_own(
    api: httpx.Client, telegram: Telegram
) -> None:
    ids = [create(api) for _ in range(9)]
    tell(*ids)
    answer = deliver(api, Chat().message(f"/incident_{ids[0].replace('-', '')}", BORIS))
    telegram.chats[CHAT][5000] = {"text": "as answered", "chat_id": CHAT}
    deliver(api, Chat().tap(buttons(sent(answer))["Resolve"], BORIS, message_id=5000))
    tell(ids[0])
    digest, own = telegram.shown(CHAT)
    assert "of which 8 are open" in digest
    assert "resolved, Boris" in own


def test_a_digest_is_closed_after_ten_minutes(api: httpx.Client, telegram: Telegram, clock: Clock) -> None:
    for _ in range(2):
        tell(*(create(api) for _ in range(9)))
        clock.now += 601
    assert len(telegram.shown(CHAT)) == 2


@pytest.mark.parametrize("step", ["send", "count", "remember_digest"])
def test_a_digest_survives_a_crash(
    api: httpx.Client, telegram: Telegram, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api) for _ in range(120)]
    with monkeypatch.context() as crash:
        if step == "send":
            telegram.faults = [Fault("cut")]
        elif step == "count":  # between two transactions
            real = told._count
            crash.setattr(told, "_count", lambda *each: real(*each) and _raise(Unavailable))
        else:
            crash.setattr(told, "remember_digest", lambda *_: _raise(Unavailable))
        with pytest.raises((Unavailable, bot.TryLater)):
            tell(*ids)
    tell(*ids)
    assert telegram.shown(CHAT)[-1].startswith("New incidents: 120, of which 120 are open")


def _raise(error: type[Exception]) -> bool:
    raise error


def test_functions_beside_each_other_share_the_calls_of_a_minute(
    telegram: Telegram, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = told._read

    def read(key: str) -> dict[str, object]:
        item = real(key)
        monkeypatch.setattr(told, "_read", real)
        assert told.claim_call(str(CHAT), clock.now) == 0, "the other function is faster"
        return cast("dict[str, object]", item)

    monkeypatch.setattr(told, "_read", read)
    assert told.claim_call(str(CHAT), clock.now) == told.CALL_INTERVAL
    assert telegram.calls == []


def test_functions_beside_each_other_count_an_incident_once(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api) for _ in range(9)]
    real = told._count

    def count(*arguments: object) -> bool:
        monkeypatch.setattr(told, "_count", real)
        tell(*ids)  # the other function is faster
        return real(*arguments)  # type: ignore[arg-type]  # what it was called with

    monkeypatch.setattr(told, "_count", count)
    tell(*ids)
    (text,) = telegram.shown(CHAT)
    assert text.startswith("New incidents: 9, of which 9 are open")


def test_functions_beside_each_other_name_no_more_than_fit(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api, "x" * 48) for _ in range(80)]
    real = told.digest

    def digest(*arguments: object) -> told.Digest:
        found = real(*arguments)  # type: ignore[arg-type]  # what it was called with
        monkeypatch.setattr(told, "digest", real)
        tell(*ids[40:])  # the other function is faster
        return found

    monkeypatch.setattr(told, "digest", digest)
    tell(*ids[:40])
    (text,) = telegram.shown(CHAT)
    assert text.startswith("New incidents: 80, of which 80 are open")
    assert text.count("/incident_") == 35


def test_a_digest_is_left_to_the_function_that_is_faster(
    api: httpx.Client, telegram: Telegram, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api) for _ in range(9)]
    real = notify_telegram.Destination.claim

    def claim(to: notify_telegram.Destination) -> None:
        monkeypatch.setattr(notify_telegram.Destination, "claim", real)
        clock.now += told.DIGEST_LEASE + 1  # the chat takes nothing for so long
        tell(*ids)
        real(to)

    monkeypatch.setattr(notify_telegram.Destination, "claim", claim)
    tell(*ids)
    assert telegram.methods(CHAT) == ["sendMessage"]


def test_a_digest_that_others_keep_busy_is_counted_later(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [create(api) for _ in range(9)]
    with monkeypatch.context() as busy:
        busy.setattr(told, "_count", lambda *_: False)
        with pytest.raises(Unavailable):
            tell(*ids)
    tell(*ids)
    assert len(telegram.shown(CHAT)) == 1


def test_a_digest_that_telegram_refuses_is_passed(
    api: httpx.Client, telegram: Telegram, capsys: pytest.CaptureFixture[str]
) -> None:
    telegram.faults = [refused(400, "Bad Request: message is too long")]
    tell(*(create(api) for _ in range(9)))
    assert '"skipped": "Bad Request: message is too long"' in capsys.readouterr().out


def test_an_incident_that_is_gone_is_passed(
    api: httpx.Client, telegram: Telegram, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = create(api)
    real = store.get_many

    def get_many(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]  # what it was called with
        dynamodb.delete_item(TableName=store.TABLE, Key={"id": {"S": incident_id}})
        return found

    monkeypatch.setattr(store, "get_many", get_many)
    tell(incident_id)
    assert telegram.calls == []


# ---- reminders and alarms


def test_the_reminder_has_what_is_open_oldest_first_and_what_no_chat_was_told(
    api: httpx.Client, telegram: Telegram
) -> None:
    handle({})
    assert telegram.calls == []
    ids = [create(api, f"Point {number}") for number in range(4)]
    reported = sent(deliver(api, Chat().message("/incident Reported here", BORIS)))
    assert reported
    tell(ids[0], ids[1])
    set_status(api, ids[1], "resolved")
    handle({})
    text = telegram.shown(CHAT)[-1]
    assert text.startswith("Incidents open or in progress: 4.\n\nOf these, never announced in a chat: 2.")
    untold, _, rest = text.partition("Oldest first:")
    assert [line.split(": ")[1] for line in untold.splitlines() if ", open: " in line] == ["Point 2", "Point 3"]
    listed = [line.split(": ")[1] for line in rest.splitlines() if ", open: " in line]
    assert listed == ["Point 0", "Point 2", "Point 3", "Reported here"]


def test_the_reminder_names_what_was_only_counted(api: httpx.Client, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: UNREACHABLE[0]}
    tell(*(create(api) for _ in range(9)))
    telegram.faults_of = {}
    handle({})
    assert "never announced in a chat: 9." in telegram.shown(CHAT)[0]


def test_an_alarm_that_is_sent_again_is_shown_once(telegram: Telegram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    telegram.faults_of = {CHAT: refused(500, "Internal Server Error")}
    alarm: dict[str, object] = {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "Slow"}}]}
    with pytest.raises(bot.TryLater):
        handle(alarm, request_id="1")
    telegram.faults_of = {}
    handle(alarm, request_id="1")
    assert telegram.shown(CHAT) == telegram.shown(OTHER) == ["Slow"]
    handle(alarm, request_id="2")
    assert telegram.shown(CHAT) == ["Slow", "Slow"]


def test_an_alarm_is_passed_on_in_its_own_words(telegram: Telegram) -> None:
    alarm = {"AlarmName": "Latency", "AlarmDescription": "One in a hundred requests is slow.", "NewStateValue": "ALARM"}
    for text in (json.dumps(alarm), json.dumps(alarm | {"NewStateValue": "OK"}), "words of a person"):
        handle({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": text}}]})
    assert telegram.shown(CHAT) == [
        "🚨 Latency: ALARM\n\nOne in a hundred requests is slow.",
        "✅ Latency: OK",
        "words of a person",
    ]
    assert not any("reply_markup" in each for each in telegram.calls)


def test_an_alarm_for_a_chat_that_is_unreachable_reaches_the_others(
    telegram: Telegram, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    telegram.faults_of = {CHAT: UNREACHABLE[0]}
    handle({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "The chat is unreachable"}}]})
    assert telegram.shown(OTHER) == ["The chat is unreachable"]
    assert "ChatsUnreachable" not in capsys.readouterr().out, "the alarm about that would ring for itself"


def test_a_long_reminder_takes_all_the_room_and_counts_the_rest(api: httpx.Client, telegram: Telegram) -> None:
    for number in range(40):
        create(api, f"{number} {'x' * 200}")
    handle({})
    (text,) = telegram.shown(CHAT)
    assert text.startswith("Incidents open or in progress: 40.\n\nOf these, never announced in a chat: 40.")
    assert 4096 - 200 < len(text) <= 4096
    assert text.endswith("/incidents")


def test_dynamodb_failing_sends_the_batch_again(
    api: httpx.Client, telegram: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = create(api)
    with monkeypatch.context() as failing:
        failing.setattr(store, "client", functions_dynamodb.connect(1, endpoint="http://127.0.0.1:9"))
        with pytest.raises(Unavailable):
            tell(incident_id)
    assert telegram.calls == []
    tell(incident_id)
    assert len(telegram.shown(CHAT)) == 1
