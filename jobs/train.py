"""Train the ensembles of stage 1, members in parallel over the cluster's CPUs or GPUs.

Example: ray job submit --working-dir . -- python jobs/train.py s3://bucket/run.yaml --set engine.gpus_per_member=0.5
The same as 'sarc-ray train' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

from sarc_ray import job, pipeline

if __name__ == "__main__":
    job.main("train", pipeline.train, job.parser(__doc__).parse_args())
