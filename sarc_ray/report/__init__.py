"""Tables and figures of a run as one folder of HTML."""
