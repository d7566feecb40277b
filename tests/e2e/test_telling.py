"""Telling the chats from a stack: the stream and its filter, the repetition, the token, the reminder, the alarms."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from tests.alerts import real_alertmanager
from tests.alerts.real_alertmanager import until
from tests.e2e.aws import Aws
from tests.steps import report
from tests.telegram.chat import BORIS, CHAT, Chat, answered, buttons, call, deliver
from tests.telegram.fake_telegram import Telegram, refused

TELEGRAMS = "X-Telegram-Bot-Api-Secret-Token"


@pytest.fixture
def chat(bot_api: tuple[Telegram, str]) -> Telegram:
    """Telegram, which the stack tells of its incidents."""
    return bot_api[0]


def text_of(chat: Telegram, word: str) -> str:
    """The message that begins with this word; empty if there is none."""
    return next((text for text in chat.shown(CHAT) if text.startswith(word)), "")


@real_alertmanager.needed
def test_a_story_from_the_alert_to_its_end(integrated: Aws, chat: Telegram) -> None:
    """Nothing but Telegram itself is a stand-in."""
    group, starts = uuid.uuid4().hex, datetime.now(UTC) - timedelta(minutes=1)
    webhook = integrated.make_key("story-telegram", "telegram")

    def shown() -> str:
        return next((text for text in chat.shown(CHAT) if group in text), "")

    with real_alertmanager.running(
        f"{integrated.address}/alerts", integrated.make_key("story-alertmanager", "reporter")
    ) as alertmanager:
        alertmanager.post(real_alertmanager.alert(group, "1", starts))
        until(lambda: "Status: open" in shown(), "the chat shows the alert")
        number, message = next(each for each in chat.chats[CHAT].items() if group in str(each[1]["text"]))
        below = buttons(call({"method": "sendMessage", **message}))
        with integrated.anonymous_client({TELEGRAMS: webhook}) as telegram:
            answered(deliver(telegram, Chat().tap(below["Start work"], BORIS, message_id=number)))
        with integrated.client() as api:
            incident_id = below["Start work"].split(":")[1]
            assert api.get(f"/incidents/{incident_id}").json()["status"] == "in_progress"
        until(lambda: "Status: in progress, Boris" in shown(), "the message says who works on it")
        alertmanager.post(real_alertmanager.alert(group, "1", starts, datetime.now(UTC)))
        until(lambda: "Status: resolved" in shown(), "the message says that it is over")
    assert sum(group in text for text in chat.shown(CHAT)) == 1


def test_what_telegram_refuses_for_now_is_told_later(integrated: Aws, chat: Telegram) -> None:
    chat.faults_of = {CHAT: refused(500, "Internal Server Error")}
    before = len(chat.calls)
    with integrated.client() as api:
        report(api, "Later")
    until(lambda: len(chat.calls) > before + 2, "the batch comes again")
    chat.faults_of = {}
    until(lambda: text_of(chat, "Later") != "", "the chat shows it")


def test_the_reminder_comes_by_its_schedule(integrated: Aws, chat: Telegram) -> None:
    until(lambda: text_of(chat, "Incidents open or in progress: ") != "", "the reminder")
    (schedule,) = boto3.client("scheduler", endpoint_url=integrated.endpoint).list_schedules()["Schedules"]
    assert schedule["Name"].startswith(integrated.stack)


def test_an_alarm_reaches_the_chat(integrated: Aws, chat: Telegram) -> None:
    alarm = {"AlarmName": "Latency", "AlarmDescription": "Slow.", "NewStateValue": "ALARM"}
    topic = boto3.client("sns", endpoint_url=integrated.endpoint)
    topic.publish(TopicArn=integrated.output("AlarmTopicArn"), Message=json.dumps(alarm))
    until(lambda: text_of(chat, "🚨 Latency: ALARM") != "", "the alarm")
