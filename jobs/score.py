"""Score radiographs on a cluster: a run's own data sets, or any manifest with any bundle into any table.

Examples:
  ray job submit --working-dir . -- python jobs/score.py s3://bucket/run.yaml --dataset archive
  ray job submit --working-dir . -- python jobs/score.py --bundle s3://bucket/bundle \
      --manifest s3://bucket/archive/manifest.parquet --to s3://bucket/scores
The same as 'sarc-ray score' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

import argparse
import functools
from typing import Any

from sarc_ray import exits, job
from sarc_ray.run import Run
from sarc_ray.scoring_request import load_run_for, read_request, score_request


def parse() -> argparse.Namespace:
    """CONFIG with the names of data sets, or a bundle, a manifest and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="the run's YAML, any fsspec URL")
    parser.add_argument("--dataset", action="append", default=[], help="test_internal, test_external or archive")
    parser.add_argument("--bundle", metavar="URL", help="the model, instead of the run's own")
    parser.add_argument("--manifest", metavar="URL", help="the radiographs")
    parser.add_argument("--to", metavar="URL", help="the score table to write")
    parser.add_argument("--retry", action="store_true", help="touch only the rows that the store failed on")
    job.add_set(parser)
    return parser.parse_args()


def main() -> None:
    """Score; ends the process with an exit code on an error of ours."""
    arguments = parse()
    with exits.clean_exit():
        request = read_request(arguments.bundle, arguments.manifest, arguments.to)
        if request is not None:
            job.require_shared("--to", request.table)
            run = load_run_for(request, arguments.config, [*job.CLUSTER, *arguments.set_])
            job.execute("score", functools.partial(score_request, request, retry=arguments.retry), run)
            return
        run = job.cluster_run(arguments.config, arguments.set_)
        for name in arguments.dataset or run.config.data.scored_datasets():
            job.execute(f"score {name}", functools.partial(score_dataset, name, retry=arguments.retry), run)


def score_dataset(name: str, run: Run, tell: job.Tell, *, retry: bool) -> dict[str, Any]:
    """One of the run's data sets."""
    from sarc_ray import pipeline  # much that a request does without

    return pipeline.score(run, name, tell, retry=retry)


if __name__ == "__main__":
    main()
