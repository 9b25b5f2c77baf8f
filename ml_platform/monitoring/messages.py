"""What people read of alerts."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ml_platform.monitoring.alerts import Message, Open

SHOWN = 10  # alerts of a message that are told of one by one


def title(message: Message) -> str:
    """One line: how grave, what, of which thing."""
    first, more = message.alerts[0].alert, len(message.alerts) - 1
    what = f"{first.kind.replace('_', ' ')}: {first.subject}{span(first.parts)}" + (f" and {more} more" if more else "")
    return f"over: {what}" if message.over else f"{first.severity}: {what}"


def body(message: Message) -> str:
    """The alerts of a message, each with its reason, value and limit, link and next command."""
    said = [_paragraph(one, message.over) for one in message.alerts[:SHOWN]]
    if rest := len(message.alerts) - SHOWN:
        said += [f"and {rest} more: ml-platform alerts list"] if rest > 0 else []
    return "\n\n".join(said)


def _paragraph(one: Open, over: bool) -> str:
    alert = one.alert
    lines = [f"{alert.subject}{span(alert.parts)}: {alert.reason}"]
    if alert.value or alert.limit:
        lines.append(f"value: {alert.value or '-'}; limit: {alert.limit or '-'}")
    ended = f", until {moment(one.gone)}" if over and one.gone is not None else ""
    lines.append(f"since {moment(one.since)}{ended}")
    if alert.link:
        lines.append(f"see {alert.link}")
    if alert.next_step and not over:
        lines.append(f"next: {alert.next_step}")
    return "\n".join(
        lines if over else [*lines, f"silence: ml-platform alerts silence {alert.id} --for 4h --reason ..."]
    )


def span(parts: Sequence[str]) -> str:
    """The partitions behind a name; empty if there are none."""
    if not parts:
        return ""
    return f" [{parts[0]}]" if len(parts) == 1 else f" [{len(parts)} partitions, {parts[0]} to {parts[-1]}]"


def moment(at: float) -> str:
    """A time, epoch seconds, for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
