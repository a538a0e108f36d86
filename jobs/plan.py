"""Say what scoring a manifest with a bundle would come to on this cluster: rows, bytes, hours, cost, bottleneck.

Example:
  ray job submit --working-dir . -- python jobs/plan.py --bundle s3://bucket/bundle \
      --manifest s3://bucket/archive/manifest.parquet --nodes 20 --set plan.price_per_node_hour=0.8 \
      --to s3://bucket/plan.json
The same as 'sarc-ray plan' in a terminal; the sample is timed on the cluster's largest node.
Exit code 4 when no row can be scored.
"""

import argparse
import sys

from rich.console import Console

from sarc_ray import exits, job, storage
from sarc_ray.planning.display import print_plan
from sarc_ray.planning.plan import PlanRequest, load_run_for, make_plan
from sarc_ray.planning.record import to_mapping


def parse() -> argparse.Namespace:
    """A bundle, a manifest, a number of nodes and where to write the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="the run's YAML, for engine and plan")
    parser.add_argument("--bundle", metavar="URL", required=True, help="the model")
    parser.add_argument("--manifest", metavar="URL", required=True, help="what is to be scored")
    parser.add_argument("--nodes", metavar="N", type=_at_least_one, help="also estimate for so many nodes")
    parser.add_argument("--to", metavar="URL", help="write the plan as JSON, too")
    job.add_set(parser)
    return parser.parse_args()


def main() -> None:
    """Plan; ends the process with an exit code on an error of ours."""
    arguments = parse()
    with exits.clean_exit():
        for name, uri in (("--bundle", arguments.bundle), ("--manifest", arguments.manifest), ("--to", arguments.to)):
            if uri is not None:
                job.require_shared(name, uri)
        request = PlanRequest(bundle=arguments.bundle, manifest=arguments.manifest, nodes=arguments.nodes)
        run = load_run_for(request, arguments.config, [*job.CLUSTER, *arguments.set_])
        made = make_plan(request, run, job.log_progress("plan"))
        print_plan(Console(width=120), made)
        if arguments.to is not None:
            storage.write_json(arguments.to, to_mapping(made))
        if not made.census.eligible and not made.census.undecided:
            sys.exit(exits.REFUSED)


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a whole number from 1")
    return number


if __name__ == "__main__":
    main()
