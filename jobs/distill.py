"""Teach one network what a tuned run's ensembles say, with the cluster's resources, and write it as a bundle.

Example: ray job submit --working-dir . -- python jobs/distill.py s3://bucket/run.yaml --set engine.gpus_per_member=1
The same as 'sarc-ray distill' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

from sarc_ray import distilling, job

if __name__ == "__main__":
    job.main("distill", distilling.distill, job.parser(__doc__).parse_args())
