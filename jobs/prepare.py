"""Select and split the patients of a run, and turn their radiographs into small pictures, on a cluster.

Example: ray job submit --working-dir . -- python jobs/prepare.py s3://bucket/run.yaml
The same as 'sarc-ray prepare' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

from sarc_ray import job, pipeline

if __name__ == "__main__":
    job.main("prepare", pipeline.prepare, job.parser(__doc__).parse_args())
