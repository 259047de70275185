"""Where replicas run

Revision 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("replica", sa.Column("where", sa.String(), nullable=True))
    op.add_column(
        "deployment",
        sa.Column("held_at", sa.JSON(none_as_null=True), nullable=False, server_default="[]"),
    )


def downgrade() -> None:
    op.drop_column("deployment", "held_at")
    op.drop_column("replica", "where")
