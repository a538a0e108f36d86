"""List a bucket on a cluster, read headers only, and write a manifest with what is eligible.

Example:
  ray job submit --working-dir . -- python jobs/inventory.py s3://bucket/archive --to s3://bucket/archive.parquet \
      --key-file /shared/private/sarc-ray.key
The same as 'sarc-ray inventory' in a terminal; an interrupted job goes on where it was when it is submitted again.
"""

import argparse
import functools

from sarc_ray import exits, job
from sarc_ray.inventory.take import InventoryRequest, load_run_for, take_inventory


def parse() -> argparse.Namespace:
    """A folder, a manifest and a key file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="URL", help="bucket or folder, any fsspec URL that all nodes reach")
    parser.add_argument("--to", metavar="MANIFEST", required=True, help="the manifest to write: .parquet or .csv")
    parser.add_argument("--key-file", metavar="FILE", help="secret for patient and study keys")
    job.add_set(parser)
    return parser.parse_args()


def main() -> None:
    """Take the inventory; ends the process with an exit code on an error of ours."""
    arguments = parse()
    with exits.clean_exit():
        for name, uri in (("URL", arguments.folder), ("--to", arguments.to)):
            job.require_shared(name, uri)
        request = InventoryRequest(folder=arguments.folder, manifest=arguments.to)
        run = load_run_for(request, arguments.key_file, [*job.CLUSTER, *arguments.set_])
        job.execute("inventory", functools.partial(take_inventory, request), run)


if __name__ == "__main__":
    main()
