"""Experts, and the starter experts that were registered once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "experts",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("slot", sa.Integer, nullable=False, unique=True),
        sa.Column("manifest", sa.JSON, nullable=False),
        sa.Column("row", sa.LargeBinary, nullable=False),
        sa.Column("meta", sa.String(64), nullable=False),
        sa.Column("accuracy", sa.Float),
        sa.Column("created", sa.String(40), nullable=False),
    )
    op.create_table("starters", sa.Column("name", sa.String(63), primary_key=True))
