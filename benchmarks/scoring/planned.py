"""A contender of the scoring benchmark that scores nothing: what ``sarc-ray plan`` calls.

python planned.py REQUEST.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from sarc_ray.planning.plan import PlanRequest, load_run_for, make_plan
    from sarc_ray.planning.record import to_mapping

    asked = PlanRequest(bundle=request["bundle"], manifest=request["manifest"], nodes=None)
    made = make_plan(asked, load_run_for(asked, None, request["settings"]))
    Path(request["answer"]).write_text(json.dumps({"plan": to_mapping(made)}), encoding="utf-8")


if __name__ == "__main__":
    main()
