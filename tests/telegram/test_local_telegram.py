"""`make run` notifies a chat: on the terminal, or through the Bot API."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, LocalRun
from tests.steps import report, until
from tests.telegram.chat import BORIS, CHAT, Chat, answered, deliver
from tests.telegram.fake_telegram import TOKEN, Answer, RealClock, Telegram, refused

PARAMETERS = ("--parameters", f"TelegramChats={CHAT} Alerts=enabled")
Run = Callable[..., LocalRun]


@pytest.fixture
def telegram(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    """The Bot API that the local run finds in its environment, with a token."""
    telegram = Telegram(RealClock())
    with telegram.listening() as address:
        monkeypatch.setenv("TELEGRAM_API_URL", address)
        monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
        yield telegram
    telegram.assert_valid()


def printed(run: LocalRun) -> str:
    """What the program prints up to the last button of a message."""
    lines: list[str] = []
    for line in run.output:
        lines.append(line)
        if line.rstrip().endswith("[Refresh]"):
            break
    return "".join(lines)


def test_the_terminal_shows_what_the_chat_would(run_local: Run) -> None:
    run = run_local(*PARAMETERS)
    incident_id = report(run.client, "The report was not exported")["id"]
    shown = f"    The report was not exported\n    \n    Status: open\n    {incident_id}\n    \n"
    assert f"Chat {CHAT}, message 1 (new):\n{shown}    [Start work]  [Resolve]" in printed(run)
    answered(deliver(run.client, Chat().tap(f"resolved:{incident_id}:1", BORIS)))
    assert "message 1 (edited):" in printed(run)


def test_an_alert_from_its_start_to_its_end(run_local: Run, telegram: Telegram) -> None:
    run = run_local(*PARAMETERS)
    alert = {"fingerprint": "1", "startsAt": "2026-11-24T02:17:50Z", "labels": {"alertname": "Down"}}
    run.client.post("/alerts", json={"alerts": [alert | {"status": "firing"}]})
    until(lambda: len(telegram.shown()) == 1, "the chat shows the alert")
    (number,) = telegram.chats[CHAT]
    telegram.updates.append(dict(Chat().tap(telegram.buttons(number)["Start work"], BORIS, number)))
    until(lambda: "in progress, Boris" in telegram.shown()[0], "the tap is shown")
    assert [each["status"] for each in run.client.get("/incidents").json()] == ["in_progress"]
    telegram.updates.append(dict(Chat().message("/incident Reported in the chat", BORIS)) | {"update_id": 99})
    until(lambda: any(text.startswith("Reported in the chat") for text in telegram.shown()), "the bot answers")
    run.client.post("/alerts", json={"alerts": [alert | {"status": "resolved"}]})
    until(lambda: "Status: resolved" in telegram.shown()[0], "the message says that the alert has ended")
    assert telegram.methods().count("sendMessage") == 2
    assert TOKEN not in run.stop(signal.SIGTERM)


def test_a_failing_telegram_delays_no_write_and_loses_nothing(run_local: Run, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: Answer(stalls=True)}
    run = run_local(*PARAMETERS)
    report(run.client, "one")
    until(lambda: len(telegram.calls) == 1, "Telegram is called")
    report(run.client, "two")  # although Telegram has not answered yet
    telegram.faults_of = {CHAT: refused(500, "Internal Server Error")}
    telegram.over.set()
    until(lambda: len(telegram.calls) > 1, "Telegram is called again")
    run.stop(signal.SIGKILL)
    telegram.faults_of = {}
    run_local(*PARAMETERS)
    until(lambda: {text.split("\n")[0] for text in telegram.shown()} == {"one", "two"}, "the next run announces both")


def test_without_chats_telegram_is_never_called(run_local: Run, telegram: Telegram) -> None:
    run = run_local()
    report(run.client)
    assert "Telegram" not in run.stop(signal.SIGTERM)
    assert telegram.calls == []


def test_a_port_in_use_ends_the_program(run_local: Run, tmp_path: Path) -> None:
    port = run_local().client.base_url.port
    command = [sys.executable, "-m", "infra.local", "--port", str(port), "--data", str(tmp_path / "other"), *PARAMETERS]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr.startswith(f"Port {port} cannot be used")) == (1, True)


def test_the_program_stops_although_telegram_throttles(run_local: Run, telegram: Telegram) -> None:
    telegram.faults_of = {CHAT: refused(429, "Too Many Requests: retry after 90", retry_after=90)}
    run = run_local(*PARAMETERS)
    report(run.client)
    until(lambda: len(telegram.calls) > 0, "Telegram is called")
    assert run.stop(signal.SIGTERM).endswith("Stopped.\n")  # within 30 seconds


def test_a_refused_answer_delays_no_update(run_local: Run, telegram: Telegram) -> None:
    telegram.faults = [refused(400, "Bad Request: message is not modified")]
    for number, text in enumerate(("/incident one", "/incident two"), 1):
        telegram.updates.append(dict(Chat().message(text, BORIS, message_id=number)) | {"update_id": number})
    run = run_local(*PARAMETERS)
    until(lambda: any(text.startswith("two") for text in telegram.shown()), "the second update is answered")
    output = run.stop(signal.SIGTERM)
    assert "Telegram has refused an answer" in output
    assert "could not be handled" not in output, "then the next update would wait for half a minute"
