"""Invocations: deadlines, attempts, bodies asked in pieces, bodies by reference

Revision 0006, after 0008.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

ADDED: dict[str, Any] = {
    "deadline_at": sa.DateTime(timezone=True),
    "claimed_at": sa.DateTime(timezone=True),
    "outline": sa.JSON(none_as_null=True),
    "attempts": sa.JSON(none_as_null=True),
    "result_bytes": sa.BigInteger(),
    "input_uri": sa.String(),
    "input_etag": sa.String(),
}


def upgrade() -> None:
    for name, kind in ADDED.items():
        op.add_column("invocation", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name in reversed(ADDED):
        op.drop_column("invocation", name)
