"""JSON Schema of the sweep file, for completion in editors: `python -m vitbench.config.schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vitbench.config.models import Sweep

FILE = Path("sweeps/sweep.schema.json")


def schema_text() -> str:
    """The schema as it is kept in the repository."""
    schema = {**Sweep.model_json_schema(), "title": "vitbench sweep"}
    extends = {
        "description": "another sweep file, from this one's folder, over which this one is laid",
        "title": "Extends",
        "type": "string",
    }
    schema["properties"] = {"extends": extends, **schema["properties"]}
    return json.dumps(schema, indent=2) + "\n"


def main() -> int:
    """Write the schema to sweeps/, from the repository's root."""
    FILE.write_text(schema_text(), encoding="utf-8")
    print(f"wrote {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
