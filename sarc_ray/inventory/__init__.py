"""The verb ``inventory``: from a bucket or folder to a manifest, headers alone."""
