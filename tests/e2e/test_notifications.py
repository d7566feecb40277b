"""The events that make a deployed stack send Telegram messages: changes, the schedule, alarms."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import boto3
import httpx
import pytest

from tests.alerts.real_alertmanager import alert, needed, post, running
from tests.e2e.aws import Aws
from tests.steps import report, until
from tests.telegram.chat import BORIS, CHAT, Chat, answered, buttons, call, deliver
from tests.telegram.fake_telegram import Telegram, refused


@pytest.fixture
def telegram(bot_api: tuple[Telegram, str]) -> Telegram:
    return bot_api[0]


def text_of(telegram: Telegram, part: str) -> str:
    """The text of the first message with this part; empty if there is none."""
    return next((text for text in telegram.shown(CHAT) if part in text), "")


@needed
def test_the_chat_follows_an_alert_to_its_end(integrated: Aws, telegram: Telegram, webhook: httpx.Client) -> None:
    """Only Telegram is a fake. It shows one message of the incident; reminders may list it, too."""
    group, starts = uuid.uuid4().hex, datetime.now(UTC) - timedelta(minutes=1)
    key = integrated.make_key("alertmanager", "reporter")
    with running(f"{integrated.address}/alerts", key) as alertmanager:
        post(alertmanager, alert(group, "1", starts))
        until(lambda: "Status: open" in text_of(telegram, group), "the chat shows the alert")
        number, message = next(each for each in telegram.chats[CHAT].items() if group in str(each[1]["text"]))
        below = buttons(call({"method": "sendMessage", **message}))
        answered(deliver(webhook, Chat().tap(below["Start work"], BORIS, message_id=number)))
        until(lambda: "Status: in progress, Boris" in text_of(telegram, group), "the message names who works on it")
        post(alertmanager, alert(group, "1", starts, datetime.now(UTC)))
        until(lambda: "Status: resolved" in text_of(telegram, group), "the message shows the end")
    assert sum(group in text and "Status: " in text for text in telegram.shown(CHAT)) == 1


def test_a_failed_batch_is_sent_again(integrated: Aws, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: refused(500, "Internal Server Error")}
    before = len(telegram.calls)
    with integrated.client() as api:
        report(api, "Later")
    until(lambda: len(telegram.calls) > before + 2, "the batch comes again")
    telegram.faults_of = {}
    until(lambda: text_of(telegram, "Later") != "", "the chat shows the incident")


def test_the_schedule_sends_the_reminder(integrated: Aws, telegram: Telegram) -> None:
    until(lambda: text_of(telegram, "Incidents open or in progress: ") != "", "the reminder")
    (schedule,) = boto3.client("scheduler", endpoint_url=integrated.endpoint).list_schedules()["Schedules"]
    assert schedule["Name"].startswith(integrated.stack)


def test_an_alarm_reaches_the_chat(integrated: Aws, telegram: Telegram) -> None:
    alarm = {"AlarmName": "Latency", "AlarmDescription": "Slow.", "NewStateValue": "ALARM"}
    topic = boto3.client("sns", endpoint_url=integrated.endpoint)
    topic.publish(TopicArn=integrated.output("AlarmTopicArn"), Message=json.dumps(alarm))
    until(lambda: text_of(telegram, "🚨 Latency: ALARM") != "", "the alarm")
