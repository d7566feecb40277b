"""Times in RFC 3339, always in UTC and of the same length, so that they sort as text."""

import re
from datetime import UTC, datetime, timedelta


def now() -> str:
    """The current time, truncated to milliseconds: `2025-11-08T10:00:00.123Z`."""
    return in_utc(datetime.now(UTC))


def parse_time(text: str) -> str:
    """A time with any offset, in the format of `now`, rounded up to milliseconds. Raises `ValueError`."""
    whole, fraction = _seconds(text)
    milliseconds = int(fraction[:3].ljust(3, "0")) + (fraction[3:].strip("0") > "")
    try:
        return in_utc(whole + timedelta(milliseconds=milliseconds))
    except OverflowError as error:
        raise ValueError("after the year 9999") from error


def parse_instant(text: str) -> str:
    """A time with any offset, truncated to nanoseconds: `2025-11-08T10:00:00.123456789Z`. Raises `ValueError`."""
    whole, fraction = _seconds(text)
    return f"{whole.replace(tzinfo=None).isoformat()}.{fraction[:9].ljust(9, '0')}Z"


def _seconds(text: str) -> tuple[datetime, str]:
    """A time's whole seconds, in UTC, and the digits of its fraction."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", text, re.ASCII)
    if not match:
        raise ValueError("not a time of RFC 3339")
    date, time, second, fraction, offset = match.groups(default="")
    # `datetime` has no leap seconds: one becomes the first second of the next day (RFC 3339, section 5.7).
    leap = second == "60"
    try:
        whole = datetime.fromisoformat(f"{date}T{time}{'59' if leap else second}{offset.upper()}").astimezone(UTC)
        if not leap:
            return whole, fraction
        if (whole.hour, whole.minute) != (23, 59):
            raise ValueError("not the place of a leap second")
        return whole + timedelta(seconds=1), fraction
    except OverflowError as error:
        raise ValueError("before the year 1 or after 9999") from error


def in_utc(time: datetime) -> str:
    """A time with an offset, in the format of `now`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
