"""The bot's messages and buttons, in two languages and within Telegram's limits.

Texts are plain, without a parse mode, so nothing in a report can break a message. Lengths are in UTF-16 code units, as Telegram
counts them.

https://core.telegram.org/bots/api#sendmessage
https://core.telegram.org/bots/api#answercallbackquery
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from incident import HistoryEntry, Incident, Status

MAX_TEXT = 4096
"""The maximum length of a message."""

MAX_LISTED = 80
"""More incidents than fit into a message: each takes more than 52 code units."""

_MAX_HISTORY = 1200
"""The history's share of a message. The description gets the rest."""

_MAX_EXCERPT = 100
"""The description's share of a line in a list."""

_MAX_NAMED = 48
"""The description's share of a line in a digest: 35 lines fit into a message."""

_MAX_COMMENT = 200
"""A comment's share of a line in the history."""

_MAX_NAME = 64
"""A name's share of an alert."""

_DAY, _HOUR, _MINUTE = 24 * 60 * 60, 60 * 60, 60

REFRESH = "refresh"
"""Replaces the status in the data of the button that only updates its message."""

ACKNOWLEDGED = "👍"
"""The reaction to a comment. Every chat allows it by default."""

Method = dict[str, object]
"""The fields of a call of the Bot API, and the method's name as `method`."""

Keyboard = dict[str, list[list[dict[str, str]]]]


class Words(NamedTuple):
    """The bot's texts in one language."""

    statuses: dict[Status, str]
    actions: dict[Status, str]
    """The text of the button that sets this status."""
    refresh: str
    status: str
    history: str
    earlier: str
    """Takes the number of entries that the history leaves out."""
    usage: str
    not_a_report: str
    not_found: str
    damaged: str
    up_to_date: str
    somebody_else: str
    """Takes the current status, and who made the last change."""
    too_much: str
    """For an incident that accepts no more changes or comments."""
    not_a_comment: str
    unknown_button: str
    someone: str
    none_active: str
    active: str
    older: str
    """Takes the command that lists what does not fit into the message."""
    digest: str
    """Takes the number of incidents, and how many of them are open or in progress."""
    reminder: str
    """Takes the number of incidents that are open or in progress."""
    unannounced: str
    """Takes the number of incidents that were never announced."""
    oldest: str
    all: str
    """Takes the command that lists what is open or in progress."""
    now: str
    minutes: str
    hours: str
    days: str
    commands: dict[str, str]
    """Descriptions for the menu of commands."""

    def of(self, status: Status) -> str:
        """The words for a status; its name if there are none."""
        return self.statuses.get(status, status)


ENGLISH = Words(
    statuses={
        Status.OPEN: "open",
        Status.IN_PROGRESS: "in progress",
        Status.RESOLVED: "resolved",
        Status.CLOSED: "closed",
    },
    actions={
        Status.OPEN: "Reopen",
        Status.IN_PROGRESS: "Start work",
        Status.RESOLVED: "Resolve",
        Status.CLOSED: "Close",
    },
    refresh="Refresh",
    status="Status",
    history="History (UTC)",
    earlier="… earlier changes: {}",
    usage="To report an incident, send:\n/incident what happened\n\nTo turn someone's message into an incident, reply to it "
    "with /incident\n\nTo comment on an incident, reply to the bot's message about it\n\n"
    "To see the incidents that are open or in progress, send /incidents",
    not_a_report="Not recorded: the text is blank or contains control characters. Describe what happened in words.",
    not_found="There is no incident with this id.",
    damaged="This incident's data is damaged and cannot be shown. Please tell those who run the incident service.",
    up_to_date="Nothing has changed.",
    somebody_else="Not changed: the incident has since been updated and is now “{}” ({}). Tap “Refresh” to see the changes.",
    too_much="Not changed: the incident has reached the limit of 1,000 changes or 100 KB of comments.",
    not_a_comment="Not recorded: a comment must have visible text, at most 1,000 characters and no control characters.",
    unknown_button="This button no longer works. Send /incidents to find the incident.",
    someone="someone else",
    none_active="No incidents are open or in progress.",
    active="Open or in progress, newest first:",
    older="Older: {}",
    digest="New incidents: {}, of which {} are open or in progress.",
    reminder="Incidents open or in progress: {}.",
    unannounced="Of these, never announced in a chat: {}.",
    oldest="Oldest first:",
    all="All that are open or in progress: {}",
    now="just now",
    minutes="{} min",
    hours="{} h",
    days="{} d",
    commands={
        "incident": "report an incident, or turn the message you reply to into one",
        "incidents": "list the incidents that are open or in progress",
    },
)

