"""Search and calibrate stage 2 with the cluster's CPUs, and write the bundle.

Example: ray job submit --working-dir . -- python jobs/tune.py s3://bucket/run.yaml --set stage2.trials_per_algorithm=50
The same as 'sarc-ray tune' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

from sarc_ray import job, pipeline

if __name__ == "__main__":
    job.main("tune", pipeline.tune, job.parser(__doc__).parse_args())
