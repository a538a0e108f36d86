"""The built-in cohort: simulated patients and radiographs whose truth is known."""