RUSSIAN = Words(
    statuses={
        Status.OPEN: "открыт",
        Status.IN_PROGRESS: "в работе",
        Status.RESOLVED: "решён",
        Status.CLOSED: "закрыт",
    },
    actions={
        Status.OPEN: "Открыть снова",
        Status.IN_PROGRESS: "В работу",
        Status.RESOLVED: "Решён",
        Status.CLOSED: "Закрыть",
    },
    refresh="Обновить",
    status="Статус",
    history="История (UTC)",
    earlier="… более ранних изменений: {}",
    usage="Чтобы сообщить об инциденте, напишите:\n/incident что случилось\n\nЧтобы сделать инцидентом чужое сообщение, "
    "ответьте на него командой /incident\n\nЧтобы прокомментировать инцидент, ответьте на сообщение бота о нём\n\n"
    "Чтобы увидеть инциденты, открытые и в работе, отправьте /incidents",
    not_a_report="Не записано: текст пуст или содержит управляющие символы. Опишите словами, что случилось.",
    not_found="Инцидента с таким id нет.",
    damaged="Данные этого инцидента повреждены, показать его нельзя. Сообщите тем, кто отвечает за сервис инцидентов.",
    up_to_date="Изменений нет.",
    somebody_else="Не изменено: инцидент успели обновить, теперь он «{}» ({}). Нажмите «Обновить», чтобы увидеть изменения.",
    too_much="Не изменено: достигнут предел — 1000 изменений или 100 КБ комментариев.",
    not_a_comment="Не записано: комментарий должен быть не пустым, не длиннее 1000 символов и без управляющих символов.",
    unknown_button="Эта кнопка больше не работает. Отправьте /incidents, чтобы найти инцидент.",
    someone="кто-то другой",
    none_active="Нет инцидентов, открытых или в работе.",
    active="Открытые и в работе, сначала новые:",
    older="Более ранние: {}",
    digest="Новых инцидентов: {}, из них открытых и в работе: {}.",
    reminder="Инцидентов, открытых и в работе: {}.",
    unannounced="Из них не объявлялись в чатах: {}.",
    oldest="Сначала самые давние:",
    all="Все открытые и в работе: {}",
    now="только что",
    minutes="{} мин",
    hours="{} ч",
    days="{} д",
    commands={
        "incident": "сообщить об инциденте или сделать инцидентом сообщение, на которое отвечаете",
        "incidents": "список инцидентов, открытых и в работе",
    },
)


def words(language_code: str) -> Words:
    """The words for a user's IETF language tag: Russian, or English for any other."""
    return RUSSIAN if language_code.partition("-")[0] == "ru" else ENGLISH


def content(text: str, keyboard: Keyboard | None = None) -> Method:
    """What a message shows, as fields of sendMessage and editMessageText."""
    shown: Method = {"text": text, "link_preview_options": {"is_disabled": True}}
    return shown | ({"reply_markup": keyboard} if keyboard else {})


def incident_text(words: Words, incident: Incident, history: Sequence[HistoryEntry]) -> str:
    """The description, the status and who set it, the id, and as much of the latest history as fits."""
    latest_status = next(entry for entry in reversed(history) if _sets_status(entry, history))
    status = ", ".join(filter(None, (words.of(incident.status), _name(latest_status))))
    tail = f"\n\n{words.status}: {status}\n{incident.id}"
    if len(history) > 1:
        tail += f"\n\n{words.history}\n{_history_lines(words, history)}"
    return _clip(incident.description, MAX_TEXT - _length(tail)) + tail


def _history_lines(words: Words, history: Sequence[HistoryEntry]) -> str:
    lines: list[str] = []
    for entry in reversed(history):
        line = f"{entry.at[:10]} {entry.at[11:16]} {_event(words, entry, history)}"
        if _length("\n".join([line, *lines])) > _MAX_HISTORY:
            return "\n".join([words.earlier.format(len(history) - len(lines)), *lines])
        lines.insert(0, line)
    return "\n".join(lines)


def _event(words: Words, entry: HistoryEntry, history: Sequence[HistoryEntry]) -> str:
    """An entry's status (if it changed), author and comment."""
    status = words.of(entry.status) if _sets_status(entry, history) else ""
    what = ", ".join(filter(None, (status, _name(entry))))
    if not entry.comment:
        return what
    return f"{what or words.someone}: {_clip(' '.join(entry.comment.split()), _MAX_COMMENT)}"


