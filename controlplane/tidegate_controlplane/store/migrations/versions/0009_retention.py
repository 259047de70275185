"""Retention and encryption keys

Revision 0009, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

INDEXES = {
    "ix_invocation_forget": (
        "finished_at",
        "finished_at IS NOT NULL AND forgotten_at IS NULL",
    ),
    "ix_invocation_forget_early": (
        "forget_at",
        "forget_at IS NOT NULL AND forgotten_at IS NULL",
    ),
    "ix_invocation_unstamped": (
        "finished_at",
        "result_ttl_s IS NOT NULL AND forget_at IS NULL",
    ),
    "ix_invocation_forgotten": ("finished_at", "forgotten_at IS NOT NULL"),
}
MOMENTS = ("forget_at", "forgotten_at")


def upgrade() -> None:
    op.add_column("invocation", sa.Column("result_ttl_s", sa.Float(), nullable=True))
    for name in MOMENTS:
        op.add_column("invocation", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for index, (column, where) in INDEXES.items():
        condition = sa.text(where)
        op.create_index(
            index, "invocation", [column], sqlite_where=condition, postgresql_where=condition
        )
    op.create_table(
        "encryption_key",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    op.drop_table("encryption_key")
    for index in INDEXES:
        op.drop_index(index, "invocation")
    for name in ("result_ttl_s", *MOMENTS):
        op.drop_column("invocation", name)
