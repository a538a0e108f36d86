"""Search and calibrate stage 2 with the cluster's CPUs, and write the bundle; or do the same for any table.

Examples:
  ray job submit --working-dir . -- python jobs/tune.py s3://bucket/run.yaml --set stage2.trials_per_algorithm=50
  ray job submit --working-dir . -- python jobs/tune.py --table s3://bucket/train.parquet --outcome died \
      --group patient --to s3://bucket/search
The same as 'sarc-ray tune' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

import argparse
import functools

from sarc_ray import exits, job, pipeline
from sarc_ray.table_tuning import load_run_for, read_request, tune_table


def parse() -> argparse.Namespace:
    """CONFIG; or a table, its outcome and a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="the run's YAML, any fsspec URL")
    parser.add_argument("--table", metavar="URL", help="any table of features and a 0/1 outcome, instead")
    parser.add_argument("--outcome", metavar="COLUMN", help="its outcome")
    parser.add_argument("--to", metavar="URL", help="folder for the model and the trials")
    parser.add_argument("--group", metavar="COLUMN", help="whose row it is; without it, each its own")
    parser.add_argument("--features", metavar="A,B,...", help="columns to learn from; default all others")
    parser.add_argument("--test", metavar="URL", help="a table on which every algorithm's best is scored")
    job.add_set(parser)
    return parser.parse_args()


def main() -> None:
    """Search; ends the process with an exit code on an error of ours."""
    arguments = parse()
    with exits.clean_exit():
        request = read_request(
            arguments.table,
            arguments.outcome,
            arguments.to,
            group=arguments.group,
            features=arguments.features,
            test=arguments.test,
        )
        if request is not None:
            job.require_shared("--to", request.to)
            run = load_run_for(request, arguments.config, [*job.CLUSTER, *arguments.set_])
            job.execute("tune", functools.partial(tune_table, request), run)
            return
        job.execute("tune", pipeline.tune, job.cluster_run(arguments.config, arguments.set_))


if __name__ == "__main__":
    main()