def _sets_status(entry: HistoryEntry, history: Sequence[HistoryEntry]) -> bool:
    """Whether an entry changed the status, as far as this part of the history shows."""
    before = entry.version - history[0].version - 1
    return before < 0 or history[before].status != entry.status


def keyboard(words: Words, incident: Incident) -> Keyboard:
    """A button for each other status, and one to refresh the message. Their data include the version that the message shows."""
    statuses = [
        {"text": words.actions.get(status, status), "callback_data": f"{status}:{incident.id}:{incident.version}"}
        for status in Status
        if status != incident.status
    ]
    refresh = {"text": words.refresh, "callback_data": f"{REFRESH}:{incident.id}:{incident.version}"}
    return {"inline_keyboard": [statuses, [refresh]]}


def conflict_alert(words: Words, latest: HistoryEntry) -> str:
    """The incident's current status, and who made the last change."""
    name = _clip(_name(latest), _MAX_NAME) or words.someone
    return words.somebody_else.format(words.of(latest.status), name)


def list_text(words: Words, incidents: Sequence[Incident]) -> str:
    """As many of these incidents as fit, and a command for the rest.

    A tap sends a command: /incident_<id> shows an incident, /incidents_<id> lists older ones.
    """
    if not incidents:
        return words.none_active
    text = words.active
    rest = ""
    for incident in incidents:
        item = _item(words, incident)
        following = f"\n\n{words.older.format(f'/incidents_{_hex(incident)}')}"
        if _length(text + item + following) > MAX_TEXT:
            return text + rest
        text += item
        rest = following
    return text


def _item(words: Words, incident: Incident) -> str:
    when, status = age(words, incident.created_at), words.of(incident.status)
    return f"\n\n{when}, {status}: {_excerpt(incident, _MAX_EXCERPT)}\n/incident_{_hex(incident)}"


def digest_text(words: Words, total: int, active: int, named: Sequence[Incident]) -> str:
    """The number of incidents, a line for each of the `named` ones, and the command that lists them all."""
    text = words.digest.format(total, active) + "\n"
    for incident in named:
        text += f"\n{words.of(incident.status)}: {_excerpt(incident, _MAX_NAMED)} /incident_{_hex(incident)}"
    return f"{text}\n\n{words.all.format('/incidents')}"


def reminder_text(words: Words, active: Sequence[Incident], unannounced: Sequence[Incident]) -> str:
    """The number of `active` incidents, and as many of them as fit: first those that were never announced."""
    text = words.reminder.format(len(active))
    rest = f"\n\n{words.all.format('/incidents')}"
    sections = [(words.unannounced.format(len(unannounced)), unannounced)] if unannounced else []
    for heading, incidents in [*sections, (words.oldest, active)]:
        section = f"\n\n{heading}"
        for incident in incidents:
            if _length(text + section + _item(words, incident) + rest) > MAX_TEXT:
                break
            section += _item(words, incident)
        if section.endswith(heading):
            break
        text += section
    return text + rest


def alarm_text(message: str) -> str:
    """Format CloudWatch's JSON about an alarm; return any other message of the SNS topic unchanged."""
    try:
        alarm = json.loads(message)
        firing = alarm["NewStateValue"] == "ALARM"
        text = f"{'🚨' if firing else '✅'} {alarm['AlarmName']}: {alarm['NewStateValue']}"
        text += f"\n\n{alarm['AlarmDescription']}" if firing else ""
    except (ValueError, KeyError, TypeError):
        text = message
    return _clip(text.strip() or "…", MAX_TEXT)


def age(words: Words, time: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time is, in the largest whole unit."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(time)).total_seconds()
    for unit, word in ((_DAY, words.days), (_HOUR, words.hours), (_MINUTE, words.minutes)):
        if seconds >= unit:
            return word.format(int(seconds // unit))
    return words.now


def _excerpt(incident: Incident, length: int) -> str:
    return _clip(" ".join(incident.description.split()), length)


def _hex(incident: Incident) -> str:
    # A command may contain only letters, digits and underscores.
    return incident.id.replace("-", "")


def _name(entry: HistoryEntry) -> str:
    """Who made a version: the name of a Telegram user, without the id, or of an access key; empty if unknown."""
    by = entry.by or ""
    return by.partition(" ")[2] or by if by.startswith("telegram:") else by


def _clip(text: str, length: int) -> str:
    if _length(text) <= length:
        return text
    # errors="ignore" drops half of a surrogate pair at the end.
    return text.encode("utf-16-le")[: 2 * (length - 1)].decode("utf-16-le", errors="ignore") + "…"


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
