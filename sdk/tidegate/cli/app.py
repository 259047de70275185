"""All commands in one application. Each file beside this one is a group of commands.

Exit status: 0 done, 1 refused or failed (one line `error: …` on standard error), 2 misused. `diff`
answers 2 when there are differences.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from tidegate.cli import (
    adapters,
    artifacts,
    backup,
    batch,
    compress,
    declare,
    distill,
    encryption,
    info,
    infra,
    keys,
    manage,
    observe,
    offers,
    platform,
    profile,
    rollout,
    simulate,
    talk,
    webhooks,
    work,
)
from tidegate.cli.output import report, wants_json
from tidegate.errors import TidegateError


class Guarded(TyperGroup):
    """Says expected errors in one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a TidegateError ends it with status 1."""
        try:
            return super().invoke(ctx)
        except TidegateError as error:
            report(error, as_json=wants_json(ctx))
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Guarded,
    name="tidegate",
    help="Self-hosted serverless inference for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    platform,
    declare,
    observe,
    profile,
    talk,
    manage,
    rollout,
    artifacts,
    compress,
    distill,
    backup,
    simulate,
    info,
):
    commands.register(app)
app.add_typer(adapters.app, name="adapters")
app.add_typer(batch.app, name="batch")
app.add_typer(keys.app, name="keys")
app.add_typer(encryption.app, name="encryption")
app.add_typer(infra.app, name="infra")
app.add_typer(offers.app, name="offers")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(work.app, name="work")
