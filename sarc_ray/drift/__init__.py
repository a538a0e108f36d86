"""What a scored population looks like beside a reference, without labels: counts, snapshots, comparison."""
