"""A plan as a person reads it in the terminal."""

from __future__ import annotations

import datetime as dt

from rich import box
from rich.console import Console
from rich.table import Table

from sarc_ray.errors import REASONS, Reason
from sarc_ray.instruments import PARTS
from sarc_ray.inventory.summary import size_words
from sarc_ray.planning.census import Census, Feature
from sarc_ray.planning.estimate import Estimate
from sarc_ray.planning.plan import Plan

_SUFFICIENT = {
    "yes": "the clinical columns suffice: every row has all features of the bundle",
    "partly": "the clinical columns suffice for some rows alone",
    "no": "the clinical columns do not suffice: a feature of the bundle is in no row",
}


def print_plan(console: Console, plan: Plan) -> None:
    """Rows by reason, clinical columns, the timed sample, what it comes to, and what that assumes."""
    _print_census(console, plan.census)
    source = {"manifest": "as the manifest says", "sample": "by the sample", "both": "in part by the sample"}
    _say(console, f"{plan.census.n_rows:,} rows, {size_words(plan.n_bytes)} to read ({source[plan.sized_by]})")
    _print_clinical(console, plan)
    _print_sample(console, plan)
    for title, found in (("on the nodes that are up", plan.here), ("on the nodes asked about", plan.there)):
        if found is not None:
            _print_estimate(console, title, found, plan.currency)
    _say(console, "\nThis takes for granted that")
    for sentence in plan.assumptions:
        _say(console, f"  - {sentence}")


def _print_census(console: Console, census: Census) -> None:
    table = _table("rows", "so far", "reason", "meaning")
    nothing = "nothing that is known so far speaks against a score"
    table.add_row(f"{census.eligible:,}", "eligible", "", nothing)
    for words, counts in (("undecided", census.undecided), ("ineligible", census.ineligible)):
        for reason, count in counts.items():
            table.add_row(f"{count:,}", words, str(reason), REASONS[reason].meaning)
    console.print(table)


def _print_clinical(console: Console, plan: Plan) -> None:
    _say(console, f"\n{_SUFFICIENT[plan.census.sufficient]}")
    for feature in plan.census.features:
        if feature.n_missing:
            _say(console, f"  {feature.name}: missing in {feature.n_missing:,} rows{_remedy(feature, plan)}")


def _remedy(feature: Feature, plan: Plan) -> str:
    source = plan.sources.get(feature.name)
    if not feature.header_may_have_it or source is None:
        return "; add it to the manifest"
    lacking, supplied = source
    return f"; the header had it in {supplied} of {lacking} sampled rows without it"


def _print_sample(console: Console, plan: Plan) -> None:
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(plan.tally().outcomes.items(), reverse=True))
    _say(console, f"\na random sample of {plan.n_sampled} rows on their whole way: {outcomes}")
    for name, count in sorted(plan.tally().reasons.items(), key=lambda item: -item[1]):
        if name:
            _say(console, f"  {count} {name}: {REASONS[Reason(name)].meaning}")
    table = _table("part", "ms per row", "what")
    for part, meaning in PARTS.items():
        table.add_row(part, f"{1000 * plan.cost.seconds.get(part, 0.0):.1f}", meaning, end_section=part == "fetch")
    console.print(table)
    _say(
        console,
        f"requests take {1000 * plan.cost.request_cpu_seconds:.1f} ms of CPU per row; "
        f"these are known to {plan.cost.error_share:.0%} "
        "(95% interval of the sample: of reading, or of how many rows reach the networks, the larger)",
    )


def _print_estimate(console: Console, title: str, found: Estimate, currency: str) -> None:
    cluster = found.cluster
    has = f"{cluster.nodes} x node, {cluster.cpus} CPUs, {cluster.gpus:g} GPUs, {cluster.scorers} ensembles at once"
    cost = "no price is configured (plan.price_per_node_hour)"
    if found.cost is not None:
        cost = f"{found.cost:,.2f} {currency}"
    table = Table(title=f"{title}: {has}", title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    table.add_row("time", f"{found.hours:,.2f} h ({_span(found.seconds_low)} to {_span(found.seconds_high)})")
    table.add_row("rate", f"{found.rows_per_second:,.1f} rows per second")
    table.add_row("cost", cost)
    table.add_row("bottleneck", f"{found.bottleneck}: {found.why}")
    console.print(table)


def _span(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(seconds)))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("rows", "ms per row") else "left")
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
