"""Statistics on plain arrays: discrimination, agreement, calibration, uncertainty, decisions, tests, bootstrap.

Every docstring is a specification: definition, ddof, ties, sidedness, source. Shapes: N rows, B replicates.
Two rules hold in the whole package. Wrong input (NaN, infinite values, unequal lengths, labels other than 0 and 1)
raises ValueError. A statistic that is undefined for valid input (an AUROC with one class) is NaN.
"""
