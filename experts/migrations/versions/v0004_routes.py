"""Where an expert's held-out examples went when it was checked last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("experts", sa.Column("routes", sa.JSON))
