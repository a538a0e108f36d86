"""SARC-Ray: a sarcopenia score from chest radiographs, trained and served on Ray. Not a medical device."""

__version__ = "0.1.0"
