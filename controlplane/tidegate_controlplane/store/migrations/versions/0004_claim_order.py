"""The order in which queued requests are claimed

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

FAR = "9999-01-01 00:00:00.000000"
CLAIMABLE = "status = 'queued' AND NOT delayed"


def upgrade() -> None:
    op.add_column(
        "invocation",
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, server_default=FAR),
    )
    op.add_column(
        "invocation", sa.Column("affinity", sa.String(), nullable=False, server_default="")
    )
    op.add_column(
        "invocation", sa.Column("delayed", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "invocation", sa.Column("tokens", sa.Integer(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE invocation SET due_at = COALESCE(expires_at, "
        "(SELECT batch.expires_at FROM batch WHERE batch.id = invocation.batch_id), due_at) "
        "WHERE finished_at IS NULL"
    )
    op.drop_index("ix_invocation_claim", "invocation")
    op.drop_index("ix_invocation_expiry", "invocation")
    _index(
        "ix_invocation_claim",
        CLAIMABLE,
        "deployment_id",
        "priority",
        "project_id",
        "due_at",
        "affinity",
        "created_at",
        "id",
    )
    _index(
        "ix_invocation_backlog",
        "finished_at IS NULL",
        "deployment_id",
        "status",
        "created_at",
        "tokens",
    )
    _index("ix_invocation_delayed", "status = 'queued' AND delayed", "available_at")
    _index("ix_invocation_expiry", "status = 'queued' AND expires_at IS NOT NULL", "expires_at")


def downgrade() -> None:
    for name in ("claim", "backlog", "delayed", "expiry"):
        op.drop_index(f"ix_invocation_{name}", "invocation")
    for column in ("due_at", "affinity", "delayed", "tokens"):
        op.drop_column("invocation", column)
    _index(
        "ix_invocation_claim",
        "finished_at IS NULL",
        "deployment_id",
        "status",
        "priority",
        "created_at",
        "id",
    )
    _index("ix_invocation_expiry", "finished_at IS NULL", "expires_at")


def _index(name: str, where: str, *columns: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name, "invocation", list(columns), sqlite_where=condition, postgresql_where=condition
    )
