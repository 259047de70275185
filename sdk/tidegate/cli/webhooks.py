"""`webhooks create|ls|deliveries|replay|rotate|enable|disable|delete|test`: who is told."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.options import Json, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.errors import ConfigurationError
from tidegate.protocol.webhooks import DAY_S, DeliveryState, WebhookEvent

if TYPE_CHECKING:
    from tidegate.protocol.webhooks import DeliveryView, WebhookCreated

app = typer.Typer(help="Webhooks.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(help="Its id, from 'webhooks ls'.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="https://… or s3://bucket/prefix/")],
    event: Annotated[
        list[WebhookEvent] | None,
        typer.Option("--event", "-e", help="Told to it; again for more.  [default: every one]"),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: Json = False,
) -> None:
    """Declare a webhook; its secret is shown this once."""
    with connected() as client:
        created = client.webhooks.create(url, event or list(WebhookEvent), description)
    _say_secret(created, as_json=as_json)


@app.command()
def ls(as_json: Json = False) -> None:
    """List the webhooks, without their secrets."""
    with connected() as client:
        found = list(client.webhooks.list())
    if as_json:
        say_json(found)
        return
    rows = [
        (
            hook.id,
            hook.url,
            "enabled" if hook.enabled else hook.disabled_reason or "disabled",
            "all" if len(hook.events) == len(WebhookEvent) else ", ".join(hook.events),
        )
        for hook in found
    ]
    table(("id", "url", "state", "events"), rows, empty="there are no webhooks")


@app.command()
def deliveries(
    webhook_id: WebhookId,
    status: Annotated[DeliveryState | None, typer.Option(help="Only those.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what was sent or will be, and how its last try went."""
    with connected() as client:
        stream = client.webhooks.deliveries(webhook_id, status)
        found = [one for one, _ in zip(stream, range(limit), strict=False)]
    if as_json:
        say_json(found)
        return
    rows = [
        (one.id, one.type, one.created_at, one.status.value, len(one.tries), _last(one))
        for one in found
    ]
    columns = ("id", "type", "happened", "state", "tries", "last try")
    table(columns, rows, empty="there are no deliveries")


@app.command()
def replay(
    webhook_id: WebhookId,
    delivery_id: Annotated[str | None, typer.Argument(help="One, from 'deliveries'.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Instead: all given up since, as 2026-01-31T12:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="And before.")] = None,
    delivered: Annotated[
        bool, typer.Option("--delivered", help="Also what was delivered before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send again: one delivery, or what happened in a range of time."""
    if (delivery_id is None) == (since is None):
        raise ConfigurationError("replay: name one delivery, or a range with --since")
    with connected() as client:
        if delivery_id is not None:
            view = client.webhooks.replay(webhook_id, delivery_id)
            _said(view, as_json=as_json)
            return
        number = client.webhooks.replay_range(
            webhook_id,
            _moment("--since", since or ""),
            _moment("--until", until) if until else None,
            delivered=delivered,
        )
    if as_json:
        say_json({"replayed": number})
    else:
        say(f"{number} sent again")


@app.command()
def rotate(
    webhook_id: WebhookId,
    overlap: Annotated[
        float, typer.Option(min=0, help="Seconds that the former secret signs too.")
    ] = DAY_S,
    as_json: Json = False,
) -> None:
    """Make a new secret; it is shown this once."""
    with connected() as client:
        rotated = client.webhooks.rotate(webhook_id, overlap)
    _say_secret(rotated, as_json=as_json)


@app.command()
def enable(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send to it again, also what has waited."""
    _switch(webhook_id, on=True, as_json=as_json)


@app.command()
def disable(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send nothing to it until it is enabled."""
    _switch(webhook_id, on=False, as_json=as_json)


@app.command()
def delete(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send nothing to it any more."""
    with connected() as client:
        deleted = client.webhooks.delete(webhook_id)
    if as_json:
        say_json(deleted)
    else:
        say(f"webhook {deleted.id} is deleted")


@app.command()
def test(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send it an event of type webhook.test."""
    with connected() as client:
        _said(client.webhooks.test(webhook_id), as_json=as_json)


def _switch(webhook_id: str, *, on: bool, as_json: bool) -> None:
    with connected() as client:
        changed = client.webhooks.change(webhook_id, enabled=on)
    if as_json:
        say_json(changed)
    else:
        say(f"webhook {changed.id} is {'enabled' if changed.enabled else 'disabled'}")


def _say_secret(created: WebhookCreated, *, as_json: bool) -> None:
    if as_json:
        say_json(created)
        return
    say(created.secret)
    note(f"webhook {created.id} signs with it; keep it, it is not shown again")


def _said(view: DeliveryView, *, as_json: bool) -> None:
    if as_json:
        say_json(view)
    else:
        say(f"{view.id} is on its way; see 'tidegate webhooks deliveries {view.webhook}'")


def _last(view: DeliveryView) -> str:
    if not view.tries:
        return ""
    tried = view.tries[-1]
    return tried.error or f"{tried.status_code} in {tried.latency_ms:.0f} ms"


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{option}: {text!r} is no time; as 2026-01-31T12:00Z") from None
    return moment if moment.tzinfo else moment.astimezone()
