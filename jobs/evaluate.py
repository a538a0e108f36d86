"""Compare a run's scores with its labels, and write the tables of results.

Example: ray job submit --working-dir . -- python jobs/evaluate.py s3://bucket/run.yaml
The same as 'sarc-ray evaluate' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

from sarc_ray import job, pipeline

if __name__ == "__main__":
    job.main("evaluate", pipeline.evaluate, job.parser(__doc__).parse_args())
