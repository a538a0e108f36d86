"""Overrides of preset ``demo`` that make a run of a minute."""

SMALL = (
    "simulate.derivation_n=150",
    "simulate.external_n=60",
    "simulate.archive_n=30",
    "simulate.size_px=64",
    "preprocess.size_px=32",
    "fit.epochs=2",
    "augment.copies=1",
    "network.hidden_units=[8]",
    "ensemble.members=3",
    "distill.epochs=2",
    "stage2.algorithms=[logistic_regression, lightgbm]",
    "stage2.trials_per_algorithm=2",
    "stage2.trials_per_round=1",
    "stage2.n_repeats=2",
    "evaluation.n_boot=200",
    "evaluation.min_cell_size=10",
    "engine.rows_per_block=32",
    "engine.num_cpus=2",
)
