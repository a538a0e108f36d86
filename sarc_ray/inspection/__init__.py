"""The verb ``inspect``: one file as the pipeline sees it."""
